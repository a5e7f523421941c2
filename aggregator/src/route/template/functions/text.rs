//! Strings.

use gotmpl::Value;

use super::{ANY, Entry, MAX_OUTPUT, bounded, items, shown, string, text, whole};

pub(super) const FUNCTIONS: &[Entry] = &[
    ("trim", 1, 1, |args| Ok(string(text(&args[0]).trim().to_owned()))),
    ("trimAll", 2, 2, trim_all),
    ("trimall", 2, 2, trim_all),
    ("trimPrefix", 2, 2, |args| {
        let all = text(&args[1]);
        Ok(string(all.strip_prefix(&*text(&args[0])).unwrap_or(&all).to_owned()))
    }),
    ("trimSuffix", 2, 2, |args| {
        let all = text(&args[1]);
        Ok(string(all.strip_suffix(&*text(&args[0])).unwrap_or(&all).to_owned()))
    }),
    ("nospace", 1, 1, |args| Ok(string(text(&args[0]).split_whitespace().collect()))),
    ("lower", 1, 1, |args| Ok(string(text(&args[0]).to_lowercase()))),
    ("upper", 1, 1, |args| Ok(string(text(&args[0]).to_uppercase()))),
    ("title", 1, 1, |args| Ok(string(title(&text(&args[0]))))),
    ("untitle", 1, 1, |args| Ok(string(untitle(&text(&args[0]))))),
    ("swapcase", 1, 1, |args| {
        let swap = |c: char| {
            if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() }
        };
        Ok(string(text(&args[0]).chars().map(swap).collect()))
    }),
    ("repeat", 2, 2, |args| {
        let (count, one) = (bounded(&args[0])?, text(&args[1]));
        if one.len().saturating_mul(count) > MAX_OUTPUT {
            return Err("its result is too long".to_owned());
        }
        Ok(string(one.repeat(count)))
    }),
    ("substr", 3, 3, |args| {
        let all = text(&args[2]);
        let end = usize::try_from(whole(&args[1])).unwrap_or(all.len()).min(all.len());
        let start = usize::try_from(whole(&args[0])).unwrap_or(0).min(end);
        Ok(string(cut(&all, start, end).to_owned()))
    }),
    ("trunc", 2, 2, |args| Ok(string(truncated(whole(&args[0]), &text(&args[1]))))),
    ("abbrev", 2, 2, |args| {
        let (width, all) = (whole(&args[0]), text(&args[1]));
        let width = usize::try_from(width).unwrap_or(0);
        Ok(string(if width < 4 || all.len() <= width {
            all.to_string()
        } else {
            format!("{}...", cut(&all, 0, width - 3))
        }))
    }),
    ("contains", 2, 2, |args| Ok(Value::Bool(text(&args[1]).contains(&*text(&args[0]))))),
    ("hasPrefix", 2, 2, |args| Ok(Value::Bool(text(&args[1]).starts_with(&*text(&args[0]))))),
    ("hasSuffix", 2, 2, |args| Ok(Value::Bool(text(&args[1]).ends_with(&*text(&args[0]))))),
    ("quote", 0, ANY, |args| Ok(string(spaced(args, |text| quoted(&text))))),
    ("squote", 0, ANY, |args| Ok(string(spaced(args, |text| format!("'{text}'"))))),
    ("cat", 0, ANY, |args| Ok(string(spaced(args, |text| text)))),
    ("indent", 2, 2, |args| indented(args)),
    ("nindent", 2, 2, |args| Ok(string(format!("\n{}", text(&indented(args)?))))),
    ("replace", 3, 3, |args| {
        let (old, new, all) = (text(&args[0]), text(&args[1]), text(&args[2]));
        let growth = all.len().saturating_add(1).saturating_mul(new.len().saturating_add(1));
        if growth > 64 * MAX_OUTPUT {
            return Err("its result is too long".to_owned());
        }
        Ok(string(all.replace(&*old, &new)))
    }),
    ("plural", 3, 3, |args| Ok(if whole(&args[2]) == 1 { args[0].clone() } else { args[1].clone() })),
    ("join", 2, 2, |args| {
        let joined = match &args[1] {
            Value::List(list) => list.iter().map(shown).collect::<Vec<_>>().join(&text(&args[0])),
            other => text(other).to_string(),
        };
        Ok(string(joined))
    }),
    ("splitList", 2, 2, |args| {
        let all = text(&args[1]);
        Ok(Value::List(
            split(&all, &text(&args[0]), usize::MAX)
                .into_iter()
                .map(|part| string(part.to_owned()))
                .collect(),
        ))
    }),
    ("split", 2, 2, |args| Ok(numbered(split(&text(&args[1]), &text(&args[0]), usize::MAX)))),
    ("splitn", 3, 3, |args| {
        Ok(numbered(split(
            &text(&args[2]),
            &text(&args[0]),
            usize::try_from(whole(&args[1])).unwrap_or(usize::MAX),
        )))
    }),
    ("sortAlpha", 1, 1, |args| {
        let mut all: Vec<String> = items(&args[0])?.iter().map(shown).collect();
        all.sort();
        Ok(Value::List(all.into_iter().map(string).collect()))
    }),
    ("toString", 1, 1, |args| Ok(string(shown(&args[0])))),
    ("toStrings", 1, 1, |args| {
        Ok(Value::List(items(&args[0])?.iter().map(|one| string(shown(one))).collect()))
    }),
    ("b64enc", 1, 1, |args| Ok(string(encode(text(&args[0]).as_bytes())))),
    ("b64dec", 1, 1, |args| decode(&text(&args[0])).map(string)),
    ("sha256sum", 1, 1, |args| sha256(text(&args[0]).as_bytes()).map(string)),
];

fn trim_all(args: &[Value]) -> Result<Value, String> {
    let (set, all) = (text(&args[0]), text(&args[1]));
    Ok(string(all.trim_matches(|c| set.contains(c)).to_owned()))
}

/// At most this many bytes of the start; from the end where negative. Never half a character.
fn truncated(width: i64, all: &str) -> String {
    let count = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    if count >= all.len() {
        all.to_owned()
    } else if width < 0 {
        cut(all, all.len() - count, all.len()).to_owned()
    } else {
        cut(all, 0, count).to_owned()
    }
}

/// Bytes of a string, less a character that a cut would halve.
fn cut(all: &str, start: usize, end: usize) -> &str {
    let start = (start..=all.len()).find(|at| all.is_char_boundary(*at)).unwrap_or(all.len());
    let end = all.floor_char_boundary(end.min(all.len()));
    all.get(start..end).unwrap_or("")
}

fn title(all: &str) -> String {
    let mut before = ' ';
    all.chars()
        .map(|c| {
            let starts = !(before.is_alphanumeric() || before == '_' || before == '\'');
            before = c;
            if starts { c.to_uppercase().to_string() } else { c.to_string() }
        })
        .collect()
}

fn untitle(all: &str) -> String {
    let mut before = ' ';
    all.chars()
        .map(|c| {
            let starts = before.is_whitespace();
            before = c;
            if starts { c.to_lowercase().to_string() } else { c.to_string() }
        })
        .collect()
}

fn spaced(args: &[Value], each: impl Fn(String) -> String) -> String {
    let parts: Vec<String> =
        args.iter().filter(|arg| !matches!(arg, Value::Nil)).map(|arg| each(shown(arg))).collect();
    parts.join(" ")
}

/// As Go's `%q`, for what is printable.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn indented(args: &[Value]) -> Result<Value, String> {
    let (count, all) = (bounded(&args[0])?, text(&args[1]));
    let lines = all.split('\n').count();
    if lines.saturating_mul(count).saturating_add(all.len()) > MAX_OUTPUT {
        return Err("its result is too long".to_owned());
    }
    let space = " ".repeat(count);
    Ok(string(format!("{space}{}", all.replace('\n', &format!("\n{space}")))))
}

fn split<'a>(all: &'a str, separator: &str, most: usize) -> Vec<&'a str> {
    if separator.is_empty() {
        let mut parts: Vec<&str> = all.split("").filter(|part| !part.is_empty()).collect();
        parts.truncate(most);
        return parts;
    }
    all.splitn(most.max(1), separator).collect()
}

fn numbered(parts: Vec<&str>) -> Value {
    let map = parts
        .into_iter()
        .enumerate()
        .map(|(i, part)| (format!("_{i}").into(), string(part.to_owned())))
        .collect();
    Value::Map(std::sync::Arc::new(map))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let symbol = ALPHABET.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    out
}

fn decode(text: &str) -> Result<String, String> {
    let symbols = text.trim_end_matches('=').bytes();
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for symbol in symbols.filter(|byte| !byte.is_ascii_whitespace()) {
        let Some(value) = ALPHABET.iter().position(|known| *known == symbol) else {
            return Err("not base64".to_owned());
        };
        bits = (bits << 6 | value as u32) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn sha256(bytes: &[u8]) -> Result<String, String> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.ok_or("not available")?.common.hash_provider.hash(bytes);
    Ok(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
