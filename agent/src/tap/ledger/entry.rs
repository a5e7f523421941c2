//! The ledger pod by pod, as the aggregator remembers it: what it knows of each in a form of its own, so that a change of one is
//! told without the others.

use std::collections::{BTreeSet, HashMap};

use nodetap_wire::ContainerDied;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::{Followed, Ledger};

/// What the ledger knows of one pod.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<'a> {
    pod: &'a Followed,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<&'a HashMap<String, BTreeSet<u32>>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    untold: &'a [&'a ContainerDied],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    pod: Followed,
    #[serde(default)]
    logs: HashMap<String, BTreeSet<u32>>,
    #[serde(default)]
    untold: Vec<ContainerDied>,
}

/// What it knows of none of them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfNode {
    began_ns: i64,
    primed: bool,
}

/// A ledger that is made again of its entries.
#[derive(Debug)]
pub struct Remaking {
    ledger: Ledger,
    has_node: bool,
    /// Some are lost.
    partial: bool,
}

// === impl Ledger ===

impl Ledger {
    /// From now on [`Self::take_changed`] tells what changes.
    pub fn note_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Whether [`Self::take_changed`] has something to tell.
    pub fn has_changed(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// The pods that changed since this was last asked, by uid; an empty one: what is of no pod.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The pods that it knows.
    pub fn uids(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    /// What it knows of a pod, in JSON; `None`: nothing. `untold`: deaths that it calls reported, and that are not handed over yet.
    pub fn entry(&self, uid: &str, untold: &[&ContainerDied]) -> Option<Vec<u8>> {
        let pod = self.pods.get(uid)?;
        let saved = Saved { pod, logs: self.logs.get(uid).filter(|logs| !logs.is_empty()), untold };
        // Maps with keys that are text, and numbers: nothing that JSON cannot say.
        Some(serde_json::to_vec(&saved).unwrap_or_default())
    }

    /// What it knows of none of them. `began_ns`: in the place of its own, where not all of it can be told.
    pub fn node_entry(&self, began_ns: Option<i64>) -> Vec<u8> {
        let of_node = OfNode { began_ns: began_ns.unwrap_or(self.began_ns), primed: self.primed };
        serde_json::to_vec(&of_node).unwrap_or_default()
    }
}

// === impl Remaking ===

impl Remaking {
    /// Of no entry yet.
    pub fn new(node: &str, now_ns: i64) -> Self {
        Self { ledger: Ledger::new(node, now_ns), has_node: false, partial: false }
    }

    /// Takes what it knew of a pod; an empty uid: of none.
    ///
    /// # Errors
    /// Where that is not what [`Ledger::entry`] or [`Ledger::node_entry`] gave.
    pub fn take(&mut self, uid: &str, json: &[u8]) -> Result<(), serde_json::Error> {
        if uid.is_empty() {
            let OfNode { began_ns, primed } = serde_json::from_slice(json)?;
            self.ledger.began_ns = began_ns;
            self.ledger.primed = primed;
            self.has_node = true;
            return Ok(());
        }
        let Restored { mut pod, logs, untold } = serde_json::from_slice(json)?;
        pod.containers.values_mut().for_each(Container::restore);
        self.ledger.pods.insert(uid.to_owned(), pod);
        if !logs.is_empty() {
            self.ledger.logs.insert(uid.to_owned(), logs);
        }
        self.ledger.untold.extend(untold);
        Ok(())
    }

    /// Some of it is lost: of a pod that is not known it cannot be said any more what was told of it.
    pub fn is_partial(&mut self) {
        self.partial = true;
    }

    /// The ledger that goes on from there; as new, where there was nothing. What happened since is seen by what the kubelet still
    /// shows, or counted as missed. Where some is lost, the deaths of unknown pods before now are not counted: some of them were told.
    pub fn finish(self, now_ns: i64) -> Ledger {
        let Self { mut ledger, has_node, partial } = self;
        if partial || !has_node {
            ledger.began_ns = now_ns;
        }
        ledger.restored = has_node || !ledger.pods.is_empty();
        ledger.revision = u64::from(ledger.restored);
        ledger
    }
}
