//! What `/livez` and `/readyz` of the aggregator answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nodetap_runtime::endpoint::{Check, Health};
use nodetap_wire::time;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admit::metrics::Metrics;
use crate::journal::sqlite::SqliteJournal;

/// A commit takes milliseconds, and waits 5 s at most for another process that has the file: longer, and the disk hangs.
const LONGEST_COMMIT_NS: i64 = 10 * 1_000_000_000;

/// What the aggregator's parts say of themselves.
#[derive(Debug)]
pub struct AggregatorHealth {
    /// Whether it can keep what it takes.
    pub journal: SqliteJournal,
    /// Whether agents are taken. True from the first: nothing answers before the address is bound and the plan has read the journal.
    /// False once the intake has ended.
    pub admits: watch::Receiver<bool>,
    /// What the intake says of its connections and its certificate.
    pub door: Metrics,
    /// It is on its way to its end.
    pub stop: CancellationToken,
}

/// Which of its checks hold, as a family and in the log, whether or not somebody asks.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    ready: Family<CheckLabel, Gauge>,
    failures: HashMap<&'static str, Option<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabel {
    check: &'static str,
}

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

// === impl Readiness ===

impl Readiness {
    /// Registers the family.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("nodetap_ready", "1 where a check of /readyz holds", self.ready.clone());
    }

    /// Looks, until told to stop.
    pub async fn run(mut self, health: Arc<impl Health>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            self.look(health.ready());
        }
    }

    /// Shows the checks. Answers those that changed, which it has logged.
    fn look(&mut self, checks: Vec<Check>) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for Check { name, failure } in checks {
            self.ready.get_or_create(&CheckLabel { check: name }).set(i64::from(failure.is_none()));
            let before = self.failures.get(name).is_some_and(Option::is_some);
            match (&failure, before) {
                (Some(reason), false) => {
                    tracing::error!(check = name, reason, "not ready: cannot take and keep records");
                    changed.push(name);
                }
                (None, true) => {
                    tracing::info!(check = name, "ready again");
                    changed.push(name);
                }
                _ => {}
            }
            self.failures.insert(name, failure);
        }
        changed
    }
}

// === impl AggregatorHealth ===

impl Health for AggregatorHealth {
    fn live(&self) -> Vec<Check> {
        // A disk that is full fills no less by a restart, and a sink that is down comes up no sooner: neither is asked here.
        // A part that ends, ends the process.
        vec![Check::new("tasks", None)]
    }

    fn ready(&self) -> Vec<Check> {
        let admits = *self.admits.borrow() && !self.stop.is_cancelled();
        let hung = hung(self.journal.commit_since(), time::now_ns());
        vec![
            Check::new("journal", self.journal.failure().map(|failure| failure.to_string()).or(hung)),
            Check::new("admit", shut(admits, &self.door, time::now_ns().div_euclid(1_000_000_000))),
        ]
    }
}

/// Why no agent can connect, at a time in seconds since 1970.
fn shut(admits: bool, door: &Metrics, now: i64) -> Option<String> {
    let expires = door.certificate_expires.get();
    if !admits {
        Some("agents are not taken".to_owned())
    } else if door.accept_failing.get() > 0 {
        Some("connections of agents cannot be accepted: the log says why".to_owned())
    } else if expires > 0 && expires < now {
        let at = time::format_ns(expires.saturating_mul(1_000_000_000)).unwrap_or_default();
        Some(format!(
            "the certificate of tls.certFile expired at {at}: agents do not connect to it; renew it"
        ))
    } else {
        None
    }
}

/// What is wrong with a commit that began at a time, if it is too long ago.
fn hung(since_ns: Option<i64>, now_ns: i64) -> Option<String> {
    let took = now_ns.saturating_sub(since_ns?);
    (took > LONGEST_COMMIT_NS).then(|| {
        let seconds = took / 1_000_000_000;
        format!("journal: a commit has been under way for {seconds} s; the disk of journal.path hangs")
    })
}

#[cfg(test)]
mod tests;
