//! Which appends follow one that failed: they must fail too, or a checkpoint could be durable without the records before it.
//!
//! An append carries the number of failures that its node's lane began with, and the writer refuses it once there are more. A
//! lane lasts until nothing of its node is under way: an append that begins after a failure was answered, but before that
//! answer was received, still belongs to the lane that failed. Failures are counted for all nodes together, so that a failure
//! may cost others a batch sent again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The lanes of all nodes with appends under way. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    failures: AtomicU64,
    /// Bounded by the appends under way.
    lanes: Mutex<HashMap<String, Lane>>,
}

#[derive(Debug)]
struct Lane {
    under_way: usize,
    failures: u64,
}

/// An append under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    lanes: Lanes,
    node: String,
    failures: u64,
}

// === impl Lanes ===

impl Lanes {
    /// Begins an append.
    pub(super) fn enter(&self, node: &str) -> Turn {
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes
            .entry(node.to_owned())
            .or_insert_with(|| Lane { under_way: 0, failures: self.0.failures.load(Ordering::SeqCst) });
        lane.under_way += 1;
        Turn { lanes: self.clone(), node: node.to_owned(), failures: lane.failures }
    }

    /// An append fails; to be said before it is answered.
    pub(super) fn fail(&self) {
        self.0.failures.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether an append may be behind one that failed.
    pub(super) fn is_behind(&self, failures: u64) -> bool {
        failures < self.0.failures.load(Ordering::SeqCst)
    }
}

// === impl Turn ===

impl Turn {
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.lanes.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get_mut(&self.node) {
            lane.under_way -= 1;
            if lane.under_way == 0 {
                lanes.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests;
