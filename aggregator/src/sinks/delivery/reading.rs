//! What a sink's loop reads: the journal's entries, routed and rendered, into its lanes. Apart from the loop, so that the next
//! batch is made while the sink has the one before it, or its cursor is written.

use std::convert::Infallible;

use nodetap_wire::SharedStr;
use nodetap_wire::face::Face;
use nodetap_wire::time;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{CHUNK, EMPTY_READS, State, TELL_LAG, TURN};
use crate::journal::{DeadLetter, Entry, Journal, JournalError, Position};
use crate::sinks::Delivery;
use crate::sinks::delivery::backoff::{Backoff, jitter};
use crate::sinks::delivery::lag::Waiting;
use crate::sinks::dispatch::Dispatcher;
use crate::sinks::encode::Encoder;
use crate::sinks::metrics::SinkMetrics;

/// The parts of a loop that reading takes.
pub(super) struct Reading<'a, J> {
    pub(super) name: &'a str,
    pub(super) journal: &'a J,
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) receiver: usize,
    pub(super) encoder: &'a mut Encoder,
    pub(super) metrics: &'a SinkMetrics,
}

/// An entry, routed, and rendered where it was asked for.
pub(super) struct Looked {
    /// Deliveries that it makes.
    pub(super) copies: usize,
    /// Whom it is about.
    pub(super) object: SharedStr,
    pub(super) delivery: Option<Delivery>,
}

// === impl Reading ===

impl<J: Journal> Reading<'_, J> {
    /// Reads on for as long as something else takes, and tells the lag. Never ends by itself; to be dropped at any moment, as each
    /// entry is taken whole. Leaves alone what is not plain: a sink that fails, catches up or is to stop.
    pub(super) async fn ahead(mut self, state: &mut State, stop: &CancellationToken) -> Infallible {
        let mut is_plain =
            state.lanes.failures() == 0 && !state.lanes.is_catching_up() && state.trouble.failures() == 0;
        let mut tick = tokio::time::interval(TELL_LAG);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let head = *state.head.borrow_and_update();
            while is_plain
                && !stop.is_cancelled()
                && let Some((after, last)) = state.lanes.wants(head)
            {
                // The loop itself finds the same, and judges it.
                is_plain = self.fill(state, after, last, stop).await.is_ok() && state.trouble.failures() == 0;
            }
            let waits = is_plain && state.lanes.has_room();
            tokio::select! {
                _ = tick.tick() => tell_lag(self.metrics, state),
                changed = state.head.changed(), if waits => is_plain = changed.is_ok(),
            }
        }
    }

    /// What comes next in the journal; `None`, after a rest, where it cannot be read.
    pub(super) async fn chunk(
        &mut self,
        state: &mut State,
        after: Position,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<Entry>>, JournalError> {
        match self.journal.read_from(after, CHUNK).await {
            Ok(entries) => Ok(Some(entries)),
            Err(JournalError::Stopped) => Err(JournalError::Stopped),
            Err(error) => {
                tracing::warn!(sink = self.name, after = after.0, %error, "cannot read the journal");
                rest(&mut state.trouble, stop).await;
                Ok(None)
            }
        }
    }

    /// Reads on after a position, up to another; routes and renders.
    pub(super) async fn fill(
        &mut self,
        state: &mut State,
        after: Position,
        last: Position,
        stop: &CancellationToken,
    ) -> Result<(), JournalError> {
        let Some(entries) = self.chunk(state, after, stop).await? else { return Ok(()) };
        if entries.is_empty() {
            // Perhaps retention dropped it all, perhaps the journal is not ready: do not give up on records at once.
            state.empty_reads += 1;
            if state.empty_reads < EMPTY_READS {
                rest(&mut state.trouble, stop).await;
            } else {
                self.missed(state, after, last);
                state.lanes.backlog().pass(last);
                self.metrics.show(&state.account);
                state.empty_reads = 0;
            }
            return Ok(());
        }
        state.empty_reads = 0;
        state.trouble.reset();
        let mut expected = after;
        let mut is_told = false;
        let mut now = Instant::now();
        for (index, entry) in entries.into_iter().enumerate() {
            if entry.position.0 > expected.0 + 1 {
                let gone = last.min(Position(entry.position.0 - 1));
                if gone > expected {
                    self.missed(state, expected, gone);
                    state.lanes.backlog().pass(gone);
                }
            }
            if entry.position > last {
                break;
            }
            expected = entry.position;
            state.fresh = false;
            state.lag.read(entry.taken_ns);
            if state.lanes.has_had(entry.position) {
                state.account.skip(entry.position);
                state.lanes.backlog().pass(entry.position);
                continue;
            }
            let taken = self.look(&entry, |_| true).map(|Looked { copies, delivery, .. }| {
                let deliveries = delivery.into_iter().flat_map(|one| std::iter::repeat_n(one, copies));
                state.lanes.backlog().take(entry.position, deliveries, now.into_std());
                copies
            });
            match &taken {
                Ok(deliveries) => state.account.take(entry.position, *deliveries),
                Err(_) => state.account.take_dead(entry.position),
            }
            if let Err(reason) = taken {
                self.metrics.dead_letters.inc();
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        sink = self.name,
                        position = entry.position.0,
                        reason,
                        "records cannot be rendered for the sink; they are kept as dead letters"
                    );
                }
                state.lanes.backlog().take_dead(DeadLetter { position: entry.position, reason });
            }
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
                now = Instant::now();
            }
        }
        self.metrics.show(&state.account);
        Ok(())
    }

    /// Routes one entry, and renders it where it is for this sink and `wanted` says so of whom it is about.
    ///
    /// # Errors
    /// Why it is a dead letter.
    pub(super) fn look(
        &mut self,
        entry: &Entry,
        wanted: impl FnOnce(&str) -> bool,
    ) -> Result<Looked, String> {
        let dispatcher = self.dispatcher;
        let (routed, face) =
            dispatcher.route(entry, &mut self.encoder.chunk).map_err(|error| error.to_string())?;
        let (copies, object) = (routed.copies(self.receiver), routed.object.clone());
        if copies == 0 || !wanted(&object) {
            return Ok(Looked { copies, object, delivery: None });
        }
        let delivery = match (self.encoder.encode_routed(&routed, entry.position, entry.taken_ns), face) {
            (Some(delivery), _) => delivery,
            (None, Some(face)) => self.encode(&face, entry)?,
            (None, None) => self.render(entry)?,
        };
        Ok(Looked { copies, object, delivery: Some(delivery) })
    }

    /// Counts positions after `after` and up to `last` of which the journal has nothing.
    fn missed(&self, state: &mut State, after: Position, last: Position) {
        if state.fresh {
            state.account.begin_later(last);
            return;
        }
        let had = state.lanes.had_within(after, last);
        let records = state.account.miss(last, had, state.gaps.within(after, last));
        if records == 0 {
            return;
        }
        self.metrics.missed.inc_by(records);
        tracing::error!(
            sink = self.name,
            records,
            after = after.0,
            "the journal dropped or lost records that the sink had not got"
        );
    }

    /// Renders an entry, wherever routes send it now.
    pub(super) fn render(&mut self, entry: &Entry) -> Result<Delivery, String> {
        let dispatcher = self.dispatcher;
        let face = entry.face(dispatcher.cluster()).map_err(|error| error.to_string())?;
        self.encode(&face, entry)
    }

    fn encode(&mut self, face: &Face<'_>, entry: &Entry) -> Result<Delivery, String> {
        self.encoder.encode(face, entry.position, entry.taken_ns).map_err(|error| error.to_string())
    }
}

pub(super) fn tell_lag(metrics: &SinkMetrics, state: &mut State) {
    let head = *state.head.borrow();
    let cursor = state.lanes.cursor();
    let not_there = state.lanes.had() + state.gaps.within(cursor, head);
    let behind = head.0.saturating_sub(cursor.0).saturating_sub(not_there);
    metrics.lag_records.set(i64::try_from(behind).unwrap_or(i64::MAX));
    let (backlog_ns, live_ns) = state.lanes.first_ns();
    let is_unread = head.0 > state.account.read;
    let waiting = Waiting { records: behind, is_unread, backlog_ns, live_ns };
    metrics.lag_seconds.set(state.lag.seconds(waiting, time::now_ns()));
}

/// Waits a while after the journal failed; false: stopped.
pub(super) async fn rest(trouble: &mut Backoff, stop: &CancellationToken) -> bool {
    let wait = trouble.next(None, jitter());
    stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some()
}
