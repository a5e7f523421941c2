//! CRC-32 (IEEE 802.3, reflected) of what the agent keeps on its disk: finds every error of up to 32 bits in a row.

use flate2::Crc;

/// A checksum that is being taken.
#[derive(Debug, Default)]
pub(crate) struct Checksum(Crc);

// === impl Checksum ===

impl Checksum {
    /// Of these bytes alone.
    pub(crate) fn of(bytes: &[u8]) -> u32 {
        Self::default().with(bytes).finish()
    }

    /// Goes on with these bytes.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// The sum.
    pub(crate) fn finish(self) -> u32 {
        self.0.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    #[test]
    fn the_sum_is_that_of_the_standard_however_the_bytes_are_cut() {
        assert_eq!(Checksum::of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Checksum::of(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
        let bytes: Vec<u8> = (0..100).collect();
        for at in 0..100 {
            let (start, end) = bytes.split_at(at);
            assert_eq!(Checksum::default().with(start).with(end).finish(), Checksum::of(&bytes));
        }
    }
}
