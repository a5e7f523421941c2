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
    /// Seconds during which no event was taken because the outbox was full.
    pub full: Counter<f64, AtomicU64>,
    /// Batches that are closed and not acknowledged.
    pub batches: Gauge,
    /// When the oldest of them was closed, in seconds since 1970; 0: there is none.
    pub oldest: Gauge,
    /// 1 while what is taken is in memory alone.
    pub in_memory: Gauge,
    /// Bytes of the outbox's files.
    pub disk_bytes: Gauge,
    /// Batches that were written to the disk.
    pub spilled_batches: Counter,
    /// Records in them.
    pub spilled_records: Counter,
    /// Times that the disk was synced.
    pub syncs: Counter,
    /// Records that an earlier process left on the disk.
    pub recovered: Counter,
    /// Batches that were read back from the disk to be sent.
    pub read_back: Counter,
    /// Failures of the disk.
    pub errors: Family<ErrorLabels, Counter>,
    /// What was on the disk and could not be read.
    pub damaged: Family<DamageLabels, Counter>,
    /// Records that were taken and are gone.
    pub dropped: Family<DropLabels, Counter>,
}

/// Label of [`Metrics::errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// Which.
    pub reason: ErrorReason,
}

/// How the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum ErrorReason {
    /// It is full, or a quota is.
    no_space,
    /// It is mounted read-only, or has become so.
    read_only,
    /// This process may not.
    denied,
    /// Another process uses the folder.
    locked,
    /// What was read is not what was written.
    damaged,
    /// It says nothing for too long.
    stalled,
    /// Anything else.
    io,
}

/// Label of [`Metrics::damaged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DamageLabels {
    /// What.
    pub kind: DamageKind,
}

/// What was found instead of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum DamageKind {
    /// The last one, whose writing was cut short: it did not count as written.
    torn,
    /// Bytes that are not those that were written.
    damaged,
}

/// Label of [`Metrics::dropped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabels {
    /// Why.
    pub reason: DropReason,
}

/// Why a record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum DropReason {
    /// Not even the reserve had room for a death.
    full,
    /// The disk lost it before it was sent.
    unreadable,
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
            "Seconds during which no event was taken because the outbox was full",
            Unit::Seconds,
            self.full.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_dropped_records",
            "Records that were taken and are gone, by reason",
            self.dropped.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_batches",
            "Batches that are closed and that the aggregator has not acknowledged",
            self.batches.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_oldest_timestamp_seconds",
            "When the oldest batch that is not acknowledged was closed, since 1970; 0: there is none",
            self.oldest.clone(),
        );
        self.register_disk(registry);
    }

    fn register_disk(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_agent_outbox_in_memory",
            "1 while what is taken is in memory alone, because there is no disk or it fails",
            self.in_memory.clone(),
        );
        registry.register_with_unit(
            "nodetap_agent_outbox_disk",
            "Bytes of the outbox's files",
            Unit::Bytes,
            self.disk_bytes.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_spilled_batches",
            "Batches written to the disk, because they hold deaths or were not acknowledged soon",
            self.spilled_batches.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_spilled_records",
            "Records in those batches",
            self.spilled_records.clone(),
        );
        registry.register("nodetap_agent_outbox_syncs", "Times that the disk was synced", self.syncs.clone());
        registry.register(
            "nodetap_agent_outbox_recovered_records",
            "Records that an earlier process left on the disk, taken up to be sent",
            self.recovered.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_read_back_batches",
            "Batches read back from the disk to be sent",
            self.read_back.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_disk_errors",
            "Failures of the disk, by reason",
            self.errors.clone(),
        );
        registry.register(
            "nodetap_agent_outbox_damaged_batches",
            "What was on the disk and could not be read, by kind",
            self.damaged.clone(),
        );
    }

    /// Counts a failure of the disk.
    pub fn failed(&self, reason: ErrorReason) {
        self.errors.get_or_create_owned(&ErrorLabels { reason }).inc();
    }

    /// Counts what could not be read.
    pub fn found(&self, kind: DamageKind, batches: usize) {
        self.damaged.get_or_create_owned(&DamageLabels { kind }).inc_by(batches as u64);
    }

    /// Counts records that are gone.
    pub fn gone(&self, reason: DropReason, records: u64) {
        self.dropped.get_or_create_owned(&DropLabels { reason }).inc_by(records);
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
