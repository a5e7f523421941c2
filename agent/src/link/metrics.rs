//! What the link says of itself.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Families of the link.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// 1 while a stream is open.
    pub connected: Gauge,
    /// Streams that ended or did not come about.
    pub disconnects: Family<DisconnectLabels, Counter>,
    /// Batches sent, those sent again among them.
    pub batches: Counter,
    /// Records in them.
    pub records: Counter,
    /// Payload bytes, compressed.
    pub bytes: Counter,
    /// Batches sent again after a cut.
    pub resent: Counter,
    /// Batches acknowledged.
    pub acknowledged: Counter,
    /// Times the journal was said to have lost what it had acknowledged.
    pub lost: Counter,
    /// When the last acknowledgement came, in seconds since 1970.
    pub last_acknowledged: Gauge,
    /// Watches that this agent is to hold.
    pub watches: Gauge,
    /// When this agent's certificate ends, in seconds since 1970.
    pub certificate_expires: Gauge,
    /// Certificates taken after the first.
    pub certificate_reloads: Counter,
    /// Files that changed to something that cannot be used; counted at every look.
    pub certificate_reload_failures: Counter,
}

/// Label of [`Metrics::disconnects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DisconnectLabels {
    /// Why.
    pub reason: Reason,
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum Reason {
    /// No TCP connection: no such name, refused, no route.
    unreachable,
    /// The aggregator did not answer in time.
    timeout,
    /// The aggregator's certificate is not trusted, or TLS failed otherwise.
    tls,
    /// The aggregator does not take this agent's certificate.
    certificate_refused,
    /// The aggregator refused the stream or something sent on it.
    refused,
    /// The aggregator cannot take more now: it stops, or its disk is full.
    unavailable,
    /// Another stream of this node took its place.
    replaced,
    /// The connection was cut.
    cut,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every family.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodetap_agent_link_connected",
            "1 while the stream to the aggregator is open",
            self.connected.clone(),
        );
        registry.register(
            "nodetap_agent_link_disconnects",
            "Streams to the aggregator that ended or did not come about, by reason",
            self.disconnects.clone(),
        );
        registry.register(
            "nodetap_agent_link_batches",
            "Batches sent, those sent again among them",
            self.batches.clone(),
        );
        registry.register(
            "nodetap_agent_link_records",
            "Records sent, those sent again among them",
            self.records.clone(),
        );
        registry.register(
            "nodetap_agent_link_payload_bytes",
            "Bytes of the batches sent, compressed",
            self.bytes.clone(),
        );
        registry.register(
            "nodetap_agent_link_resent_batches",
            "Batches sent again after the stream was cut",
            self.resent.clone(),
        );
        registry.register(
            "nodetap_agent_link_acknowledged_batches",
            "Batches that the aggregator has made durable",
            self.acknowledged.clone(),
        );
        registry.register(
            "nodetap_agent_link_journal_losses",
            "Times the aggregator said that its journal lost what it had acknowledged",
            self.lost.clone(),
        );
        registry.register(
            "nodetap_agent_link_last_acknowledged_timestamp_seconds",
            "When the last acknowledgement came; 0: none yet",
            self.last_acknowledged.clone(),
        );
        registry.register(
            "nodetap_agent_link_assigned_watches",
            "Watches that the aggregator has given to this agent",
            self.watches.clone(),
        );
        registry.register(
            "nodetap_agent_certificate_expiry_timestamp_seconds",
            "When this agent's certificate ends",
            self.certificate_expires.clone(),
        );
        registry.register(
            "nodetap_agent_certificate_reloads",
            "New certificates taken from the files",
            self.certificate_reloads.clone(),
        );
        registry.register(
            "nodetap_agent_certificate_reload_failures",
            "Looks at certificate files that cannot be used; the ones from before are kept",
            self.certificate_reload_failures.clone(),
        );
    }

    /// Counts an end by its reason.
    pub fn disconnected(&self, reason: Reason) {
        self.disconnects.get_or_create_owned(&DisconnectLabels { reason }).inc();
    }
}
