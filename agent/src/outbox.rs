//! What was taken and is not acknowledged yet: in memory, and on the disk where that takes longer. Bounded; full, it holds back
//! the watches, and keeps a reserve for deaths.

mod disk;
pub mod held;
pub mod metrics;
pub mod queue;
pub mod spool;

use nodetap_wire::frame::Run;
use nodetap_wire::{Checkpoint, LedgerEntry, Record, record};
use tokio::sync::{mpsc, watch};

/// What the watches and the tap hand over, in the order in which they took it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "few of any wait at a time, and events come by the run")]
pub enum Taken {
    /// A record.
    Record(Record),
    /// Events, as they stand in a batch.
    Events(Run),
    /// A watch has handed over everything up to here.
    Checkpoint(Checkpoint),
    /// Deaths, and what the ledger knows with them: in one batch.
    Told(Told),
    /// Asks to be told when everything that was handed over before is safe: the journal has it, or this node's disk.
    Mark(Mark),
}

/// What is to be durable together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Deaths.
    pub records: Vec<Record>,
    /// What the ledger knows of the pods that changed, these deaths reported.
    pub ledger: Vec<LedgerEntry>,
    /// The entries are all that there are.
    pub first: bool,
}

/// A place in the order of what was taken, and who is to be told once all before it is safe.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Grows with each mark of the same asker.
    pub number: u64,
    /// Set to [`Self::number`].
    pub reached: watch::Sender<u64>,
}

/// Where the watches and the tap hand over what they take.
#[derive(Clone, Debug)]
pub struct Intake {
    watches: mpsc::Sender<Taken>,
    tap: mpsc::Sender<Taken>,
}

/// What is handed over. Events can be left to wait while deaths, and facts of pods, are taken.
#[derive(Debug)]
pub struct Taking {
    watches: mpsc::Receiver<Taken>,
    tap: mpsc::Receiver<Taken>,
}

/// The outbox has ended: the agent is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the outbox is closed")]
pub struct Closed;

/// What waits here is on top of the outbox's own bound: of the tap, this many records.
const INTAKE_RECORDS: usize = 64;

/// Of the watches, this many runs of events. Each has at most [`RUN_RECORDS`], and at most [`RUN_BYTES`] and one event more: half a
/// batch of mean events wait, and no more bytes than a batch of the largest has.
const INTAKE_RUNS: usize = 4;

/// A watch hands over at least as soon as it has this many events.
pub const RUN_RECORDS: usize = 64;

/// As [`RUN_RECORDS`], in bytes.
pub const RUN_BYTES: usize = 64 << 10;

/// The two ends of the way into the outbox.
pub fn intake() -> (Intake, Taking) {
    let (watches, from_watches) = mpsc::channel(INTAKE_RUNS);
    let (tap, from_tap) = mpsc::channel(INTAKE_RECORDS);
    (Intake { watches, tap }, Taking { watches: from_watches, tap: from_tap })
}

// === impl Mark ===

impl Mark {
    /// Tells that all before it is safe.
    pub fn reach(self) {
        self.reached.send_if_modified(|reached| {
            let further = self.number > *reached;
            *reached = self.number.max(*reached);
            further
        });
    }
}

// === impl Intake ===

impl Intake {
    /// Hands over; an event or a checkpoint waits while the outbox is full.
    ///
    /// # Errors
    /// Once the outbox has ended.
    pub async fn take(&self, taken: Taken) -> Result<(), Closed> {
        let of_tap = match &taken {
            Taken::Record(Record { kind }) => {
                matches!(kind, Some(record::Kind::Death(_) | record::Kind::Pod(_)))
            }
            Taken::Events(_) | Taken::Checkpoint(_) => false,
            // The tap is who asks, and who tells.
            Taken::Mark(_) | Taken::Told(_) => true,
        };
        let sender = if of_tap { &self.tap } else { &self.watches };
        sender.send(taken).await.map_err(|_| Closed)
    }
}

// === impl Taking ===

impl Taking {
    /// The next one; `None` once all were taken and nobody hands over more. May be dropped and called again.
    pub async fn recv(&mut self) -> Option<Taken> {
        self.recv_of(true).await
    }

    /// As [`recv`](Self::recv), without what comes from watches where that is to wait: then it waits as long as that is so.
    pub async fn recv_of(&mut self, watches: bool) -> Option<Taken> {
        tokio::select! {
            Some(taken) = self.tap.recv() => Some(taken),
            Some(taken) = self.watches.recv(), if watches => Some(taken),
            else => {
                let more_may_come = !(self.watches.is_closed() && self.watches.is_empty());
                if more_may_come && !watches {
                    return std::future::pending().await;
                }
                None
            }
        }
    }

    /// The next one, where there is one.
    pub fn try_recv(&mut self, watches: bool) -> Option<Taken> {
        let of_tap = self.tap.try_recv().ok();
        of_tap.or_else(|| if watches { self.watches.try_recv().ok() } else { None })
    }

    /// Nobody hands over more; what was handed over can still be taken.
    pub fn close(&mut self) {
        self.watches.close();
        self.tap.close();
    }

    /// Whether nobody hands over more.
    pub fn is_closed(&self) -> bool {
        self.watches.is_closed() && self.tap.is_closed()
    }
}
