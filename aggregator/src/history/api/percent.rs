//! Names and values of a query: `%` and two hexadecimal digits for a byte, `+` for a space (URL Standard, 5.1), and strictly UTF-8.

/// The text, or nothing where a `%` is not followed by two digits or the bytes are not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn a_query_is_decoded_and_what_is_not_utf_8_is_refused() {
        assert_eq!(decode("a%20b+c%2Bd%C3%BC").as_deref(), Some("a b c+dü"));
        for broken in ["%", "%2", "%zz", "%+1", "%ff", "%c3", "a%C3%28"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
