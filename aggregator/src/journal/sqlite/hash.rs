//! A hash of text that is the same in every version: the index keeps it. FNV-1a, 64 bits, mixed once more at the end.

/// Of one text after another, each ended so that where one stops counts.
pub(super) fn of(texts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.as_bytes().iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Of numbers, as a number that SQLite keeps: a row whose numbers it does not fit is damaged.
pub(super) fn digest(numbers: &[i64]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash.cast_signed()
}

/// Of a row of texts and a number, as [`digest`].
pub(super) fn row(texts: &[&str], number: i64) -> i64 {
    let number = number.to_string();
    of(&[texts, &[&number]].concat()).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_never_change_because_files_hold_them() {
        assert_eq!(of(&["5f0c7a52-0000-4000-8000-000000000001"]), 0x8014_72f8_1cf3_8ff9);
        assert_eq!(of(&["a"]), 0xbf3b_33bb_5c15_7706);
        assert_eq!(digest(&[1, -1]).cast_unsigned(), 0xc477_7a6e_69ba_809c);
        assert_eq!(row(&["file"], 7).cast_unsigned(), 0x5134_1e81_2f47_812e);
    }

    #[test]
    fn where_a_text_ends_counts() {
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(row(&["a", "b"], 7), of(&["a", "b", "7"]).cast_signed());
    }
}
