//! What assigning says of itself.

use std::sync::atomic::AtomicU64;

use nodetap_wire::{Finding, Findings};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::choose::Partition;
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
    /// Times the journal did not keep who was given what.
    pub note_failures: Counter,
    /// Times an agent was asked whether it reaches the API server.
    pub questions: Counter,
    /// Times it answered that it does not.
    pub unreached: Counter,
    /// Shards that there are.
    pub shards: Gauge,
    /// Watches of the partition before go on.
    pub changing: Gauge,
    /// Namespaces, where somebody watches them.
    pub namespaces: Gauge,
    /// Events a second that the agents took, over the last minute.
    pub events_per_second: Gauge<f64, AtomicU64>,
    partition: Family<PartitionLabels, Gauge>,
    accepts: Family<AcceptsLabels, Gauge>,
    api_servers: Gauge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    by: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AcceptsLabels {
    what: &'static str,
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
    /// Its holder is to end, or its node is.
    draining,
    /// Its holder held more than others.
    balance,
    /// The journal lost what it had of it.
    reset,
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
        registry.register(
            "nodetap_watch_note_failures",
            "Times the journal did not keep which watch was given to whom",
            self.note_failures.clone(),
        );
        registry.register(
            "nodetap_watch_questions",
            "Times an agent was asked whether it reaches the API server, as a watch failed or to know how near it is",
            self.questions.clone(),
        );
        registry.register(
            "nodetap_watch_unreached",
            "Times an agent that was asked did not reach the API server",
            self.unreached.clone(),
        );
        registry.register(
            "nodetap_watch_shards",
            "Shares into which the cluster's events are divided",
            self.shards.clone(),
        );
        registry.register(
            "nodetap_watch_partition",
            "How the cluster's events are divided now: 1 for the way that is taken",
            self.partition.clone(),
        );
        registry.register(
            "nodetap_watch_changing",
            "1 while watches of another way of dividing go on, until those of this one watch",
            self.changing.clone(),
        );
        registry.register(
            "nodetap_watch_namespaces",
            "Namespaces that there are, where the events are divided by them",
            self.namespaces.clone(),
        );
        registry.register(
            "nodetap_watch_events_per_second",
            "Events a second that the agents took from their watches, over about the last minute",
            self.events_per_second.clone(),
        );
        registry.register(
            "nodetap_api_server_accepts",
            "What the API server was found to accept: 1 or 0; not there until it was asked",
            self.accepts.clone(),
        );
        registry.register(
            "nodetap_api_servers",
            "API servers behind the service kubernetes; 0: not known",
            self.api_servers.clone(),
        );
    }

    /// What the API server was found to accept.
    pub fn found(&self, findings: &Findings) {
        self.api_servers.set(findings.api_servers.into());
        for (what, finding) in [
            ("host_selector", findings.host_selector()),
            ("shard_selector", findings.shard_selector()),
            ("send_initial_events", findings.send_initial_events()),
        ] {
            let labels = AcceptsLabels { what };
            match finding {
                Finding::Unspecified => drop(self.accepts.remove(&labels)),
                Finding::Accepted => drop(self.accepts.get_or_create(&labels).set(1)),
                Finding::Refused => drop(self.accepts.get_or_create(&labels).set(0)),
            }
        }
    }

    /// How the events are divided.
    pub fn chosen(&self, chosen: Partition) {
        let all = [Partition::Host, Partition::Cluster, Partition::Namespaces, Partition::Ranges(1)];
        for by in all.map(Partition::name) {
            self.partition.get_or_create(&PartitionLabels { by }).set(i64::from(by == chosen.name()));
        }
    }
}

// === impl CauseLabel ===

impl From<Cause> for CauseLabel {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Vacant => Self::vacant,
            Cause::Left => Self::left,
            Cause::Failing => Self::failing,
            Cause::Draining => Self::draining,
            Cause::Balance => Self::balance,
            Cause::Reset => Self::reset,
        }
    }
}
