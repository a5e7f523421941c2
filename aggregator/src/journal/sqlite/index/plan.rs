//! A filter as the terms that it asks each segment for.

use std::time::Instant;

use super::bits::Bits;
use super::search::Segment;
use super::term::{self, Facet};
use crate::history::query::{Filter, Mark};
use crate::journal::facets::Test;

/// Groups that all must hold, of terms one of which must.
#[derive(Debug)]
pub(in super::super) struct Plan {
    groups: Vec<Vec<Key>>,
    pub(in super::super) within: Within,
}

#[derive(Debug)]
struct Key {
    term: Vec<u8>,
    /// Any term that begins so.
    is_beginning: bool,
}

/// Bounds of time and place.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Within {
    since_ns: Option<i64>,
    until_ns: Option<i64>,
    after: Option<Mark>,
    pub(in super::super) until: Instant,
}

// === impl Plan ===

impl Plan {
    pub(in super::super) fn new(test: &Test, after: Option<Mark>, until: Instant) -> Self {
        let filter = test.filter();
        let Filter {
            since_ns,
            until_ns,
            record,
            namespaces,
            object_kinds,
            objects,
            nodes,
            reasons,
            types,
            owners,
            containers,
            exit_codes,
            text: _,
        } = filter;
        let mut groups = Vec::new();
        let mut group = |facet: Facet, values: &mut dyn Iterator<Item = &str>, is_beginning: bool| {
            let keys: Vec<_> = values
                .map(|value| {
                    let mut term = Vec::new();
                    facet.term(value, &mut term);
                    Key { term, is_beginning }
                })
                .collect();
            if !keys.is_empty() {
                groups.push(keys);
            }
        };
        let mut names =
            |facet, values: &[String]| group(facet, &mut values.iter().map(String::as_str), false);
        // Those that few records have first: where there is none, the rest is not asked.
        names(Facet::Object, objects);
        names(Facet::Owner, owners);
        names(Facet::Node, nodes);
        names(Facet::Container, containers);
        names(Facet::Namespace, namespaces);
        names(Facet::Reason, reasons);
        names(Facet::ObjectKind, object_kinds);
        names(Facet::Type, types);
        let codes: Vec<_> = exit_codes.iter().map(i32::to_string).collect();
        names(Facet::ExitCode, &codes);
        if let Some(words) = test.words() {
            for word in &words.whole {
                group(Facet::Word, &mut std::iter::once(word.as_str()), false);
            }
            if let Some(beginning) = &words.beginning {
                group(Facet::Word, &mut std::iter::once(beginning.as_str()), true);
            }
        }
        if let Some(kind) = record {
            group(Facet::Record, &mut std::iter::once(term::record(*kind)), false);
        }
        let within = Within { since_ns: *since_ns, until_ns: *until_ns, after, until };
        Self { groups, within }
    }

    /// Which records of a segment it lets through, its times aside; whether there is one.
    pub(in super::super) fn select(
        &self,
        segment: &mut impl Segment,
        bits: &mut Bits,
        scratch: &mut Bits,
    ) -> Result<bool, rusqlite::Error> {
        bits.fill();
        for group in &self.groups {
            scratch.clear();
            for key in group {
                match key.is_beginning {
                    true => segment.beginning(&key.term, scratch)?,
                    false => segment.exact(&key.term, scratch)?,
                }
            }
            if !bits.keep(scratch) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

// === impl Within ===

impl Within {
    /// Whether a record can lie within, of those that happened from `min_ns` to `max_ns`.
    pub(in super::super) fn reaches(&self, min_ns: i64, max_ns: i64) -> bool {
        self.since_ns.is_none_or(|since| max_ns >= since)
            && self.until_ns.is_none_or(|until| min_ns < until)
            && self.after.is_none_or(|after| min_ns <= after.time_ns)
    }

    pub(in super::super) fn has(&self, mark: Mark) -> bool {
        self.since_ns.is_none_or(|since| mark.time_ns >= since)
            && self.until_ns.is_none_or(|until| mark.time_ns < until)
            && self.after.is_none_or(|after| mark < after)
    }

    pub(in super::super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}
