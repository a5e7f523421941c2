//! What the watches took since somebody last asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodetap_wire::time::now_ns;
use nodetap_wire::{AssignedWatch, Progress, Shard, ShardProgress};

/// Shared by the watches and the link; bounded by the shards that are held.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<Shard, ShardProgress>>>);

// === impl Tally ===

impl Tally {
    /// A watch took events, the last of which happened at a time, in nanoseconds since 1970; 0: not known.
    pub(super) fn add(&self, watch: &AssignedWatch, events: u64, time_ns: i64) {
        let Some(shard) = &watch.shard else { return };
        let now = now_ns();
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked up first: the name is cloned once in ten seconds, not once an event.
        if !tally.contains_key(shard) {
            tally.insert(shard.clone(), ShardProgress { shard: Some(shard.clone()), ..Default::default() });
        }
        let Some(progress) = tally.get_mut(shard) else { return };
        progress.epoch = watch.epoch;
        progress.events += events;
        progress.last_ns = now;
        if time_ns > 0 {
            // Clocks of two machines: an event from the future is not behind.
            progress.behind_ms = u64::try_from((now - time_ns) / 1_000_000).unwrap_or(0);
        }
    }

    /// What was taken since this was last asked; none where nothing was.
    pub fn take(&self, over: Duration) -> Option<Progress> {
        let tally = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let shards: Vec<_> =
            tally.into_values().map(|progress| ShardProgress { over_ms, ..progress }).collect();
        (!shards.is_empty()).then_some(Progress { shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_from_the_future_as_after_a_clock_was_set_back_is_not_behind() {
        let tally = Tally::default();
        let watch = AssignedWatch { shard: Some(Shard::cluster()), epoch: 1, ..AssignedWatch::default() };
        let behind = |time_ns| {
            tally.add(&watch, 1, time_ns);
            tally.take(Duration::from_secs(10)).unwrap().shards[0].behind_ms
        };
        assert_eq!(behind(now_ns() + 3_600_000_000_000), 0);
        assert_eq!(behind(i64::MAX), 0);
        assert_eq!(behind(0), 0, "not known");
        assert!(behind(now_ns() - 3_600_000_000_000) >= 3_600_000);
    }
}
