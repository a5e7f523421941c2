//! What this node's containers have done so far: turns what is observed into deaths, each exactly once.
//!
//! Pure: no clock, no I/O. It may be shown any subset of a pod's states, from any source, also one that lags behind another.
//! What it promises:
//! - a terminated state that it is shown is reported once, however often, and by which source, it is shown again;
//! - of the deaths that nobody showed it, those that left a log file are reported by their ordinal and the others counted;
//! - the same death has the same identity after a restart of the agent, since identity is never completed from memory.

use std::collections::{BTreeSet, HashMap, HashSet};

use nodetap_wire::{ContainerDied, ContainerKind, Source};
use serde::{Deserialize, Serialize};

use crate::tap::pods::{ContainerStatus, Pod};

use container::{Changed, Container};

mod container;
pub mod entry;

/// A pod that is gone may still be shown by a source that lags, so its end is judged this much later.
const SETTLES_NS: i64 = 60 * 1_000_000_000;

/// A kubelet that starts lists few pods for a while: what was known of the others is kept so long.
const FORGOTTEN_NS: i64 = 15 * 60 * 1_000_000_000;

/// Pods that are gone and remembered: past this the oldest are forgotten. A node runs 110 to 500.
const GONE_PODS: usize = 1024;

/// Containers of one pod: past this they are not followed. The API server refuses pods long before.
const CONTAINERS: usize = 512;

/// Pods whose log folders were seen before the pods were.
const LOG_PODS: usize = 2048;

/// Ordinals remembered for one container: the kubelet keeps one or two files of it.
const LOG_ORDINALS: usize = 16;

/// The deaths of a node's containers.
#[derive(Debug)]
pub struct Ledger {
    node: String,
    began_ns: i64,
    primed: bool,
    pods: HashMap<String, Followed>,
    /// Log files seen: pod uid, container, ordinals.
    logs: HashMap<String, HashMap<String, BTreeSet<u32>>>,
    /// Gone on from what was saved, and no whole snapshot taken since: what is new may have been told.
    restored: bool,
    /// Grows with what is to be remembered over a restart of the agent.
    revision: u64,
    /// What grew it: uids of pods, and an empty one for what is of no pod. `None`: nobody asks.
    changed: Option<BTreeSet<String>>,
    /// Reported, but not known to have arrived when this ledger was saved.
    untold: Vec<ContainerDied>,
}

/// A ledger as it is kept on disk.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<'a> {
    node: &'a str,
    began_ns: i64,
    primed: bool,
    pods: &'a HashMap<String, Followed>,
    logs: &'a HashMap<String, HashMap<String, BTreeSet<u32>>>,
    untold: &'a [&'a ContainerDied],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    node: String,
    began_ns: i64,
    primed: bool,
    pods: HashMap<String, Followed>,
    logs: HashMap<String, HashMap<String, BTreeSet<u32>>>,
    #[serde(default)]
    untold: Vec<ContainerDied>,
}

/// What was saved cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub enum NotALedger {
    /// A disk that was copied, or a node that was renamed.
    #[error("it is the ledger of node {saved:?}, and this is {node:?}")]
    Node {
        /// Whose it is.
        saved: String,
        /// Who reads it.
        node: String,
    },
    /// Not of this version's shape.
    #[error("it is no ledger: {0}")]
    Json(#[from] serde_json::Error),
}

/// How and when something was observed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Nanoseconds since 1970.
    pub at_ns: i64,
    /// Where from.
    pub source: Source,
}

/// What one observation told.
#[derive(Debug, Default)]
pub struct Told {
    /// Deaths not reported before, oldest first; without log lines.
    pub deaths: Vec<ContainerDied>,
    /// Deaths that nobody could see, in addition.
    pub missed: u64,
    /// The same by container, and how long it was restarting; those of which there is something to tell.
    pub tallies: Vec<Tally>,
}

/// What is counted of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Its name.
    pub container: String,
    /// Deaths that nobody could see.
    pub missed: u64,
    /// Nanoseconds from the ends of its instances to the beginnings of the next ones.
    pub restarting_ns: i64,
}

/// A container whose ends nobody saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The pod's namespace.
    pub namespace: String,
    /// The container's name.
    pub container: String,
    /// So many of them.
    pub ends: u64,
}

/// A log file that is, or was, there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSeen {
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// The instance that wrote it.
    pub ordinal: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Followed {
    namespace: String,
    containers: HashMap<String, Container>,
    gone: Option<Gone>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gone {
    since_ns: i64,
    judged: bool,
}

// === impl Ledger ===

impl Ledger {
    /// An empty ledger of `node`, begun now: pods older than that may have died unseen before, and that is not its to count.
    pub fn new(node: impl Into<String>, began_ns: i64) -> Self {
        Self {
            node: node.into(),
            began_ns,
            primed: false,
            pods: HashMap::new(),
            logs: HashMap::new(),
            restored: false,
            revision: 0,
            changed: None,
            untold: Vec::new(),
        }
    }

    /// What [`Self::restore`] goes on from, in JSON: with the deaths that it calls reported and that may not have arrived.
    pub fn save(&self, untold: &[&ContainerDied]) -> Vec<u8> {
        let Self { node, began_ns, primed, pods, logs, .. } = self;
        let saved = Saved { node, began_ns: *began_ns, primed: *primed, pods, logs, untold };
        // Maps with keys that are text, and numbers: nothing that JSON cannot say.
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// Goes on from what was saved: what happened since is seen by what the kubelet still shows, or counted as missed.
    ///
    /// # Errors
    /// Where it is not the ledger of `node`.
    pub fn restore(node: impl Into<String>, saved: &[u8]) -> Result<Self, NotALedger> {
        let node = node.into();
        let Restored { node: saved, began_ns, primed, pods, logs, untold } = serde_json::from_slice(saved)?;
        if saved != node {
            return Err(NotALedger::Node { saved, node });
        }
        let began = Self::new(node, began_ns);
        let mut ledger = Self { primed, pods, logs, restored: true, untold, ..began };
        for followed in ledger.pods.values_mut() {
            followed.containers.values_mut().for_each(Container::restore);
        }
        Ok(ledger)
    }

    /// The deaths that were saved with it and may not have arrived: they are to be told again, and only once.
    pub fn take_untold(&mut self) -> Vec<ContainerDied> {
        std::mem::take(&mut self.untold)
    }

    /// Another number than before: something is to be saved.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it goes on from what an agent before this one knew, and nothing was seen since.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Something of a pod is to be remembered; of none: of the node.
    fn touch(&mut self, uid: &str) {
        self.revision += 1;
        if let Some(changed) = &mut self.changed
            && !changed.contains(uid)
        {
            changed.insert(uid.to_owned());
        }
    }

    /// Takes one state of one pod.
    pub fn observe(&mut self, pod: &Pod, seen: Seen) -> Told {
        let uid = pod.uid();
        let mut told = Told::default();
        if uid.is_empty() {
            return told;
        }
        let from_birth = self.primed && pod.created_ns().is_none_or(|created| created >= self.began_ns);
        let mut touched = !self.pods.contains_key(uid);
        if touched {
            let followed = Followed { namespace: pod.metadata.namespace.clone(), ..Followed::default() };
            self.pods.insert(uid.to_owned(), followed);
        }
        let Some(followed) = self.pods.get_mut(uid) else { return told };
        touched |= followed.gone.take().is_some();
        // A ledger that an older version saved has none.
        if followed.namespace.is_empty() {
            followed.namespace.clone_from(&pod.metadata.namespace);
        }

        let mut logs = self.logs.get_mut(uid);
        for (kind, status) in statuses(pod) {
            if !followed.containers.contains_key(&status.name) {
                if followed.containers.len() >= CONTAINERS {
                    continue;
                }
                let container = Container::default().restored(self.restored);
                followed.containers.insert(status.name.clone(), container);
            }
            let Some(container) = followed.containers.get_mut(&status.name) else { continue };
            let mut none = BTreeSet::new();
            let ordinals = logs.as_mut().and_then(|logs| logs.get_mut(&status.name)).unwrap_or(&mut none);
            let mut changed =
                container.observe(status, from_birth, pod.is_terminating(), ordinals, seen.at_ns);
            touched |= changed.remember;
            told.missed += changed.missed;
            // One that completed rests for as long as its pod lives, and runs again where the pod's sandbox is made anew.
            if kind == ContainerKind::Init {
                changed.restarting_ns = 0;
            }
            if changed.missed > 0 || changed.restarting_ns > 0 {
                let Changed { missed, restarting_ns, .. } = changed;
                told.tallies.push(Tally { container: status.name.clone(), missed, restarting_ns });
            }
            for end in changed.ends {
                told.deaths.push(end.into_death(pod, status, kind, &self.node, seen));
            }
        }
        if touched {
            self.touch(uid);
        }
        told
    }

    /// The deaths that a state of a pod shows and that were told before, with the identities that they had; for a journal that has
    /// lost them. Nothing is counted as missed that was counted before.
    pub fn told_before(&self, pod: &Pod, seen: Seen) -> Vec<ContainerDied> {
        let Some(followed) = self.pods.get(pod.uid()) else { return Vec::new() };
        let mut deaths = Vec::new();
        for (kind, status) in statuses(pod) {
            let Some(container) = followed.containers.get(&status.name) else { continue };
            let ends = container.told_before(status, pod.is_terminating());
            deaths.extend(ends.into_iter().map(|end| end.into_death(pod, status, kind, &self.node, seen)));
        }
        deaths
    }

    /// Ends a snapshot: what it did not show is gone.
    pub fn end_snapshot(&mut self, present: &HashSet<String>, now_ns: i64) {
        if !self.primed {
            self.touch("");
        }
        self.primed = true;
        self.restored = false;
        let missing =
            |(uid, followed): &(&String, &Followed)| !present.contains(*uid) && followed.gone.is_none();
        let gone: Vec<String> = self.pods.iter().filter(missing).map(|(uid, _)| uid.clone()).collect();
        for uid in gone {
            self.gone(&uid, now_ns);
        }
    }

    /// Takes it that a pod is gone; what its last state told must have been observed before.
    pub fn gone(&mut self, uid: &str, now_ns: i64) {
        if let Some(followed) = self.pods.get_mut(uid)
            && followed.gone.is_none()
        {
            followed.gone = Some(Gone { since_ns: now_ns, judged: false });
            self.touch(uid);
        }
    }

    /// Judges the pods that have been gone for long enough: which instances of their containers had begun, as their last states and
    /// log files tell, and whose end nobody saw. Forgets what is long gone.
    pub fn settle(&mut self, now_ns: i64) -> Vec<Unseen> {
        let mut unseen = Vec::new();
        let mut touched = Vec::new();
        for (uid, followed) in &mut self.pods {
            if let Some(gone) = &mut followed.gone
                && !gone.judged
                && now_ns.saturating_sub(gone.since_ns) >= SETTLES_NS
            {
                gone.judged = true;
                touched.push(uid.clone());
                let logs = self.logs.get(uid);
                let mut give_up = |name: &str, ends: u64| {
                    if ends > 0 {
                        let (namespace, container) = (followed.namespace.clone(), name.to_owned());
                        unseen.push(Unseen { namespace, container, ends });
                    }
                };
                for (name, container) in &followed.containers {
                    give_up(name, container.given_up(logs.and_then(|logs| logs.get(name))));
                }
                // What no status of the pod has shown.
                for (name, logs) in logs.into_iter().flatten() {
                    if !followed.containers.contains_key(name) {
                        give_up(name, Container::default().given_up(Some(logs)));
                    }
                }
            }
        }
        let mut gone: Vec<i64> =
            self.pods.values().filter_map(|pod| pod.gone.map(|gone| gone.since_ns)).collect();
        let mut oldest = now_ns.saturating_sub(FORGOTTEN_NS);
        if gone.len() > GONE_PODS {
            gone.sort_unstable();
            oldest = oldest.max(gone.get(gone.len() - GONE_PODS).copied().unwrap_or(oldest));
        }
        let logs = &mut self.logs;
        self.pods.retain(|uid, followed| {
            let keep = followed.gone.is_none_or(|gone| !gone.judged || gone.since_ns > oldest);
            if !keep {
                logs.remove(uid);
                touched.push(uid.clone());
            }
            keep
        });
        touched.iter().for_each(|uid| self.touch(uid));
        unseen
    }

    /// Takes it that a log file is there, or was.
    pub fn log_seen(&mut self, seen: LogSeen) {
        if !self.logs.contains_key(&seen.pod_uid) && self.logs.len() >= LOG_PODS {
            // Folders of pods that were never seen: left over by a kubelet that died.
            let pods = &self.pods;
            self.logs.retain(|uid, _| pods.contains_key(uid));
            if self.logs.len() >= LOG_PODS {
                return;
            }
        }
        let containers = self.logs.entry(seen.pod_uid.clone()).or_default();
        if containers.len() >= CONTAINERS && !containers.contains_key(&seen.container) {
            return;
        }
        let ordinals = containers.entry(seen.container).or_default();
        let is_new = ordinals.insert(seen.ordinal);
        if ordinals.len() > LOG_ORDINALS {
            ordinals.pop_first();
        }
        if is_new {
            self.touch(&seen.pod_uid);
        }
    }

    /// Whether a whole snapshot has been taken.
    pub fn is_primed(&self) -> bool {
        self.primed
    }

    /// Pods followed, those remembered after they were gone included.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether no pod is followed.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

/// What a pod's state says of each container, and of what kind it is.
fn statuses(pod: &Pod) -> impl Iterator<Item = (ContainerKind, &ContainerStatus)> {
    let is_sidecar = |name: &str| {
        pod.spec.init_containers.iter().any(|init| init.name == name && init.restart_policy == "Always")
    };
    let status = &pod.status;
    let init = status.init_container_statuses.iter().map(move |status| match is_sidecar(&status.name) {
        true => (ContainerKind::Sidecar, status),
        false => (ContainerKind::Init, status),
    });
    let app = status.container_statuses.iter().map(|status| (ContainerKind::App, status));
    let ephemeral = status.ephemeral_container_statuses.iter();
    init.chain(app).chain(ephemeral.map(|status| (ContainerKind::Ephemeral, status)))
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod tests;
