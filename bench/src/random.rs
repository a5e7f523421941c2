//! Numbers that look random and are the same for the same seed: SplitMix64.
//!
//! Promises that a run can be had again from its seed; nothing here is fit for keys.

use std::sync::{Mutex, PoisonError};

/// A source of numbers.
#[derive(Debug)]
pub struct Random(Mutex<u64>);

// === impl Random ===

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several; `None` of none.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// A UUID of version 4, as Kubernetes writes it.
    pub fn uid(&self) -> String {
        let (high, low) = (self.next(), self.next());
        let mut text = String::with_capacity(36);
        push_hex(&mut text, high >> 32, 8);
        text.push('-');
        push_hex(&mut text, high >> 16, 4);
        text.push_str("-4");
        push_hex(&mut text, high, 3);
        text.push('-');
        push_hex(&mut text, (low >> 48) & 0x3fff | 0x8000, 4);
        text.push('-');
        push_hex(&mut text, low, 12);
        text
    }

    /// Lower-case letters and digits that Kubernetes uses in generated names.
    pub fn suffix(&self, length: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length).map(|_| self.pick(LETTERS).map_or('x', |letter| char::from(*letter))).collect()
    }

    /// 64 hexadecimal digits, as a container's id has.
    pub fn hex64(&self) -> String {
        (0..4).map(|_| format!("{:016x}", self.next())).collect()
    }
}

/// So many of a number's last hexadecimal digits. `format!` takes several times as long, and every event has fifty of them.
pub(crate) fn push_hex(text: &mut String, number: u64, digits: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in (0..digits).rev() {
        text.push(char::from(DIGITS[(number >> (4 * digit)) as usize & 15]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_the_text_that_the_formatter_writes_of_the_same_two_numbers() {
        let (uids, numbers) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            let (high, low) = (numbers.next(), numbers.next());
            let expected = format!(
                "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xfff,
                ((low >> 48) & 0x3fff) | 0x8000,
                low & 0xffff_ffff_ffff
            );
            assert_eq!(uids.uid(), expected);
        }
    }

    #[test]
    fn a_seed_gives_the_uids_that_it_always_gave() {
        let random = Random::new(1);
        assert_eq!(random.uid(), "910a2dec-8902-4cc1-beeb-8da1658eec67");
        assert_eq!(random.uid(), "f893a2ee-fb32-455e-b1c1-8690ee42c90b");
    }

    #[test]
    fn hexadecimal_digits_are_written_with_the_zeros_before_them() {
        for number in [0, 9, 0xabc, u64::MAX, 1 << 60] {
            let mut text = String::new();
            push_hex(&mut text, number, 16);
            assert_eq!(text, format!("{number:016x}"));
        }
    }
}
