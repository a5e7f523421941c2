//! What sinks count. One label, the receiver's name, so there are as many series as receivers are configured.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::FailureClass;
use super::account::Account;

/// Families of all sinks.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Attempts that failed, of all sinks: kubernetes-event-exporter's `send_event_errors`. Not a family of its own.
    pub failures: Counter,
    delivered: Family<SinkLabel, Counter>,
    failed: Family<FailureLabels, Counter>,
    dead_letters: Family<SinkLabel, Counter>,
    retried: Family<SinkLabel, Counter>,
    replayed: Family<SinkLabel, Counter>,
    missed: Family<SinkLabel, Counter>,
    lag_records: Family<SinkLabel, Gauge>,
    lag_seconds: Family<SinkLabel, Gauge<f64, AtomicU64>>,
    batch_records: Family<SinkLabel, Histogram, fn() -> Histogram>,
    request_seconds: Family<SinkLabel, Histogram, fn() -> Histogram>,
    last_success: Family<SinkLabel, Gauge<f64, AtomicU64>>,
    passed: Family<SinkLabel, Counter>,
    routed: Family<SinkLabel, Counter>,
    pending: Family<SinkLabel, Gauge>,
    overtook: Family<SinkLabel, Counter>,
    left_behind: Family<SinkLabel, Counter>,
    catching_up: Family<SinkLabel, Gauge>,
    /// By receiver, of which there are as many as are configured.
    accounts: Arc<Mutex<BTreeMap<String, Account>>>,
}

/// One sink's part of them.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    name: String,
    failures: Counter,
    failed: Family<FailureLabels, Counter>,
    /// Deliveries that the sink has.
    pub delivered: Counter,
    /// Records that went to its dead letters.
    pub dead_letters: Counter,
    /// Deliveries that failed and are tried again; each time counts.
    pub retried: Counter,
    /// Dead letters that the sink took when they were delivered again.
    pub replayed: Counter,
    /// Records that the journal dropped or lost before the sink had them.
    pub missed: Counter,
    /// Records between the cursor and the journal's head.
    pub lag_records: Gauge,
    /// Age of the oldest record that waits, in seconds.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Deliveries in a batch.
    pub batch_records: Histogram,
    /// How long an attempt took, in seconds.
    pub request_seconds: Histogram,
    /// When something was delivered last, in seconds since 1970.
    pub last_success: Gauge<f64, AtomicU64>,
    /// New records that it took ahead of its backlog.
    pub overtook: Counter,
    /// New records that wait with the backlog.
    pub left_behind: Counter,
    /// 1 while what is new goes first.
    pub catching_up: Gauge,
    passed: Counter,
    routed: Counter,
    pending: Gauge,
    accounts: Arc<Mutex<BTreeMap<String, Account>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    sink: String,
    reason: FailureClass,
}

// === impl Metrics ===

impl Metrics {
    /// Makes the families and registers them, as `nodetap_sink_*`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            failures: Counter::default(),
            delivered: Family::default(),
            failed: Family::default(),
            dead_letters: Family::default(),
            retried: Family::default(),
            replayed: Family::default(),
            missed: Family::default(),
            lag_records: Family::default(),
            lag_seconds: Family::default(),
            batch_records: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 4.0, 7))),
            request_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 9))
            }),
            last_success: Family::default(),
            passed: Family::default(),
            routed: Family::default(),
            pending: Family::default(),
            overtook: Family::default(),
            left_behind: Family::default(),
            catching_up: Family::default(),
            accounts: Arc::default(),
        };
        let m = &metrics;
        registry.register("nodetap_sink_delivered", "Records that the sink took", m.delivered.clone());
        registry.register(
            "nodetap_sink_failed_attempts",
            "Attempts to deliver that failed, by reason",
            m.failed.clone(),
        );
        registry.register(
            "nodetap_sink_dead_letters",
            "Records that the sink refused for good, or that could not be rendered for it",
            m.dead_letters.clone(),
        );
        registry.register(
            "nodetap_sink_retried",
            "Deliveries that failed and are tried again",
            m.retried.clone(),
        );
        registry.register(
            "nodetap_sink_replayed",
            "Dead letters that the sink took when they were delivered again",
            m.replayed.clone(),
        );
        registry.register(
            "nodetap_sink_missed",
            "Records that the journal dropped or lost before the sink had them",
            m.missed.clone(),
        );
        registry.register(
            "nodetap_sink_lag_records",
            "Records between the sink's cursor and the end of the journal",
            m.lag_records.clone(),
        );
        registry.register_with_unit(
            "nodetap_sink_lag",
            "Age of the oldest record that the sink has not got",
            Unit::Seconds,
            m.lag_seconds.clone(),
        );
        registry.register("nodetap_sink_batch_records", "Records tried at once", m.batch_records.clone());
        registry.register_with_unit(
            "nodetap_sink_attempt_duration",
            "How long an attempt to deliver took",
            Unit::Seconds,
            m.request_seconds.clone(),
        );
        registry.register_with_unit(
            "nodetap_sink_last_success_timestamp",
            "When the sink last took a record, since 1970",
            Unit::Seconds,
            m.last_success.clone(),
        );
        registry.register("nodetap_sink_passed", "Records that are not for the sink", m.passed.clone());
        registry.register(
            "nodetap_sink_deliveries",
            "Deliveries that routes make of records: delivered, dead letters and pending together",
            m.routed.clone(),
        );
        registry.register(
            "nodetap_sink_pending",
            "Deliveries that were read and are neither delivered nor dead letters",
            m.pending.clone(),
        );
        registry.register(
            "nodetap_sink_catching_up",
            "1 while a sink is far behind, and what is new goes first where it may",
            m.catching_up.clone(),
        );
        registry.register(
            "nodetap_sink_overtook",
            "New records that the sink took ahead of its backlog",
            m.overtook.clone(),
        );
        registry.register(
            "nodetap_sink_left_behind",
            "New records that wait for older ones of their object, or found the sink too slow, while it catches up",
            m.left_behind.clone(),
        );
        metrics
    }

    /// Every sink's account at one moment.
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The part of one sink; its series are there from then on.
    pub fn sink(&self, name: &str) -> SinkMetrics {
        let label = SinkLabel { sink: name.to_owned() };
        SinkMetrics {
            name: name.to_owned(),
            failures: self.failures.clone(),
            failed: self.failed.clone(),
            delivered: self.delivered.get_or_create_owned(&label),
            dead_letters: self.dead_letters.get_or_create_owned(&label),
            retried: self.retried.get_or_create_owned(&label),
            replayed: self.replayed.get_or_create_owned(&label),
            missed: self.missed.get_or_create_owned(&label),
            lag_records: self.lag_records.get_or_create_owned(&label),
            lag_seconds: self.lag_seconds.get_or_create_owned(&label),
            batch_records: self.batch_records.get_or_create_owned(&label),
            request_seconds: self.request_seconds.get_or_create_owned(&label),
            last_success: self.last_success.get_or_create_owned(&label),
            passed: self.passed.get_or_create_owned(&label),
            routed: self.routed.get_or_create_owned(&label),
            pending: self.pending.get_or_create_owned(&label),
            overtook: self.overtook.get_or_create_owned(&label),
            left_behind: self.left_behind.get_or_create_owned(&label),
            catching_up: self.catching_up.get_or_create_owned(&label),
            accounts: Arc::clone(&self.accounts),
        }
    }
}

// === impl SinkMetrics ===

impl SinkMetrics {
    /// The account that was shown last.
    #[cfg(test)]
    pub(crate) fn account(&self) -> Account {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(&self.name).copied().unwrap_or_default()
    }

    /// Shows an account.
    pub fn show(&self, account: &Account) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = accounts.insert(self.name.clone(), *account).unwrap_or_default();
        drop(accounts);
        self.passed.inc_by(account.passed.saturating_sub(before.passed));
        self.routed.inc_by(account.deliveries.saturating_sub(before.deliveries));
        self.pending.set(i64::try_from(account.pending).unwrap_or(i64::MAX));
    }

    /// Counts a failed attempt.
    pub fn failed(&self, reason: FailureClass) {
        self.failures.inc();
        self.failed.get_or_create(&FailureLabels { sink: self.name.clone(), reason }).inc();
    }
}

// === impl FailureClass ===

impl EncodeLabelValue for FailureClass {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

#[cfg(test)]
mod tests;
