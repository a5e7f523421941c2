//! What admitting says of itself.

use std::sync::atomic::{Ordering, fence};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::check::Refused;

/// Families of admitting.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Agents whose stream is open.
    pub agents: Gauge,
    /// Streams that are not read, because there is no room for their next batch.
    pub waiting: Gauge,
    /// Connections that wait for their turn to shake hands.
    pub queued: Gauge,
    /// Connections that shake hands.
    pub shaking: Gauge,
    /// Times no connection could be accepted, as with too many open files.
    pub accept_failures: Counter,
    /// 1 since the last of them, until one is accepted or none waits. No family: a check of readiness asks it.
    pub accept_failing: Gauge,
    /// Connections that did not come to a stream.
    pub refused_connections: Family<ConnectionLabels, Counter>,
    /// Streams that ended.
    pub ended: Family<EndLabels, Counter>,
    /// Records that were left out of their batch.
    pub refused_records: Family<RecordLabels, Counter>,
    /// Checkpoints that were left out of their batch.
    pub refused_checkpoints: Family<CheckpointLabels, Counter>,
    /// Agents that came without a ledger, by what was remembered of it.
    pub ledgers_recalled: Family<RecalledLabels, Counter>,
    /// Entries of ledgers for which there was no room.
    pub ledger_entries_refused: Counter,
    /// Times all of a ledger was asked for, because nothing was remembered of it.
    pub ledgers_asked_again: Counter,
    /// Batches taken.
    pub batches: Counter,
    /// Records given to the journal: each becomes one taken, or one that was not kept.
    pub given: Counter,
    /// Records taken, those that the journal has already among them.
    pub records: Counter,
    /// Records that the journal could not keep; their agents send them again.
    pub not_kept: Counter,
    /// Payload bytes, compressed.
    pub bytes: Counter,
    /// When this aggregator's certificate ends, in seconds since 1970.
    pub certificate_expires: Gauge,
    /// Certificates taken after the first.
    pub certificate_reloads: Counter,
    /// Files that changed to something that cannot be used; counted at every look.
    pub certificate_reload_failures: Counter,
}

/// A stream or connection that waits; dropped, it no longer does.
#[derive(Debug)]
pub(super) struct Waits(Gauge);

/// A batch on its way to the journal; dropped before it was [`kept`](Given::kept), it was not.
#[derive(Debug)]
pub struct Given {
    records: u64,
    /// None: it is counted.
    counts: Option<Counts>,
}

#[derive(Debug)]
struct Counts {
    batches: Counter,
    kept: Counter,
    not_kept: Counter,
}

/// Label of [`Metrics::refused_connections`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    /// Why.
    pub reason: ConnectionReason,
}

/// Why a connection did not come to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum ConnectionReason {
    /// It presented no certificate.
    certificate_missing,
    /// Its certificate is over.
    certificate_expired,
    /// Its certificate is of another CA.
    certificate_unknown_ca,
    /// Its certificate cannot be used otherwise.
    certificate_bad,
    /// Its certificate names no node.
    certificate_without_node,
    /// TLS failed otherwise.
    tls,
    /// The handshake took too long.
    timeout,
    /// Its turn to shake hands did not come in time.
    no_turn,
    /// The agent gave up before its turn came.
    gave_up,
    /// There are as many agents as are admitted.
    too_many,
    /// It said nothing for too long.
    no_hello,
    /// It said something else first.
    not_hello,
    /// Hello named another node than the certificate.
    other_node,
}

/// Label of [`Metrics::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// Why.
    pub reason: EndReason,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum EndReason {
    /// The agent ended it.
    closed,
    /// The connection broke.
    cut,
    /// Another stream of the node took its place.
    replaced,
    /// A batch could not be decoded.
    bad_batch,
    /// A frame came out of turn.
    out_of_turn,
    /// The journal could not take a batch.
    journal,
    /// The aggregator stops.
    stopping,
}

/// Label of [`Metrics::refused_records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RecordLabels {
    /// Why.
    pub reason: RecordReason,
}

/// Why a record was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum RecordReason {
    /// It claims another node.
    other_node,
    /// An event from an agent without a watch.
    no_watch,
    /// Of an unknown kind.
    unknown_kind,
    /// A field that identifies it is empty.
    no_identity,
    /// Too long.
    too_long,
    /// Not UTF-8.
    not_utf8,
    /// Not an Event's JSON.
    not_event,
    /// It contradicts itself.
    contradicts,
}

/// Label of [`Metrics::refused_checkpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckpointLabels {
    /// Why.
    pub reason: CheckpointReason,
}

/// Why a checkpoint was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum CheckpointReason {
    /// Its epoch is over.
    old_epoch,
    /// Its sender does not hold the shard.
    not_holder,
}

/// Label of [`Metrics::ledgers_recalled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RecalledLabels {
    /// How much.
    pub outcome: Recalled,
}

/// How much was remembered of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum Recalled {
    /// All that its agent had told.
    whole,
    /// Some of it had found no room.
    partial,
    /// The node is new, or what was known of it is lost or old.
    nothing,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("nodetap_agents_connected", "Agents whose stream is open", self.agents.clone());
        registry.register(
            "nodetap_agent_handshakes_queued",
            "Connections of agents that wait for their turn to shake hands",
            self.queued.clone(),
        );
        registry.register(
            "nodetap_agent_handshakes",
            "Connections of agents that shake hands",
            self.shaking.clone(),
        );
        registry.register(
            "nodetap_agents_waiting",
            "Agents whose stream is not read until there is room",
            self.waiting.clone(),
        );
        registry.register(
            "nodetap_agent_accept_failures",
            "Times no connection of an agent could be accepted, as with too many open files",
            self.accept_failures.clone(),
        );
        registry.register(
            "nodetap_agent_connections_refused",
            "Connections of agents that did not come to a stream, by reason",
            self.refused_connections.clone(),
        );
        registry.register(
            "nodetap_agent_streams_ended",
            "Streams of agents that ended, by reason",
            self.ended.clone(),
        );
        registry.register(
            "nodetap_records_refused",
            "Records that were left out of their batch, by reason",
            self.refused_records.clone(),
        );
        registry.register(
            "nodetap_checkpoints_refused",
            "Checkpoints of watches that were left out of their batch, by reason",
            self.refused_checkpoints.clone(),
        );
        registry.register(
            "nodetap_ledgers_recalled",
            "Agents that came without a ledger of deaths, by how much was remembered of it",
            self.ledgers_recalled.clone(),
        );
        registry.register(
            "nodetap_ledger_entries_refused",
            "Entries of agents' ledgers for which there was no room",
            self.ledger_entries_refused.clone(),
        );
        registry.register(
            "nodetap_ledgers_asked_again",
            "Times all of an agent's ledger was asked for, because nothing was remembered of it",
            self.ledgers_asked_again.clone(),
        );
        registry.register(
            "nodetap_batches_taken",
            "Batches of agents that became durable",
            self.batches.clone(),
        );
        registry.register(
            "nodetap_records_taken",
            "Records of agents that became durable, those that the journal had already among them",
            self.records.clone(),
        );
        registry.register(
            "nodetap_records_not_kept",
            "Records that the journal could not keep; their agents send them again",
            self.not_kept.clone(),
        );
        registry.register(
            "nodetap_payload_bytes_taken",
            "Bytes of batches received, compressed",
            self.bytes.clone(),
        );
        registry.register(
            "nodetap_certificate_expiry_timestamp_seconds",
            "When the aggregator's certificate ends",
            self.certificate_expires.clone(),
        );
        registry.register(
            "nodetap_certificate_reloads",
            "New certificates taken from the files",
            self.certificate_reloads.clone(),
        );
        registry.register(
            "nodetap_certificate_reload_failures",
            "Looks at certificate files that cannot be used; the ones from before are kept",
            self.certificate_reload_failures.clone(),
        );
    }

    /// Counts a connection that did not come to a stream.
    pub fn refuse(&self, reason: ConnectionReason) {
        self.refused_connections.get_or_create_owned(&ConnectionLabels { reason }).inc();
    }

    /// Counts an agent that came without a ledger.
    pub(super) fn recalled(&self, outcome: Recalled) {
        self.ledgers_recalled.get_or_create_owned(&RecalledLabels { outcome }).inc();
    }

    /// Counts a stream among those that wait, until what this answers with is dropped.
    pub(super) fn wait(&self) -> Waits {
        Waits::among(&self.waiting)
    }

    /// Counts the records of a batch that is given to the journal, and what becomes of them.
    pub fn give(&self, records: u64) -> Given {
        self.given.inc_by(records);
        let (batches, kept) = (self.batches.clone(), self.records.clone());
        Given { records, counts: Some(Counts { batches, kept, not_kept: self.not_kept.clone() }) }
    }

    /// Counts a stream's end.
    pub fn end(&self, reason: EndReason) {
        self.ended.get_or_create_owned(&EndLabels { reason }).inc();
    }
}

// === impl Waits ===

impl Waits {
    /// Counts until it is dropped.
    pub(super) fn among(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Given ===

impl Given {
    /// It is durable.
    pub fn kept(mut self) {
        let Some(counts) = self.counts.take() else { return };
        counts.batches.inc();
        // Whoever sees it taken sees it journalled.
        fence(Ordering::SeqCst);
        counts.kept.inc_by(self.records);
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(counts) = self.counts.take() {
            counts.not_kept.inc_by(self.records);
        }
    }
}

// === impl RecordReason ===

impl RecordReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::other_node,
        Self::no_watch,
        Self::unknown_kind,
        Self::no_identity,
        Self::too_long,
        Self::not_utf8,
        Self::not_event,
        Self::contradicts,
    ];
}

impl From<&Refused> for RecordReason {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::OtherNode { .. } => Self::other_node,
            Refused::NoWatch(_) => Self::no_watch,
            Refused::UnknownKind => Self::unknown_kind,
            Refused::NoIdentity { .. } => Self::no_identity,
            Refused::TooLong(_) => Self::too_long,
            Refused::NotUtf8(_) => Self::not_utf8,
            Refused::NotEvent(_) => Self::not_event,
            Refused::Contradicts { .. } => Self::contradicts,
        }
    }
}
