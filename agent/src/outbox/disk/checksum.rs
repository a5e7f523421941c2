//! CRC-32 (IEEE 802.3, reflected), eight bytes at a time: finds every error of up to 32 bits in a row.

/// A checksum that is being taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checksum(u32);

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        table += 1;
    }
    tables
}

// === impl Checksum ===

impl Checksum {
    /// Of these bytes.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        Self::default().with(bytes).finish()
    }

    /// Goes on with more bytes.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        // Indices are one byte each, so they are in the tables' bounds.
        let at = |table: usize, byte: u32| TABLES[table][(byte & 0xff) as usize];
        let mut value = self.0;
        let (chunks, rest) = bytes.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in chunks {
            let low = u32::from_le_bytes([*a, *b, *c, *d]) ^ value;
            value = at(7, low) ^ at(6, low >> 8) ^ at(5, low >> 16) ^ at(4, low >> 24);
            value ^= at(3, (*e).into()) ^ at(2, (*f).into()) ^ at(1, (*g).into()) ^ at(0, (*h).into());
        }
        for byte in rest {
            value = at(0, value ^ u32::from(*byte)) ^ (value >> 8);
        }
        Self(value)
    }

    /// The sum.
    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self(!0)
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
