//! What `/livez` and `/readyz` of the agent answer.

use std::time::Duration;

use nodetap_runtime::endpoint::{Check, Health};
use nodetap_wire::WatchState;
use nodetap_wire::time::now_ns;
use tokio::sync::watch;

use crate::link;
use crate::tap;
use crate::watch::progress::Progress;

/// A watch is ended by the server within 310 s, and its idle timeout lies above that: one that was not served for twice as
/// long does not get on.
const WATCH_STALLED: Duration = Duration::from_secs(620);

/// Snapshots that may fail in a row before the tap does not get on.
const SNAPSHOTS: u32 = 6;

/// What the agent's parts say of themselves.
#[derive(Debug)]
pub struct AgentHealth {
    /// How the watches fare.
    pub watches: Progress,
    /// How the link fares.
    pub link: watch::Receiver<link::Health>,
    /// When pods were last seen.
    pub tap: tap::metrics::Metrics,
    /// Time between two snapshots.
    pub poll_interval: Duration,
}

// === impl AgentHealth ===

impl Health for AgentHealth {
    fn live(&self) -> Vec<Check> {
        let stalled = self.watches.stalled(WATCH_STALLED);
        let failure = (!stalled.is_empty())
            .then(|| format!("nothing from the API server for {WATCH_STALLED:?}: {}", stalled.join(", ")));
        vec![Check::new("watches", failure)]
    }

    fn ready(&self) -> Vec<Check> {
        vec![self.link(), self.tap(), self.watches()]
    }
}

impl AgentHealth {
    fn link(&self) -> Check {
        let link::Health { connected, full, .. } = *self.link.borrow();
        let failure = match (connected, full) {
            (true, _) => None,
            (false, false) => Some("no stream to the aggregator".to_owned()),
            (false, true) => Some("no stream to the aggregator, and the outbox is full".to_owned()),
        };
        Check::new("link", failure)
    }

    fn tap(&self) -> Check {
        let last = self.tap.last_snapshot_seconds();
        let age = now_ns() as f64 / 1e9 - last;
        let limit = (self.poll_interval * SNAPSHOTS).max(Duration::from_secs(30));
        let failure = match last > 0.0 {
            false => Some("no pods seen yet".to_owned()),
            true => (age > limit.as_secs_f64()).then(|| format!("no pods seen for {age:.0} s")),
        };
        Check::new("tap", failure)
    }

    fn watches(&self) -> Check {
        let failing: Vec<String> = self
            .watches
            .shards()
            .into_iter()
            .filter(|(_, shard)| shard.state == WatchState::BackingOff)
            .map(|(name, shard)| format!("{name}: {}", shard.failure))
            .collect();
        Check::new("watches", (!failing.is_empty()).then(|| failing.join("; ")))
    }
}
