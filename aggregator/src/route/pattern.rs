//! Patterns as Go's `regexp` reads them, on the `regex` crate.
//!
//! The two differ where it hurts: what is literal to one is an operator to the other, and `\d` is ASCII only in Go. So a
//! pattern is read by Go's grammar and printed anew, as one that means the same here. What Go rejects is rejected.

mod class;

use std::fmt;

use regex::{Regex, RegexBuilder};

/// What a pattern may be long, in bytes.
const MAX_LENGTH: usize = 1 << 16;
/// What Go allows of repetition, and of nesting.
const MAX_REPEAT: u32 = 1000;
/// What a compiled pattern may take, in bytes.
const MAX_SIZE: usize = 16 << 20;

/// A compiled Go pattern, searched anywhere in a text.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Result<Regex, PatternError>,
}

/// Why Go would not compile a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: `{part}`")]
pub struct PatternError {
    what: &'static str,
    part: String,
}

/// Reads Go's grammar and writes Rust's.
struct Translator<'a> {
    rest: &'a str,
    out: String,
    flags: Flags,
    groups: Vec<Group>,
    names: Vec<&'a str>,
    /// What a repetition would apply to.
    atom: Option<Atom>,
    /// The greatest product of nested repetitions in the group so far.
    weight: u32,
    /// Where, in `rest`, a repetition began that stands right before.
    repeated: Option<&'a str>,
}

#[derive(Clone, Copy)]
struct Atom {
    start: usize,
    end: usize,
    weight: u32,
    repeated: bool,
}

/// An open group, and what to go back to after it.
struct Group {
    start: usize,
    flags: Flags,
    weight: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Flags {
    i: bool,
    m: bool,
    s: bool,
    u: bool,
}

// === impl Pattern ===

impl Pattern {
    /// Compiles a pattern. One that Go would not compile matches nothing, as upstream has it: [`Self::error`] says why.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), regex: compile(source) }
    }

    /// Whether it matches anywhere in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.as_ref().is_ok_and(|regex| regex.is_match(text))
    }

    /// Why it matches nothing.
    pub fn error(&self) -> Option<&PatternError> {
        self.regex.as_ref().err()
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Compiles a Go pattern.
///
/// # Errors
/// Where Go would not, or where it takes more memory than a pattern may.
pub fn compile(source: &str) -> Result<Regex, PatternError> {
    let translated = translate(source)?;
    RegexBuilder::new(&translated)
        .size_limit(MAX_SIZE)
        .nest_limit(MAX_REPEAT + 10)
        .build()
        .map_err(|_| error("expression too large, or not a property of Unicode", source))
}

/// A pattern of the `regex` crate that means what this one means to Go.
///
/// # Errors
/// Where Go would not compile it.
pub fn translate(source: &str) -> Result<String, PatternError> {
    if source.len() > MAX_LENGTH {
        return Err(error("expression too large", ""));
    }
    Translator {
        rest: source,
        out: String::with_capacity(source.len() + 8),
        flags: Flags::default(),
        groups: Vec::new(),
        names: Vec::new(),
        atom: None,
        weight: 1,
        repeated: None,
    }
    .run()
}

fn error(what: &'static str, part: &str) -> PatternError {
    PatternError { what, part: part.to_owned() }
}

// === impl Translator ===

impl<'a> Translator<'a> {
    fn run(mut self) -> Result<String, PatternError> {
        let whole = self.rest;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let repeated = self.repeated.take();
            match c {
                '(' => self.open()?,
                ')' => self.close(whole)?,
                '|' => {
                    self.take(1);
                    self.out.push('|');
                    self.atom = None;
                }
                '^' | '$' | '.' => {
                    self.take(1);
                    self.push(|out| out.push(c));
                }
                '[' => {
                    let class = class::bracketed(self.rest)?;
                    self.rest = class.rest;
                    self.push(|out| out.push_str(&class.text));
                }
                '*' | '+' | '?' => {
                    self.take(1);
                    self.repeat(c.to_string(), 1, before, repeated)?;
                }
                '{' => match counted(self.rest) {
                    Some((least, most, rest)) => {
                        self.rest = rest;
                        let text = &before[..before.len() - rest.len()];
                        if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least) {
                            return Err(error("invalid repeat count", text));
                        }
                        let times = most.unwrap_or(least);
                        self.repeat(
                            text.to_owned(),
                            if most.is_none() { times.max(1) } else { times },
                            before,
                            repeated,
                        )?;
                    }
                    None => {
                        self.take(1);
                        self.literal('{');
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.take(c.len_utf8());
                    self.literal(c);
                }
            }
        }
        match self.groups.is_empty() {
            true => Ok(self.out),
            false => Err(error("missing closing )", whole)),
        }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// Writes what a repetition can apply to.
    fn push(&mut self, write: impl FnOnce(&mut String)) {
        let start = self.out.len();
        write(&mut self.out);
        self.atom = Some(Atom { start, end: self.out.len(), weight: 1, repeated: false });
    }

    fn literal(&mut self, c: char) {
        self.push(|out| out.push_str(&regex_syntax::escape(c.encode_utf8(&mut [0; 4]))));
    }

    fn repeat(
        &mut self,
        mut operator: String,
        times: u32,
        before: &'a str,
        repeated: Option<&'a str>,
    ) -> Result<(), PatternError> {
        if self.rest.starts_with('?') {
            self.take(1);
            operator.push('?');
        }
        let text = |from: &'a str| &from[..from.len() - self.rest.len()];
        if let Some(from) = repeated {
            return Err(error("invalid nested repetition operator", text(from)));
        }
        let Some(atom) = self.atom else {
            return Err(error("missing argument to repetition operator", text(before)));
        };
        let weight = atom.weight.saturating_mul(times);
        if weight > MAX_REPEAT && times > 1 {
            return Err(error("invalid repeat count", text(before)));
        }
        let mut end = atom.end;
        if atom.repeated {
            // Flags stood between two operators: each of them counts.
            self.out.insert(end, ')');
            self.out.insert_str(atom.start, "(?:");
            end += 4;
        }
        self.out.insert_str(end, &operator);
        self.atom = Some(Atom { start: atom.start, end: end + operator.len(), weight, repeated: true });
        self.weight = self.weight.max(weight);
        self.repeated = Some(before);
        Ok(())
    }

    fn open(&mut self) -> Result<(), PatternError> {
        let before = self.rest;
        if self.groups.len() >= MAX_REPEAT as usize {
            return Err(error("expression nests too deeply", ""));
        }
        let Some(inner) = before.strip_prefix("(?") else {
            self.take(1);
            self.enter("(", self.flags);
            return Ok(());
        };
        if let Some(named) = inner.strip_prefix("P<").or_else(|| inner.strip_prefix('<')) {
            let Some((name, rest)) = named.split_once('>') else {
                return Err(error("invalid named capture", before));
            };
            let text = &before[..before.len() - rest.len()];
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(error("invalid named capture", text));
            }
            if self.names.contains(&name) {
                return Err(error("duplicate capture group name", name));
            }
            self.names.push(name);
            self.rest = rest;
            // Here a name does not begin with a digit.
            let opening = if name.starts_with(|c: char| c.is_ascii_digit()) {
                "(".to_owned()
            } else {
                format!("(?P<{name}>")
            };
            self.enter(&opening, self.flags);
            return Ok(());
        }
        let (mut flags, mut on, mut saw) = (self.flags, true, true);
        for (index, c) in inner.char_indices() {
            match c {
                'i' => (flags.i, saw) = (on, true),
                'm' => (flags.m, saw) = (on, true),
                's' => (flags.s, saw) = (on, true),
                'U' => (flags.u, saw) = (on, true),
                '-' if on => (on, saw) = (false, false),
                ':' | ')' if saw => {
                    self.rest = &inner[index + 1..];
                    if c == ':' {
                        self.enter(&format!("(?{flags}:"), flags);
                    } else {
                        self.flags = flags;
                        self.out.push_str(&format!("(?{flags})"));
                    }
                    return Ok(());
                }
                _ => {
                    let end = 2 + index + c.len_utf8();
                    return Err(error(
                        "invalid or unsupported Perl syntax",
                        before.get(..end).unwrap_or(before),
                    ));
                }
            }
        }
        Err(error("missing closing )", before))
    }

    fn enter(&mut self, opening: &str, flags: Flags) {
        self.groups.push(Group { start: self.out.len(), flags: self.flags, weight: self.weight });
        self.out.push_str(opening);
        self.flags = flags;
        self.atom = None;
        self.weight = 1;
    }

    fn close(&mut self, whole: &str) -> Result<(), PatternError> {
        self.take(1);
        let Some(group) = self.groups.pop() else {
            return Err(error("unexpected )", whole));
        };
        self.out.push(')');
        self.atom =
            Some(Atom { start: group.start, end: self.out.len(), weight: self.weight, repeated: false });
        self.weight = self.weight.max(group.weight);
        self.flags = group.flags;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let mut after = self.rest.chars().skip(1);
        match after.next() {
            Some(c @ ('A' | 'z')) => {
                self.take(2);
                self.push(|out| out.extend(['\\', c]));
            }
            Some(c @ ('b' | 'B')) => {
                self.take(2);
                self.push(|out| out.push_str(&format!("(?-u:\\{c})")));
            }
            Some('Q') => {
                self.take(2);
                let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                quoted.chars().for_each(|c| self.literal(c));
            }
            _ => {
                let class = class::escaped(self.rest)?;
                self.rest = class.rest;
                self.push(|out| out.push_str(&class.text));
            }
        }
        Ok(())
    }
}

/// `{2}`, `{2,}` or `{2,3}`: the least, the most, and what follows; none where Go takes the brace as it is.
fn counted(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (least, rest) = number(text.strip_prefix('{')?)?;
    let (most, rest) = match rest.strip_prefix(',') {
        None => (Some(least), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (most, rest) = number(rest)?;
            (Some(most), rest)
        }
    };
    Some((least, most, rest.strip_prefix('}')?))
}

/// A number without zeros before it; one that is too large is the largest.
fn number(text: &str) -> Option<(u32, &str)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (!digits.is_empty() && !leading_zero).then(|| (digits.parse().unwrap_or(u32::MAX), rest))
}

// === impl Flags ===

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [('i', self.i), ('m', self.m), ('s', self.s), ('U', self.u)];
        all.iter().filter(|flag| flag.1).try_for_each(|flag| write!(f, "{}", flag.0))?;
        if all.iter().any(|flag| !flag.1) {
            f.write_str("-")?;
        }
        all.iter().filter(|flag| !flag.1).try_for_each(|flag| write!(f, "{}", flag.0))
    }
}

#[cfg(test)]
mod tests;
