//! What a filter lets through, record by record: the meaning that an index of the history has to agree with.

use std::borrow::Cow;

use nodetap_wire::face::Face;

use super::query::{CONTAINER_LISTS, Field, Filter, RecordKind};
use crate::journal::{Body, Entry};

/// Bytes of a word that count.
const MAX_WORD: usize = 64;

// === impl Filter ===

impl Filter {
    /// Whether an entry, whose face is given, is let through.
    pub fn matches(&self, entry: &Entry, face: &Face<'_>) -> bool {
        let time_ns = time_ns(entry, face);
        let among =
            |wanted: &[String], value: &str| wanted.is_empty() || wanted.iter().any(|one| one == value);
        self.since_ns.is_none_or(|since| time_ns >= since)
            && self.until_ns.is_none_or(|until| time_ns < until)
            && self.record.is_none_or(|record| record == RecordKind::of(entry))
            && among(&self.namespaces, namespace(face))
            && among(&self.object_kinds, &face.involved_object.reference.kind)
            && among(&self.objects, &face.involved_object.reference.name)
            && among(&self.nodes, node(face))
            && among(&self.reasons, &face.reason)
            && among(&self.types, &face.r#type)
            && among(&self.containers, container(face))
            && (self.owners.is_empty()
                || face.involved_object.owner_references.iter().any(|owner| among(&self.owners, owner.name)))
            && (self.exit_codes.is_empty()
                || exit_code(face).is_some_and(|code| self.exit_codes.contains(&code)))
            && self.text.as_deref().is_none_or(|text| holds(face, text))
    }
}

// === impl RecordKind ===

impl RecordKind {
    /// What an entry is.
    pub fn of(entry: &Entry) -> Self {
        match entry.body {
            Body::Event(_) => Self::Event,
            Body::Death(_) => Self::Death,
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Death => "death",
        }
    }
}

// === impl Field ===

impl Field {
    /// A record's value of the field; empty where it has none.
    pub fn value<'a>(self, face: &'a Face<'_>) -> Cow<'a, str> {
        let reference = &face.involved_object.reference;
        Cow::Borrowed(match self {
            Self::Record if face.container.is_some() => RecordKind::Death.name(),
            Self::Record => RecordKind::Event.name(),
            Self::Namespace => namespace(face),
            Self::ObjectKind => &reference.kind,
            Self::Object => &reference.name,
            Self::Node => node(face),
            Self::Reason => &face.reason,
            Self::Type => &face.r#type,
            Self::Container => container(face),
            Self::ExitCode => {
                return exit_code(face).map_or(Cow::Borrowed(""), |code| Cow::Owned(code.to_string()));
            }
        })
    }
}

/// When it happened, or when it was taken where that is not known; in nanoseconds since 1970.
pub fn time_ns(entry: &Entry, face: &Face<'_>) -> i64 {
    if face.time_ns > 0 { face.time_ns } else { entry.taken_ns }
}

/// Whether the words all occur in an event's message, or in a death's message, reason and last log lines.
fn holds(face: &Face<'_>, text: &str) -> bool {
    let said: Vec<String> = match &face.container {
        None => words(&face.message).collect(),
        Some(container) => [container.message, container.reason]
            .into_iter()
            .chain(container.last_lines.iter().copied())
            .flat_map(words)
            .collect(),
    };
    let wanted: Vec<String> = words(text).collect();
    let (last, whole) = match wanted.split_last() {
        Some((last, whole)) if begins_a_word(text) => (Some(last), whole),
        _ => (None, wanted.as_slice()),
    };
    whole.iter().all(|word| said.contains(word))
        && last.is_none_or(|beginning| said.iter().any(|word| word.starts_with(beginning.as_str())))
}

/// The words of a text: letters and digits, in lower case; what follows the 64th byte of one is left out.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        let mut word = word.to_lowercase();
        word.truncate(word.floor_char_boundary(MAX_WORD));
        word
    })
}

/// Whether the last word of a text that is searched for is the beginning of one.
fn begins_a_word(text: &str) -> bool {
    text.trim_end().strip_suffix('*').is_some_and(|rest| rest.ends_with(char::is_alphanumeric))
}

fn namespace<'a>(face: &'a Face<'_>) -> &'a str {
    let involved = &face.involved_object.reference.namespace;
    if involved.is_empty() { &face.metadata.namespace } else { involved }
}

fn node<'a>(face: &'a Face<'_>) -> &'a str {
    if !face.source.host.is_empty() {
        &face.source.host
    } else if &*face.reporting_component == "kubelet" {
        &face.reporting_instance
    } else {
        ""
    }
}

/// Of an event, what stands in `spec.containers{NAME}`, or in that of the other two lists of containers.
fn container<'a>(face: &'a Face<'_>) -> &'a str {
    match &face.container {
        Some(container) => container.name,
        None => {
            let path: &str = &face.involved_object.reference.field_path;
            let name = |(list, name): (&str, &'a str)| CONTAINER_LISTS.contains(&list).then_some(name);
            let named = path.strip_suffix('}').and_then(|path| path.split_once('{'));
            named.and_then(name).unwrap_or_default()
        }
    }
}

fn exit_code(face: &Face<'_>) -> Option<i32> {
    face.container.as_ref().and_then(|container| container.exit_code)
}

#[cfg(test)]
mod tests;
