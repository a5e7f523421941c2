//! The two lanes of a sink that catches up: what is new goes first, and what is old follows as fast as the sink takes it.
//!
//! There is one lane as a rule. A sink that is far behind gets a second one, for what is live. Its records are taken from the journal's
//! head; they are settled ahead of the cursor, which stays with the backlog, and [`Had`] remembers them beside it. A record of
//! an object that has others in the backlog is left to the backlog, so that each object's order holds. Where the backlog's
//! lane comes to what the live one has read, there is one lane again.
//!
//! Synchronous, as the queues are.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::behind::Behind;
use super::queue::{Queue, Settled};
use crate::journal::had::Had;
use crate::journal::{Ahead, DeadLetter, Position};
use crate::sinks::{Delivery, Failure, Limits, Order, Outcome};

/// Batches of what is live after which one of the backlog goes, however much is live: it must get on.
const LIVE_TURNS: u32 = 4;
/// Positions between the lanes below which the live one pauses, so that the other reaches it.
const NEAR: u64 = 512;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The oldest that is not settled, and what follows.
    Backlog,
    /// What is new.
    Live,
}

/// What one sink has before it, and has had.
#[derive(Debug)]
pub struct Lanes {
    settings: Settings,
    backlog: Queue,
    live: Option<Live>,
    had: Had,
    /// Batches of what is live in a row.
    turns: u32,
    /// Until when the sink asked to be left alone, whichever lane it told.
    held: Option<Instant>,
}

/// How a sink's records are ordered and batched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When a batch is sent.
    pub limits: Limits,
    /// Failures in a row of one record before it is in doubt; 0: never, as with the journal's order.
    pub tolerance: u32,
    /// What may overtake what.
    pub order: Order,
    /// How old the oldest that waits must be for what is new to go first.
    pub live_after: Duration,
}

#[derive(Debug)]
struct Live {
    /// Its last position read is how far the journal was looked at.
    queue: Queue,
    /// None: any record may overtake any other.
    behind: Option<Behind>,
    /// It has once come to the journal's head: until then it only notes whom the backlog is about.
    caught: bool,
}

/// What is to be made durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// Everything up to here is settled.
    pub cursor: Position,
    /// And of what follows, this.
    pub ahead: Vec<Ahead>,
    /// What was refused for good.
    pub dead: Vec<DeadLetter>,
    /// How many of those are of each lane.
    letters: (usize, usize),
}

// === impl Lanes ===

impl Lanes {
    /// Begins with one, after a cursor.
    pub fn new(settings: Settings, cursor: Position, had: Had, now: Instant) -> Self {
        // Whether a record is at fault shows only where another is tried before it, and nothing is to overtake it.
        let tolerance = if settings.order == Order::Journal { 0 } else { settings.tolerance };
        let settings = Settings { tolerance, ..settings };
        let backlog = Queue::new(settings.limits, cursor, settings.tolerance, now);
        Self { settings, backlog, live: None, had, turns: 0, held: None }
    }

    /// The lane of the oldest.
    pub fn backlog(&mut self) -> &mut Queue {
        &mut self.backlog
    }

    /// Whether there are two.
    pub fn is_catching_up(&self) -> bool {
        self.live.is_some()
    }

    /// Everything up to here is settled.
    pub fn cursor(&self) -> Position {
        self.backlog.cursor()
    }

    /// How many are settled beyond that.
    pub fn had(&self) -> u64 {
        self.had.count()
    }

    /// How many of these are.
    pub fn had_within(&self, after: Position, last: Position) -> u64 {
        self.had.within(after, last)
    }

    /// Whether one is settled beyond the cursor.
    pub fn has_had(&self, position: Position) -> bool {
        self.had.contains(position)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.backlog.failures().max(self.live.as_ref().map_or(0, |live| live.queue.failures()))
    }

    /// From where the backlog is to be read on and up to where, if it has room: not past what the live lane has not settled.
    pub fn wants(&self, head: Position) -> Option<(Position, Position)> {
        let (read, last) = (self.backlog.read(), self.live.as_ref().map_or(head, |live| live.queue.cursor()));
        (last > read && self.backlog.wants() > 0).then_some((read, last))
    }

    /// Whether the backlog has room for more than the journal has.
    pub fn has_room(&self) -> bool {
        self.backlog.wants() > 0
    }

    /// Begins the second lane where the first is full, more waits in the journal, and the oldest is too old; `age`: its.
    pub fn begin_live(&mut self, head: Position, age: Option<Duration>, now: Instant) -> bool {
        let Settings { limits, tolerance, order, live_after } = self.settings;
        let far = self.backlog.wants() == 0
            && head > self.backlog.read()
            && age.is_some_and(|age| age >= live_after);
        if self.live.is_some() || !far {
            return false;
        }
        let mut live = match order {
            Order::Journal => return false,
            Order::Object => Live {
                queue: Queue::new(limits, self.backlog.read(), tolerance, now),
                behind: Some(Behind::new()),
                caught: false,
            },
            Order::None => {
                Live { queue: Queue::new(limits, head, tolerance, now), behind: None, caught: true }
            }
        };
        if let Some(behind) = &mut live.behind {
            self.backlog.objects().for_each(|object| behind.add(object, 1));
        }
        self.live = Some(live);
        true
    }

    /// From where the live lane is to read on, if it is. Ends it where the other has come to it.
    pub fn look(&mut self, head: Position, now: Instant) -> Option<Position> {
        let failing = self.failures() > 0;
        let live = self.live.as_mut()?;
        let read = live.queue.read();
        let is_reached = live.caught && self.backlog.read() >= read;
        if is_reached && live.queue.is_empty() && live.queue.dead().is_empty() {
            self.live = None;
            return None;
        }
        if live.behind.is_none() && failing {
            // What comes while the sink is down is of the backlog, and needs no looking at.
            live.queue.pass(head);
        }
        let near = !failing && live.caught && read.0 - self.backlog.read().0.min(read.0) <= NEAR;
        (head > read && !near && !self.must_wait(now)).then_some(read)
    }

    /// Whether the live lane is full and should not leave what comes to the backlog yet.
    pub fn must_wait(&self, now: Instant) -> bool {
        let Some(live) = &self.live else { return true };
        let is_fresh =
            live.queue.since().is_none_or(|since| now.duration_since(since) < self.settings.live_after);
        live.caught && live.queue.wants() == 0 && self.failures() == 0 && is_fresh
    }

    /// Whether the live lane is still on its way to the journal's head.
    pub fn is_scouting(&self) -> bool {
        self.live.as_ref().is_some_and(|live| !live.caught)
    }

    /// Whether a record about an object may be delivered ahead of the backlog.
    pub fn may_overtake(&self, object: &str) -> bool {
        let Some(live) = &self.live else { return false };
        live.caught
            && self.failures() == 0
            && live.queue.wants() > 0
            && live.behind.as_ref().is_none_or(|behind| !behind.has(object))
    }

    /// Takes a record into the live lane, after [`Lanes::may_overtake`].
    pub fn overtake(
        &mut self,
        position: Position,
        deliveries: impl IntoIterator<Item = Delivery>,
        now: Instant,
    ) {
        if let Some(live) = &mut self.live {
            live.queue.take(position, deliveries, now);
        }
    }

    /// Leaves a record to the backlog; so many deliveries are made of it.
    pub fn leave(&mut self, position: Position, object: &str, deliveries: usize) {
        let Some(live) = &mut self.live else { return };
        live.queue.pass(position);
        if let Some(behind) = &mut live.behind {
            behind.add(object, deliveries);
        }
    }

    /// Passes over what is not for this sink, was had, or is gone: the backlog's lane will account for it.
    pub fn leave_out(&mut self, position: Position) {
        if let Some(live) = &mut self.live {
            live.queue.pass(position);
        }
    }

    /// The live lane has looked at all there is.
    pub fn caught(&mut self, head: Position) {
        if let Some(live) = self.live.as_mut().filter(|live| live.queue.read() >= head) {
            live.caught = true;
        }
    }

    /// Sends nothing before this time.
    pub fn hold(&mut self, until: Instant) {
        self.held = self.held.max(Some(until));
    }

    /// What to send now. What is live goes first, but not for ever.
    pub fn ready(&self, now: Instant, last: bool) -> Option<(Lane, Range<usize>)> {
        if self.held.is_some_and(|at| now < at) {
            return None;
        }
        let live = self.live.as_ref().map_or(0..0, |live| live.queue.ready(now, last));
        let backlog = self.backlog.ready(now, last);
        if !live.is_empty() && (backlog.is_empty() || self.turns < LIVE_TURNS) {
            return Some((Lane::Live, live));
        }
        (!backlog.is_empty()).then_some((Lane::Backlog, backlog))
    }

    /// These deliveries.
    pub fn batch(&self, lane: Lane, range: Range<usize>) -> Vec<Delivery> {
        match (lane, &self.live) {
            (Lane::Live, Some(live)) => live.queue.batch(range),
            (Lane::Live, None) => Vec::new(),
            (Lane::Backlog, _) => self.backlog.batch(range),
        }
    }

    /// Takes what became of them, as [`Queue::settle`] does.
    pub fn settle(
        &mut self,
        lane: Lane,
        range: Range<usize>,
        outcomes: Vec<Option<Outcome>>,
        now: Instant,
        jitter: f64,
    ) -> Settled {
        self.turns = if lane == Lane::Live { self.turns + 1 } else { 0 };
        let (queue, other) = match (lane, &mut self.live) {
            (Lane::Live, Some(live)) => (&mut live.queue, Some(&mut self.backlog)),
            (_, live) => (&mut self.backlog, live.as_mut().map(|live| &mut live.queue)),
        };
        let settled = queue.settle(range, outcomes, now, jitter);
        let cursor = queue.cursor();
        for (position, _) in &settled.done {
            // The live lane's own cursor says nothing of the backlog before it.
            if (lane == Lane::Live || *position > cursor) && !queue.is_waiting(*position) {
                self.had.insert(*position);
            }
        }
        if let (Some((_, wait)), Some(other), true) = (&settled.failure, other, settled.done.is_empty()) {
            // It is the same sink.
            other.hold(now + *wait);
        }
        if let Some((Failure { after: Some(_), .. }, wait)) = &settled.failure {
            self.hold(now + *wait);
        }
        if lane == Lane::Backlog
            && let Some(behind) = self.live.as_mut().and_then(|live| live.behind.as_mut())
        {
            settled.done.iter().for_each(|(_, object)| behind.settle(object, 1));
        }
        settled
    }

    /// What to make durable now, if anything. `last`: there will be no later chance.
    pub fn commit(&self, now: Instant, last: bool) -> Option<Commit> {
        let backlog = self.backlog.commit(now, last);
        let live = self.live.as_ref().and_then(|live| live.queue.commit(now, last));
        if backlog.is_none() && live.is_none() {
            return None;
        }
        let of_live = self.live.as_ref().map_or(&[][..], |live| live.queue.dead());
        let dead = [self.backlog.dead(), of_live];
        Some(Commit {
            cursor: self.backlog.cursor(),
            ahead: self.had.changed(),
            letters: (dead[0].len(), of_live.len()),
            dead: dead.concat(),
        })
    }

    /// What [`Lanes::commit`] gave is durable.
    pub fn committed(&mut self, cursor: Position, letters: (usize, usize), now: Instant) {
        self.backlog.committed(cursor, letters.0, now);
        if let Some(live) = &mut self.live {
            let cursor = live.queue.cursor();
            live.queue.committed(cursor, letters.1, now);
        }
        self.had.written();
        self.had.pass(cursor);
    }

    /// When something may be due that no input announces; none: only an input helps.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let live = self.live.as_ref().and_then(|live| live.queue.wake(now));
        let wake = [self.backlog.wake(now), live].into_iter().flatten().min();
        wake.map(|at| self.held.map_or(at, |held| at.max(held)))
    }

    /// Since when, in nanoseconds since 1970, the oldest record waits here; none: nothing does.
    pub fn oldest_ns(&self) -> Option<i64> {
        let (backlog, live) = self.first_ns();
        backlog.or(live)
    }

    /// Since when the first of each lane waits here: of the backlog, and of what is live.
    pub fn first_ns(&self) -> (Option<i64>, Option<i64>) {
        (self.backlog.oldest_ns(), self.live.as_ref().and_then(|live| live.queue.oldest_ns()))
    }
}

// === impl Commit ===

impl Commit {
    /// How many dead letters are of each lane.
    pub fn letters(&self) -> (usize, usize) {
        self.letters
    }
}

#[cfg(test)]
mod tests;
