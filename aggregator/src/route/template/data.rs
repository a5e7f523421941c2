//! A face as Go templates see it: kubernetes-event-exporter's `EnhancedEvent`, with its Go field names and methods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotmpl::Value;
use nodetap_wire::event::{ObjectReference, Pairs};
use nodetap_wire::face::{Container, Face, InvolvedObject, OwnerReference};
use serde::Serialize;

use super::time;
use crate::route::de_dot::de_dotted;

/// Key, in the value of a struct, of its JSON. No field of Go can be called so.
pub(super) const JSON: &str = "\0json";

/// What is known of a value before it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Event,
    Object,
    Reference,
    Source,
    Series,
    Container,
    Owner,
    Time,
    /// A map of strings.
    Map,
    Owners,
    Lines,
    /// Strings, numbers, booleans.
    Scalar,
    /// Nothing.
    Unknown,
}

/// What of a record a template reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// Fields of the event.
    pub(super) fields: BTreeSet<&'static str>,
    /// The event as a whole.
    pub(super) all: bool,
    /// JSON of the event or of parts of it.
    pub(super) json: bool,
}

type Build = fn(&Face<'_>, bool) -> Value;

/// Fields and methods of the event. Go's embedded structs (`Event`, `ObjectMeta`, `TypeMeta`) are resolved before.
const EVENT: &[(&str, Kind, Build)] = &[
    ("Name", Kind::Scalar, |face, _| text(&face.metadata.name)),
    ("GetName", Kind::Scalar, |face, _| text(&face.metadata.name)),
    ("GenerateName", Kind::Scalar, |_, _| text("")),
    ("Namespace", Kind::Scalar, |face, _| text(&face.metadata.namespace)),
    ("GetNamespace", Kind::Scalar, |face, _| text(&face.metadata.namespace)),
    ("UID", Kind::Scalar, |face, _| text(&face.metadata.uid)),
    ("GetUID", Kind::Scalar, |face, _| text(&face.metadata.uid)),
    ("ResourceVersion", Kind::Scalar, |face, _| text(&face.metadata.resource_version)),
    ("GetResourceVersion", Kind::Scalar, |face, _| text(&face.metadata.resource_version)),
    ("CreationTimestamp", Kind::Time, |face, _| time::of_text(&face.metadata.creation_timestamp)),
    ("GetCreationTimestamp", Kind::Time, |face, _| time::of_text(&face.metadata.creation_timestamp)),
    ("DeletionTimestamp", Kind::Unknown, |_, _| Value::Nil),
    ("Labels", Kind::Map, |face, _| pairs(face.metadata.labels.as_ref())),
    ("GetLabels", Kind::Map, |face, _| pairs(face.metadata.labels.as_ref())),
    ("Annotations", Kind::Map, |face, _| pairs(face.metadata.annotations.as_ref())),
    ("GetAnnotations", Kind::Map, |face, _| pairs(face.metadata.annotations.as_ref())),
    ("OwnerReferences", Kind::Owners, |_, _| list([])),
    ("Finalizers", Kind::Lines, |_, _| list([])),
    ("Kind", Kind::Scalar, |_, _| text("")),
    ("APIVersion", Kind::Scalar, |_, _| text("")),
    ("Reason", Kind::Scalar, |face, _| text(&face.reason)),
    ("Message", Kind::Scalar, |face, _| text(&face.message)),
    ("Type", Kind::Scalar, |face, _| text(&face.r#type)),
    ("Count", Kind::Scalar, |face, _| Value::Int(face.count)),
    ("Action", Kind::Scalar, |face, _| text(&face.action)),
    ("FirstTimestamp", Kind::Time, |face, _| time::of_text(&face.first_timestamp)),
    ("LastTimestamp", Kind::Time, |face, _| time::of_text(&face.last_timestamp)),
    ("EventTime", Kind::Time, |face, _| time::of_text(&face.event_time)),
    ("Source", Kind::Source, |face, json| {
        record(
            [("Component", text(&face.source.component)), ("Host", text(&face.source.host))],
            json.then_some(&face.source),
        )
    }),
    ("Series", Kind::Series, |face, json| {
        face.series.as_ref().map_or(Value::Nil, |series| {
            record(
                [
                    ("Count", Value::Int(series.count)),
                    ("LastObservedTime", time::of_text(&series.last_observed_time)),
                ],
                json.then_some(series),
            )
        })
    }),
    ("Related", Kind::Reference, |face, json| {
        face.related
            .as_ref()
            .map_or(Value::Nil, |related| record(reference(related), json.then_some(related)))
    }),
    ("ReportingController", Kind::Scalar, |face, _| text(&face.reporting_component)),
    ("ReportingInstance", Kind::Scalar, |face, _| text(&face.reporting_instance)),
    ("ClusterName", Kind::Scalar, |face, _| text(face.cluster_name)),
    ("InvolvedObject", Kind::Object, |face, json| object(&face.involved_object, json)),
    ("Container", Kind::Container, |face, json| {
        face.container.as_ref().map_or(Value::Nil, |died| container(died, json))
    }),
    ("ID", Kind::Scalar, |face, _| text(&face.id)),
    ("Occurrences", Kind::Scalar, |face, _| Value::Int(i64::try_from(face.occurrences).unwrap_or(i64::MAX))),
    ("GetTimestampMs", Kind::Scalar, |face, _| Value::Int(time::event_ms(face))),
    ("GetTimestampISO8601", Kind::Scalar, |face, _| text(&time::event_iso8601(face))),
    ("ToJSON", Kind::Scalar, |face, _| Value::String(json_of(face))),
    ("DeDot", Kind::Event, |face, json| de_dotted(face, |face| whole(face, json))),
];

const OBJECT: &[(&str, Kind)] = &[
    ("Kind", Kind::Scalar),
    ("Namespace", Kind::Scalar),
    ("Name", Kind::Scalar),
    ("UID", Kind::Scalar),
    ("APIVersion", Kind::Scalar),
    ("ResourceVersion", Kind::Scalar),
    ("FieldPath", Kind::Scalar),
    ("Labels", Kind::Map),
    ("Annotations", Kind::Map),
    ("OwnerReferences", Kind::Owners),
    ("Deleted", Kind::Scalar),
];
const SOURCE: &[(&str, Kind)] = &[("Component", Kind::Scalar), ("Host", Kind::Scalar)];
const SERIES: &[(&str, Kind)] = &[("Count", Kind::Scalar), ("LastObservedTime", Kind::Time)];
const OWNER: &[(&str, Kind)] = &[
    ("APIVersion", Kind::Scalar),
    ("Kind", Kind::Scalar),
    ("Name", Kind::Scalar),
    ("UID", Kind::Scalar),
    ("Controller", Kind::Scalar),
    ("BlockOwnerDeletion", Kind::Unknown),
];
const CONTAINER: &[(&str, Kind)] = &[
    ("Name", Kind::Scalar),
    ("Kind", Kind::Scalar),
    ("Ordinal", Kind::Scalar),
    ("ContainerID", Kind::Scalar),
    ("Image", Kind::Scalar),
    ("ImageID", Kind::Scalar),
    ("ExitCode", Kind::Scalar),
    ("Signal", Kind::Scalar),
    ("Reason", Kind::Scalar),
    ("Message", Kind::Scalar),
    ("StartedAt", Kind::Time),
    ("FinishedAt", Kind::Time),
    ("RunSeconds", Kind::Scalar),
    ("BackOff", Kind::Scalar),
    ("LastLines", Kind::Lines),
    ("LinesFrom", Kind::Scalar),
    ("SeenBy", Kind::Scalar),
    ("SeenAt", Kind::Time),
    ("MissedBefore", Kind::Scalar),
];

// === impl Kind ===

impl Kind {
    /// What a field of it is; `None` where it has none of that name.
    pub(super) fn field(self, name: &str) -> Option<(&'static str, Self)> {
        let find =
            |fields: &'static [(&'static str, Kind)]| fields.iter().find(|field| field.0 == name).copied();
        match self {
            Self::Event => EVENT.iter().find(|field| field.0 == name).map(|(name, kind, _)| (*name, *kind)),
            Self::Object => find(OBJECT),
            Self::Reference => find(&OBJECT[..7]),
            Self::Source => find(SOURCE),
            Self::Series => find(SERIES),
            Self::Container => find(CONTAINER),
            Self::Owner => find(OWNER),
            Self::Map => Some(("", Self::Scalar)),
            Self::Unknown => Some(("", Self::Unknown)),
            Self::Time | Self::Owners | Self::Lines | Self::Scalar => None,
        }
    }

    /// The names of its fields.
    pub(super) fn fields(self) -> Vec<&'static str> {
        let names = |fields: &[(&'static str, Kind)]| fields.iter().map(|field| field.0).collect();
        match self {
            Self::Event => EVENT.iter().map(|field| field.0).collect(),
            Self::Object => names(OBJECT),
            Self::Reference => names(&OBJECT[..7]),
            Self::Source => names(SOURCE),
            Self::Series => names(SERIES),
            Self::Container => names(CONTAINER),
            Self::Owner => names(OWNER),
            Self::Time => time::METHODS.to_vec(),
            Self::Map | Self::Unknown | Self::Owners | Self::Lines | Self::Scalar => Vec::new(),
        }
    }

    /// Whether a name is a struct that Go embeds in it, whose fields are its own.
    pub(super) fn embeds(self, name: &str) -> bool {
        match self {
            Self::Event => matches!(name, "Event" | "ObjectMeta" | "TypeMeta"),
            Self::Object => name == "ObjectReference",
            Self::Time => name == "Time",
            _ => false,
        }
    }

    /// What a loop over it gives.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Owners => Self::Owner,
            Self::Map | Self::Lines => Self::Scalar,
            _ => Self::Unknown,
        }
    }

    /// As messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Event => "the event",
            Self::Object => "the involved object",
            Self::Reference => "a related object",
            Self::Source => "the source",
            Self::Series => "the series",
            Self::Container => "the container",
            Self::Owner => "an owner reference",
            Self::Time => "a time",
            Self::Owners | Self::Lines => "a list",
            Self::Map => "a map",
            Self::Scalar => "a string or number",
            Self::Unknown => "the value",
        }
    }
}

// === impl Needs ===

impl Needs {
    pub(super) fn add(&mut self, other: &Self) {
        self.fields.extend(&other.fields);
        self.all |= other.all;
        self.json |= other.json;
    }
}

/// What a template is given as dot.
pub(super) fn value(face: &Face<'_>, needs: &Needs) -> Value {
    if needs.all {
        let mut map = fields(face, needs.json, |name| name != "DeDot" || needs.fields.contains(name));
        if needs.json {
            map.insert(JSON.into(), Value::String(json_of(face)));
        }
        Value::Map(Arc::new(map))
    } else {
        Value::Map(Arc::new(fields(face, needs.json, |name| needs.fields.contains(name))))
    }
}

fn whole(face: &Face<'_>, json: bool) -> Value {
    let mut map = fields(face, json, |name| name != "DeDot");
    if json {
        map.insert(JSON.into(), Value::String(json_of(face)));
    }
    Value::Map(Arc::new(map))
}

fn fields(face: &Face<'_>, json: bool, wanted: impl Fn(&str) -> bool) -> BTreeMap<Arc<str>, Value> {
    EVENT
        .iter()
        .filter(|(name, _, _)| wanted(name))
        .map(|(name, _, build)| (Arc::from(*name), build(face, json)))
        .collect()
}

fn object(object: &InvolvedObject<'_>, json: bool) -> Value {
    let owners: Vec<_> = object.owner_references.iter().map(|one| owner(one, json)).collect();
    let rest = [
        ("Labels", strings(&object.labels)),
        ("Annotations", strings(&object.annotations)),
        ("OwnerReferences", list(owners)),
        ("Deleted", Value::Bool(object.deleted)),
    ];
    record(reference(&object.reference).into_iter().chain(rest), json.then_some(object))
}

fn reference(reference: &ObjectReference<'_>) -> [(&'static str, Value); 7] {
    [
        ("Kind", text(&reference.kind)),
        ("Namespace", text(&reference.namespace)),
        ("Name", text(&reference.name)),
        ("UID", text(&reference.uid)),
        ("APIVersion", text(&reference.api_version)),
        ("ResourceVersion", text(&reference.resource_version)),
        ("FieldPath", text(&reference.field_path)),
    ]
}

fn owner(owner: &OwnerReference<'_>, json: bool) -> Value {
    record(
        [
            ("APIVersion", text(owner.api_version)),
            ("Kind", text(owner.kind)),
            ("Name", text(owner.name)),
            ("UID", text(owner.uid)),
            ("Controller", Value::Bool(owner.controller)),
            ("BlockOwnerDeletion", Value::Nil),
        ],
        json.then_some(owner),
    )
}

fn container(died: &Container<'_>, json: bool) -> Value {
    let time = |text: &Option<String>| time::of_text(text.as_deref().unwrap_or(""));
    record(
        [
            ("Name", text(died.name)),
            ("Kind", text(died.kind)),
            ("Ordinal", Value::Int(died.ordinal.into())),
            ("ContainerID", text(died.container_id)),
            ("Image", text(died.image)),
            ("ImageID", text(died.image_id)),
            ("ExitCode", died.exit_code.map_or(Value::Nil, |code| Value::Int(code.into()))),
            ("Signal", Value::Int(died.signal.into())),
            ("Reason", text(died.reason)),
            ("Message", text(died.message)),
            ("StartedAt", time(&died.started_at)),
            ("FinishedAt", time(&died.finished_at)),
            ("RunSeconds", died.run_seconds.map_or(Value::Nil, Value::Float)),
            ("BackOff", text(died.back_off)),
            ("LastLines", list(died.last_lines.iter().map(|line| text(line)))),
            ("LinesFrom", text(died.lines_from)),
            ("SeenBy", text(died.seen_by)),
            ("SeenAt", time(&died.seen_at)),
            ("MissedBefore", Value::Int(died.missed_before.into())),
        ],
        json.then_some(died),
    )
}

fn record<T: Serialize>(fields: impl IntoIterator<Item = (&'static str, Value)>, json: Option<&T>) -> Value {
    let mut map: BTreeMap<Arc<str>, Value> =
        fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
    if let Some(part) = json {
        map.insert(JSON.into(), Value::String(json_of(part)));
    }
    Value::Map(Arc::new(map))
}

fn json_of<T: Serialize>(part: &T) -> Arc<str> {
    serde_json::to_string(part).unwrap_or_default().into()
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(items.into_iter().collect())
}

fn pairs(pairs: Option<&Pairs<'_>>) -> Value {
    let pairs = pairs.map_or(&[][..], |pairs| &pairs.0);
    Value::Map(Arc::new(pairs.iter().map(|(key, value)| (Arc::from(&**key), text(value))).collect()))
}

fn strings(map: &BTreeMap<&str, &str>) -> Value {
    Value::Map(Arc::new(map.iter().map(|(key, value)| (Arc::from(*key), text(value))).collect()))
}
