//! A pod as the kubelet reports it: containers, their states, and how that looks as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::events::{Metadata, seconds};
use super::object::Object;

/// What selectors may ask for, in the order that `Pod::store` has the values in.
const SELECTABLE: &[&str; 7] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "spec.hostNetwork",
];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is bound to, by name.
    pub node: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// Kind and name of its controller.
    pub owner: Option<(&'static str, String)>,
    /// Its containers, of all kinds.
    pub containers: Vec<ContainerSpec>,
    /// `spec.restartPolicy`
    pub restart: RestartPolicy,
}

/// A container as asked for.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ContainerKind,
    /// Its image.
    pub image: String,
}

/// Kinds of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// Runs for the pod's life.
    App,
    /// Runs before, to its end.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
}

/// `spec.restartPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// The default.
    #[default]
    Always,
    /// Of jobs.
    OnFailure,
    /// Of jobs too.
    Never,
}

/// How a container ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `exitCode`
    pub exit_code: i32,
    /// `signal`; 0: none reported. containerd reports none: a kill shows as 128 + signal.
    pub signal: i32,
    /// `reason`
    pub reason: String,
    /// `message`: the termination message.
    pub message: String,
    /// What it writes last.
    pub last_lines: Vec<String>,
}

/// A termination as the status has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Termination {
    pub(super) exit_code: i32,
    pub(super) signal: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) container_id: String,
}

/// `state` of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContainerState {
    Waiting { reason: &'static str, message: String },
    Running { started: Timestamp },
    Terminated(Termination),
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) restart_count: u32,
    /// Empty before the first start.
    pub(super) id: String,
    pub(super) state: ContainerState,
    pub(super) last: Option<Termination>,
}

#[derive(Debug)]
pub(super) struct Pod {
    pub(super) spec: PodSpec,
    pub(super) uid: String,
    pub(super) owner_uid: String,
    pub(super) created: Timestamp,
    pub(super) deleted: Option<(Timestamp, i64)>,
    pub(super) containers: Vec<Container>,
}

#[derive(Serialize)]
struct PodJson {
    metadata: Metadata,
    spec: Value,
    status: Value,
}

// === impl ContainerSpec ===

impl ContainerSpec {
    /// An app container.
    pub fn app(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: ContainerKind::App,
            image: format!("registry.example/{name}:1.4.2"),
        }
    }

    /// An init container.
    pub fn init(name: &str) -> Self {
        Self { kind: ContainerKind::Init, ..Self::app(name) }
    }

    /// A sidecar.
    pub fn sidecar(name: &str) -> Self {
        Self { kind: ContainerKind::Sidecar, ..Self::app(name) }
    }
}

// === impl Ending ===

impl Ending {
    /// Exits by itself: `Completed` for 0, else `Error`.
    pub fn exit(exit_code: i32, last_line: &str) -> Self {
        Self {
            exit_code,
            signal: 0,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
            message: String::new(),
            last_lines: if last_line.is_empty() { Vec::new() } else { vec![last_line.to_owned()] },
        }
    }

    /// Killed by the kernel for want of memory.
    pub fn out_of_memory(last_line: &str) -> Self {
        Self { reason: "OOMKilled".to_owned(), ..Self::exit(137, last_line) }
    }

    /// Killed by a signal, as containerd shows it.
    pub fn signal(signal: i32, last_line: &str) -> Self {
        Self::exit(128 + signal, last_line)
    }
}

// === impl Pod ===

impl Pod {
    pub(super) fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.spec.name == name)
    }

    fn phase(&self) -> &'static str {
        let apps = || self.containers.iter().filter(|container| container.spec.kind == ContainerKind::App);
        let code = |container: &Container| match &container.state {
            ContainerState::Terminated(termination) => Some(termination.exit_code),
            _ => None,
        };
        if apps().all(|container| container.id.is_empty()) {
            return "Pending";
        }
        let finished = apps().all(|container| code(container).is_some());
        match self.spec.restart {
            RestartPolicy::Never | RestartPolicy::OnFailure if finished => {
                if apps().all(|container| code(container) == Some(0)) {
                    "Succeeded"
                } else if self.spec.restart == RestartPolicy::Never {
                    "Failed"
                } else {
                    "Running"
                }
            }
            _ => "Running",
        }
    }

    /// The pod's address: some that its uid decides.
    fn ip(&self) -> String {
        let sum =
            self.uid.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        format!("10.244.{}.{}", (sum >> 8) & 0xff, sum & 0xff)
    }

    /// The stored object, at a revision.
    pub(super) fn store(&self, revision: u64) -> Object {
        let spec = &self.spec;
        let owner_references = spec.owner.iter().map(|(kind, name)| {
            json!({
                "apiVersion": if *kind == "Job" { "batch/v1" } else { "apps/v1" },
                "kind": kind,
                "name": name,
                "uid": self.owner_uid,
                "controller": true,
                "blockOwnerDeletion": true,
            })
        });
        let metadata = Metadata {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            uid: self.uid.clone(),
            resource_version: revision.to_string(),
            creation_timestamp: Some(seconds(self.created)),
            deletion_timestamp: self.deleted.map(|(at, _)| seconds(at)),
            deletion_grace_period_seconds: self.deleted.map(|(_, grace)| grace),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            owner_references: owner_references.collect(),
            ..Metadata::default()
        };
        let phase = self.phase();
        let json = PodJson { metadata, spec: self.spec_json(), status: self.status_json(phase) };
        let ip = self.ip();
        let values =
            [spec.node.as_str(), spec.restart.name(), "default-scheduler", "default", phase, &ip, "false"];
        let body = serde_json::to_vec(&json).unwrap_or_default();
        Object::new((&spec.namespace, &spec.name), &self.uid, revision, &body, SELECTABLE, values)
    }

    fn spec_json(&self) -> Value {
        let of = |wanted: fn(ContainerKind) -> bool| -> Vec<Value> {
            self.containers
                .iter()
                .filter(|container| wanted(container.spec.kind))
                .map(Container::spec_json)
                .collect()
        };
        let mut spec = json!({
            "containers": of(|kind| kind == ContainerKind::App),
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "nodeName": self.spec.node,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": self.spec.restart.name(),
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "default",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]}}],
        });
        let inits = of(|kind| kind != ContainerKind::App);
        if !inits.is_empty() {
            spec["initContainers"] = Value::Array(inits);
        }
        spec
    }

    fn status_json(&self, phase: &'static str) -> Value {
        let of = |wanted: fn(ContainerKind) -> bool| -> Vec<Value> {
            self.containers
                .iter()
                .filter(|container| wanted(container.spec.kind))
                .map(Container::status_json)
                .collect()
        };
        let ready = self.containers.iter().all(Container::is_ready);
        let at = seconds(self.created);
        let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastProbeTime": null, "lastTransitionTime": at});
        let mut status = json!({
            "phase": phase,
            "conditions": [
                condition("PodReadyToStartContainers", true),
                condition("Initialized", phase != "Pending"),
                condition("Ready", ready),
                condition("ContainersReady", ready),
                condition("PodScheduled", true),
            ],
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": self.ip(),
            "podIPs": [{"ip": self.ip()}],
            "startTime": at,
            "containerStatuses": of(|kind| kind == ContainerKind::App),
            "qosClass": "BestEffort",
        });
        let inits = of(|kind| kind != ContainerKind::App);
        if !inits.is_empty() {
            status["initContainerStatuses"] = Value::Array(inits);
        }
        status
    }
}

// === impl Container ===

impl Container {
    pub(super) fn new(spec: ContainerSpec, waits_for: &'static str) -> Self {
        Self {
            spec,
            restart_count: 0,
            id: String::new(),
            state: ContainerState::Waiting { reason: waits_for, message: String::new() },
            last: None,
        }
    }

    fn is_ready(&self) -> bool {
        match (&self.state, self.spec.kind) {
            (ContainerState::Running { .. }, _) => true,
            (ContainerState::Terminated(end), ContainerKind::Init) => end.exit_code == 0,
            _ => false,
        }
    }

    fn spec_json(&self) -> Value {
        let mut json = json!({
            "name": self.spec.name,
            "image": self.spec.image,
            "imagePullPolicy": "IfNotPresent",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [{
                "name": "kube-api-access-x7k2p",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "readOnly": true,
            }],
        });
        if self.spec.kind == ContainerKind::Sidecar {
            json["restartPolicy"] = json!("Always");
        }
        json
    }

    fn status_json(&self) -> Value {
        let state = match &self.state {
            ContainerState::Waiting { reason, message } if message.is_empty() => {
                json!({"waiting": {"reason": reason}})
            }
            ContainerState::Waiting { reason, message } => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            ContainerState::Running { started } => json!({"running": {"startedAt": seconds(*started)}}),
            ContainerState::Terminated(termination) => json!({"terminated": termination.json()}),
        };
        let mut status = json!({
            "name": self.spec.name,
            "state": state,
            "lastState": self.last.as_ref().map_or_else(|| json!({}), |last| json!({"terminated": last.json()})),
            "ready": self.is_ready(),
            "restartCount": self.restart_count,
            "image": self.spec.image,
            "imageID": "",
            "started": matches!(self.state, ContainerState::Running { .. }),
        });
        if !self.id.is_empty() {
            let digest = self
                .spec
                .image
                .bytes()
                .fold(7_u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(u64::from(byte)));
            let repository =
                self.spec.image.rsplit_once(':').map_or(self.spec.image.as_str(), |(name, _)| name);
            status["imageID"] =
                json!(format!("{repository}@sha256:{digest:016x}{digest:016x}{digest:016x}{digest:016x}"));
            status["containerID"] = json!(self.id);
        }
        status
    }
}

// === impl Termination ===

impl Termination {
    fn json(&self) -> Value {
        let mut json = json!({
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": seconds(self.started),
            "finishedAt": seconds(self.finished),
            "containerID": self.container_id,
        });
        if self.signal != 0 {
            json["signal"] = json!(self.signal);
        }
        if !self.message.is_empty() {
            json["message"] = json!(self.message);
        }
        json
    }
}

// === impl RestartPolicy ===

impl RestartPolicy {
    fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}
