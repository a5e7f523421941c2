//! The ledger as the aggregator remembers it, for an agent that starts where no disk has it: on a node that keeps none, and in a pod
//! that is made anew, as each rollout does.
//!
//! What changed is told pod by pod in the ordered stream of the records, a death in one batch with what the ledger knows of its pod
//! then: the journal has both or neither. So whatever was told when an agent ended, the one that comes after it finds a ledger that
//! calls reported what is in the journal, and nothing else. The first that a process tells is all of it, which what follows changes.

use std::time::Duration;

use nodetap_wire::ledger::{MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_NODE_BYTES, Packer, unpack};
use nodetap_wire::{ContainerDied, LedgerEntry, Record, record, time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::inotify::Stir;
use super::ledger::Ledger;
use super::ledger::entry::Remaking;
use super::metrics::{Metrics, Seed};
use crate::outbox::Told;

/// The form of a state: packed JSON of [`Ledger::entry`]. Goes up where an older agent could not go on from it.
const VERSION: u32 = 1;

/// Between two tellings for which no death waits.
const GAP: Duration = Duration::from_secs(2);

/// The node is told of at least so often: what is remembered of one that is silent for days is forgotten.
const SIGN: Duration = Duration::from_secs(3600);

/// How long the start waits for what the aggregator remembers. One that is started again, and has its journal to read, takes less;
/// until then nothing is looked at, and after it nobody knows what was told before.
pub const ANSWER: Duration = Duration::from_secs(30);

/// Deaths in one group with an entry: 64 of the largest take 2 MiB.
const DEATHS: usize = 64;

/// Log files seen while the answer is waited for.
const EARLY_LOGS: usize = 4_096;

/// What the aggregator says of this node's ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// This is what it remembers.
    Remembered {
        /// None: nothing.
        entries: Vec<LedgerEntry>,
        /// Some of it is lost.
        partial: bool,
    },
    /// It is of a version that remembers none.
    Unsupported,
}

/// The tap's ends of what goes between it and the aggregator.
#[derive(Debug)]
pub struct Ends {
    /// What it remembers; dropped, nobody asks it.
    pub answer: oneshot::Receiver<Answer>,
    /// Grows where it remembers nothing any longer: all is to be told again.
    pub again: watch::Receiver<u64>,
}

/// Tells the aggregator of the ledger.
#[derive(Debug)]
pub struct Memory {
    metrics: Metrics,
    /// All of it is to be told.
    first: bool,
    /// Nothing is told before, unless a death is.
    not_before: Instant,
    sign_at: Instant,
}

// === impl Memory ===

impl Memory {
    /// Nothing was told by this process.
    pub fn new(ledger: &mut Ledger, metrics: Metrics) -> Self {
        ledger.note_changes();
        let now = Instant::now();
        Self { metrics, first: true, not_before: now, sign_at: now + SIGN }
    }

    /// The aggregator may have forgotten: a sign of the node finds out.
    pub fn sign(&mut self) {
        self.sign_at = Instant::now();
    }

    /// The aggregator has forgotten.
    pub fn forgotten(&mut self) {
        self.first = true;
    }

    /// When there is something to tell.
    pub fn due(&self, ledger: &Ledger) -> Instant {
        if self.first || ledger.has_changed() { self.not_before } else { self.sign_at.max(self.not_before) }
    }

    /// What is to be told now, in this order: the deaths, each with what the ledger knows of its pod, and what else changed. `waiting`:
    /// deaths that it calls reported, and that wait for their last lines.
    pub fn tell(
        &mut self,
        ledger: &mut Ledger,
        deaths: Vec<ContainerDied>,
        waiting: &[&ContainerDied],
    ) -> Vec<Told> {
        let now = Instant::now();
        self.not_before = now + GAP;
        let mut packer = match Packer::new() {
            Ok(packer) => packer,
            Err(error) => {
                // The deaths go all the same; what is remembered of them is older until there is memory.
                tracing::warn!(%error, "the ledger cannot be told to the aggregator");
                self.first = true;
                return vec![Told { records: deaths.into_iter().map(record).collect(), ..Told::default() }];
            }
        };
        let mut changed = ledger.take_changed();
        let mut told = Vec::new();
        if std::mem::take(&mut self.first) {
            changed.clear();
            let untold: Vec<&ContainerDied> = deaths.iter().chain(waiting.iter().copied()).collect();
            let entries = self.whole(ledger, &untold, &mut packer);
            self.sign_at = now + SIGN;
            told.push(Told { records: Vec::new(), ledger: entries, first: true });
        }
        for (uid, deaths) in by_pod(deaths) {
            changed.remove(&uid);
            let mut deaths: Vec<Record> = deaths.into_iter().map(record).collect();
            // Were there more, some would be told without being remembered, and never the other way round.
            while deaths.len() > DEATHS {
                let rest = deaths.split_off(DEATHS);
                told.push(Told { records: std::mem::replace(&mut deaths, rest), ..Told::default() });
            }
            let ledger = vec![entry(ledger, &uid, waiting, &mut packer)];
            told.push(Told { records: deaths, ledger, first: false });
        }
        if now >= self.sign_at {
            changed.insert(String::new());
        }
        if changed.remove("") {
            self.sign_at = now + SIGN;
            told.push(Told { ledger: vec![of_node(ledger, None, &mut packer)], ..Told::default() });
        }
        if !changed.is_empty() {
            let entries = changed.iter().map(|uid| entry(ledger, uid, waiting, &mut packer)).collect();
            told.push(Told { ledger: entries, ..Told::default() });
        }
        let entries: usize = told.iter().map(|told| told.ledger.len()).sum();
        self.metrics.ledger_told(entries);
        told
    }

    /// All entries, as long as they are within the bounds of what is remembered.
    fn whole(&self, ledger: &Ledger, untold: &[&ContainerDied], packer: &mut Packer) -> Vec<LedgerEntry> {
        let mut entries = vec![LedgerEntry::default()];
        let (mut bytes, mut left_out) = (MAX_ENTRY_BYTES, 0);
        for uid in ledger.uids() {
            let entry = entry(ledger, uid, untold, packer);
            let fits = bytes + entry.state.len() <= MAX_NODE_BYTES && entries.len() < MAX_ENTRIES;
            if !fits || entry.state.len() > MAX_ENTRY_BYTES {
                left_out += 1;
                continue;
            }
            bytes += entry.state.len();
            entries.push(entry);
        }
        if left_out > 0 {
            tracing::warn!(
                pods = left_out,
                "the ledger is larger than what the aggregator remembers of a node"
            );
        }
        // Of what is left out, an agent that goes on from there counts nothing rather than what was told.
        let began_ns = (left_out > 0).then(time::now_ns);
        if let Some(node) = entries.first_mut() {
            *node = of_node(ledger, began_ns, packer);
        }
        entries
    }
}

/// The ledger of an agent that has none: waits for what the aggregator remembers, within a bound. What stirs meanwhile is kept, so
/// that the logs of what ends are held open all the while.
pub async fn recall(
    node: &str,
    answer: &mut oneshot::Receiver<Answer>,
    stirs: &mut mpsc::Receiver<Stir>,
    metrics: &Metrics,
) -> (Ledger, Stir) {
    let until = Instant::now() + ANSWER;
    let mut early = Stir::default();
    let answered = loop {
        tokio::select! {
            answered = &mut *answer => break answered.ok(),
            () = sleep_until(until) => break None,
            Some(stir) = stirs.recv() => {
                early.changed |= stir.changed;
                early.logs.extend(stir.logs);
                early.logs.truncate(EARLY_LOGS);
            }
        }
    };
    let ledger = match answered {
        Some(Answer::Remembered { entries, .. }) if entries.is_empty() => {
            metrics.seeded(Seed::nothing);
            tracing::info!("the aggregator remembers nothing of this node: the ledger begins now");
            Ledger::new(node, time::now_ns())
        }
        Some(Answer::Remembered { entries, partial }) => remade(node, &entries, partial, metrics),
        Some(Answer::Unsupported) => {
            metrics.seeded(Seed::unsupported);
            tracing::warn!(
                "the aggregator is of an older version, which remembers no ledger: deaths while no agent ran here are not counted, and \
                 those that the kubelet still shows are told again"
            );
            Ledger::new(node, time::now_ns())
        }
        None => {
            metrics.seeded(Seed::unanswered);
            tracing::warn!(
                waited = ?ANSWER,
                "the aggregator does not say what it remembers of this node: the ledger begins now; deaths while no agent ran here are \
                 not counted, and those that the kubelet still shows are told again"
            );
            Ledger::new(node, time::now_ns())
        }
    };
    (ledger, early)
}

/// The ledger that goes on from its entries. One that cannot be read is counted, and makes it a part.
pub(super) fn remade(node: &str, entries: &[LedgerEntry], partial: bool, metrics: &Metrics) -> Ledger {
    let now_ns = time::now_ns();
    let mut remaking = Remaking::new(node, now_ns);
    let mut bad = 0;
    for LedgerEntry { pod_uid, version, state } in entries {
        let reason = match (*version == VERSION).then(|| unpack(state)) {
            None => "foreign",
            Some(Err(_)) => "torn",
            Some(Ok(json)) => match remaking.take(pod_uid, &json) {
                Ok(()) => continue,
                Err(_) => "content",
            },
        };
        bad += 1;
        metrics.ledger_set_aside(reason);
    }
    let partial = partial || bad > 0;
    if partial {
        remaking.is_partial();
    }
    let ledger = remaking.finish(now_ns);
    metrics.seeded(if partial { Seed::partial } else { Seed::aggregator });
    tracing::info!(
        pods = ledger.len(),
        partial,
        bad,
        "the ledger goes on from what the aggregator remembers"
    );
    ledger
}

fn record(death: ContainerDied) -> Record {
    Record { kind: Some(record::Kind::Death(death.into())) }
}

/// In the order in which the first of each pod comes.
fn by_pod(deaths: Vec<ContainerDied>) -> Vec<(String, Vec<ContainerDied>)> {
    let mut pods: Vec<(String, Vec<ContainerDied>)> = Vec::new();
    for death in deaths {
        match pods.iter_mut().find(|(uid, _)| *uid == death.pod_uid) {
            Some((_, deaths)) => deaths.push(death),
            None => pods.push((death.pod_uid.clone(), vec![death])),
        }
    }
    pods
}

/// What is to be remembered of a pod; without a state, where it is forgotten.
fn entry(ledger: &Ledger, uid: &str, untold: &[&ContainerDied], packer: &mut Packer) -> LedgerEntry {
    let untold: Vec<&ContainerDied> = untold.iter().copied().filter(|death| death.pod_uid == uid).collect();
    let state = ledger.entry(uid, &untold).and_then(|json| packer.pack(&json).ok());
    LedgerEntry { pod_uid: uid.to_owned(), version: VERSION, state: state.unwrap_or_default() }
}

fn of_node(ledger: &Ledger, began_ns: Option<i64>, packer: &mut Packer) -> LedgerEntry {
    let state = packer.pack(&ledger.node_entry(began_ns)).unwrap_or_default();
    LedgerEntry { pod_uid: String::new(), version: VERSION, state }
}

#[cfg(test)]
mod tests;
