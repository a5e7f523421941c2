//! What `/livez` and `/readyz` of the aggregator answer.

use nodetap_runtime::endpoint::{Check, Health};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::journal::sqlite::SqliteJournal;

/// What the aggregator's parts say of themselves.
#[derive(Debug)]
pub struct AggregatorHealth {
    /// Whether it can keep what it takes.
    pub journal: SqliteJournal,
    /// Whether agents are taken: set once the address is bound and the plan has read the journal.
    pub admits: watch::Receiver<bool>,
    /// It is on its way to its end.
    pub stop: CancellationToken,
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
        vec![
            Check::new("journal", self.journal.failure().map(|failure| failure.to_string())),
            Check::new("admit", (!admits).then(|| "agents are not taken".to_owned())),
        ]
    }
}
