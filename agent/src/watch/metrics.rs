//! What the watches count. Every label is one of a fixed few.

use nodetap_wire::{Shard, WatchState, shard::Share};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::machine::Lost;
use crate::kubernetes::requests::Requests;

/// Counters and gauges of all watches of this agent.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    frames: Family<FrameLabels, Counter>,
    records: Counter,
    refused: Family<ReasonLabels, Counter>,
    others: Family<ReasonLabels, Counter>,
    lost: Family<ReasonLabels, Counter>,
    /// What is asked of the API server, for others that ask to count in.
    pub requests: Requests,
    watches: Family<WatchLabels, Gauge>,
    last_event: Family<ShareLabels, Gauge>,
    last_progress: Family<ShareLabels, Gauge>,
}

/// Counts frames of one watch. Each counter is looked up once, and not before its first frame: what never came is not exposed.
#[derive(Debug)]
pub(super) struct Frames {
    family: Family<FrameLabels, Counter>,
    counters: [Option<Counter>; FrameKind::COUNT],
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// An item of a list.
    Listed,
    /// ADDED
    Added,
    /// MODIFIED
    Modified,
    /// DELETED
    Deleted,
    /// BOOKMARK
    Bookmark,
    /// ERROR
    Error,
    /// Any other type.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrameLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    share: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShareLabels {
    share: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Names the families in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_agent_watch_frames",
            "Frames of event watches and items of event lists, by type",
            self.frames.clone(),
        );
        registry.register(
            "nodetap_agent_watch_records",
            "Records that the event watches handed over to the outbox",
            self.records.clone(),
        );
        registry.register(
            "nodetap_agent_watch_refused",
            "What the API server sent and the event watches did not take, by reason",
            self.refused.clone(),
        );
        registry.register(
            "nodetap_agent_watch_left_to_others",
            "Events of a watch that are of a share that another watch has, by whose they are",
            self.others.clone(),
        );
        registry.register(
            "nodetap_agent_watch_reconnects",
            "Requests for events that had to be made anew, by what ended the one before",
            self.lost.clone(),
        );
        self.requests.register(registry);
        registry.register(
            "nodetap_agent_watches",
            "Event watches that this agent holds, by kind of share and state",
            self.watches.clone(),
        );
        registry.register_with_unit(
            "nodetap_agent_watch_last_event_timestamp",
            "When an event watch last took an event, in seconds since 1970",
            Unit::Seconds,
            self.last_event.clone(),
        );
        registry.register_with_unit(
            "nodetap_agent_watch_last_progress_timestamp",
            "When an event watch was last served, if with nothing, in seconds since 1970",
            Unit::Seconds,
            self.last_progress.clone(),
        );
    }

    pub(super) fn frames(&self) -> Frames {
        Frames { family: self.frames.clone(), counters: Default::default() }
    }

    pub(super) fn handed_over(&self, share: &'static str, records: usize) {
        self.records.inc_by(records as u64);
        self.last_event.get_or_create(&ShareLabels { share }).set(now());
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Not refused: another watch takes it.
    pub(super) fn left_to_others(&self, reason: &'static str) {
        self.others.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn lost(&self, lost: Lost) {
        self.lost.get_or_create(&ReasonLabels { reason: lost.as_str() }).inc();
    }

    pub(super) fn progress(&self, share: &'static str) {
        self.last_progress.get_or_create(&ShareLabels { share }).set(now());
    }

    pub(super) fn changed(&self, share: &'static str, from: WatchState, to: WatchState) {
        for (state, by) in [(from, -1), (to, 1)] {
            if let Some(state) = name_of(state) {
                self.watches.get_or_create(&WatchLabels { share, state }).inc_by(by);
            }
        }
    }
}

// === impl Frames ===

impl Frames {
    pub(super) fn count(&mut self, kind: FrameKind) {
        let Some(counter) = self.counters.get_mut(kind as usize) else { return };
        let labels = FrameLabels { r#type: kind.as_str() };
        counter.get_or_insert_with(|| self.family.get_or_create_owned(&labels)).inc();
    }
}

// === impl FrameKind ===

impl FrameKind {
    const COUNT: usize = Self::Unknown as usize + 1;

    fn as_str(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Bookmark => "bookmark",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}

/// The kind of a shard, as a label.
pub(super) fn share_of(shard: &Shard) -> &'static str {
    match shard.share {
        Some(Share::Cluster(_)) => "cluster",
        Some(Share::Namespace(_)) => "namespace",
        Some(Share::Host(_)) => "host",
        Some(Share::NoHost(_)) => "no_host",
        Some(Share::UidRange(_)) => "uid_range",
        Some(Share::Namespaces(_)) => "namespaces",
        None => "unknown",
    }
}

/// A watch that is not held counts nowhere.
fn name_of(state: WatchState) -> Option<&'static str> {
    match state {
        WatchState::Listing => Some("listing"),
        WatchState::Watching => Some("watching"),
        WatchState::BackingOff => Some("backing_off"),
        WatchState::Unspecified | WatchState::Released => None,
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
