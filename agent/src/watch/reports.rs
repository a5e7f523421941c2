//! Reports on their way out: the newest of each shard, so that a slow reader holds up no watch and reads no stale state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodetap_wire::{Shard, WatchReport};
use tokio::sync::{Notify, mpsc};

/// Where the watches put their reports; bounded by how many shards are assigned.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    newest: Arc<Mutex<BTreeMap<String, WatchReport>>>,
    stirred: Arc<Notify>,
}

// === impl Reports ===

impl Reports {
    /// Replaces what was not read yet of the same shard.
    pub(super) fn put(&self, report: WatchReport) {
        let Some(shard) = report.shard.as_ref().map(Shard::name) else { return };
        self.lock().insert(shard, report);
        self.stirred.notify_one();
    }

    /// Sends on, for as long as it is polled.
    pub(super) async fn forward(&self, to: &mpsc::Sender<WatchReport>) {
        loop {
            self.stirred.notified().await;
            while !self.lock().is_empty() {
                // Nobody reads any more: there is nobody to tell, and the watches go on.
                let Ok(room) = to.reserve().await else { break };
                if let Some((_, report)) = self.lock().pop_first() {
                    room.send(report);
                }
            }
        }
    }

    /// Sends what is left, as far as there is room.
    pub(super) fn flush(&self, to: &mpsc::Sender<WatchReport>) {
        while let Some((_, report)) = self.lock().pop_first() {
            if to.try_send(report).is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, WatchReport>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
