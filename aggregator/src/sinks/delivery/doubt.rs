//! Whether a record that is refused again and again is at fault, or the sink that refuses it.
//!
//! A receiver may answer 500 to one record for as long as it is asked: its own bug, a firewall's rule. Waiting for it would hold
//! up everything behind it for ever, and giving up on it after a number of tries would throw away what a sink that is merely
//! down would take tomorrow. Where others were delivered in the very attempts in which it failed, it is at fault; else, after many failures in a row another object's record is tried: a sink that takes that one, and
//! refuses the first once more, is up, and the first is a dead letter. A sink that takes neither is down, and is waited for.

use crate::journal::Position;
use crate::sinks::FailureClass;

/// Which of what waits is to be tried next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// As many as a batch takes.
    #[default]
    Batch,
    /// The first alone: a batch was refused as a whole, and says nothing of its records.
    Alone,
    /// The first record of another object, alone.
    Other,
    /// The first, once more.
    Again,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Something of it was delivered, or refused for good.
    pub progress: bool,
    /// Deliveries that are to be tried again, and the last one's position.
    pub again: (usize, Position),
    /// Why the first of those failed.
    pub failure: Option<FailureClass>,
    /// It was another object's record that was tried, as asked for.
    pub other: bool,
    /// The first failed, and others were delivered in the same attempt.
    pub overtaken: bool,
    /// The first that waits now.
    pub first: Option<Position>,
}

/// Doubt about the record that is first.
#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    /// 0: there is never any.
    tolerance: u32,
    failures: u32,
    step: Step,
    /// Up to here records are tried alone.
    alone_until: Position,
    /// The first, where others were delivered beside it when it failed last.
    overtaken: Option<Position>,
}

// === impl Doubt ===

impl Doubt {
    /// Begins after so many failures in a row; 0: never.
    pub fn new(tolerance: u32) -> Self {
        Self { tolerance, failures: 0, step: Step::Batch, alone_until: Position(0), overtaken: None }
    }

    /// What to try next.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Takes what became of an attempt. Whether the first record is at fault.
    pub fn is_at_fault(&mut self, seen: Seen) -> bool {
        let blamed = seen.failure.is_some_and(FailureClass::may_be_of_the_record);
        match self.step {
            Step::Batch | Step::Alone => return self.count(&seen, blamed),
            Step::Other if !seen.other => {
                // There was no other, and the first was tried instead.
                if seen.progress {
                    self.rest(seen.first);
                }
            }
            Step::Other if seen.progress => self.step = Step::Again,
            // It takes neither: it is down.
            Step::Other => *self = Self::new(self.tolerance),
            Step::Again => {
                let at_fault = blamed && !seen.progress;
                self.rest(seen.first);
                return at_fault;
            }
        }
        false
    }

    fn count(&mut self, seen: &Seen, blamed: bool) -> bool {
        if seen.progress && (!seen.overtaken || seen.first != self.overtaken) {
            self.rest(seen.first);
        }
        self.overtaken = seen.first.filter(|_| seen.overtaken);
        if !blamed || self.tolerance == 0 {
            return false;
        }
        if seen.overtaken && self.failures.saturating_add(1) >= self.tolerance {
            self.rest(seen.first);
            return true;
        }
        self.failures = self.failures.saturating_add(1);
        let (records, last) = seen.again;
        if self.step == Step::Alone || (self.failures >= self.tolerance && records == 1) {
            self.step = Step::Other;
        } else if self.failures >= self.tolerance {
            self.step = Step::Alone;
            self.alone_until = last;
        }
        false
    }

    /// The first is another now, or may be taken as any other.
    fn rest(&mut self, first: Option<Position>) {
        self.failures = 0;
        let alone = first.is_some_and(|first| first <= self.alone_until);
        self.step = if alone { Step::Alone } else { Step::Batch };
    }
}

#[cfg(test)]
mod tests;
