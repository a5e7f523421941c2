//! Which objects have records in the backlog, so that none of theirs that is new overtakes them.
//!
//! Of a fixed size, whatever the backlog: how many records wait is counted for buckets of objects, and which objects were ever
//! among them in a filter of bits. It errs on one side alone: a record can be held back for nothing (one in a thousand with a million
//! objects in the backlog), and never overtakes one of its object.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// Four mebibytes of counts.
const BUCKETS: usize = 1 << 20;
/// Eight mebibytes of bits.
const WORDS: usize = 1 << 20;

/// Objects of the backlog. Its memory is touched as it is used.
#[derive(Debug)]
pub struct Behind {
    hasher: RandomState,
    counts: Vec<u32>,
    seen: Vec<u64>,
}

// === impl Behind ===

impl Behind {
    /// Of no backlog.
    pub fn new() -> Self {
        Self { hasher: RandomState::default(), counts: vec![0; BUCKETS], seen: vec![0; WORDS] }
    }

    /// So many deliveries of an object are in the backlog.
    pub fn add(&mut self, object: &str, deliveries: usize) {
        let hash = self.hasher.hash_one(object);
        if let Some(count) = self.counts.get_mut(bucket(hash)) {
            *count = count.saturating_add(u32::try_from(deliveries).unwrap_or(u32::MAX));
        }
        for (word, bit) in bits(hash) {
            if let Some(word) = self.seen.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// So many of them are settled.
    pub fn settle(&mut self, object: &str, deliveries: usize) {
        if let Some(count) = self.counts.get_mut(bucket(self.hasher.hash_one(object))) {
            // A count that was once at its end cannot be told any more.
            if *count != u32::MAX {
                *count = count.saturating_sub(u32::try_from(deliveries).unwrap_or(u32::MAX));
            }
        }
    }

    /// Whether an object may have records in the backlog.
    pub fn has(&self, object: &str) -> bool {
        let hash = self.hasher.hash_one(object);
        self.counts.get(bucket(hash)).is_none_or(|count| *count > 0)
            && bits(hash)
                .into_iter()
                .all(|(word, bit)| self.seen.get(word).is_none_or(|word| word & bit != 0))
    }
}

impl Default for Behind {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "bounded by the modulus")]
fn bucket(hash: u64) -> usize {
    (hash % BUCKETS as u64) as usize
}

/// Two bits of the filter: word and bit of each.
#[allow(clippy::cast_possible_truncation, reason = "bounded by the modulus")]
fn bits(hash: u64) -> [(usize, u64); 2] {
    // Not those that choose the bucket.
    [hash.rotate_left(20), hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)]
        .map(|hash| ((hash / 64 % WORDS as u64) as usize, 1 << (hash % 64)))
}

#[cfg(test)]
mod tests;
