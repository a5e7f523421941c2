//! The cursor of a page: opaque to who holds it, and refused where it is not one that was given out for the same question.
//!
//! It carries the range of time as it was when the first page was asked for, so that `since=2h` means the same two hours on
//! every page. It grants nothing: a forged one shows what its holder may ask for anyway.

use std::fmt::Write;

use crate::history::query::Mark;
use crate::journal::Position;

/// Goes up when the layout changes.
const VERSION: u8 = 1;

/// Version, five numbers of eight bytes and a sum.
const BYTES: usize = 1 + 5 * 8 + 8;

/// What comes after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) after: Mark,
    pub(super) since_ns: Option<i64>,
    pub(super) until_ns: Option<i64>,
    /// Of the question that it belongs to.
    pub(super) fingerprint: u64,
}

/// Why it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Not one that was given out, or by another version.
    Forged,
    /// Given out for another question.
    Other,
}

// === impl Cursor ===

impl Cursor {
    /// As text of letters and digits.
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        let Mark { time_ns, position } = self.after;
        bytes.extend(time_ns.to_be_bytes());
        bytes.extend(position.0.to_be_bytes());
        // No record happened at the ends of an i64.
        bytes.extend(self.since_ns.unwrap_or(i64::MIN).to_be_bytes());
        bytes.extend(self.until_ns.unwrap_or(i64::MAX).to_be_bytes());
        bytes.extend(self.fingerprint.to_be_bytes());
        bytes.extend(fnv(bytes.iter().copied()).to_be_bytes());
        bytes.iter().fold(String::with_capacity(2 * BYTES), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The cursor of a text, if it is one of this question.
    pub(super) fn decode(text: &str, fingerprint: u64) -> Result<Self, Wrong> {
        let cursor = Self::read(text).ok_or(Wrong::Forged)?;
        if cursor.fingerprint == fingerprint { Ok(cursor) } else { Err(Wrong::Other) }
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * BYTES {
            return None;
        }
        let byte = |pair: &[u8]| {
            let (high, low) = (pair.first()?, pair.get(1)?);
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        };
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>()?;
        let (version, rest) = bytes.split_first()?;
        let mut numbers = rest.chunks(8).map(|chunk| chunk.try_into().map(u64::from_be_bytes));
        let mut number = || numbers.next()?.ok();
        let (time, position, since, until, fingerprint, sum) =
            (number()?, number()?, number()?, number()?, number()?, number()?);
        if *version != VERSION || sum != fnv(bytes.iter().take(BYTES - 8).copied()) {
            return None;
        }
        Some(Self {
            after: Mark { time_ns: time.cast_signed(), position: Position(position) },
            since_ns: Some(since.cast_signed()).filter(|ns| *ns != i64::MIN),
            until_ns: Some(until.cast_signed()).filter(|ns| *ns != i64::MAX),
            fingerprint,
        })
    }
}

/// FNV-1a, 64 bits: against accidents, not against intent.
pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn cursor() -> Cursor {
        let after = Mark { time_ns: 1_767_225_600_000_000_000, position: Position(42) };
        Cursor { after, since_ns: Some(5), until_ns: None, fingerprint: 7 }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_and_only_for_its_own_question() {
        let text = cursor().encode();
        assert_eq!(Cursor::decode(&text, 7), Ok(cursor()));
        assert_eq!(Cursor::decode(&text, 8), Err(Wrong::Other));
    }

    #[test]
    fn a_cursor_with_any_digit_changed_is_refused() {
        let text = cursor().encode();
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(Cursor::decode(&forged, 7), Err(Wrong::Forged), "{forged}");
        }
        assert_eq!(Cursor::decode("", 7), Err(Wrong::Forged));
        assert_eq!(Cursor::decode(&text[..text.len() - 2], 7), Err(Wrong::Forged));
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_a_cursor_or_panics(text in ".{0,120}") {
            prop_assert_eq!(Cursor::decode(&text, 7), Err(Wrong::Forged));
        }
    }
}
