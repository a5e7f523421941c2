//! Numbers in as few bytes as they need (LEB128), as blocks and indexes hold them.

/// Appends a number.
pub(super) fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number as u8) | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Appends a number with a sign: small ones of either sign take few bytes.
pub(super) fn put_signed(into: &mut Vec<u8>, number: i64) {
    put(into, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends bytes with their length.
pub(super) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Takes a number off the front; `None` where there is none.
pub(super) fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Takes a number with a sign.
pub(super) fn take_signed(from: &mut &[u8]) -> Option<i64> {
    let number = take(from)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

/// Takes a length, or a number of things in memory.
pub(super) fn take_length(from: &mut &[u8]) -> Option<usize> {
    usize::try_from(take(from)?).ok()
}

/// Takes so many bytes.
pub(super) fn take_slice<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

/// Takes bytes that stand with their length.
pub(super) fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(from)?;
    take_slice(from, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(number: u64, signed: i64, bytes: Vec<u8>) {
            let mut buffer = Vec::new();
            put(&mut buffer, number);
            put_signed(&mut buffer, signed);
            put_bytes(&mut buffer, &bytes);
            let mut rest = buffer.as_slice();
            prop_assert_eq!(take(&mut rest), Some(number));
            prop_assert_eq!(take_signed(&mut rest), Some(signed));
            prop_assert_eq!(take_bytes(&mut rest), Some(bytes.as_slice()));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while take_bytes(&mut rest).is_some() {}
        }
    }
}
