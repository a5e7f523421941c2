//! What was delivered, by the facts in it and not by nodetap's ids, and how that compares to the truth.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::cluster::Death;

/// Records as they were delivered: kubernetes-event-exporter's JSON.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// How often each came.
    keys: HashMap<String, usize>,
    repeats: usize,
    /// Those whose last copy was answered with an error.
    refused: HashSet<String>,
    /// Repeats of such.
    repeats_of_refused: usize,
}

// === impl Delivered ===

impl Delivered {
    /// Notes a record. Whether it came for the first time.
    pub(crate) fn take(&mut self, record: &Value) -> bool {
        let key = key(record);
        let was_refused = self.refused.remove(&key);
        let times = self.keys.entry(key).or_default();
        *times += 1;
        let first = *times == 1;
        if !first {
            self.repeats += 1;
            self.repeats_of_refused += usize::from(was_refused);
        }
        first
    }

    /// As `take`, but what sent it is told that it was not taken, so that it must come again.
    pub(crate) fn take_and_refuse(&mut self, record: &Value) {
        self.take(record);
        self.refused.insert(key(record));
    }

    /// How many of the repeats had to come, as the copy before them was answered with an error.
    pub(crate) fn repeats_of_refused(&self) -> usize {
        self.repeats_of_refused
    }

    /// How many distinct records came, and how many repeats.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.keys.len(), self.repeats)
    }

    /// What happened and did not come.
    pub(crate) fn missing(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        let came = self.came(deaths);
        let mut missing: Vec<_> = truth.iter().filter(|key| !came.contains(*key)).cloned().collect();
        missing.sort();
        missing
    }

    /// What came and never happened.
    pub(crate) fn strangers(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        let mut strangers: Vec<_> =
            self.came(deaths).into_iter().filter(|key| !truth.contains(key)).collect();
        strangers.sort();
        strangers
    }

    /// What came, with deaths that name no container id looked up by their ordinal.
    fn came(&self, deaths: &[Death]) -> HashSet<String> {
        let by_ordinal: HashMap<String, String> = deaths
            .iter()
            .map(|death| (by_ordinal(&death.pod_uid, &death.container, death.ordinal.into()), death.key()))
            .collect();
        self.keys.keys().map(|key| by_ordinal.get(key).unwrap_or(key).clone()).collect()
    }
}

/// What a record is, as the simulator's truth spells it.
fn key(record: &Value) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if record.get("container").is_none_or(Value::is_null) {
        return format!("event/{}/{}", text("/metadata/uid"), text("/metadata/resourceVersion"));
    }
    let (pod, container, id) =
        (text("/involvedObject/uid"), text("/container/name"), text("/container/containerId"));
    if id.is_empty() {
        return by_ordinal(pod, container, record["container"]["ordinal"].as_u64().unwrap_or(0));
    }
    let id = id.rsplit_once("://").map_or(id, |(_, id)| id);
    format!("death/{pod}/{container}/{id}")
}

fn by_ordinal(pod: &str, container: &str, ordinal: u64) -> String {
    format!("death/{pod}/{container}/#{ordinal}")
}

#[cfg(test)]
mod tests;
