//! What was durable and is gone: a log that was cut off, a file that was damaged or taken away.
//!
//! The journal's files say a part of it. The end of the log says nothing of what stood behind it: that is known by the agents, who
//! were told how far it was durable. Checkpoints are lost together with the records that they cover, so what is left of them is right.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::Position;

/// A position that no journal comes to: who says that it was promised is wrong.
const LAST: u64 = 1 << 48;

/// What was lost, as far as is known; all but `before` since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Drawn anew each time the journal is opened; 0: it loses nothing.
    pub opening: u64,
    /// How often something was lost before it was opened.
    pub before: u64,
    /// How often it was found since that something is lost.
    pub times: u64,
    /// How often that was the newest: watches are to go on from the checkpoints that are left.
    pub ends: u64,
    /// How often it was something that the checkpoints are beyond: watches are to list.
    pub holes: u64,
}

/// What a loss was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The newest records, with the checkpoints that cover them.
    End,
    /// Records before others, which API servers may still have.
    Hole,
    /// Records of long ago.
    Old,
}

/// Where losses are noted. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Losses {
    told: watch::Sender<Lost>,
    ends: Arc<Mutex<Ends>>,
    records: Counter,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    /// The last position there was when the journal was opened.
    found: u64,
    /// The last one that was durable before.
    promised: u64,
}

// === impl Lost ===

impl Lost {
    /// How often something was lost, before it was opened and since.
    pub fn total(&self) -> u64 {
        self.before.saturating_add(self.times)
    }

    /// What was lost since an earlier look, by what has to be done for it.
    pub fn since(&self, before: &Self) -> Option<What> {
        if self.holes > before.holes {
            Some(What::Hole)
        } else if self.ends > before.ends {
            Some(What::End)
        } else {
            (self.times > before.times).then_some(What::Old)
        }
    }
}

// === impl Losses ===

impl Losses {
    /// None yet; `records` counts what is lost.
    pub fn new(records: Counter) -> Self {
        let opening = RandomState::new().hash_one(0_u8).max(1);
        let told = watch::Sender::new(Lost { opening, ..Lost::default() });
        Self { told, ends: Arc::default(), records }
    }

    /// How often something was lost, for the journal to remember.
    pub fn total(&self) -> u64 {
        self.told.borrow().total()
    }

    /// What is known.
    pub fn subscribe(&self) -> watch::Receiver<Lost> {
        self.told.subscribe()
    }

    /// The journal was opened and ends there, and something was lost so often before.
    pub fn found(&self, last: Position, before: u64) {
        self.told.send_modify(|lost| lost.before = before);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        *ends = Ends { found: last.0, promised: last.0 };
    }

    /// Before it was opened, it was durable up to there.
    pub fn promised(&self, last: Position) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 <= ends.promised || last.0 > LAST {
            return;
        }
        let is_first = ends.promised == ends.found;
        let more = last.0 - ends.promised;
        ends.promised = last.0;
        let found = ends.found;
        drop(ends);
        if !is_first {
            // By another agent, which was told of more.
            self.records.inc_by(more);
            return;
        }
        tracing::error!(
            found,
            promised = last.0,
            "the journal's end is lost: watches go on from the checkpoints before it, and agents tell again the deaths that can still be seen"
        );
        self.lose(more, What::End);
    }

    /// So many records are gone.
    pub fn lose(&self, records: u64, what: What) {
        self.records.inc_by(records);
        self.told.send_modify(|lost| {
            lost.times += 1;
            lost.ends += u64::from(what == What::End);
            lost.holes += u64::from(what == What::Hole);
        });
    }
}

impl Default for Losses {
    fn default() -> Self {
        Self::new(Counter::default())
    }
}

#[cfg(test)]
mod tests;
