//! Labels, annotations and owners of the object that a record is about.
//!
//! Learnt from the `PodFacts` that agents send, so that it costs no call to the API server. A pod that is gone stays known
//! until others push it out, because its events still come. Never keyed on an empty uid.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use nodetap_wire::PodFacts;
use nodetap_wire::face::Object;
use nodetap_wire::resource_version;

use crate::explain::Explainer;

/// How much is remembered of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most pods.
    pub pods: usize,
    /// Most bytes of their labels, annotations and owners, as JSON.
    pub bytes: usize,
}

/// What is known of an object, with the JSON in which the journal keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// What is known.
    pub object: Arc<Object>,
    /// The same as JSON.
    pub json: String,
    resource_version: String,
    /// Whose agent announced it.
    node: Arc<str>,
}

/// What became of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// They are known now.
    New,
    /// Newer ones are known, or they are of no pod.
    Nothing,
    /// Another node has announced the pod.
    Refused,
}

/// Most names of nodes that are shared by their pods.
const MOST_NODES: usize = 16_384;

/// Pods by uid, bounded by number and bytes: facts come for every pod of the cluster for as long as it lives. The least
/// recently used go first, by halves: what was not asked for while one half filled up goes with the other.
#[derive(Debug)]
pub struct Pods {
    bounds: Bounds,
    young: HashMap<String, Arc<Known>>,
    young_bytes: usize,
    old: HashMap<String, Arc<Known>>,
    nodes: HashSet<Arc<str>>,
    /// What events tell about them.
    pub explainer: Explainer,
}

// === impl Bounds ===

impl Default for Bounds {
    /// Room for 50,000 pods of common size.
    fn default() -> Self {
        Self { pods: 50_000, bytes: 32 << 20 }
    }
}

// === impl Pods ===

impl Pods {
    /// Knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            young: HashMap::default(),
            young_bytes: 0,
            old: HashMap::default(),
            nodes: HashSet::default(),
            explainer: Explainer::default(),
        }
    }

    /// Learns the facts of a pod from the agent of a node, unless newer ones are known. A pod never leaves its node: once it is
    /// announced, no other's word counts.
    pub fn learn(&mut self, facts: PodFacts, node: &str) -> Learnt {
        if facts.uid.is_empty() {
            return Learnt::Nothing;
        }
        let before = self.young.get(&facts.uid).or_else(|| self.old.get(&facts.uid));
        if let Some(known) = before {
            if &*known.node != node {
                return Learnt::Refused;
            }
            if resource_version::is_later(&known.resource_version, &facts.resource_version) {
                return Learnt::Nothing;
            }
        }
        let node = self.nodes.get(node).cloned().unwrap_or_else(|| {
            // Names of nodes that have gone are let go of with all others: those that are used come again.
            if self.nodes.len() >= MOST_NODES {
                self.nodes.clear();
            }
            let node: Arc<str> = node.into();
            self.nodes.insert(node.clone());
            node
        });
        let object = Object {
            labels: facts.labels,
            annotations: facts.annotations,
            owners: facts.owners,
            deleted: facts.deleted,
        };
        // A map of strings has no way to fail.
        let json = serde_json::to_string(&object).unwrap_or_default();
        let known = Known { object: Arc::new(object), json, resource_version: facts.resource_version, node };
        self.remember(facts.uid, Arc::new(known));
        Learnt::New
    }

    /// What is known of a pod.
    pub fn get(&mut self, uid: &str) -> Option<Arc<Known>> {
        if uid.is_empty() {
            return None;
        }
        if let Some(known) = self.young.get(uid) {
            return Some(known.clone());
        }
        let (uid, known) = self.old.remove_entry(uid)?;
        self.remember(uid, known.clone());
        Some(known)
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remember(&mut self, uid: String, known: Arc<Known>) {
        let bytes = known.weight(&uid);
        self.old.remove(&uid);
        let is_full = self.young.len() >= (self.bounds.pods / 2).max(1)
            || (self.young_bytes + bytes > self.bounds.bytes / 2 && !self.young.is_empty());
        if is_full && !self.young.contains_key(&uid) {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let key = uid.len();
        if let Some(before) = self.young.insert(uid, known) {
            self.young_bytes -= before.weight_of(key);
        }
        self.young_bytes += bytes;
    }
}

// === impl Known ===

impl Known {
    /// Bytes, the maps counted as twice their JSON.
    fn weight(&self, uid: &str) -> usize {
        self.weight_of(uid.len())
    }

    fn weight_of(&self, uid: usize) -> usize {
        128 + uid + self.resource_version.len() + 3 * self.json.len()
    }
}

#[cfg(test)]
mod tests;
