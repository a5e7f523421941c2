//! What a record has in each field that is counted by, and when it happened, read from its face: the meaning that an index of the
//! history has to agree with. What a filter lets through is said in one place, `journal::facets`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use nodetap_wire::face::Face;

use super::query::{CONTAINER_LISTS, Field, RecordKind};
use crate::journal::{Body, Entry};

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
    /// A record's values of the field, none twice; one that is empty where it has none.
    pub fn values<'a>(self, face: &'a Face<'_>) -> Vec<Cow<'a, str>> {
        let reference = &face.involved_object.reference;
        let value = match self {
            Self::Record if face.container.is_some() => RecordKind::Death.name(),
            Self::Record => RecordKind::Event.name(),
            Self::Namespace => namespace(face),
            Self::ObjectKind => &reference.kind,
            Self::Object => &reference.name,
            Self::Node => node(face),
            Self::Reason => &face.reason,
            Self::Type => &face.r#type,
            Self::Container => container(face),
            Self::Owner => {
                let names: BTreeSet<&str> =
                    face.involved_object.owner_references.iter().map(|owner| owner.name).collect();
                let names: Vec<_> = names.into_iter().map(Cow::Borrowed).collect();
                return if names.is_empty() { vec![Cow::Borrowed("")] } else { names };
            }
            Self::ExitCode => {
                let code = exit_code(face).map(|code| Cow::Owned(code.to_string()));
                return vec![code.unwrap_or_default()];
            }
        };
        vec![Cow::Borrowed(value)]
    }
}

/// When it happened, or when it was taken where that is not known; in nanoseconds since 1970.
pub fn time_ns(entry: &Entry, face: &Face<'_>) -> i64 {
    if face.time_ns > 0 { face.time_ns } else { entry.taken_ns }
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
