//! What one sink has before it: the deliveries read and not yet settled, how far the cursor may move, and when to send.
//!
//! Synchronous and without a clock of its own: told of entries, outcomes and the time, it says what to do next.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use nodetap_wire::SharedStr;

use super::backoff::Backoff;
use super::doubt::{Doubt, Seen, Step};
use crate::journal::{DeadLetter, Position};
use crate::sinks::{Delivery, Failure, Limits, Outcome};

/// Records that may pass a sink by before its cursor is committed.
pub const IDLE_RECORDS: u64 = 10_000;
/// How many times as much is read on where the first record is in doubt and what waits is all of its object.
const SEARCH: usize = 8;
/// How long a cursor that moved only over what is not for the sink may wait for its commit.
pub const IDLE_TIME: Duration = Duration::from_secs(1);

/// Deliveries in the journal's order, and what is known of those before them.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    /// Bounded by `wants`: no more is read while two batches stand here.
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The last position read.
    read: Position,
    /// The last position committed.
    committed: Position,
    committed_at: Instant,
    /// Whether something was settled since the last commit, so that the next one does not wait.
    settled: bool,
    /// Not committed yet; bounded by `wants`, as what waits is, and by what one attempt or one look at dead letters brings.
    dead: Vec<DeadLetter>,
    backoff: Backoff,
    not_before: Option<Instant>,
    doubt: Doubt,
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    since: Instant,
    tried: bool,
}

/// What settling a batch came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Deliveries that the sink has.
    pub delivered: usize,
    /// Deliveries refused for good.
    pub refused: Vec<DeadLetter>,
    /// Deliveries that were tried and will be tried again.
    pub retried: usize,
    /// The delivery that was first, given up as a dead letter: the sink takes others, and not this one.
    pub at_fault: Option<DeadLetter>,
    /// Why, and how long the sink is left alone.
    pub failure: Option<(Failure, Duration)>,
    /// Each delivery that is delivered, refused or given up: its place, and whom it is about.
    pub done: Vec<(Position, SharedStr)>,
}

// === impl Queue ===

impl Queue {
    /// Starts after a cursor. After `tolerance` failures in a row of one record it is found out whether it is at fault; 0: never.
    pub fn new(limits: Limits, cursor: Position, tolerance: u32, now: Instant) -> Self {
        Self {
            limits: Limits { records: limits.records.max(1), ..limits },
            waiting: VecDeque::new(),
            bytes: 0,
            read: cursor,
            committed: cursor,
            committed_at: now,
            settled: false,
            dead: Vec::new(),
            backoff: Backoff::default(),
            not_before: None,
            doubt: Doubt::new(tolerance),
        }
    }

    /// After which position to read on.
    pub fn read(&self) -> Position {
        self.read
    }

    /// How many more entries it has room for: 0 while two batches wait, to be delivered or to be kept as dead letters.
    pub fn wants(&self) -> usize {
        let searching = self.doubt.step() == Step::Other && self.other().is_none();
        let batches = if searching { 2 * SEARCH } else { 2 };
        if self.bytes >= self.limits.bytes.saturating_mul(batches) {
            return 0;
        }
        self.limits.records.saturating_mul(batches).saturating_sub(self.waiting.len() + self.dead.len())
    }

    /// The first delivery of another object than the first one's.
    fn other(&self) -> Option<usize> {
        let first = self.waiting.front()?;
        self.waiting.iter().position(|other| other.delivery.object != first.delivery.object)
    }

    /// Takes an entry: nothing of it is for this sink, or one delivery, or several.
    pub fn take(&mut self, position: Position, deliveries: impl IntoIterator<Item = Delivery>, now: Instant) {
        for mut delivery in deliveries {
            self.bytes += delivery.body.len();
            if self.waiting.len() >= 2 * self.limits.records {
                // More than two batches wait where one record is in doubt: those beyond hold nothing but themselves.
                delivery.detach();
            }
            self.waiting.push_back(Waiting { delivery, since: now, tried: false });
        }
        self.read = self.read.max(position);
    }

    /// Takes an entry that cannot be rendered for this sink.
    pub fn take_dead(&mut self, letter: DeadLetter) {
        self.read = self.read.max(letter.position);
        self.settled = true;
        self.dead.push(letter);
    }

    /// Takes a dead letter that was refused again, or cannot be rendered still.
    pub fn refused_again(&mut self, letter: DeadLetter) {
        self.settled = true;
        self.dead.push(letter);
    }

    /// Passes over positions of which the journal has nothing any more.
    pub fn pass(&mut self, position: Position) {
        self.read = self.read.max(position);
    }

    /// Which deliveries to send now; none: not yet. `last`: nothing more is coming, so do not wait for it.
    pub fn ready(&self, now: Instant, last: bool) -> Range<usize> {
        let Some(first) = self.waiting.front() else { return 0..0 };
        if self.not_before.is_some_and(|at| now < at) {
            return 0..0;
        }
        match self.doubt.step() {
            Step::Batch => {}
            Step::Alone | Step::Again => return 0..1,
            Step::Other => {
                let place = self.other().unwrap_or(0);
                return place..place + 1;
            }
        }
        let (mut records, mut bytes, mut full) = (0, 0_usize, false);
        for waiting in &self.waiting {
            bytes += waiting.delivery.body.len();
            if records > 0 && bytes > self.limits.bytes {
                full = true;
                break;
            }
            records += 1;
            if records >= self.limits.records || bytes >= self.limits.bytes {
                full = true;
                break;
            }
        }
        let due = last || full || first.tried || now >= first.since + self.limits.wait;
        0..if due { records } else { 0 }
    }

    /// These deliveries.
    pub fn batch(&self, range: Range<usize>) -> Vec<Delivery> {
        // A delivery is cheap to clone where it counts: its body is shared.
        self.waiting.range(self.within(range)).map(|waiting| waiting.delivery.clone()).collect()
    }

    fn within(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.waiting.len());
        range.start.min(end)..end
    }

    /// Takes what became of the deliveries in `range`, in their order; `jitter` of 0..1 is for the wait after a failure.
    /// Where nothing at all was settled, that is a failure too.
    pub fn settle(
        &mut self,
        range: Range<usize>,
        outcomes: Vec<Option<Outcome>>,
        now: Instant,
        jitter: f64,
    ) -> Settled {
        let mut failure: Option<Failure> = None;
        let mut again = (0, Position(0));
        let range = self.within(range.start..range.end.min(range.start + outcomes.len()));
        let other = range.start > 0;
        // The first was not taken, and those behind it were: that says more of it than of the sink.
        let overtaken = !other
            && matches!(outcomes.first(), Some(Some(Outcome::Retry(_))))
            && outcomes.contains(&Some(Outcome::Delivered));
        let mut settled = Settled { done: Vec::with_capacity(range.len()), ..Settled::default() };
        let mut kept = Vec::new();
        for (waiting, outcome) in self.waiting.drain(range.clone()).zip(outcomes) {
            match outcome {
                Some(Outcome::Delivered) => {
                    settled.delivered += 1;
                    self.bytes -= waiting.delivery.body.len();
                    settled.done.push((waiting.delivery.position, waiting.delivery.object));
                }
                Some(Outcome::Refused(reason)) => {
                    self.bytes -= waiting.delivery.body.len();
                    settled.done.push((waiting.delivery.position, waiting.delivery.object.clone()));
                    let letter = DeadLetter { position: waiting.delivery.position, reason };
                    self.dead.push(letter.clone());
                    settled.refused.push(letter);
                }
                Some(Outcome::Retry(why)) => {
                    settled.retried += 1;
                    again = (again.0 + 1, waiting.delivery.position);
                    kept.push(waiting.for_later());
                    match &mut failure {
                        None => failure = Some(why),
                        Some(first) => first.after = first.after.max(why.after),
                    }
                }
                None => kept.push(waiting.for_later()),
            }
        }
        if !kept.is_empty() {
            let rest = self.waiting.split_off(range.start);
            self.waiting.extend(kept);
            self.waiting.extend(rest);
        }

        let mut progress = settled.delivered + settled.refused.len() > 0;
        if failure.is_none() && !progress {
            failure = Some(Failure::interrupted());
        }
        let seen = Seen {
            progress,
            again,
            failure: failure.as_ref().map(|failure| failure.class),
            other,
            overtaken,
            first: self.waiting.front().map(|first| first.delivery.position),
        };
        if self.doubt.is_at_fault(seen)
            && let Some(why) = failure.take()
        {
            if let Some((letter, object)) = self.give_up(&why) {
                settled.done.push((letter.position, object));
                settled.at_fault = Some(letter);
            }
            progress = true;
        }
        self.settled |= progress;
        // One that is stuck is not tried more often because others are taken.
        if progress && (!overtaken || settled.at_fault.is_some()) {
            self.backoff.reset();
        }
        self.not_before = None;
        if let Some(failure) = failure {
            let wait = self.backoff.next(failure.after, jitter);
            self.not_before = Some(now + wait);
            settled.failure = Some((failure, wait));
        }
        settled
    }

    /// Makes the first delivery a dead letter.
    fn give_up(&mut self, why: &Failure) -> Option<(DeadLetter, SharedStr)> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.delivery.body.len();
        let reason = format!("{}; time and again, while other records were taken", why.reason);
        let letter = DeadLetter { position: waiting.delivery.position, reason };
        self.dead.push(letter.clone());
        Some((letter, waiting.delivery.object))
    }

    /// Whether something at a position waits here.
    pub fn is_waiting(&self, position: Position) -> bool {
        self.waiting.binary_search_by_key(&position, |waiting| waiting.delivery.position).is_ok()
    }

    /// Whom what waits here is about, a name for each delivery.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(|waiting| &*waiting.delivery.object)
    }

    /// Nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when the first one waits here.
    pub fn since(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.since)
    }

    /// Sends nothing before this time.
    pub fn hold(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    /// What is to be kept as dead letters.
    pub fn dead(&self) -> &[DeadLetter] {
        &self.dead
    }

    /// How many failures there were in a row.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Everything up to here is delivered, refused, or not for this sink.
    pub fn cursor(&self) -> Position {
        // The front's own position is not done; the ones before it are.
        self.waiting.front().map_or(self.read, |first| Position(first.delivery.position.0.saturating_sub(1)))
    }

    /// What to commit now, if anything. `last`: there will be no later chance.
    pub fn commit(&self, now: Instant, last: bool) -> Option<(Position, Vec<DeadLetter>)> {
        let cursor = self.cursor();
        let moved = cursor.0.saturating_sub(self.committed.0);
        if moved == 0 && self.dead.is_empty() {
            return None;
        }
        let due = last || self.settled || moved >= IDLE_RECORDS || now >= self.committed_at + IDLE_TIME;
        due.then(|| (cursor, self.dead.clone()))
    }

    /// What [`Queue::commit`] gave is durable.
    pub fn committed(&mut self, cursor: Position, dead: usize, now: Instant) {
        self.committed = self.committed.max(cursor);
        self.committed_at = now;
        self.settled = false;
        self.dead.drain(..dead.min(self.dead.len()));
    }

    /// When something may be due that no input announces; none: only an input helps.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let send = self.waiting.front().map(|first| {
            let filled = if first.tried { now } else { first.since + self.limits.wait };
            self.not_before.map_or(filled, |at| at.max(filled))
        });
        let commit =
            (self.cursor() > self.committed || !self.dead.is_empty()).then(|| self.committed_at + IDLE_TIME);
        [send, commit].into_iter().flatten().min()
    }

    /// Since when, in nanoseconds since 1970, the oldest record waits; none: nothing waits here.
    pub fn oldest_ns(&self) -> Option<i64> {
        self.waiting.front().map(|first| first.delivery.taken_ns)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Was tried, and stays. By itself: what was delivered beside it is let go of.
    fn for_later(mut self) -> Self {
        if !std::mem::replace(&mut self.tried, true) {
            self.delivery.detach();
        }
        self
    }
}

#[cfg(test)]
mod tests;
