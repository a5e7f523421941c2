//! What became of everything since the process started: taken, journalled, duplicate, refused, dropped; and for each sink passed,
//! delivered, dead, pending. `nodetap-aggregator reconcile` shows it.
//!
//! Each sink's account is changed and read as a whole. The intake is counted in two places, at the door and in the journal, which
//! counts what is durable before anybody is told: at every look the journal has what was taken, and at most what is in flight beside.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering, fence};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::watch;

use crate::admit;
use crate::admit::metrics::{RecordLabels, RecordReason};
use crate::journal::gaps::Gaps;
use crate::journal::metrics::{
    Dropped, DroppedLabel, DuplicateLabel, JournalMetrics, Kind, KindLabel, Known,
};
use crate::journal::{Journal, Position};
use crate::sinks;
use crate::sinks::account::Account;

/// Where the figures are.
#[derive(Clone, Debug)]
pub struct Sources {
    /// At the door.
    admit: admit::metrics::Metrics,
    /// In the journal.
    journal: JournalMetrics,
    /// The journal's end, as it was found.
    from: Position,
    /// The journal's end.
    head: watch::Receiver<Position>,
    /// Positions that it never gave.
    gaps: Gaps,
    /// Of the sinks.
    sinks: sinks::Metrics,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What agents sent.
    pub intake: Intake,
    /// Records that retention dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Records that were durable and are gone with what was cut off, damaged or taken away, as far as is known.
    pub lost: u64,
    /// The journal's last position when it was opened.
    pub from: u64,
    /// The journal's last position: `from`, and a position for each record that was journalled.
    pub head: u64,
    /// By receiver.
    pub sinks: BTreeMap<String, SinkReport>,
    /// Whether all of it adds up: the intake, the journal's positions, and each sink's account.
    pub adds_up: bool,
}

/// What agents sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Intake {
    /// Records left out at the door, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Records that were given to the journal: the sum of the three below.
    pub given: u64,
    /// Records that are durable, and acknowledged to agents that are still there.
    pub taken: u64,
    /// Records that the journal could not keep; their agents send them again.
    pub not_kept: u64,
    /// Records of which the journal has not said yet what became of them.
    pub in_flight: u64,
    /// New states of events, and deaths.
    pub journalled: u64,
    /// Records that the journal had already.
    pub duplicates: u64,
    /// Facts of pods.
    pub pod_facts: u64,
    /// Of a kind that only a newer agent knows.
    pub unknown: u64,
}

/// One sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkReport {
    /// Its account.
    #[serde(flatten)]
    pub account: Account,
    /// Records that it has not read yet.
    pub unread: u64,
    /// Whether its account adds up.
    pub adds_up: bool,
}

// === impl Sources ===

impl Sources {
    /// Of a journal that was opened with these metrics, and has taken nothing yet.
    pub fn new(
        admit: admit::metrics::Metrics,
        metrics: JournalMetrics,
        journal: &impl Journal,
        sinks: sinks::Metrics,
    ) -> Self {
        let (head, gaps) = (journal.head(), journal.gaps());
        let from = *head.borrow();
        Self { admit, journal: metrics, from, head, gaps, sinks }
    }

    /// The figures of this moment.
    pub fn report(&self) -> Report {
        // The accounts first: what a sink has read is journalled.
        let accounts = self.sinks.accounts();
        // In this order, each after what it is at least as large as: taken, made durable, counted, given.
        let taken = self.admit.records.get();
        fence(Ordering::SeqCst);
        let head = self.head.borrow().0;
        fence(Ordering::SeqCst);
        let sinks: BTreeMap<String, SinkReport> = accounts
            .into_iter()
            .map(|(name, account)| {
                let never_given = self.gaps.within(Position(account.read), Position(head));
                let unread = head.saturating_sub(account.read + never_given);
                (name, SinkReport { account, unread, adds_up: account.adds_up() })
            })
            .collect();
        let kinds = [Kind::Event, Kind::Death];
        let journalled =
            kinds.map(|kind| self.journal.records.get_or_create_owned(&KindLabel { kind }).get());
        let duplicates = [Known::Identity, Known::Retention].map(|reason| {
            let of =
                |kind| self.journal.duplicates.get_or_create_owned(&DuplicateLabel { kind, reason }).get();
            kinds.into_iter().map(of).sum::<u64>()
        });
        let refused = RecordReason::ALL.into_iter().map(|reason| {
            let counter: Counter = self.admit.refused_records.get_or_create_owned(&RecordLabels { reason });
            (format!("{reason:?}"), counter.get())
        });
        let dropped = [(Dropped::Age, "age"), (Dropped::Bytes, "bytes"), (Dropped::Full, "full")];
        let dropped = dropped.into_iter().map(|(reason, name)| {
            let counter: Counter = self.journal.dropped.get_or_create_owned(&DroppedLabel { reason });
            (name, counter.get())
        });
        let pod_facts = self.journal.pod_facts.get();
        let unknown = self.journal.unknown.get();
        fence(Ordering::SeqCst);
        let not_kept = self.admit.not_kept.get();
        let given = self.admit.given.get();
        let intake = Intake {
            refused: refused.collect(),
            given,
            taken,
            not_kept,
            in_flight: given.saturating_sub(taken + not_kept),
            journalled: journalled.iter().sum(),
            duplicates: duplicates.iter().sum(),
            pod_facts,
            unknown,
        };
        let adds_up =
            intake.adds_up() && intake.reaches(self.from, head) && sinks.values().all(|sink| sink.adds_up);
        Report {
            intake,
            dropped: dropped.collect(),
            lost: self.journal.lost.get(),
            from: self.from.0,
            head,
            sinks,
            adds_up,
        }
    }
}

// === impl Intake ===

impl Intake {
    /// Whether the journal has counted what was taken, and nothing but what is in flight beside.
    pub fn adds_up(&self) -> bool {
        let counted = self.journalled + self.duplicates + self.pod_facts + self.unknown;
        self.given == self.taken + self.not_kept + self.in_flight
            && (self.taken..=self.taken + self.in_flight).contains(&counted)
    }

    /// Whether the journal's end is where what was journalled ends, or what is in flight of it.
    pub fn reaches(&self, from: Position, head: u64) -> bool {
        let last = from.0 + self.journalled;
        (last.saturating_sub(self.in_flight)..=last).contains(&head)
    }
}

#[cfg(test)]
mod tests;
