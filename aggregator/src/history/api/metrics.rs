//! What the API counts. All labels are of these lists.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use nodetap_wire::event::EventError;

use crate::history::query::Mark;
use crate::journal::Position;

/// Families of the API. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests, by route and class of the answer's status.
    pub requests: Family<RequestLabels, Counter>,
    /// Until an answer begins, in seconds.
    pub seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// Requests without access, by why.
    pub refused: Family<AccessLabel, Counter>,
    /// Connections that did not come to a request.
    pub connections: Family<ConnectionLabel, Counter>,
    /// Tails that are open.
    pub tails: Gauge,
    /// Tails that the aggregator ended.
    pub cut: Family<CutLabel, Counter>,
    /// Records that tails were sent.
    pub tailed: Counter,
    /// Records that were found and cannot be read as one; left out of the answer.
    pub unreadable: Counter,
    /// When the certificate ends, its reloads and failures.
    pub certificate: nodetap_runtime::reloading::Counts,
    /// Reloads of the token files, and failures.
    pub tokens: nodetap_runtime::reloading::Counts,
}

/// Labels of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// What was asked for.
    pub route: RouteValue,
    /// Class of the status.
    pub code: Class,
}

/// Label: what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// What was asked for.
    pub route: RouteValue,
}

/// Label: why there was no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AccessLabel {
    /// Why.
    pub reason: NoAccess,
}

/// Label: why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabel {
    /// Why.
    pub reason: NoConnection,
}

/// Label: why a tail was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CutLabel {
    /// Why.
    pub reason: Cut,
}

/// Routes, as a label has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, missing_docs, reason = "these are the label's values")]
pub enum RouteValue {
    page,
    openapi,
    records,
    record,
    counts,
    tail,
    export,
    other,
}

/// Classes of status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 200 to 399.
    Good,
    /// 400 to 499.
    Theirs,
    /// 500 to 599.
    Ours,
}

/// Why there is no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum NoAccess {
    /// Neither token nor certificate.
    nothing_presented,
    /// A token that is not one of ours.
    token,
    /// A certificate of somebody who is not named.
    certificate,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum NoConnection {
    /// The handshake failed.
    tls,
    /// The handshake took too long.
    timeout,
    /// As many are open as may be.
    too_many,
}

/// Why a tail was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label's values")]
pub enum Cut {
    /// Its reader takes nothing.
    slow,
    /// Its token or certificate does not let it in any more.
    access,
    /// The journal cannot be read.
    journal,
    /// The aggregator stops.
    stopping,
}

// === impl Metrics ===

impl Metrics {
    /// Counts a record that is left out of an answer.
    pub(super) fn leave_out_one(&self, position: Position, error: &EventError) {
        self.unreadable.inc();
        tracing::warn!(position = position.0, %error, "a record of the history cannot be read");
    }

    /// Counts records that are left out of a page, which ends there.
    pub(super) fn leave_out(&self, records: u64, page: Option<Mark>) {
        if records > 0 {
            self.unreadable.inc_by(records);
            let last = page.map(|mark| mark.position.0);
            tracing::warn!(records, last, "records of a page of the history cannot be read");
        }
    }

    /// Adds the families to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("nodetap_history");
        registry.register("requests", "Requests to the history", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Until an answer of the history begins",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests to the history without access, by why",
            self.refused.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections to the history that did not come to a request, by why",
            self.connections.clone(),
        );
        registry.register("tails", "Live tails that are open", self.tails.clone());
        registry.register("tails_cut", "Live tails that the aggregator ended, by why", self.cut.clone());
        registry.register("tail_records", "Records that live tails were sent", self.tailed.clone());
        registry.register(
            "unreadable_records",
            "Records that were found, cannot be read, and are left out of an answer",
            self.unreadable.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that the history shows ends",
            self.certificate.expires.clone(),
        );
        for (name, what, counts) in
            [("certificate", "certificates", &self.certificate), ("token", "tokens", &self.tokens)]
        {
            let help = format!("Times the history took new {what} from their files");
            registry.register(format!("{name}_reloads"), help, counts.reloads.clone());
            let help = format!("Looks at files of {what} that the history cannot use");
            registry.register(format!("{name}_reload_failures"), help, counts.failures.clone());
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
            }),
            refused: Family::default(),
            connections: Family::default(),
            tails: Gauge::default(),
            cut: Family::default(),
            tailed: Counter::default(),
            unreadable: Counter::default(),
            certificate: nodetap_runtime::reloading::Counts::default(),
            tokens: nodetap_runtime::reloading::Counts::default(),
        }
    }
}

// === impl Cut ===

impl Cut {
    /// All there are.
    pub(super) const ALL: [Self; 4] = [Self::slow, Self::access, Self::journal, Self::stopping];
}

// === impl Class ===

impl Class {
    /// Of a status.
    pub fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            ..400 => Self::Good,
            400..500 => Self::Theirs,
            500.. => Self::Ours,
        }
    }
}

impl EncodeLabelValue for Class {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Good => "2xx",
            Self::Theirs => "4xx",
            Self::Ours => "5xx",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}
