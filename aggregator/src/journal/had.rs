//! What a consumer has had beyond its cursor: a bit for each position, durable with the cursor.
//!
//! The cursor says that everything before it is settled, and this what is settled behind it: by the lane of what is live, or
//! beside a record that waits. So nothing of it is sent again, whenever the process ends. A bit a record, in chunks, of which only
//! those that changed are written.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ahead, Position};

/// Positions that are settled beyond a cursor. Bounded by what the journal keeps: a megabyte for eight million records.
#[derive(Debug, Default)]
pub struct Had {
    chunks: BTreeMap<u64, Box<[u64; Ahead::WORDS]>>,
    changed: BTreeSet<u64>,
    count: u64,
}

// === impl Had ===

impl Had {
    /// As it was kept; of a cursor, before which nothing counts.
    pub fn load(kept: Vec<Ahead>, cursor: Position) -> Self {
        let mut had = Self::default();
        for Ahead { chunk, bits } in kept {
            had.count += bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            had.chunks.insert(chunk, bits);
        }
        had.pass(cursor);
        had
    }

    /// Notes a position.
    pub fn insert(&mut self, position: Position) {
        let (chunk, word, bit) = place(position.0);
        let words = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; Ahead::WORDS]));
        if let Some(word) = words.get_mut(word).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.count += 1;
            self.changed.insert(chunk);
        }
    }

    /// Whether a position is among them.
    pub fn contains(&self, position: Position) -> bool {
        let (chunk, word, bit) = place(position.0);
        self.chunks.get(&chunk).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many there are after a position and up to another.
    pub fn within(&self, after: Position, last: Position) -> u64 {
        let first = after.0.saturating_add(1);
        let chunks = self.chunks.range(place(first).0..=place(last.0).0);
        let bits = chunks.flat_map(|(chunk, words)| {
            let base = chunk * Ahead::POSITIONS;
            words.iter().zip((base..).step_by(64)).filter(|(word, _)| **word != 0)
        });
        bits.map(|(word, base)| {
            let inside = (0..64).filter(|bit| (first..=last.0).contains(&(base + bit)));
            inside.filter(|bit| word >> bit & 1 == 1).count() as u64
        })
        .sum()
    }

    /// The last of them.
    pub fn last(&self) -> Option<Position> {
        self.chunks.iter().rev().find_map(|(chunk, words)| {
            let (index, word) = words.iter().enumerate().rfind(|(_, word)| **word != 0)?;
            let bit = 63 - u64::from(word.leading_zeros());
            Some(Position(chunk * Ahead::POSITIONS + index as u64 * 64 + bit))
        })
    }

    /// The cursor is here: what lies before counts no longer.
    pub fn pass(&mut self, cursor: Position) {
        let (chunk, word, bit) = place(cursor.0.saturating_add(1));
        while let Some((first, words)) = self.chunks.first_key_value()
            && *first < chunk
        {
            self.count -= words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            let first = *first;
            self.chunks.remove(&first);
            self.changed.remove(&first);
        }
        // What is left of the chunk that the cursor stands in need not be written for it: it lies before the cursor.
        let Some(words) = self.chunks.get_mut(&chunk) else { return };
        for (index, before) in words.iter_mut().enumerate().take(word + 1) {
            let gone = if index < word { *before } else { *before & (bit - 1) };
            self.count -= u64::from(gone.count_ones());
            *before &= !gone;
        }
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        for (chunk, words) in &mut self.chunks {
            words.fill(0);
            self.changed.insert(*chunk);
        }
        self.count = 0;
    }

    /// What is to be written.
    pub fn changed(&self) -> Vec<Ahead> {
        let changed = self.changed.iter();
        changed
            .filter_map(|chunk| Some(Ahead { chunk: *chunk, bits: self.chunks.get(chunk)?.clone() }))
            .collect()
    }

    /// It is written.
    pub fn written(&mut self) {
        self.changed.clear();
    }
}

/// Its chunk, its word there, and its bit in that.
#[allow(clippy::cast_possible_truncation, reason = "below 64")]
fn place(position: u64) -> (u64, usize, u64) {
    let within = position % Ahead::POSITIONS;
    (position / Ahead::POSITIONS, (within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests;
