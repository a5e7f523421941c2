//! The delivery loop: reads the journal from a sink's cursor, routes, renders, delivers in batches, and moves the cursor.
//!
//! At least once and in the order that the receiver is configured for. A sink that is down stops its own loop and no other, and loses
//! nothing while the journal keeps the records: the loop holds two batches at most in a lane, of which a sink that catches up has
//! two ([`lanes`]), and leaves the rest where it is. The cursor is committed after every batch that settled anything, together with
//! what is settled beyond it and what was refused for good; a commit that fails stops the loop from delivering on, so that after
//! a crash no more than one batch is sent again. While the sink has a batch, and while a commit is under way, the next batch is
//! read and rendered (`reading`).

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nodetap_wire::time;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::backoff::{Backoff, jitter};
use self::lag::{Lag, Waiting};
use self::lanes::{Commit, Lane, Lanes, Settings};
use self::reading::{Looked, Reading, rest, tell_lag};
use self::replays::Replays;
use super::account::Account;
use super::dispatch::Dispatcher;
use super::encode::Encoder;
use super::metrics::SinkMetrics;
use super::{Delivery, Order, Outcome, Report, Sink};
use crate::journal::gaps::Gaps;
use crate::journal::had::Had;
use crate::journal::{DeadLetter, Journal, JournalError, Letters, Position};

pub mod backoff;
pub mod behind;
pub mod doubt;
pub mod lag;
pub mod lanes;
pub mod queue;
mod reading;
pub mod replays;

/// Entries read at once. Enough to make a read cheap, few enough to hold for every sink.
const CHUNK: usize = 512;
/// Dead letters looked up at once.
const REPLAYS: usize = 64;
/// Entries routed and rendered before other tasks get a turn.
const TURN: usize = 32;
/// How often the lag is told while nothing else happens.
const TELL_LAG: Duration = Duration::from_secs(1);
/// Reads in a row that find nothing below the head before what is missing is passed over.
const EMPTY_READS: u32 = 5;
/// Chunks that are looked at between two batches of a sink that catches up, until it knows whom its backlog is about.
const SCOUTED: usize = 8;
/// How old the oldest record that waits is where what is new begins to go first.
pub const LIVE_AFTER: Duration = Duration::from_secs(30);

/// One sink's loop.
pub struct Loop<J: Journal, S> {
    /// The receiver's name; its cursor's is made of it.
    pub name: String,
    /// What to read.
    pub journal: J,
    /// Says which records go to it; shared by all sinks.
    pub dispatcher: Arc<Dispatcher>,
    /// Which receiver of the dispatcher's it is.
    pub receiver: usize,
    /// Renders for it.
    pub encoder: Encoder,
    /// Delivers.
    pub sink: S,
    /// Counts.
    pub metrics: SinkMetrics,
    /// After which position to start without a cursor, or after what the journal has dropped where that is later; it becomes the
    /// cursor before anything is read.
    pub start: Position,
    /// Failures in a row after which a record is in doubt; 0: never.
    pub tolerance: u32,
    /// What may overtake what.
    pub order: Order,
    /// How old the oldest record that waits is where what is new begins to go first; [`LIVE_AFTER`].
    pub live_after: Duration,
    /// Which of its dead letters are to be delivered again.
    pub replays: mpsc::Receiver<Letters>,
    /// Told once nothing more will be journalled: what is there then is all that a loop that is to stop may wait for.
    pub drained: CancellationToken,
    /// How long it may go on delivering once it is to stop.
    pub stop_within: Duration,
}

/// What the loop knows.
struct State {
    account: Account,
    lanes: Lanes,
    replays: Replays,
    /// The last attempt was of what is new; of dead letters the next may be.
    after_new: bool,
    head: watch::Receiver<Position>,
    gaps: Gaps,
    lag: Lag,
    /// Since the journal's last good answer.
    trouble: Backoff,
    empty_reads: u32,
    /// It begins with the oldest record that the journal keeps, which is not known yet: what lies before that is not missed.
    fresh: bool,
    /// When it is to end at the latest; none: nobody told it to stop.
    end: Option<Instant>,
}

/// The name of a receiver's cursor.
pub fn consumer(name: &str) -> String {
    format!("sink/{name}")
}

// === impl Loop ===

impl<J: Journal, S: Sink> Loop<J, S> {
    /// Runs until told to stop, then delivers what the journal has for as long as it may and the sink takes it, and commits.
    ///
    /// # Errors
    /// Where the journal has stopped; whatever else it fails of is tried again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), JournalError> {
        let Some(mut state) = self.begin(&stop).await? else { return Ok(()) };
        loop {
            let now = Instant::now().into_std();
            let stopping = stop.is_cancelled();
            if stopping {
                state.end.get_or_insert_with(|| Instant::now() + self.stop_within);
            }
            self.tell_lag(&mut state);
            if let Some(commit) = state.lanes.commit(now, stopping)
                && !self.commit(&mut state, commit, &stop).await?
                && !stopping
            {
                continue;
            }
            if self.is_over(&state) {
                return Ok(());
            }
            self.look_ahead(&mut state, &stop).await?;
            let ready = state.lanes.ready(now, stopping);
            // In turns, so that neither holds up the other; what is new comes first, and alone tells whether the sink is up.
            let may_replay = !stopping && state.lanes.failures() == 0 && (ready.is_none() || state.after_new);
            if may_replay && state.replays.is_due(now) {
                state.after_new = false;
                self.replay(&mut state, &stop).await?;
                continue;
            }
            if let Some((lane, range)) = ready {
                state.after_new = true;
                self.deliver(&mut state, lane, range, &stop).await;
                continue;
            }
            let head = *state.head.borrow_and_update();
            if let Some((after, last)) = state.lanes.wants(head) {
                self.reading().fill(&mut state, after, last, &stop).await?;
                continue;
            }
            if state.lanes.look(head, now).is_some() {
                continue;
            }
            let room = state.lanes.has_room() || state.lanes.is_catching_up();
            let wake = [state.lanes.wake(now), state.replays.wake()].into_iter().flatten().min();
            let wake = wake.map_or_else(|| now + TELL_LAG * 3600, |at| at.min(now + TELL_LAG));
            tokio::select! {
                () = stop.cancelled(), if !stopping => {}
                () = self.drained.cancelled(), if stopping && !self.drained.is_cancelled() => {}
                () = until(state.end) => {}
                Some(letters) = self.replays.recv() => state.replays.begin(letters),
                () = tokio::time::sleep_until(wake.into()) => {}
                changed = state.head.changed(), if room => changed.map_err(|_| JournalError::Stopped)?,
            }
        }
    }

    /// Whether it was told to stop and there is nothing more that it could do: all is delivered, the time is up, or the sink or
    /// the journal fails, which is for the next start.
    fn is_over(&self, state: &State) -> bool {
        let Some(end) = state.end else { return false };
        let all = || self.drained.is_cancelled() && state.lanes.cursor() >= *state.head.borrow();
        Instant::now() >= end || state.lanes.failures() > 0 || state.trouble.failures() > 0 || all()
    }

    /// Finds the place to start from; none: stopped before it was found.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<Option<State>, JournalError> {
        let mut trouble = Backoff::default();
        let (cursor, ahead) = loop {
            let name = consumer(&self.name);
            let cursor = self.journal.cursor(&name).await;
            let both = match cursor {
                Ok(cursor) => self.journal.ahead(&name).await.map(|ahead| (cursor, ahead)),
                Err(error) => Err(error),
            };
            match both {
                Ok(both) => break both,
                Err(JournalError::Stopped) => return Err(JournalError::Stopped),
                Err(error) => {
                    tracing::warn!(sink = self.name, %error, "cannot read the sink's cursor");
                    if !rest(&mut trouble, stop).await {
                        return Ok(None);
                    }
                }
            }
        };
        let head = self.journal.head();
        let last = *head.borrow();
        let foreign = cursor.is_some_and(|cursor| cursor > last);
        let from = match cursor {
            Some(cursor) if foreign => {
                tracing::error!(
                    sink = self.name,
                    cursor = cursor.0,
                    head = last.0,
                    "the journal ends before the sink's cursor: it is not the journal that the sink read; starting over"
                );
                self.claim(Position(0), &mut trouble, stop).await?
            }
            Some(cursor) => Some(cursor),
            None => self.claim(self.start, &mut trouble, stop).await?,
        };
        let Some(from) = from else { return Ok(None) };
        let mut had = Had::load(ahead, from);
        // Of another journal, as the cursor may be.
        if had.last().is_some_and(|had| had > last) || foreign {
            had.clear();
        }
        tracing::info!(sink = self.name, after = from.0, ahead = had.count(), head = last.0, "delivering");
        let account = Account::begin(from, had.count());
        let Self { tolerance, order, live_after, .. } = *self;
        let settings = Settings { limits: self.sink.limits(), tolerance, order, live_after };
        let lanes = Lanes::new(settings, from, had, Instant::now().into_std());
        let replays = Replays::new(consumer(&self.name));
        let fresh = from == Position(0) && (cursor.is_none() || foreign);
        Ok(Some(State {
            account,
            lanes,
            replays,
            after_new: false,
            head,
            gaps: self.journal.gaps(),
            lag: Lag::begin(time::now_ns()),
            trouble,
            empty_reads: 0,
            fresh,
            end: None,
        }))
    }

    /// Makes the start durable before anything is read: the next start of the process goes on from there, and what retention drops
    /// meanwhile is known to be undelivered. None: stopped before it was.
    async fn claim(
        &mut self,
        start: Position,
        trouble: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<Option<Position>, JournalError> {
        let mut lag = Lag::begin(time::now_ns());
        loop {
            let claimed = async {
                let oldest = self.journal.read_from(start, 1).await?;
                // What is gone by now was never this sink's.
                let start =
                    oldest.first().map_or(start, |entry| Position(entry.position.0.saturating_sub(1)));
                self.journal.commit(&consumer(&self.name), start, Vec::new()).await.map(|()| start)
            };
            match claimed.await {
                Ok(start) => return Ok(Some(start)),
                Err(JournalError::Stopped) => return Err(JournalError::Stopped),
                Err(error) => {
                    tracing::warn!(sink = self.name, %error, "cannot write the sink's first cursor");
                    let records = self.journal.head().borrow().0.saturating_sub(start.0);
                    let waiting = Waiting { records, is_unread: true, ..Waiting::default() };
                    self.metrics.lag_records.set(i64::try_from(records).unwrap_or(i64::MAX));
                    self.metrics.lag_seconds.set(lag.seconds(waiting, time::now_ns()));
                    if !rest(trouble, stop).await {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Begins the live lane of a sink that is far behind, and reads on in it: what may overtake the backlog is taken, and of the
    /// rest it is noted whom it is about.
    async fn look_ahead(&mut self, state: &mut State, stop: &CancellationToken) -> Result<(), JournalError> {
        let head = *state.head.borrow();
        let now = Instant::now().into_std();
        let age = state.lanes.oldest_ns().map(|ns| time::now_ns().saturating_sub(ns));
        let age = age.map(|ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(0)));
        if state.lanes.begin_live(head, age, now) {
            let behind = head.0.saturating_sub(state.lanes.cursor().0);
            tracing::info!(sink = self.name, behind, "far behind: what is new goes first where it may");
        }
        let was = state.lanes.is_catching_up();
        for _ in 0..SCOUTED {
            let Some(after) = state.lanes.look(head, now) else { break };
            if !self.scout(state, after, head, stop).await? || !state.lanes.is_scouting() {
                break;
            }
        }
        let overtakes = state.lanes.is_catching_up() && !state.lanes.is_scouting();
        self.metrics.catching_up.set(i64::from(overtakes));
        if was && !state.lanes.is_catching_up() {
            tracing::info!(sink = self.name, cursor = state.lanes.cursor().0, "caught up");
        }
        Ok(())
    }

    /// Looks at a chunk for the live lane; false: there was nothing, or the journal failed.
    async fn scout(
        &mut self,
        state: &mut State,
        after: Position,
        head: Position,
        stop: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let Some(entries) = self.reading().chunk(state, after, stop).await? else { return Ok(false) };
        let now = Instant::now().into_std();
        for (index, entry) in entries.iter().enumerate() {
            if state.lanes.must_wait(now) {
                break;
            }
            if state.lanes.has_had(entry.position) {
                state.lanes.leave_out(entry.position);
                continue;
            }
            let lanes = &state.lanes;
            match self.reading().look(entry, |object| lanes.may_overtake(object)) {
                Ok(Looked { copies, delivery: Some(delivery), .. }) if copies > 0 => {
                    state.account.take_ahead(copies);
                    state.lanes.overtake(entry.position, std::iter::repeat_n(delivery, copies), now);
                }
                Ok(Looked { copies, object, .. }) if copies > 0 => {
                    if !state.lanes.is_scouting() && state.lanes.failures() == 0 {
                        self.metrics.left_behind.inc_by(copies as u64);
                    }
                    state.lanes.leave(entry.position, &object, copies);
                }
                // Not for this sink; or not to be rendered, which the backlog's lane finds out, too.
                Ok(_) | Err(_) => state.lanes.leave_out(entry.position),
            }
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        self.metrics.show(&state.account);
        if entries.is_empty() {
            // What is not there is for the backlog's lane to account for.
            state.lanes.leave_out(head);
        }
        state.lanes.caught(head);
        Ok(!entries.is_empty())
    }

    /// Tries a batch.
    async fn deliver(
        &mut self,
        state: &mut State,
        lane: Lane,
        range: Range<usize>,
        stop: &CancellationToken,
    ) {
        let batch = state.lanes.batch(lane, range.clone());
        let outcomes = self.attempt(state, &batch, stop).await;
        let failures = state.lanes.failures();
        let settled = state.lanes.settle(lane, range, outcomes, Instant::now().into_std(), jitter());
        let dead = settled.refused.len() + usize::from(settled.at_fault.is_some());
        state.account.settle(settled.delivered, dead);
        self.metrics.show(&state.account);
        self.metrics.delivered.inc_by(settled.delivered as u64);
        if lane == Lane::Live {
            self.metrics.overtook.inc_by(settled.delivered as u64);
        }
        self.metrics.retried.inc_by(settled.retried as u64);
        self.metrics.dead_letters.inc_by(settled.refused.len() as u64);
        if settled.delivered > 0 {
            self.metrics.last_success.set(time::now_ns() as f64 / 1e9);
        }
        if let Some(first) = settled.refused.first() {
            tracing::warn!(
                sink = self.name,
                records = settled.refused.len(),
                position = first.position.0,
                reason = first.reason,
                "the sink refused records for good; they are kept as dead letters"
            );
        }
        if let Some(DeadLetter { position, reason }) = &settled.at_fault {
            self.metrics.dead_letters.inc();
            tracing::error!(
                sink = self.name,
                position = position.0,
                reason,
                "the sink takes other records and not this one; it is kept as a dead letter"
            );
        }
        match settled.failure {
            Some((failure, wait)) => {
                self.metrics.failed(failure.class);
                tracing::warn!(
                    sink = self.name,
                    class = failure.class.name(),
                    reason = failure.reason,
                    again_in_ms = wait.as_millis() as u64,
                    "delivery failed"
                );
            }
            None if failures > 0 => {
                tracing::info!(sink = self.name, failures, "the sink takes records again")
            }
            None => {}
        }
    }

    /// Gives a batch to the sink, for as long as it takes, but not much longer than the process is to live.
    async fn attempt(
        &mut self,
        state: &mut State,
        batch: &[Delivery],
        stop: &CancellationToken,
    ) -> Vec<Option<Outcome>> {
        let mut report = Report::new(batch.len());
        self.metrics.batch_records.observe(batch.len() as f64);
        let began = Instant::now();
        let mut end = state.end;
        {
            let Self { sink, stop_within, name, journal, dispatcher, receiver, encoder, metrics, .. } = self;
            let reading = Reading { name, journal, dispatcher, receiver: *receiver, encoder, metrics };
            let mut attempt = pin!(sink.deliver(batch, &mut report));
            let mut stopping = pin!(async {
                stop.cancelled().await;
                tokio::time::sleep_until(*end.get_or_insert_with(|| Instant::now() + *stop_within)).await;
            });
            tokio::select! {
                biased;
                () = &mut attempt => {}
                () = &mut stopping => {}
                never = reading.ahead(state, stop) => match never {},
            }
        }
        state.end = end;
        self.metrics.request_seconds.observe(began.elapsed().as_secs_f64());
        report.into_outcomes()
    }

    /// Delivers dead letters again: the next of them that were asked for, rendered anew.
    async fn replay(&mut self, state: &mut State, stop: &CancellationToken) -> Result<(), JournalError> {
        if let Some(letters) = state.replays.wants() {
            let letters = match self.journal.dead_letters(letters, REPLAYS).await {
                Ok(letters) => letters,
                Err(JournalError::Stopped) => return Err(JournalError::Stopped),
                Err(error) => {
                    tracing::warn!(sink = self.name, %error, "cannot read the sink's dead letters");
                    rest(&mut state.trouble, stop).await;
                    return Ok(());
                }
            };
            let last = letters.last().map(|kept| kept.letter.position);
            let mut deliveries = Vec::with_capacity(letters.len());
            for kept in letters {
                let position = kept.letter.position;
                match self.journal.read_from(Position(position.0.saturating_sub(1)), 1).await {
                    Ok(entries) => match entries.first().filter(|entry| entry.position == position) {
                        Some(entry) => match self.reading().render(entry) {
                            Ok(delivery) => deliveries.push(delivery),
                            Err(reason) => {
                                state.lanes.backlog().refused_again(DeadLetter { position, reason })
                            }
                        },
                        None => tracing::warn!(
                            sink = self.name,
                            position = position.0,
                            "a dead letter cannot be delivered again: the journal no longer has its record"
                        ),
                    },
                    Err(JournalError::Stopped) => return Err(JournalError::Stopped),
                    Err(error) => {
                        tracing::warn!(sink = self.name, %error, "cannot read a dead letter's record");
                        rest(&mut state.trouble, stop).await;
                        return Ok(());
                    }
                }
            }
            state.replays.found(deliveries, last);
            return Ok(());
        }
        let batch = state.replays.batch(self.sink.limits());
        if batch.is_empty() {
            return Ok(());
        }
        let outcomes = self.attempt(state, &batch, stop).await;
        let now = Instant::now().into_std();
        let settled = state.replays.settle(outcomes, now, jitter());
        if let Some(wait) = settled.asked {
            state.lanes.hold(now + wait);
        }
        self.metrics.replayed.inc_by(settled.delivered.len() as u64);
        let (delivered, refused) = (settled.delivered.len(), settled.refused.len());
        tracing::info!(sink = self.name, delivered, refused, "dead letters delivered again");
        if let Some(DeadLetter { position, reason }) = settled.put_back {
            tracing::warn!(
                sink = self.name,
                position = position.0,
                reason,
                "a dead letter could not be delivered again: it stays as it is"
            );
        }
        for letter in settled.refused {
            state.lanes.backlog().refused_again(letter);
        }
        for position in settled.delivered {
            let letters = Letters {
                consumer: Some(consumer(&self.name)),
                position: Some(position),
                ..Letters::default()
            };
            match self.journal.forget_dead_letters(letters).await {
                Ok(_) => {}
                Err(JournalError::Stopped) => return Err(JournalError::Stopped),
                // It is delivered once more, should somebody ask for it.
                Err(error) => {
                    tracing::warn!(sink = self.name, position = position.0, %error, "cannot forget a dead letter that was delivered");
                }
            }
        }
        Ok(())
    }

    /// Commits; false: it failed, and a while has passed.
    async fn commit(
        &mut self,
        state: &mut State,
        commit: Commit,
        stop: &CancellationToken,
    ) -> Result<bool, JournalError> {
        let letters = commit.letters();
        let Commit { cursor, ahead, dead, .. } = commit;
        let journal = self.journal.clone();
        let consumer = consumer(&self.name);
        let settled = tokio::select! {
            biased;
            settled = journal.settle(&consumer, cursor, ahead, dead) => settled,
            never = self.reading().ahead(state, stop) => match never {},
        };
        match settled {
            Ok(()) => {
                state.lanes.committed(cursor, letters, Instant::now().into_std());
                state.trouble.reset();
                Ok(true)
            }
            Err(JournalError::Stopped) => Err(JournalError::Stopped),
            Err(error) => {
                tracing::warn!(sink = self.name, cursor = cursor.0, %error, "cannot commit the sink's cursor");
                rest(&mut state.trouble, stop).await;
                Ok(false)
            }
        }
    }

    fn reading(&mut self) -> Reading<'_, J> {
        let Self { name, journal, dispatcher, receiver, encoder, metrics, .. } = self;
        Reading { name, journal, dispatcher, receiver: *receiver, encoder, metrics }
    }

    fn tell_lag(&self, state: &mut State) {
        tell_lag(&self.metrics, state);
    }
}

/// Ends at a time; without one never.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
