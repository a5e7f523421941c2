//! What was taken and is not acknowledged yet. Bounded; full, it holds back whoever takes more, and drops nothing.

pub mod metrics;
pub mod queue;

use nodetap_wire::{Checkpoint, Record};
use tokio::sync::{mpsc, watch};

/// What the watches and the tap hand over, in the order in which they took it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the larger one is by far the more frequent")]
pub enum Taken {
    /// A record.
    Record(Record),
    /// A watch has handed over everything up to here.
    Checkpoint(Checkpoint),
    /// Asks to be told when everything that was handed over before is safe: the journal has it, or this node's disk.
    Mark(Mark),
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
    sender: mpsc::Sender<Taken>,
}

/// The outbox has ended: the agent is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the outbox is closed")]
pub struct Closed;

/// One batch of the largest records: what waits here is on top of the outbox's own bound.
const INTAKE_RECORDS: usize = 64;

/// The two ends of the way into the outbox.
pub fn intake() -> (Intake, mpsc::Receiver<Taken>) {
    let (sender, receiver) = mpsc::channel(INTAKE_RECORDS);
    (Intake { sender }, receiver)
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
    /// Hands over; waits while the outbox is full.
    ///
    /// # Errors
    /// Once the outbox has ended.
    pub async fn take(&self, taken: Taken) -> Result<(), Closed> {
        self.sender.send(taken).await.map_err(|_| Closed)
    }
}
