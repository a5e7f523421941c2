//! Reads an Event as API servers write it, several times as fast as `serde_json` reads it.
//!
//! Whatever is not usual (names of events.k8s.io, keys with escapes or that stand twice, values of other types, fractions, deep
//! nesting, anything that is not JSON) is left to `serde_json`: what is read here it reads as the same, and it alone says what is
//! wrong with the rest.

use std::borrow::Cow;

use super::{Event, EventSource, Metadata, ObjectReference, Pairs, Series, Text};

/// Values within values that are passed over: `managedFields` of an Event have five.
const DEPTH: usize = 16;

/// Reads an Event; `None` where it is left to `serde_json`.
pub(super) fn event(json: &str) -> Option<Event<'_>> {
    let mut scanner = Scanner { json, at: 0 };
    let event = scanner.event()?;
    scanner.peek().is_none().then_some(event)
}

struct Scanner<'a> {
    json: &'a str,
    at: usize,
}

/// Which keys of an object there were.
#[derive(Default)]
struct Seen(u32);

/// Takes the value of a key.
fn set<T>(place: &mut T, value: Option<T>, key: u32) -> Option<u32> {
    *place = value?;
    Some(key)
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

impl<'a> Scanner<'a> {
    fn event(&mut self) -> Option<Event<'a>> {
        let mut event = Event::default();
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "metadata" => set(&mut event.metadata, scanner.metadata(), 0)?,
                "involvedObject" => set(&mut event.involved_object, scanner.nullable(Self::reference), 1)?,
                "reason" => set(&mut event.reason, scanner.text(), 2)?,
                "message" => set(&mut event.message, scanner.text(), 3)?,
                "source" => set(&mut event.source, scanner.nullable(Self::source), 4)?,
                "firstTimestamp" => set(&mut event.first_timestamp, scanner.text(), 5)?,
                "lastTimestamp" => set(&mut event.last_timestamp, scanner.text(), 6)?,
                "count" => set(&mut event.count, scanner.nullable(Self::number), 7)?,
                "type" => set(&mut event.r#type, scanner.text(), 8)?,
                "eventTime" => set(&mut event.event_time, scanner.text(), 9)?,
                "series" => set(&mut event.series, scanner.option(Self::series), 10)?,
                "action" => set(&mut event.action, scanner.text(), 11)?,
                "related" => set(&mut event.related, scanner.option(Self::reference), 12)?,
                "reportingComponent" => set(&mut event.reporting_component, scanner.text(), 13)?,
                "reportingInstance" => set(&mut event.reporting_instance, scanner.text(), 14)?,
                "regarding"
                | "note"
                | "deprecatedSource"
                | "deprecatedFirstTimestamp"
                | "deprecatedLastTimestamp"
                | "deprecatedCount"
                | "reportingController" => return None,
                _ => return scanner.pass(0),
            };
            seen.once(key)
        })?;
        Some(event)
    }

    fn metadata(&mut self) -> Option<Metadata<'a>> {
        let mut metadata = Metadata::default();
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "name" => set(&mut metadata.name, scanner.text(), 0)?,
                "namespace" => set(&mut metadata.namespace, scanner.text(), 1)?,
                "uid" => set(&mut metadata.uid, scanner.text(), 2)?,
                "resourceVersion" => set(&mut metadata.resource_version, scanner.text(), 3)?,
                "creationTimestamp" => set(&mut metadata.creation_timestamp, scanner.text(), 4)?,
                "labels" => set(&mut metadata.labels, scanner.option(Self::pairs), 5)?,
                "annotations" => set(&mut metadata.annotations, scanner.option(Self::pairs), 6)?,
                "managedFields" => set(&mut metadata.managed_fields, scanner.option(Self::raw), 7)?,
                _ => return scanner.pass(0),
            };
            seen.once(key)
        })?;
        Some(metadata)
    }

    fn reference(&mut self) -> Option<ObjectReference<'a>> {
        let mut reference = ObjectReference::default();
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "kind" => set(&mut reference.kind, scanner.text(), 0)?,
                "namespace" => set(&mut reference.namespace, scanner.text(), 1)?,
                "name" => set(&mut reference.name, scanner.text(), 2)?,
                "uid" => set(&mut reference.uid, scanner.text(), 3)?,
                "apiVersion" => set(&mut reference.api_version, scanner.text(), 4)?,
                "resourceVersion" => set(&mut reference.resource_version, scanner.text(), 5)?,
                "fieldPath" => set(&mut reference.field_path, scanner.text(), 6)?,
                _ => return scanner.pass(0),
            };
            seen.once(key)
        })?;
        Some(reference)
    }

    fn source(&mut self) -> Option<EventSource<'a>> {
        let mut source = EventSource::default();
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "component" => set(&mut source.component, scanner.text(), 0)?,
                "host" => set(&mut source.host, scanner.text(), 1)?,
                _ => return scanner.pass(0),
            };
            seen.once(key)
        })?;
        Some(source)
    }

    fn series(&mut self) -> Option<Series<'a>> {
        let mut series = Series::default();
        let mut seen = Seen::default();
        self.members(|scanner, key| {
            let key = match key {
                "count" => set(&mut series.count, scanner.nullable(Self::number), 0)?,
                "lastObservedTime" => set(&mut series.last_observed_time, scanner.text(), 1)?,
                _ => return scanner.pass(0),
            };
            seen.once(key)
        })?;
        Some(series)
    }

    fn pairs(&mut self) -> Option<Pairs<'a>> {
        let mut pairs = Vec::new();
        self.members(|scanner, key| {
            pairs.push((Text::from(key), scanner.text()?));
            Some(())
        })?;
        Some(Pairs(pairs))
    }

    /// A value as it stands there.
    fn raw(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.pass(0)?;
        self.json.get(start..self.at)
    }

    /// A string or null.
    fn text(&mut self) -> Option<Text<'a>> {
        if self.peek()? == b'n' {
            return self.literal("null").map(|()| Text::default());
        }
        let (text, is_escaped) = self.string()?;
        if !is_escaped {
            return Some(Text(Cow::Borrowed(text)));
        }
        // With its quotes.
        let quoted = self.json.get(self.at - text.len() - 2..self.at)?;
        serde_json::from_str(quoted).ok().map(|text| Text(Cow::Owned(text)))
    }

    /// A whole number, of fewer digits than could be too large.
    fn number(&mut self) -> Option<i64> {
        self.peek()?;
        let start = self.at;
        self.pass_number()?;
        let digits = self.json.get(start..self.at)?;
        if digits.len() > 18 { None } else { digits.parse().ok() }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.peek()? == b'n' {
            return self.literal("null").map(|()| None);
        }
        read(self).map(Some)
    }

    fn nullable<T: Default>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.option(read).map(Option::unwrap_or_default)
    }

    /// Passes over a value.
    fn pass(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        match self.peek()? {
            // What escapes mean is not looked at here.
            b'"' => self.string().filter(|(_, is_escaped)| !is_escaped).map(drop),
            b'{' => self.members(|scanner, _| scanner.pass(depth + 1)),
            b'[' => {
                self.at += 1;
                if self.peek()? == b']' {
                    self.at += 1;
                    return Some(());
                }
                loop {
                    self.pass(depth + 1)?;
                    match self.next()? {
                        b',' => {}
                        b']' => return Some(()),
                        _ => return None,
                    }
                }
            }
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.pass_number(),
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

    /// Reads an object, member by member. A key has no escapes.
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
            let (key, is_escaped) = self.string()?;
            if is_escaped || self.next()? != b':' {
                return None;
            }
            member(self, key)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A string as it stands between its quotes, and whether it has escapes.
    fn string(&mut self) -> Option<(&'a str, bool)> {
        let bytes = self.json.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let start = self.at + 1;
        let mut at = start;
        let mut is_escaped = false;
        loop {
            at = special(bytes, at)?;
            match bytes.get(at)? {
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

    fn rest(&self) -> &'a [u8] {
        self.json.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.as_bytes().get(self.at)? {
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

/// Where the next quote, backslash or control character is: eight bytes at a time.
fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
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
