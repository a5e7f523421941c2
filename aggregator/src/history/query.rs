//! What can be asked of the history.

use std::time::Duration;

use crate::journal::{Entry, Position};

/// The lists of a pod's containers, as `involvedObject.fieldPath` spells them.
pub const CONTAINER_LISTS: [&str; 3] = ["spec.containers", "spec.initContainers", "spec.ephemeralContainers"];

/// Which records. What is not named is not asked for; several values of one field are alternatives, several fields must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Happened at or after, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Happened before, in nanoseconds since 1970.
    pub until_ns: Option<i64>,
    /// Events alone, or deaths alone.
    pub record: Option<RecordKind>,
    /// `involvedObject.namespace`, or the Event's own where that is empty; the pod's of a death.
    pub namespaces: Vec<String>,
    /// `involvedObject.kind`; `Pod` for a death.
    pub object_kinds: Vec<String>,
    /// `involvedObject.name`; the pod's of a death.
    pub objects: Vec<String>,
    /// Where it happened.
    pub nodes: Vec<String>,
    /// `reason`; a death's as its face has it (`ContainerDied`, `ContainerOOMKilled`).
    pub reasons: Vec<String>,
    /// `type`
    pub types: Vec<String>,
    /// Name of an owner of the object, as its facts have it.
    pub owners: Vec<String>,
    /// Container: of a death, or of an event's `involvedObject.fieldPath`.
    pub containers: Vec<String>,
    /// Exit code of a death.
    pub exit_codes: Vec<i32>,
    /// Words that all occur in the message or the last log lines; the last may be the beginning of one where it ends with `*`.
    pub text: Option<String>,
}

/// The records that a filter may ask for alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// States of Events.
    Event,
    /// Deaths of containers.
    Death,
}

/// A place in the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When it happened, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Its place in the journal.
    pub position: Position,
}

/// A search for records, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Which.
    pub filter: Filter,
    /// Only those that come after this one in the order of answers.
    pub after: Option<Mark>,
    /// At most so many.
    pub limit: usize,
    /// How long it may take.
    pub deadline: Duration,
}

/// A record that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// When it happened, or when it was taken where that is not known; in nanoseconds since 1970.
    pub time_ns: i64,
    /// The record.
    pub entry: Entry,
}

/// A field by which records can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in `Filter`")]
pub enum Field {
    Record,
    Namespace,
    ObjectKind,
    Object,
    Node,
    Reason,
    Type,
    /// A record of an object with several owners counts for each.
    Owner,
    Container,
    ExitCode,
}

/// How records are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountBy {
    /// One count for each value; none: one for all.
    pub field: Option<Field>,
    /// One count for each span of time of so long, from 1970 on; none: one for all.
    pub step: Option<Duration>,
    /// At most so many values, those with the most records; 0: no bound.
    pub top: usize,
}

/// How many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The field's value; empty where none was asked for, and where the record has none.
    pub value: String,
    /// Where its span of time begins, in nanoseconds since 1970; 0 where no step was asked for.
    pub from_ns: i64,
    /// Records.
    pub records: u64,
    /// How often it happened, the recurrences that no record of its own came for among them.
    pub occurrences: u64,
}
