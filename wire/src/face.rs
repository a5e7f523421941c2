//! The face of a record: the JSON that kubernetes-event-exporter gives an event, for events and container deaths alike.
//!
//! Its keys, their order and what is null, empty or left out are a promise to the routes, layouts and dashboards made for it.
//! Three keys are ours: `id`, `occurrences` and, for a death, `container`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventSource, ObjectReference, Pairs, Series, Text, null_if_unknown_time};
use crate::explain::{Related, explain};
use crate::identity::Identity;
use crate::{ContainerDied, ContainerKind, LinesFrom, Owner, Source, time};

/// What is known of the object that a record is about. Its JSON is what the journal keeps beside an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Object {
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// `metadata.ownerReferences`
    #[serde(rename = "ownerReferences")]
    pub owners: Vec<Owner>,
    /// It is gone, or about to go.
    pub deleted: bool,
}

/// A record as kubernetes-event-exporter would show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Face<'a> {
    /// `metadata`
    pub metadata: FaceMetadata<'a>,
    /// `reason`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub reason: Text<'a>,
    /// `message`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub message: Text<'a>,
    /// `source`
    pub source: EventSource<'a>,
    /// `firstTimestamp`
    #[serde(serialize_with = "null_if_unknown_time")]
    pub first_timestamp: Text<'a>,
    /// `lastTimestamp`
    #[serde(serialize_with = "null_if_unknown_time")]
    pub last_timestamp: Text<'a>,
    /// `count`
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i64,
    /// `type`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub r#type: Text<'a>,
    /// `eventTime`
    #[serde(serialize_with = "null_if_unknown_time")]
    pub event_time: Text<'a>,
    /// `series`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Series<'a>>,
    /// `action`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub action: Text<'a>,
    /// `related`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<ObjectReference<'a>>,
    /// `reportingComponent`
    pub reporting_component: Text<'a>,
    /// `reportingInstance`
    pub reporting_instance: Text<'a>,
    /// `clusterName`
    pub cluster_name: &'a str,
    /// `involvedObject`
    pub involved_object: InvolvedObject<'a>,
    /// What died; deaths only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container<'a>>,
    /// The record's [`Identity`]: the same however often it is delivered.
    pub id: String,
    /// How many times it happened since the last state of it that was seen; 0: this state tells of no new occurrence.
    pub occurrences: u64,
    /// When it last happened, in nanoseconds since 1970; 0: not known. Not part of the JSON.
    #[serde(skip)]
    pub time_ns: i64,
}

/// `metadata` of a face.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaceMetadata<'a> {
    /// `metadata.name`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub name: Text<'a>,
    /// `metadata.namespace`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub namespace: Text<'a>,
    /// `metadata.uid`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub uid: Text<'a>,
    /// `metadata.resourceVersion`
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub resource_version: Text<'a>,
    /// `metadata.creationTimestamp`
    #[serde(serialize_with = "null_if_unknown_time")]
    pub creation_timestamp: Text<'a>,
    /// `metadata.labels`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Pairs<'a>>,
    /// `metadata.annotations`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Pairs<'a>>,
}

/// `involvedObject` of a face: the reference, and what is known of the object.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InvolvedObject<'a> {
    /// `kind`, `namespace`, `name` and the rest of the reference.
    #[serde(flatten)]
    pub reference: ObjectReference<'a>,
    /// `labels`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<&'a str, &'a str>,
    /// `annotations`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'a str, &'a str>,
    /// `ownerReferences`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference<'a>>,
    /// `deleted`
    pub deleted: bool,
}

/// An entry of `ownerReferences`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference<'a> {
    /// `apiVersion`
    pub api_version: &'a str,
    /// `kind`
    pub kind: &'a str,
    /// `name`
    pub name: &'a str,
    /// `uid`
    pub uid: &'a str,
    /// `controller`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub controller: bool,
}

/// The container that died.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// `app`, `init`, `sidecar` or `ephemeral`.
    pub kind: &'static str,
    /// Its `restartCount`: 0 for the first.
    pub ordinal: u32,
    /// Such as `containerd://4f1...`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub container_id: &'a str,
    /// `image`
    #[serde(skip_serializing_if = "str::is_empty")]
    pub image: &'a str,
    /// `imageID`
    #[serde(rename = "imageID", skip_serializing_if = "str::is_empty")]
    pub image_id: &'a str,
    /// Null where the death was only seen by its log file.
    pub exit_code: Option<i32>,
    /// 0: none reported.
    #[serde(skip_serializing_if = "is_zero_signal")]
    pub signal: i32,
    /// The runtime's reason, such as `Error` or `OOMKilled`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'a str,
    /// The termination message.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message: &'a str,
    /// RFC 3339; null: not known.
    pub started_at: Option<String>,
    /// RFC 3339; null: not known.
    pub finished_at: Option<String>,
    /// How long it ran, in seconds; null: not known.
    pub run_seconds: Option<f64>,
    /// Why the next start waits, such as `CrashLoopBackOff`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub back_off: &'a str,
    /// The last lines of its log, oldest first.
    pub last_lines: Vec<&'a str>,
    /// Where they were read: `log file` or `API server`; empty where there are none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub lines_from: &'static str,
    /// How the death was seen: `kubelet`, `pod watch` or `log ordinal`.
    pub seen_by: &'static str,
    /// RFC 3339: when the agent saw it.
    pub seen_at: Option<String>,
    /// Deaths of the same container before this one that nobody could see.
    pub missed_before: u32,
    /// What happened, in one sentence; the record's `message` as well.
    pub explanation: Cow<'a, str>,
}

// === impl Face ===

impl<'a> Face<'a> {
    /// The face of a state of an Event. `event` was read from its JSON, which is why it is borrowed and not `EventSeen`.
    pub fn of_event(
        event: Event<'a>,
        cluster: &'a str,
        object: Option<&'a Object>,
        occurrences: u64,
    ) -> Self {
        let time_ns = event.time_ns();
        let Event { metadata, involved_object, .. } = event;
        Self {
            id: Identity::of_event_state(cluster, &metadata.uid, &metadata.resource_version).to_string(),
            metadata: FaceMetadata {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                creation_timestamp: metadata.creation_timestamp,
                labels: metadata.labels,
                annotations: metadata.annotations,
            },
            reason: event.reason,
            message: event.message,
            source: event.source,
            first_timestamp: event.first_timestamp,
            last_timestamp: event.last_timestamp,
            count: event.count,
            r#type: event.r#type,
            event_time: event.event_time,
            series: event.series,
            action: event.action,
            related: event.related,
            reporting_component: event.reporting_component,
            reporting_instance: event.reporting_instance,
            cluster_name: cluster,
            involved_object: InvolvedObject::new(involved_object, object),
            container: None,
            occurrences,
            time_ns,
        }
    }

    /// The face of a container's death: reason `ContainerDied` or `ContainerOOMKilled`, type `Warning` unless it exited 0.
    pub fn of_death(death: &'a ContainerDied, cluster: &'a str, object: &'a Object) -> Self {
        let id = Identity::of_death(cluster, death).to_string();
        let time_ns = [death.finished_ns, death.seen_ns].into_iter().find(|ns| *ns > 0).unwrap_or(0);
        let at = Text::from(time::format_ns(time_ns).unwrap_or_default());
        Self {
            metadata: FaceMetadata {
                name: Text::from(format!("{}.{}.{}", death.pod, death.container, death.ordinal)),
                namespace: death.namespace.as_str().into(),
                uid: Text::from(id.clone()),
                resource_version: Text::default(),
                creation_timestamp: at.clone(),
                labels: None,
                annotations: None,
            },
            reason: if death.is_oom_kill() { "ContainerOOMKilled" } else { "ContainerDied" }.into(),
            message: Text(death.sentence()),
            source: EventSource { component: "nodetap-agent".into(), host: death.node.as_str().into() },
            first_timestamp: at.clone(),
            last_timestamp: at,
            count: 1,
            r#type: if death.exit_code == Some(0) { "Normal" } else { "Warning" }.into(),
            event_time: Text::default(),
            series: None,
            action: Text::default(),
            related: None,
            reporting_component: "nodetap-agent".into(),
            reporting_instance: death.node.as_str().into(),
            cluster_name: cluster,
            involved_object: InvolvedObject::new(
                ObjectReference {
                    kind: "Pod".into(),
                    namespace: death.namespace.as_str().into(),
                    name: death.pod.as_str().into(),
                    uid: death.pod_uid.as_str().into(),
                    api_version: "v1".into(),
                    resource_version: death.pod_resource_version.as_str().into(),
                    field_path: Text::from(death.field_path()),
                },
                Some(object),
            ),
            container: Some(Container::of(death)),
            id,
            occurrences: 1,
            time_ns,
        }
    }

    /// The label of a metric, the name of a group: whom the record is about.
    pub fn object_key(&self) -> &str {
        let reference = &self.involved_object.reference;
        if reference.uid.is_empty() { &reference.name } else { &reference.uid }
    }
}

// === impl InvolvedObject ===

impl<'a> InvolvedObject<'a> {
    fn new(reference: ObjectReference<'a>, object: Option<&'a Object>) -> Self {
        let Some(object) = object else {
            return Self {
                reference,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                owner_references: Vec::new(),
                deleted: false,
            };
        };
        let borrow =
            |map: &'a BTreeMap<String, String>| map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Self {
            reference,
            labels: borrow(&object.labels),
            annotations: borrow(&object.annotations),
            owner_references: object.owners.iter().map(OwnerReference::of).collect(),
            deleted: object.deleted,
        }
    }
}

// === impl OwnerReference ===

impl<'a> OwnerReference<'a> {
    fn of(owner: &'a Owner) -> Self {
        let Owner { api_version, kind, name, uid, controller } = owner;
        Self { api_version, kind, name, uid, controller: *controller }
    }
}

// === impl Container ===

impl<'a> Container<'a> {
    fn of(death: &'a ContainerDied) -> Self {
        Self {
            name: &death.container,
            kind: death.container_kind().name(),
            ordinal: death.ordinal,
            container_id: &death.container_id,
            image: &death.image,
            image_id: &death.image_id,
            exit_code: death.exit_code,
            signal: death.signal,
            reason: &death.reason,
            message: &death.message,
            started_at: time::format_ns(death.started_ns),
            finished_at: time::format_ns(death.finished_ns),
            run_seconds: death.run_seconds(),
            back_off: &death.back_off,
            last_lines: death.last_lines.iter().map(|line| line.text.as_str()).collect(),
            lines_from: death.lines_from().name(),
            seen_by: death.source().name(),
            seen_at: time::format_ns(death.seen_ns),
            missed_before: death.missed_before,
            explanation: death.sentence(),
        }
    }
}

// === impl ContainerDied ===

impl ContainerDied {
    /// Whether the kernel killed it for want of memory.
    pub fn is_oom_kill(&self) -> bool {
        self.reason == "OOMKilled"
    }

    /// How long it ran, in seconds, where its start and end are known.
    pub fn run_seconds(&self) -> Option<f64> {
        (self.started_ns > 0 && self.finished_ns >= self.started_ns)
            .then(|| (self.finished_ns - self.started_ns) as f64 / 1e9)
    }

    /// What is known of the pod, as it was when the container died.
    pub fn object(&self) -> Object {
        Object {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            owners: self.owners.clone(),
            deleted: false,
        }
    }

    /// `involvedObject.fieldPath`, as the kubelet writes it.
    fn field_path(&self) -> String {
        let list = match self.container_kind() {
            ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
            ContainerKind::Ephemeral => "ephemeralContainers",
            ContainerKind::App | ContainerKind::Unspecified => "containers",
        };
        format!("spec.{list}{{{}}}", self.container)
    }

    /// What happened, in one sentence: as it was explained when it was journalled, else from its own facts alone.
    pub fn sentence(&self) -> Cow<'_, str> {
        match self.explanation.as_str() {
            "" => Cow::Owned(explain(self, Related::default())),
            explanation => Cow::Borrowed(explanation),
        }
    }
}

// === impl ContainerKind ===

impl ContainerKind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::App => "app",
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Ephemeral => "ephemeral",
        }
    }
}

// === impl Source ===

impl Source {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Kubelet => "kubelet",
            Self::PodWatch => "pod watch",
            Self::LogOrdinal => "log ordinal",
        }
    }
}

// === impl LinesFrom ===

impl LinesFrom {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::LogFile => "log file",
            Self::ApiServer => "API server",
        }
    }
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

fn is_zero_signal(signal: &i32) -> bool {
    *signal == 0
}

#[cfg(test)]
mod tests;
