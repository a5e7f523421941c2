//! The part of a pod that the tap reads, from `GET /pods` of the kubelet, a list or a watch: no more is parsed or kept.
//!
//! A field that is null or absent counts as empty, and one pod that cannot be read spoils no other.

use std::collections::BTreeMap;

use nodetap_wire::{Owner, time};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

mod quantity;

/// `metadata.annotations` that repeats the whole object, Secrets of older days included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Set in the mirror pod of a static pod: the uid under which the kubelet knows it.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod, core/v1.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// `metadata`.
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: Spec,
    /// `status`.
    #[serde(default, deserialize_with = "nullable")]
    pub status: Status,
}

/// ObjectMeta.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Namespace.
    #[serde(default, deserialize_with = "nullable")]
    pub namespace: String,
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// As the source has it; see [`Pod::uid`].
    #[serde(default, deserialize_with = "nullable")]
    pub uid: String,
    /// resourceVersion; empty for a static pod as the kubelet has it.
    #[serde(default, deserialize_with = "nullable")]
    pub resource_version: String,
    /// RFC 3339; empty where there is none.
    #[serde(default, deserialize_with = "nullable")]
    pub creation_timestamp: String,
    /// RFC 3339, when the grace ends; empty where the pod is not being deleted.
    #[serde(default, deserialize_with = "nullable")]
    pub deletion_timestamp: String,
    /// Seconds from the wish to [`Self::deletion_timestamp`].
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    #[serde(default, deserialize_with = "strings")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, deserialize_with = "strings")]
    pub annotations: BTreeMap<String, String>,
    /// ownerReferences.
    #[serde(default, deserialize_with = "nullable")]
    pub owner_references: Vec<OwnerReference>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[serde(default, deserialize_with = "nullable")]
    api_version: String,
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    uid: String,
    #[serde(default, deserialize_with = "nullable")]
    controller: bool,
}

/// PodSpec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// initContainers: a sidecar says so here alone.
    #[serde(default, deserialize_with = "nullable")]
    pub init_containers: Vec<ContainerSpec>,
    /// containers.
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<ContainerSpec>,
    /// restartPolicy of all containers that have none of their own.
    #[serde(default, deserialize_with = "nullable")]
    pub restart_policy: String,
    /// terminationGracePeriodSeconds.
    pub termination_grace_period_seconds: Option<i64>,
}

/// An entry of `spec.containers` or `spec.initContainers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// `Always` makes an init container a sidecar; KEP-5307 allows it for each container.
    #[serde(default, deserialize_with = "nullable")]
    pub restart_policy: String,
    /// resources.
    #[serde(default, deserialize_with = "nullable")]
    pub resources: Resources,
}

/// ResourceRequirements.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Resources {
    /// limits.
    #[serde(default, deserialize_with = "nullable")]
    pub limits: Limits,
}

/// The limits that a death can be about.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Limits {
    /// memory: a quantity.
    #[serde(default, deserialize_with = "nullable")]
    pub memory: String,
}

/// PodStatus.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// RFC 3339, when the kubelet took the pod; what a static pod has in place of a creationTimestamp.
    #[serde(default, deserialize_with = "nullable")]
    pub start_time: String,
    /// phase.
    #[serde(default, deserialize_with = "nullable")]
    pub phase: String,
    /// reason, such as Evicted.
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    /// message.
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
    /// conditions.
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    /// initContainerStatuses.
    #[serde(default, deserialize_with = "nullable")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// containerStatuses.
    #[serde(default, deserialize_with = "nullable")]
    pub container_statuses: Vec<ContainerStatus>,
    /// ephemeralContainerStatuses.
    #[serde(default, deserialize_with = "nullable")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// PodCondition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// type.
    #[serde(default, deserialize_with = "nullable")]
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default, deserialize_with = "nullable")]
    pub status: String,
    /// reason.
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
}

/// ContainerStatus.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// restartCount: that of the instance that `containerID` names.
    #[serde(default, deserialize_with = "count")]
    pub restart_count: u32,
    /// containerID of the latest instance; empty where the runtime has none.
    #[serde(default, rename = "containerID", deserialize_with = "nullable")]
    pub container_id: String,
    /// image.
    #[serde(default, deserialize_with = "nullable")]
    pub image: String,
    /// imageID.
    #[serde(default, rename = "imageID", deserialize_with = "nullable")]
    pub image_id: String,
    /// resources as the kubelet applied them (KEP-1287).
    #[serde(default, deserialize_with = "nullable")]
    pub resources: Resources,
    /// state.
    #[serde(default, deserialize_with = "nullable")]
    pub state: ContainerState,
    /// lastState.
    #[serde(default, deserialize_with = "nullable")]
    pub last_state: ContainerState,
}

/// ContainerState: at most one of its members is there.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerState {
    /// waiting.
    pub waiting: Option<Waiting>,
    /// running.
    pub running: Option<Running>,
    /// terminated.
    pub terminated: Option<Terminated>,
}

/// ContainerStateRunning.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// RFC 3339.
    #[serde(default, deserialize_with = "nullable")]
    pub started_at: String,
}

/// ContainerStateWaiting.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Waiting {
    /// Such as CrashLoopBackOff.
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    /// In words.
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
}

/// ContainerStateTerminated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    /// exitCode.
    #[serde(default, deserialize_with = "nullable")]
    pub exit_code: i32,
    /// signal; 0: none reported.
    #[serde(default, deserialize_with = "nullable")]
    pub signal: i32,
    /// reason.
    #[serde(default, deserialize_with = "nullable")]
    pub reason: String,
    /// The termination message.
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "nullable")]
    pub started_at: String,
    /// RFC 3339.
    #[serde(default, deserialize_with = "nullable")]
    pub finished_at: String,
    /// containerID; empty where the kubelet lost sight of it.
    #[serde(default, rename = "containerID", deserialize_with = "nullable")]
    pub container_id: String,
}

/// The items of a PodList, each as it came.
#[derive(Debug)]
pub struct PodList<'a> {
    /// `items`.
    pub items: Vec<&'a RawValue>,
    /// `metadata.resourceVersion`; empty from a kubelet.
    pub resource_version: String,
    /// `metadata.continue`; empty: this is the last page.
    pub next: String,
}

/// What was answered is not a PodList.
#[derive(Debug, thiserror::Error)]
pub enum NotPods {
    /// Not JSON, or not the shape of a list.
    #[error("the answer is no PodList: {0}")]
    Json(#[from] serde_json::Error),
    /// A list of something else, or no list.
    #[error("the answer is no PodList but {0:?}")]
    Kind(String),
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(default, deserialize_with = "nullable")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default, deserialize_with = "nullable")]
    resource_version: String,
    #[serde(default, rename = "continue", deserialize_with = "nullable")]
    next: String,
}

// === impl Pod ===

impl Pod {
    /// The uid that the kubelet, its log folder and its events use: of a mirror pod, that of the static pod behind it.
    pub fn uid(&self) -> &str {
        self.metadata.annotations.get(MIRROR).filter(|uid| !uid.is_empty()).unwrap_or(&self.metadata.uid)
    }

    /// Whether a deletion has been asked for.
    pub fn is_terminating(&self) -> bool {
        !self.metadata.deletion_timestamp.is_empty()
    }

    /// When the pod came to be, in nanoseconds since 1970, where that is known.
    pub fn created_ns(&self) -> Option<i64> {
        time::parse_ns(&self.metadata.creation_timestamp).or_else(|| time::parse_ns(&self.status.start_time))
    }

    /// What the pod asks for its container `name`; ephemeral containers have no settings of their own.
    pub fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.spec.init_containers.iter().chain(&self.spec.containers).find(|container| container.name == name)
    }

    /// The reason of the condition DisruptionTarget (KEP-3329); empty where nobody disrupts the pod.
    pub fn disruption(&self) -> &str {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.r#type == "DisruptionTarget" && condition.status == "True")
            .map_or("", |condition| condition.reason.as_str())
    }

    /// The statuses of its containers of every kind.
    pub fn statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        let status = &self.status;
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
    }

    /// Whether some container of it has not ended.
    pub fn has_running(&self) -> bool {
        self.statuses().any(|container| container.state.running.is_some())
    }

    /// Its containers that wait, and what for.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.statuses().filter_map(|container| {
            Some((container.name.as_str(), container.state.waiting.as_ref()?.reason.as_str()))
        })
    }

    /// Owner references, as the wire has them.
    pub fn owners(&self) -> Vec<Owner> {
        self.metadata
            .owner_references
            .iter()
            .cloned()
            .map(|OwnerReference { api_version, kind, name, uid, controller }| Owner {
                api_version,
                kind,
                name,
                uid,
                controller,
            })
            .collect()
    }

    /// Annotations, less the one that repeats the object.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = self.metadata.annotations.clone();
        annotations.remove(LAST_APPLIED);
        annotations
    }
}

// === impl ContainerStatus ===

impl ContainerStatus {
    /// The memory limit in bytes: as applied, else as `spec` asks for it.
    pub fn memory_limit(&self, spec: Option<&ContainerSpec>) -> Option<i64> {
        let asked = spec.map(|spec| spec.resources.limits.memory.as_str());
        quantity::parse(&self.resources.limits.memory).or_else(|| quantity::parse(asked?))
    }

    /// When the instance that `containerID` names started, in nanoseconds since 1970, where that is known.
    pub fn started_ns(&self) -> Option<i64> {
        let last = self.last_state.terminated.as_ref().filter(|last| last.container_id == self.container_id);
        let started = match &self.state {
            ContainerState { running: Some(running), .. } => &running.started_at,
            ContainerState { terminated: Some(terminated), .. } => &terminated.started_at,
            _ => &last?.started_at,
        };
        time::parse_ns(started)
    }
}

// === impl PodList ===

impl<'a> PodList<'a> {
    /// Finds the items and parses none.
    ///
    /// # Errors
    /// Where `body` is not a PodList.
    pub fn parse(body: &'a str) -> Result<Self, NotPods> {
        let List { kind, metadata, items } = serde_json::from_str(body)?;
        // The API server's pages and a kubelet both say so; a Status or a proxy's page does not.
        if kind != "PodList" {
            return Err(NotPods::Kind(kind.chars().take(64).collect()));
        }
        Ok(Self {
            items: items.unwrap_or_default(),
            resource_version: metadata.resource_version,
            next: metadata.next,
        })
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A map whose values may be null.
fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map: BTreeMap<String, Option<String>> = nullable(deserializer)?;
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let count: i64 = nullable(deserializer)?;
    Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
