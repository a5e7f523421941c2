//! Metric families whose labels come from outside: bounded, with an overflow value and a count of what overflowed.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What a label reads once its family is full.
pub const OVERFLOW: &str = "_other";

/// A counter family of at most a set number of label sets; what comes later counts under one label set, `overflow`.
#[derive(Debug)]
pub struct BoundedCounter<L>
where
    L: Clone + Hash + Eq,
{
    family: Family<L, Counter>,
    known: Mutex<HashSet<L>>,
    limit: usize,
    overflow: L,
    overflowed: Counter,
}

/// A container, by the labels of kube-state-metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ContainerLabels {
    /// The pod's namespace.
    pub namespace: String,
    /// The container's name.
    pub container: String,
}

/// How often the families of a registry had no room. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Overflow(Family<FamilyLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    family: &'static str,
}

// === impl ContainerLabels ===

impl ContainerLabels {
    /// What a full family counts under.
    pub fn overflow() -> Self {
        Self { namespace: OVERFLOW.to_owned(), container: OVERFLOW.to_owned() }
    }
}

// === impl Overflow ===

impl Overflow {
    /// The count of a family.
    pub fn of(&self, family: &'static str) -> Counter {
        self.0.get_or_create_owned(&FamilyLabels { family })
    }

    /// Registers the counts. `name` is without `_total`.
    pub fn register(&self, registry: &mut Registry, name: &str) {
        let help = "Increments that a full family counted under the label value _other";
        registry.register(name, help, self.0.clone());
    }
}

// === impl BoundedCounter ===

impl<L> BoundedCounter<L>
where
    L: Clone + Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static,
{
    /// A family of at most `limit` label sets. `overflowed` counts each increment that found no room of its own.
    pub fn new(limit: usize, overflow: L, overflowed: Counter) -> Self {
        Self { family: Family::default(), known: Mutex::default(), limit, overflow, overflowed }
    }

    /// Registers the family. `name` is without `_total`.
    pub fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.family.clone());
    }

    /// Counts.
    pub fn inc_by(&self, labels: L, by: u64) {
        if self.has_room(&labels) {
            self.family.get_or_create(&labels).inc_by(by);
        } else {
            self.overflowed.inc();
            self.family.get_or_create(&self.overflow).inc_by(by);
        }
    }

    /// The counter of a label set, for who counts it often; `None` where it has no room of its own.
    pub fn counter(&self, labels: &L) -> Option<Counter> {
        self.has_room(labels).then(|| self.family.get_or_create_owned(labels))
    }

    fn has_room(&self, labels: &L) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(labels) || (known.len() < self.limit && known.insert(labels.clone()))
    }
}

#[cfg(test)]
mod tests;
