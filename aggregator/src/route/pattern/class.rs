//! Classes and escapes of Go's patterns.

use super::{PatternError, error};

/// What one element of a pattern is here, and what follows it.
pub(super) struct Translated<'a> {
    pub(super) text: String,
    pub(super) rest: &'a str,
}

/// A class that nothing is in.
const NOTHING: &str = "[a&&b]";
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No",
    "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];
const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// `[...]`
pub(super) fn bracketed(text: &str) -> Result<Translated<'_>, PatternError> {
    let missing = || error("missing closing ]", text);
    let mut rest = text.strip_prefix('[').ok_or_else(missing)?;
    let negated = rest.strip_prefix('^').inspect(|after| rest = after).is_some();
    let mut items = String::new();
    let mut first = true;
    loop {
        if let (Some(after), false) = (rest.strip_prefix(']'), first) {
            rest = after;
            break;
        }
        first = false;
        if let Some(named) = posix(rest)? {
            items.push_str(&named.text);
            rest = named.rest;
        } else if let Some(class) = perl(rest) {
            items.push_str(class);
            rest = &rest[2..];
        } else if let Some(class) = property(rest)? {
            items.push_str(&class.text);
            rest = class.rest;
        } else {
            let range = rest;
            let (low, after) = character(rest).transpose()?.ok_or_else(missing)?;
            rest = after;
            let mut high = low;
            if let Some(after) =
                rest.strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']'))
            {
                (high, rest) = character(after).transpose()?.ok_or_else(missing)?;
                if high < low {
                    return Err(error("invalid character class range", &range[..range.len() - rest.len()]));
                }
            }
            push_range(&mut items, low, high);
        }
    }
    let text = match (items.is_empty(), negated) {
        (true, false) => NOTHING.to_owned(),
        (true, true) => "[\\s\\S]".to_owned(),
        (false, false) => format!("[{items}]"),
        (false, true) => format!("[^{items}]"),
    };
    Ok(Translated { text, rest })
}

/// `\d`, `\pL`, `\x{41}`, `\.` and so on, outside of a class.
pub(super) fn escaped(text: &str) -> Result<Translated<'_>, PatternError> {
    if let Some(class) = perl(text) {
        return Ok(Translated { text: class.to_owned(), rest: &text[2..] });
    }
    if let Some(class) = property(text)? {
        return Ok(class);
    }
    let (code, rest) = escape(text)?;
    let text = char::from_u32(code)
        .map_or_else(|| NOTHING.to_owned(), |c| regex_syntax::escape(c.encode_utf8(&mut [0; 4])));
    Ok(Translated { text, rest })
}

/// `[:alpha:]`; none where Go takes the bracket as it is.
fn posix(text: &str) -> Result<Option<Translated<'_>>, PatternError> {
    let Some((name, rest)) = text.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else {
        return Ok(None);
    };
    match POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
        true => Ok(Some(Translated { text: format!("[:{name}:]"), rest })),
        false => Err(error("invalid character class range", &text[..text.len() - rest.len()])),
    }
}

/// `\d` and its like, which in Go are ASCII.
fn perl(text: &str) -> Option<&'static str> {
    Some(match text.get(..2)? {
        "\\d" => "[0-9]",
        "\\D" => "[^0-9]",
        "\\s" => "[\\t\\n\\f\\r ]",
        "\\S" => "[^\\t\\n\\f\\r ]",
        "\\w" => "[0-9A-Za-z_]",
        "\\W" => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

/// `\pL`, `\p{Greek}`, `\P{^Lu}`.
fn property(text: &str) -> Result<Option<Translated<'_>>, PatternError> {
    let Some((mut negated, inner)) = text
        .strip_prefix("\\p")
        .map(|inner| (false, inner))
        .or_else(|| text.strip_prefix("\\P").map(|inner| (true, inner)))
    else {
        return Ok(None);
    };
    let (mut name, rest) = match inner.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or_else(|| error("invalid character class range", text))?,
        None => inner.split_at(inner.chars().next().map_or(0, char::len_utf8)),
    };
    if let Some(other) = name.strip_prefix('^') {
        (name, negated) = (other, !negated);
    }
    let sign = if negated { 'P' } else { 'p' };
    let is_script = |name: &str| {
        let part = |part: &str| part.starts_with(|c: char| c.is_ascii_uppercase());
        name.len() > 2
            && name.split('_').all(part)
            && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
    };
    let text = match name {
        "Any" if negated => NOTHING.to_owned(),
        "Any" => "[\\s\\S]".to_owned(),
        // Halves of pairs in UTF-16: there are none in a text.
        "Cs" if negated => "[\\s\\S]".to_owned(),
        "Cs" => NOTHING.to_owned(),
        name if CATEGORIES.contains(&name) => format!("\\{sign}{{gc={name}}}"),
        name if is_script(name) => format!("\\{sign}{{sc={name}}}"),
        _ => return Err(error("invalid character class range", &text[..text.len() - rest.len()])),
    };
    Ok(Some(Translated { text, rest }))
}

/// One character of a class, as a code point, and what follows; none at the end.
fn character(text: &str) -> Option<Result<(u32, &str), PatternError>> {
    let c = text.chars().next()?;
    Some(if c == '\\' { escape(text) } else { Ok((c.into(), &text[c.len_utf8()..])) })
}

/// An escape that stands for one character.
fn escape(text: &str) -> Result<(u32, &str), PatternError> {
    let Some(c) = text.chars().nth(1) else {
        return Err(error("trailing backslash at end of expression", ""));
    };
    let rest = &text[1 + c.len_utf8()..];
    let invalid = |length: usize| error("invalid escape sequence", text.get(..length).unwrap_or(text));
    let octal = |c: char| c.is_digit(8);
    match c {
        '1'..='7' if !rest.starts_with(octal) => Err(invalid(2)),
        '0'..='7' => {
            let more = rest.bytes().take(2).take_while(|byte| octal(char::from(*byte))).count();
            let code = u32::from_str_radix(&text[1..2 + more], 8).map_err(|_| invalid(2 + more))?;
            Ok((code, &rest[more..]))
        }
        'x' => {
            let (digits, rest) = match rest.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or_else(|| invalid(text.len()))?,
                None => rest.split_at_checked(2).ok_or_else(|| invalid(text.len()))?,
            };
            let length = text.len() - rest.len();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(invalid(length));
            }
            let code = u32::from_str_radix(digits, 16).ok().filter(|code| *code <= 0x10_ffff);
            Ok((code.ok_or_else(|| invalid(length))?, rest))
        }
        'a' => Ok((7, rest)),
        'f' => Ok((12, rest)),
        'n' => Ok((10, rest)),
        'r' => Ok((13, rest)),
        't' => Ok((9, rest)),
        'v' => Ok((11, rest)),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok((c.into(), rest)),
        c => Err(invalid(1 + c.len_utf8())),
    }
}

/// A range of code points, less the halves of pairs of UTF-16, which no text has.
fn push_range(items: &mut String, low: u32, high: u32) {
    let low = if (0xd800..0xe000).contains(&low) { 0xe000 } else { low };
    let high = if (0xd800..0xe000).contains(&high) { 0xd7ff } else { high };
    if low <= high {
        items.push_str(&format!("\\x{{{low:x}}}-\\x{{{high:x}}}"));
    }
}
