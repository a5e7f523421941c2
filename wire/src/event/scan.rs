//! Reads an Event as API servers write it, several times as fast as `serde_json` reads it.
//!
//! Whatever is not usual (names of events.k8s.io, keys with escapes or that stand twice, values of other types, fractions, deep
//! nesting, anything that is not JSON) is left to `serde_json`: what is read here it reads as the same, and it alone says what is
//! wrong with the rest.

use std::borrow::Cow;

use super::{Event, EventSource, Metadata, ObjectReference, Pairs, Series, Text};

/// Values within values that are passed over: `managedFields` of an Event have five.
const DEPTH: u32 = 16;

/// Objects that are known at a time: more than an API server's usual writers of events make.
const KNOWN: usize = 4;

/// Longest of them: three times what an event has.
const KNOWN_BYTES: usize = 1 << 10;

/// Reads an Event into one that is empty; `None` where it is left to `serde_json`, and what was read by then is of no use.
pub(super) fn event<'a>(json: &'a str, event: &mut Event<'a>, known: &mut Known) -> Option<()> {
    let mut scanner = Scanner { json, bytes: json.as_bytes(), at: 0, known };
    scanner.event(event)?;
    scanner.peek().is_none().then_some(())
}

/// Objects as they were passed over in Events before: who owns which fields is a third of an Event, and nearly always the same.
#[derive(Debug, Default)]
pub(super) struct Known {
    objects: [String; KNOWN],
    /// Which one is forgotten next.
    oldest: usize,
}

struct Scanner<'a, 'k> {
    json: &'a str,
    bytes: &'a [u8],
    at: usize,
    known: &'k mut Known,
}

/// Which keys of an object there were.
#[derive(Default)]
struct Seen(u32);

// === impl Known ===

impl Known {
    /// Length of the object that stands at the beginning of these bytes, where it is known. An object is never the beginning of
    /// another one.
    fn length(&self, bytes: &[u8]) -> Option<usize> {
        let mut known = self.objects.iter().filter(|object| !object.is_empty());
        known.find(|object| bytes.starts_with(object.as_bytes())).map(String::len)
    }

    fn learn(&mut self, object: &str) {
        if object.len() > KNOWN_BYTES {
            return;
        }
        if let Some(oldest) = self.objects.get_mut(self.oldest) {
            object.clone_into(oldest);
            self.oldest = (self.oldest + 1) % KNOWN;
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Takes a key, which may stand once.
    fn once(&mut self, key: u32) -> Option<()> {
        let before = self.0;
        self.0 |= 1 << key;
        (self.0 != before).then_some(())
    }
}

// === impl Scanner ===

impl<'a> Scanner<'a, '_> {
    fn event(&mut self, event: &mut Event<'a>) -> Option<()> {
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "metadata" => scanner.metadata(&mut event.metadata).map(|()| 0)?,
                "involvedObject" => {
                    scanner.nullable(&mut event.involved_object, Self::reference).map(|()| 1)?
                }
                "reason" => scanner.text(&mut event.reason).map(|()| 2)?,
                "message" => scanner.text(&mut event.message).map(|()| 3)?,
                "source" => scanner.nullable(&mut event.source, Self::source).map(|()| 4)?,
                "firstTimestamp" => scanner.text(&mut event.first_timestamp).map(|()| 5)?,
                "lastTimestamp" => scanner.text(&mut event.last_timestamp).map(|()| 6)?,
                "count" => scanner.nullable(&mut event.count, Self::number).map(|()| 7)?,
                "type" => scanner.text(&mut event.r#type).map(|()| 8)?,
                "eventTime" => scanner.text(&mut event.event_time).map(|()| 9)?,
                "series" => scanner.option(&mut event.series, Self::series).map(|()| 10)?,
                "action" => scanner.text(&mut event.action).map(|()| 11)?,
                "related" => scanner.option(&mut event.related, Self::reference).map(|()| 12)?,
                "reportingComponent" => scanner.text(&mut event.reporting_component).map(|()| 13)?,
                "reportingInstance" => scanner.text(&mut event.reporting_instance).map(|()| 14)?,
                "regarding"
                | "note"
                | "deprecatedSource"
                | "deprecatedFirstTimestamp"
                | "deprecatedLastTimestamp"
                | "deprecatedCount"
                | "reportingController" => return None,
                _ => return scanner.pass(),
            };
            seen.once(key)
        })
    }

    fn metadata(&mut self, metadata: &mut Metadata<'a>) -> Option<()> {
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "name" => scanner.text(&mut metadata.name).map(|()| 0)?,
                "namespace" => scanner.text(&mut metadata.namespace).map(|()| 1)?,
                "uid" => scanner.text(&mut metadata.uid).map(|()| 2)?,
                "resourceVersion" => scanner.text(&mut metadata.resource_version).map(|()| 3)?,
                "creationTimestamp" => scanner.text(&mut metadata.creation_timestamp).map(|()| 4)?,
                "labels" => scanner.option(&mut metadata.labels, Self::pairs).map(|()| 5)?,
                "annotations" => scanner.option(&mut metadata.annotations, Self::pairs).map(|()| 6)?,
                "managedFields" => {
                    scanner.option(&mut metadata.managed_fields, Self::managed_fields).map(|()| 7)?
                }
                _ => return scanner.pass(),
            };
            seen.once(key)
        })
    }

    fn reference(&mut self, reference: &mut ObjectReference<'a>) -> Option<()> {
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "kind" => scanner.text(&mut reference.kind).map(|()| 0)?,
                "namespace" => scanner.text(&mut reference.namespace).map(|()| 1)?,
                "name" => scanner.text(&mut reference.name).map(|()| 2)?,
                "uid" => scanner.text(&mut reference.uid).map(|()| 3)?,
                "apiVersion" => scanner.text(&mut reference.api_version).map(|()| 4)?,
                "resourceVersion" => scanner.text(&mut reference.resource_version).map(|()| 5)?,
                "fieldPath" => scanner.text(&mut reference.field_path).map(|()| 6)?,
                _ => return scanner.pass(),
            };
            seen.once(key)
        })
    }

    fn source(&mut self, source: &mut EventSource<'a>) -> Option<()> {
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "component" => scanner.text(&mut source.component).map(|()| 0)?,
                "host" => scanner.text(&mut source.host).map(|()| 1)?,
                _ => return scanner.pass(),
            };
            seen.once(key)
        })
    }

    fn series(&mut self, series: &mut Series<'a>) -> Option<()> {
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "count" => scanner.nullable(&mut series.count, Self::number).map(|()| 0)?,
                "lastObservedTime" => scanner.text(&mut series.last_observed_time).map(|()| 1)?,
                _ => return scanner.pass(),
            };
            seen.once(key)
        })
    }

    fn pairs(&mut self, pairs: &mut Pairs<'a>) -> Option<()> {
        self.members(|scanner, key| {
            let mut value = Text::default();
            scanner.text(&mut value)?;
            pairs.0.push((Text::from(key), value));
            Some(())
        })
    }

    /// `managedFields` as they stand there.
    fn managed_fields(&mut self, raw: &mut &'a str) -> Option<()> {
        self.peek()?;
        let start = self.at;
        self.elements(|scanner| {
            scanner.members(|scanner, key| match key {
                "fieldsV1" => scanner.fields(),
                _ => scanner.pass(),
            })
        })?;
        *raw = self.json.get(start..self.at)?;
        Some(())
    }

    /// Passes over an object that probably stood in an Event before.
    fn fields(&mut self) -> Option<()> {
        if self.peek()? != b'{' {
            return self.pass();
        }
        if let Some(length) = self.known.length(self.rest()) {
            self.at += length;
            return Some(());
        }
        let start = self.at;
        self.pass()?;
        self.known.learn(self.json.get(start..self.at)?);
        Some(())
    }

    /// A string or null.
    fn text(&mut self, place: &mut Text<'a>) -> Option<()> {
        if self.peek()? == b'n' {
            return self.literal("null");
        }
        let (text, is_escaped) = self.string()?;
        *place = match is_escaped {
            false => Text(Cow::Borrowed(text)),
            true => Text(Cow::Owned(match unescape(text) {
                Some(text) => text,
                // With its quotes.
                None => serde_json::from_str(self.json.get(self.at - text.len() - 2..self.at)?).ok()?,
            })),
        };
        Some(())
    }

    /// A whole number, of fewer digits than could be too large.
    fn number(&mut self, number: &mut i64) -> Option<()> {
        self.peek()?;
        let start = self.at;
        self.pass_number()?;
        let digits = self.json.get(start..self.at)?;
        if digits.len() > 18 {
            return None;
        }
        *number = digits.parse().ok()?;
        Some(())
    }

    fn option<T: Default>(
        &mut self,
        place: &mut Option<T>,
        read: impl FnOnce(&mut Self, &mut T) -> Option<()>,
    ) -> Option<()> {
        if self.peek()? == b'n' {
            return self.literal("null");
        }
        read(self, place.insert(T::default()))
    }

    fn nullable<T>(
        &mut self,
        place: &mut T,
        read: impl FnOnce(&mut Self, &mut T) -> Option<()>,
    ) -> Option<()> {
        if self.peek()? == b'n' {
            return self.literal("null");
        }
        read(self, place)
    }

    /// Passes over a value.
    fn pass(&mut self) -> Option<()> {
        // A bit for each value that is open, the innermost last: whether it is an object. Above them a bit that ends them.
        let mut open = 1_u32;
        loop {
            match self.peek()? {
                // What escapes mean is not looked at here.
                b'"' => self.plain_string().map(drop)?,
                bracket @ (b'{' | b'[') => {
                    if open >> DEPTH != 0 {
                        return None;
                    }
                    self.at += 1;
                    let is_object = bracket == b'{';
                    let is_empty = matches!((self.peek()?, is_object), (b'}', true) | (b']', false));
                    if !is_empty {
                        open = open << 1 | u32::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => self.pass_number()?,
            }
            loop {
                if open == 1 {
                    return Some(());
                }
                match (self.next()?, open & 1 == 1) {
                    (b',', is_object) => {
                        if is_object {
                            self.peek()?;
                            self.key()?;
                        }
                        break;
                    }
                    (b'}', true) | (b']', false) => open >>= 1,
                    _ => return None,
                }
            }
        }
    }

    /// Passes over a whole number.
    fn pass_number(&mut self) -> Option<()> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest.iter().skip(sign).take_while(|byte| byte.is_ascii_digit()).count();
        let has_zero = digits > 1 && rest.get(sign) == Some(&b'0');
        let end = sign + digits;
        if digits == 0 || has_zero || matches!(rest.get(end), Some(b'.' | b'e' | b'E')) {
            return None;
        }
        self.at += end;
        Some(())
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest().starts_with(literal.as_bytes()).then(|| self.at += literal.len())
    }

    /// Reads an array, element by element.
    fn elements(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.next()? != b'[' {
            return None;
        }
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Reads an object, member by member.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        if self.next()? != b'{' {
            return None;
        }
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.peek()?;
            let key = self.key()?;
            member(self, key)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A key, and past the colon behind it. It has no escapes.
    fn key(&mut self) -> Option<&'a str> {
        let key = self.plain_string()?;
        (self.next()? == b':').then_some(key)
    }

    /// A string without escapes, as it stands between its quotes.
    fn plain_string(&mut self) -> Option<&'a str> {
        let start = self.quote()?;
        let end = special(self.bytes, start)?;
        if *self.bytes.get(end)? != b'"' {
            return None;
        }
        self.at = end + 1;
        self.json.get(start..end)
    }

    /// A string as it stands between its quotes, and whether it has escapes.
    fn string(&mut self) -> Option<(&'a str, bool)> {
        let start = self.quote()?;
        let mut at = start;
        let mut is_escaped = false;
        loop {
            at = special(self.bytes, at)?;
            match self.bytes.get(at)? {
                b'"' => break,
                b'\\' => {
                    is_escaped = true;
                    at += 2;
                }
                _ => return None,
            }
        }
        self.at = at + 1;
        self.json.get(start..at).map(|text| (text, is_escaped))
    }

    /// Where the string begins whose quote is here.
    fn quote(&self) -> Option<usize> {
        (self.bytes.get(self.at) == Some(&b'"')).then_some(self.at + 1)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    /// As [`peek`](Self::peek), and past it.
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

/// What a text with escapes says; `None` where one is of a code point, or is none.
fn unescape(text: &str) -> Option<String> {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        said.push_str(before);
        let mut after = escape.chars();
        said.push(match after.next()? {
            same @ ('"' | '\\' | '/') => same,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            _ => return None,
        });
        rest = after.as_str();
    }
    said.push_str(rest);
    Some(said)
}

/// Where the next quote, backslash or control character is: eight bytes at a time.
pub(crate) fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    // Exact in the lowest byte that has it, which is the one that counts.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = (quote | backslash | below(word, 0x20)) & TOPS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).map(|found| at + found)
}

#[cfg(test)]
mod tests;
