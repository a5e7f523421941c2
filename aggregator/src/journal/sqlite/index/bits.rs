//! A set of the records of one segment.

use super::OFFSETS;

const WORDS: usize = OFFSETS / 64;

/// One bit a record, by its offset in the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Bits(Box<[u64; WORDS]>);

// === impl Bits ===

impl Bits {
    pub(in super::super) fn none() -> Self {
        Self(Box::new([0; WORDS]))
    }

    pub(in super::super) fn fill(&mut self) {
        self.0.fill(u64::MAX);
    }

    pub(in super::super) fn clear(&mut self) {
        self.0.fill(0);
    }

    pub(in super::super) fn set(&mut self, offset: u16) {
        if let Some(word) = self.0.get_mut(usize::from(offset >> 6)) {
            *word |= 1 << (offset & 63);
        }
    }

    pub(in super::super) fn has(&self, offset: u16) -> bool {
        self.0.get(usize::from(offset >> 6)).is_some_and(|word| word & (1 << (offset & 63)) != 0)
    }

    /// Removes what is in the other.
    pub(in super::super) fn remove(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word &= !other;
        }
    }

    /// Keeps what is in both; whether anything is.
    pub(in super::super) fn keep(&mut self, other: &Self) -> bool {
        let mut any = 0;
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word &= other;
            any |= *word;
        }
        any != 0
    }

    /// Adds what a bitmap of bytes has, in the order of [`bytes`](Self::bytes).
    pub(in super::super) fn add_bytes(&mut self, bytes: &[u8]) {
        for (word, bytes) in self.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word |= bytes.try_into().map_or(0, u64::from_le_bytes);
        }
    }

    pub(in super::super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The offsets in `from..to`, ascending. Both are multiples of 64.
    pub(in super::super) fn offsets(&self, from: usize, to: usize) -> impl Iterator<Item = u16> + '_ {
        let words = self.0.get(from / 64..(to / 64).min(WORDS)).unwrap_or_default();
        words.iter().enumerate().flat_map(move |(index, word)| {
            let base = from + index * 64;
            let mut left = *word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                u16::try_from(base + bit).ok()
            })
        })
    }
}
