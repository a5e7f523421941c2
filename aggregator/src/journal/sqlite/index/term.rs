//! Terms: a facet's value or a word as bytes, in one order over all facets.

use std::borrow::Cow;

use crate::history::query::{Field, RecordKind};
use crate::journal::facets::Facets;
use crate::journal::words;

/// Most bytes of a value; Kubernetes' names have 253 at most. Longer ones that begin alike are not told apart.
const MAX_VALUE: usize = 256;

/// Of which facet a term is: its first byte. Files hold them, so that they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in super::super) enum Facet {
    Record = 1,
    Namespace = 2,
    ObjectKind = 3,
    Object = 4,
    Node = 5,
    Reason = 6,
    Type = 7,
    Owner = 8,
    Container = 9,
    ExitCode = 10,
    Word = 11,
}

// === impl Facet ===

impl Facet {
    pub(in super::super) fn of(field: Field) -> Self {
        match field {
            Field::Record => Self::Record,
            Field::Namespace => Self::Namespace,
            Field::ObjectKind => Self::ObjectKind,
            Field::Object => Self::Object,
            Field::Node => Self::Node,
            Field::Reason => Self::Reason,
            Field::Type => Self::Type,
            Field::Owner => Self::Owner,
            Field::Container => Self::Container,
            Field::ExitCode => Self::ExitCode,
        }
    }

    /// Writes a term over what is in the buffer.
    pub(in super::super) fn term(self, value: &str, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.push(self as u8);
        buffer.extend_from_slice(&value.as_bytes()[..value.floor_char_boundary(MAX_VALUE)]);
    }
}

/// As a facet's value is written.
pub(in super::super) fn record(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Event => "event",
        RecordKind::Death => "death",
    }
}

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(in super::super) struct Buffers {
    term: Vec<u8>,
    word: String,
}

/// Tells all terms of a record, some twice.
pub(in super::super) fn each(facets: &Facets<'_>, buffers: &mut Buffers, mut tell: impl FnMut(&[u8])) {
    let Buffers { term, word } = buffers;
    let mut one = |facet: Facet, value: &str| {
        facet.term(value, term);
        tell(term);
    };
    one(Facet::Record, record(facets.record));
    one(Facet::Namespace, &facets.namespace);
    one(Facet::ObjectKind, &facets.object_kind);
    one(Facet::Object, &facets.object);
    one(Facet::Node, &facets.node);
    one(Facet::Reason, &facets.reason);
    one(Facet::Type, &facets.r#type);
    one(Facet::Container, &facets.container);
    for owner in &facets.owners {
        one(Facet::Owner, owner);
    }
    if let Some(code) = facets.exit_code {
        one(Facet::ExitCode, &code.to_string());
    }
    for text in &facets.texts {
        let text: &Cow<'_, str> = text;
        words::each(text, word, |word| one(Facet::Word, word));
    }
}
