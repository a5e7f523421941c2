//! What assigning says of itself.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::plan::Cause;

/// Families of assigning.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Shards given to somebody.
    pub changes: Family<ChangeLabels, Counter>,
    /// Shards that nobody holds.
    pub vacant: Gauge,
    /// The highest epoch of any shard.
    pub epoch: Gauge,
    /// Watches by the state that was last reported.
    pub reports: Family<ReportLabels, Counter>,
    /// When the state of a watch was last reported, in seconds since 1970.
    pub last_report: Family<ReportLabels, Gauge>,
    /// Times the journal's checkpoints could not be read.
    pub checkpoint_failures: Counter,
}

/// Label of [`Metrics::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChangeLabels {
    /// Why.
    pub cause: CauseLabel,
}

/// Why a shard was given to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum CauseLabel {
    /// Nobody held it.
    vacant,
    /// Its holder went away.
    left,
    /// Its holder failed, or said nothing.
    failing,
}

/// Label of [`Metrics::reports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReportLabels {
    /// What was reported.
    pub state: StateLabel,
}

/// State of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum StateLabel {
    /// Of a newer agent.
    unknown,
    /// It lists.
    listing,
    /// It watches.
    watching,
    /// It failed and waits.
    backing_off,
    /// It let go.
    released,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_watch_holder_changes",
            "Times a share of the cluster's events was given to an agent, by cause",
            self.changes.clone(),
        );
        registry.register(
            "nodetap_watch_vacant_shards",
            "Shares of the cluster's events that nobody watches",
            self.vacant.clone(),
        );
        registry.register("nodetap_watch_epoch", "The highest epoch given out", self.epoch.clone());
        registry.register(
            "nodetap_watch_reports",
            "Changes of state that holders reported",
            self.reports.clone(),
        );
        registry.register(
            "nodetap_watch_last_report_timestamp_seconds",
            "When a holder last reported this state",
            self.last_report.clone(),
        );
        registry.register(
            "nodetap_watch_checkpoint_read_failures",
            "Times the checkpoints could not be read from the journal",
            self.checkpoint_failures.clone(),
        );
    }
}

// === impl CauseLabel ===

impl From<Cause> for CauseLabel {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Vacant => Self::vacant,
            Cause::Left => Self::left,
            Cause::Failing => Self::failing,
        }
    }
}
