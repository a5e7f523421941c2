//! Events as kubelets, schedulers and controllers write them, and deaths, for a journal alone: the mix of `load`, made quickly.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nodetap_wire::{
    Change, ContainerDied, ContainerKind, EventSeen, LogLine, Owner, PodFacts, Record, SharedStr, Source,
    record, time,
};

use crate::Random;

const PODS: usize = 20_000;
const NODES: usize = 200;
const NAMESPACES: usize = 50;

/// Of so many records, one is a death.
const DEATHS: u64 = 100;

/// Of a hundred events, so many happen again.
const RECURRENCES: usize = 30;

/// Events that may happen again.
const OPEN: usize = 50_000;

/// A pod of the mix.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) owner: String,
    uid: String,
}

/// Makes records whose resourceVersions go up.
#[derive(Debug)]
pub(super) struct Mix {
    random: Random,
    pods: Vec<Pod>,
    state: Mutex<State>,
    /// Of JSON.
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    events: u64,
    /// What may happen again, by a number that is drawn.
    open: Vec<Open>,
    born: usize,
}

#[derive(Clone, Debug)]
struct Open {
    uid: Arc<str>,
    pod: usize,
    kind: usize,
    count: u64,
}

/// A record that was drawn.
enum Made {
    Death(Box<ContainerDied>),
    Event(Written),
}

/// Where the texts of an event lie in the memory of its batch.
struct Written {
    raw: Range<usize>,
    uid: Range<usize>,
    resource_version: Range<usize>,
    namespace: Range<usize>,
    count: u64,
    time_ns: i64,
    object_kind: Range<usize>,
    object: Range<usize>,
    reason: Range<usize>,
    r#type: Range<usize>,
    node: Range<usize>,
    object_uid: Range<usize>,
    object_namespace: Range<usize>,
}

const REASONS: [&str; 6] =
    ["Unhealthy", "FailedMount", "Pulled", "FailedScheduling", "ScalingReplicaSet", "BackOff"];

// === impl Mix ===

impl Mix {
    pub(super) fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        let apps = ["web", "api", "checkout", "billing", "search", "worker"];
        let pods = (0..PODS)
            .map(|number| {
                let owner =
                    format!("{}-{}", random.pick(&apps).copied().unwrap_or_default(), random.suffix(9));
                Pod {
                    namespace: format!("team-{}", number % NAMESPACES),
                    name: format!("{owner}-{}", random.suffix(5)),
                    node: format!("node-{}.example.internal", random.below(NODES)),
                    owner,
                    uid: random.uid(),
                }
            })
            .collect();
        Self { random, pods, state: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    pub(super) fn pod(&self, random: &Random) -> &Pod {
        // There is always one.
        &self.pods[random.below(self.pods.len())]
    }

    pub(super) fn reason(&self, random: &Random) -> &'static str {
        REASONS[random.below(REASONS.len())]
    }

    /// Bytes of JSON of an event, in the mean.
    pub(super) fn mean_bytes(&self) -> f64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.bytes.load(Ordering::Relaxed) as f64 / state.events.max(1) as f64
    }

    /// What is known of all pods.
    pub(super) fn facts(&self) -> Vec<Record> {
        let facts = self.pods.iter().map(|pod| PodFacts {
            uid: pod.uid.clone(),
            resource_version: "1".to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            labels: [
                ("app.kubernetes.io/name".to_owned(), "web".to_owned()),
                ("pod-template-hash".to_owned(), pod.owner.clone()),
            ]
            .into(),
            annotations: [("prometheus.io/scrape".to_owned(), "true".to_owned())].into(),
            owners: vec![self.owner(pod)],
            deleted: false,
        });
        facts.map(|facts| Record { kind: Some(record::Kind::Pod(facts)) }).collect()
    }

    /// The next records. As those that come over the wire, they share the memory of their batch.
    pub(super) fn records(&self, number: u64) -> Vec<Record> {
        let now_ns = time::now_ns();
        let at = time::format_ns(now_ns / 1_000_000_000 * 1_000_000_000).unwrap_or_default();
        let mut text = String::with_capacity(1_024 * usize::try_from(number).unwrap_or(0));
        let made: Vec<_> = (0..number).map(|_| self.record(now_ns, &at, &mut text)).collect();
        let memory = Bytes::from(text);
        let shared = |made| match made {
            Made::Death(death) => record::Kind::Death(death),
            Made::Event(event) => record::Kind::Event(event.sharing(&memory)),
        };
        made.into_iter().map(|made| Record { kind: Some(shared(made)) }).collect()
    }

    fn owner(&self, pod: &Pod) -> Owner {
        Owner {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: pod.owner.clone(),
            uid: pod.uid.clone(),
            controller: true,
        }
    }

    fn record(&self, now_ns: i64, at: &str, text: &mut String) -> Made {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.version += 1 + self.random.below(3) as u64;
        let version = state.version;
        if version.is_multiple_of(DEATHS) {
            drop(state);
            return Made::Death(Box::new(self.death(version, now_ns)));
        }
        let again = self.random.chance(RECURRENCES);
        let number = self.random.below(OPEN);
        let open = match state.open.get_mut(number).filter(|_| again) {
            Some(open) => {
                open.count += 1;
                open.clone()
            }
            None => {
                let place = state.born % OPEN;
                state.born += 1;
                let open = Open {
                    uid: self.random.uid().into(),
                    pod: self.random.below(PODS),
                    kind: self.random.below(10),
                    count: 1,
                };
                match state.open.get_mut(place) {
                    Some(before) => before.clone_from(&open),
                    None => state.open.push(open.clone()),
                }
                open
            }
        };
        state.events += 1;
        drop(state);
        let event = self.event(&open, version, (now_ns, at), text);
        self.bytes.fetch_add(event.raw.len() as u64, Ordering::Relaxed);
        Made::Event(event)
    }

    fn event(&self, open: &Open, version: u64, (now_ns, at): (i64, &str), text: &mut String) -> Written {
        let pod = &self.pods[open.pod];
        let number = |end| self.random.below(end);
        let (reason, kind, component, message): (_, _, _, Cow<'_, str>) = match open.kind {
            0..3 => (
                "Unhealthy",
                "Warning",
                "kubelet",
                format!(
                    "Readiness probe failed: Get \\\"http://10.244.{}.{}:8080/readyz\\\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                    open.pod % 200,
                    open.pod % 250
                )
                .into(),
            ),
            3 => (
                "FailedMount",
                "Warning",
                "kubelet",
                "MountVolume.SetUp failed for volume \\\"config\\\" : configmap \\\"settings\\\" not found".into(),
            ),
            4 => (
                "Pulled",
                "Normal",
                "kubelet",
                format!(
                    "Successfully pulled image \\\"registry.example/app:1.4.{}\\\" in {}ms ({}ms including waiting). Image size: 52428800 bytes.",
                    number(50),
                    number(9000),
                    number(9000)
                )
                .into(),
            ),
            5 => (
                "FailedScheduling",
                "Warning",
                "default-scheduler",
                "0/200 nodes are available: 180 Insufficient cpu, 20 node(s) were unschedulable. preemption: not eligible due to preemptionPolicy=Never.".into(),
            ),
            6 => (
                "ScalingReplicaSet",
                "Normal",
                "deployment-controller",
                format!("Scaled up replica set {} from {} to {}", pod.owner, number(9), number(9)).into(),
            ),
            _ => (
                "BackOff",
                "Normal",
                "kubelet",
                format!(
                    "Back-off pulling image \\\"registry.example/{}:latest\\\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image",
                    pod.name
                )
                .into(),
            ),
        };
        let object_kind = if reason == "ScalingReplicaSet" { "Deployment" } else { "Pod" };
        let host = if component == "kubelet" { pod.node.as_str() } else { "" };
        let Pod { namespace, name, uid: pod_uid, .. } = pod;
        let Open { uid, count, .. } = open;
        let short = uid.get(..13).unwrap_or(uid);
        let started = text.len();
        let mut put = |pieces: &[&str]| {
            let mut last = 0..0;
            for piece in pieces {
                last = text.len()..text.len() + piece.len();
                text.push_str(piece);
            }
            last
        };
        let (version, before) = (version.to_string(), (version - version % 1_000).to_string());
        put(&[r#"{"kind":"Event","apiVersion":"v1","metadata":{"name":""#, name, ".", short]);
        let namespace = put(&[r#"","namespace":""#, namespace]);
        let uid = put(&[r#"","uid":""#, uid]);
        let resource_version = put(&[r#"","resourceVersion":""#, &version]);
        let object_kind =
            put(&[r#"","creationTimestamp":""#, at, r#""},"involvedObject":{"kind":""#, object_kind]);
        let object_namespace = put(&[r#"","namespace":""#, &pod.namespace]);
        let object = put(&[r#"","name":""#, name]);
        let object_uid = put(&[r#"","uid":""#, pod_uid]);
        put(&[r#"","apiVersion":"v1","resourceVersion":""#, &before]);
        let reason = put(&[r#"","fieldPath":"spec.containers{app}"},"reason":""#, reason]);
        put(&[r#"","message":""#, &message]);
        let node = put(&[r#"","source":{"component":""#, component, r#"","host":""#, host]);
        put(&[r#""},"firstTimestamp":""#, at, r#"","lastTimestamp":""#, at]);
        let r#type = put(&[r#"","count":"#, &count.to_string(), r#","type":""#, kind]);
        put(&[r#"","eventTime":null,"reportingComponent":""#, component]);
        put(&[r#"","reportingInstance":""#, host, r#""}"#]);
        Written {
            raw: started..text.len(),
            uid,
            resource_version,
            namespace,
            count: *count,
            time_ns: now_ns / 1_000_000_000 * 1_000_000_000,
            object_kind,
            object,
            reason,
            r#type,
            node,
            object_uid,
            object_namespace,
        }
    }

    fn death(&self, version: u64, now_ns: i64) -> ContainerDied {
        let pod = self.pod(&self.random);
        let code = [1, 137, 2, 0, 7].get(self.random.below(5)).copied();
        let lines = (0..5).map(|number| LogLine {
            time_ns: now_ns,
            stderr: true,
            text: format!(
                "level=error msg=\"request failed\" status=500 took={}ms",
                number * self.random.below(90)
            ),
        });
        ContainerDied {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            node: pod.node.clone(),
            container: "app".to_owned(),
            container_kind: ContainerKind::App.into(),
            ordinal: u32::try_from(version).unwrap_or(u32::MAX),
            container_id: format!("containerd://{}", self.random.hex64()),
            image: "registry.example/app:1.4.2".to_owned(),
            exit_code: code,
            reason: if code == Some(137) { "OOMKilled" } else { "Error" }.to_owned(),
            started_ns: now_ns - 60_000_000_000,
            finished_ns: now_ns,
            seen_ns: now_ns,
            source: Source::Kubelet.into(),
            owners: vec![self.owner(pod)],
            last_lines: lines.collect(),
            ..ContainerDied::default()
        }
    }
}

// === impl Written ===

impl Written {
    fn sharing(self, memory: &Bytes) -> EventSeen {
        // It was text, and is cut where it was put together.
        let text = |range| SharedStr::try_from(memory.slice(range)).unwrap_or_default();
        EventSeen {
            uid: text(self.uid),
            resource_version: text(self.resource_version),
            namespace: text(self.namespace),
            count: self.count,
            time_ns: self.time_ns,
            change: if self.count > 1 { Change::Modified } else { Change::Added }.into(),
            kind: text(self.object_kind),
            object: text(self.object),
            reason: text(self.reason),
            r#type: text(self.r#type),
            node: text(self.node),
            object_uid: text(self.object_uid),
            object_namespace: text(self.object_namespace),
            raw: memory.slice(self.raw),
        }
    }
}
