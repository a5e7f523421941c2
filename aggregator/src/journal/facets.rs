//! What of a record can be asked for: the one place that says what a filter means, for the index, the scan of what is not
//! indexed yet, and whoever tests records one by one.

use std::borrow::Cow;

use nodetap_wire::ContainerDied;
use nodetap_wire::event::{Event, EventError, Text};

use super::words::Words;
use super::{Body, Entry};
use crate::history::HistoryError;
use crate::history::query::{CONTAINER_LISTS, Filter, RecordKind};

/// A record's facets, borrowed from it. What it does not have is empty.
#[derive(Clone, Debug)]
pub struct Facets<'a> {
    /// When it happened, or when it was taken where that is not known; in nanoseconds since 1970.
    pub time_ns: i64,
    /// Which kind.
    pub record: RecordKind,
    /// `involvedObject.namespace`, or the Event's own; the pod's of a death.
    pub namespace: Cow<'a, str>,
    /// `involvedObject.kind`; `Pod` of a death.
    pub object_kind: Cow<'a, str>,
    /// `involvedObject.name`; the pod's of a death.
    pub object: Cow<'a, str>,
    /// Where it happened.
    pub node: Cow<'a, str>,
    /// `reason`
    pub reason: Cow<'a, str>,
    /// `type`
    pub r#type: Cow<'a, str>,
    /// Names of the object's owners.
    pub owners: Vec<Cow<'a, str>>,
    /// The container.
    pub container: Cow<'a, str>,
    /// A death's.
    pub exit_code: Option<i32>,
    /// The message, and a death's last log lines.
    pub texts: Vec<Cow<'a, str>>,
}

/// A filter, read once to be tested often.
#[derive(Clone, Debug)]
pub struct Test {
    filter: Filter,
    words: Option<Words>,
}

// === impl Facets ===

impl<'a> Facets<'a> {
    /// Of an entry.
    ///
    /// # Errors
    /// Where its Event is none.
    pub fn of(entry: &'a Entry) -> Result<Self, EventError> {
        let owners = entry.owners();
        match &entry.body {
            Body::Event(json) => Ok(Self::of_event(entry.event(json)?, owners, entry.taken_ns)),
            Body::Death(death) => Ok(Self { owners, ..Self::of_death(death, entry.taken_ns) }),
        }
    }

    /// Of an Event, with the owners of its object.
    pub fn of_event(event: Event<'a>, owners: Vec<Cow<'a, str>>, taken_ns: i64) -> Self {
        let time_ns = event.time_ns();
        let node = match event.source.host.is_empty() {
            false => event.source.host.0,
            // Since client-go 0.28 the kubelet's recorder writes the node's name here.
            true if &*event.reporting_component == "kubelet" => event.reporting_instance.0,
            true => Cow::Borrowed(""),
        };
        let object = event.involved_object;
        Self {
            time_ns: if time_ns > 0 { time_ns } else { taken_ns },
            record: RecordKind::Event,
            namespace: if object.namespace.is_empty() {
                event.metadata.namespace.0
            } else {
                object.namespace.0
            },
            object_kind: object.kind.0,
            object: object.name.0,
            node,
            reason: event.reason.0,
            r#type: event.r#type.0,
            owners,
            container: container(object.field_path),
            exit_code: None,
            texts: vec![event.message.0],
        }
    }

    /// Of a death.
    pub fn of_death(death: &'a ContainerDied, taken_ns: i64) -> Self {
        let time_ns = [death.finished_ns, death.seen_ns].into_iter().find(|ns| *ns > 0).unwrap_or(taken_ns);
        let lines = death.last_lines.iter().map(|line| Cow::Borrowed(line.text.as_str()));
        let texts = [&death.message, &death.reason].into_iter().map(|text| Cow::Borrowed(text.as_str()));
        Self {
            time_ns,
            record: RecordKind::Death,
            namespace: Cow::Borrowed(&death.namespace),
            object_kind: Cow::Borrowed("Pod"),
            object: Cow::Borrowed(&death.pod),
            node: Cow::Borrowed(&death.node),
            reason: Cow::Borrowed(if death.is_oom_kill() { "ContainerOOMKilled" } else { "ContainerDied" }),
            r#type: Cow::Borrowed(if death.exit_code == Some(0) { "Normal" } else { "Warning" }),
            owners: death.owners.iter().map(|owner| Cow::Borrowed(owner.name.as_str())).collect(),
            container: Cow::Borrowed(&death.container),
            exit_code: death.exit_code,
            texts: texts.chain(lines).collect(),
        }
    }
}

/// `app` of `spec.containers{app}`.
fn container(path: Text<'_>) -> Cow<'_, str> {
    let name = |path: &str| {
        let (list, name) = path.strip_suffix('}')?.split_once('{')?;
        CONTAINER_LISTS.contains(&list).then(|| (list.len() + 1, list.len() + 1 + name.len()))
    };
    match (name(&path), path.0) {
        (Some((from, to)), Cow::Borrowed(path)) => Cow::Borrowed(&path[from..to]),
        (Some((from, to)), Cow::Owned(path)) => Cow::Owned(path[from..to].to_owned()),
        (None, _) => Cow::Borrowed(""),
    }
}

// === impl Test ===

impl Test {
    /// Reads a filter.
    ///
    /// # Errors
    /// Where its text has no words.
    pub fn new(filter: Filter) -> Result<Self, HistoryError> {
        let words = filter.text.as_deref().map(Words::parse).transpose()?;
        Ok(Self { filter, words })
    }

    /// What it was read from.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The words that it asks for.
    pub fn words(&self) -> Option<&Words> {
        self.words.as_ref()
    }

    /// Whether a record is let through.
    pub fn matches(&self, facets: &Facets<'_>) -> bool {
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
        } = &self.filter;
        let is_one =
            |values: &[String], value: &str| values.is_empty() || values.iter().any(|one| one == value);
        since_ns.is_none_or(|since| facets.time_ns >= since)
            && until_ns.is_none_or(|until| facets.time_ns < until)
            && record.is_none_or(|record| record == facets.record)
            && is_one(namespaces, &facets.namespace)
            && is_one(object_kinds, &facets.object_kind)
            && is_one(objects, &facets.object)
            && is_one(nodes, &facets.node)
            && is_one(reasons, &facets.reason)
            && is_one(types, &facets.r#type)
            && (owners.is_empty() || facets.owners.iter().any(|owner| owners.iter().any(|one| one == owner)))
            && is_one(containers, &facets.container)
            && (exit_codes.is_empty() || facets.exit_code.is_some_and(|code| exit_codes.contains(&code)))
            && self.words.as_ref().is_none_or(|words| words.occur_in(facets.texts.iter().map(AsRef::as_ref)))
    }
}
