//! Whether the watches get on: what `/livez` and `/readyz` answer from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nodetap_wire::WatchState;
use tokio::time::Instant;

/// A shared view on all watches that are held; bounded by how many are assigned.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shards: Arc<Mutex<BTreeMap<String, ShardProgress>>>,
}

/// How one watch gets on.
#[derive(Clone, Debug)]
pub struct ShardProgress {
    /// Listing, watching or backing off.
    pub state: WatchState,
    /// The last failure in words; empty since it last served.
    pub failure: String,
    /// When the API server last served it: with bytes, or by ending it in time.
    pub served: Instant,
    /// It waits for the outbox to take what it has: the aggregator is away, not the API server.
    pub held_back: bool,
}

// === impl Progress ===

impl Progress {
    /// Every watch that is held, by the name of its shard.
    pub fn shards(&self) -> BTreeMap<String, ShardProgress> {
        self.lock().clone()
    }

    /// The watches that ought to have been served within `limit` and were not. One that backs off is known to fail and
    /// tries again; one that is held back is not the watch's fault.
    pub fn stalled(&self, limit: Duration) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|(_, shard)| shard.state != WatchState::BackingOff && !shard.held_back)
            .filter(|(_, shard)| shard.served.elapsed() > limit)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn state(&self, shard: &str, state: WatchState, failure: &str) {
        let mut shards = self.lock();
        match shards.get_mut(shard) {
            Some(held) => {
                held.state = state;
                failure.clone_into(&mut held.failure);
            }
            None => {
                let held = ShardProgress {
                    state,
                    failure: failure.to_owned(),
                    served: Instant::now(),
                    held_back: false,
                };
                shards.insert(shard.to_owned(), held);
            }
        }
    }

    /// `held_back`: until it is served the next time.
    pub(super) fn served(&self, shard: &str, held_back: bool) {
        if let Some(held) = self.lock().get_mut(shard) {
            held.served = Instant::now();
            held.held_back = held_back;
        }
    }

    pub(super) fn released(&self, shard: &str) {
        self.lock().remove(shard);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ShardProgress>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
