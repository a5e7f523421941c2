//! What one sink's loop has done with every position since it began: an account that is changed as a whole, and so adds up
//! whenever it is looked at.

use serde::Serialize;

use crate::journal::Position;

/// Since the loop began. Positions are records; deliveries are what routes make of them, mostly one or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// After which position it began.
    pub from: u64,
    /// Up to which it has read.
    pub read: u64,
    /// Records that are not for it.
    pub passed: u64,
    /// Records that the journal dropped or lost before it had read them.
    pub missed: u64,
    /// Positions that the journal never gave, because it went on above them after a loss.
    pub never_given: u64,
    /// Records that are for it.
    pub routed: u64,
    /// Deliveries that those are.
    pub deliveries: u64,
    /// Deliveries that the sink has.
    pub delivered: u64,
    /// Deliveries that are dead letters.
    pub dead: u64,
    /// Deliveries that wait, or are being tried.
    pub pending: u64,
    /// Records beyond `read` that it has taken, or had before it began: the newest go first while it catches up.
    pub ahead: u64,
    /// Records beyond `from` that were settled before it began.
    pub earlier: u64,
}

// === impl Account ===

impl Account {
    /// Of a loop that begins after a position, beyond which so many are settled.
    pub fn begin(from: Position, earlier: u64) -> Self {
        Self { from: from.0, read: from.0, ahead: earlier, earlier, ..Self::default() }
    }

    /// A record beyond `read` that is taken now, and that so many deliveries are made of.
    pub fn take_ahead(&mut self, deliveries: usize) {
        let deliveries = deliveries as u64;
        self.ahead += 1;
        self.routed += 1;
        self.deliveries += deliveries;
        self.pending += deliveries;
    }

    /// Has come to a record that was taken, or settled, ahead.
    pub fn skip(&mut self, position: Position) {
        self.read = self.read.max(position.0);
        self.ahead = self.ahead.saturating_sub(1);
    }

    /// A record that so many deliveries are made of.
    pub fn take(&mut self, position: Position, deliveries: usize) {
        self.read = self.read.max(position.0);
        match deliveries as u64 {
            0 => self.passed += 1,
            deliveries => {
                self.routed += 1;
                self.deliveries += deliveries;
                self.pending += deliveries;
            }
        }
    }

    /// A record that cannot be rendered.
    pub fn take_dead(&mut self, position: Position) {
        self.take(position, 1);
        self.settle(0, 1);
    }

    /// Positions up to this one that the journal does not have, of which so many were settled ahead, and so many never given. How many
    /// records are missing.
    pub fn miss(&mut self, last: Position, had: u64, never_given: u64) -> u64 {
        let missed = last.0.saturating_sub(self.read).saturating_sub(had + never_given);
        self.missed += missed;
        self.never_given += never_given;
        self.ahead = self.ahead.saturating_sub(had);
        self.read = self.read.max(last.0);
        missed
    }

    /// Positions up to this one that were gone before it began.
    pub fn begin_later(&mut self, last: Position) {
        if self.read == self.from {
            self.from = self.from.max(last.0);
            self.read = self.from;
        }
    }

    /// What became of deliveries.
    pub fn settle(&mut self, delivered: usize, dead: usize) {
        let (delivered, dead) = (delivered as u64, dead as u64);
        self.delivered += delivered;
        self.dead += dead;
        self.pending = self.pending.saturating_sub(delivered + dead);
    }

    /// Whether nothing is unaccounted for.
    pub fn adds_up(&self) -> bool {
        self.read - self.from + self.ahead
            == self.passed + self.missed + self.never_given + self.routed + self.earlier
            && self.deliveries == self.delivered + self.dead + self.pending
    }
}

#[cfg(test)]
mod tests;
