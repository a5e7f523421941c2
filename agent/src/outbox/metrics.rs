//! What the outbox says of itself.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use super::queue::Refused;

/// Families of the outbox.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Records that were taken and can never be sent.
    pub refused: Family<RefusedLabels, Counter>,
    /// Bytes that are not acknowledged, the open batch uncompressed.
    pub bytes: Gauge,
    /// Records that are not acknowledged.
    pub records: Gauge,
    /// Seconds during which nothing was taken because the outbox was full.
    pub full: Counter<f64, AtomicU64>,
}

/// Label of [`Metrics::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Why.
    pub reason: RefusedReason,
}

/// Why a record is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum RefusedReason {
    /// Longer than the aggregator takes.
    too_large,
    /// Of no kind.
    empty,
    /// The batch that it was in could not be packed.
    unpackable,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_agent_outbox_refused_records",
            "Records that were taken and can never be sent, by reason",
            self.refused.clone(),
        );
        registry.register_with_unit(
            "nodetap_agent_outbox_unacknowledged",
            "Bytes that the aggregator has not acknowledged, the open batch uncompressed",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_unacknowledged_records",
            "Records that the aggregator has not acknowledged",
            self.records.clone(),
        );
        registry.register_with_unit(
            "nodetap_agent_outbox_full",
            "Seconds during which nothing was taken because the outbox was full",
            Unit::Seconds,
            self.full.clone(),
        );
    }

    /// Counts what was refused.
    pub fn count(&self, refused: &Refused) {
        let (reason, records) = match refused {
            Refused::TooLarge(_) => (RefusedReason::too_large, 1),
            Refused::Empty => (RefusedReason::empty, 1),
            Refused::Unpackable(records, _) => (RefusedReason::unpackable, *records as u64),
        };
        self.refused.get_or_create_owned(&RefusedLabels { reason }).inc_by(records);
    }
}
