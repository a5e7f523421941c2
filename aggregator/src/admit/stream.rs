//! One agent's stream: Hello, then batches in order, each acknowledged once it is durable.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, Stream, StreamExt};
use nodetap_wire::{
    Ack, Assignment, Batch, Change, Durable, FromAgent, Hello, LedgerOrigin, Negotiate, Reach, Record,
    RememberAgain, Remembered, ToAgent, frame, from_agent, ledger, record, to_agent,
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tracing::Instrument;

use super::check::{self, Sender};
use super::connection::Peer;
use super::incoming::{Incoming, Places};
use super::metrics::{
    CheckpointLabels, CheckpointReason, ConnectionReason, EndReason, Metrics, Recalled, RecordLabels,
    RecordReason, Waits,
};
use super::turns::{Turn, Turns};
use crate::assign::{Assigner, Membership, Said, cordons};
use crate::journal::lost::Lost;
use crate::journal::{
    Appended as Journalled, Journal, JournalError, LedgerChanges, LedgerKept, Position, RememberedLedger,
    Taken,
};

/// For the first frame; an agent sends it with its request.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// For the stream before to end, which was told to; one that does not is not waited for, and the agent comes again.
const ALONE_TIMEOUT: Duration = Duration::from_secs(5);

/// Batches of one stream between decoding and durable: so many go into one commit of the journal.
const APPENDS: usize = 8;

/// Bytes of batches, decompressed, of all streams between decoding and durable: twice what one commit of the journal takes of common
/// batches, and four batches of the largest size. A stream that finds no room is not read until there is.
const DECODED_BYTES: usize = 4 * frame::MAX_RAW_BYTES;

/// Bytes of the largest batch.
#[allow(clippy::cast_possible_truncation, reason = "8 MiB")]
const LARGEST: u32 = frame::MAX_RAW_BYTES as u32;

/// Frames to an agent that are not on the wire yet: acknowledgements replace one another while they wait.
const OUTGOING: usize = 4;

/// What all streams share.
#[derive(Debug)]
pub(super) struct Admission<J> {
    pub(super) journal: J,
    pub(super) assigner: Assigner,
    pub(super) metrics: Metrics,
    pub(super) streams: AtomicU64,
    pub(super) turns: Turns,
    pub(super) places: Places,
    /// In bytes. Fair: who waits first is next.
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

/// One stream.
struct Session<J> {
    peer: Peer,
    journal: J,
    assigner: Assigner,
    member: Membership,
    metrics: Metrics,
    stop: CancellationToken,
    room: Arc<Semaphore>,
    last_sequence: Option<u64>,
    /// What the journal lost.
    lost: watch::Receiver<Lost>,
    /// How many of its losses the agent has heard of.
    losses: u64,
    instance: String,
    turn: Turn,
    /// All of the ledger was asked for, and has not come.
    asked_again: bool,
}

/// A batch that is not decoded yet, because there is no room.
struct Waiting {
    batch: Batch,
    room: Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>,
    /// Counts this stream among those that wait.
    _counted: Waits,
}

/// Why a stream ended, and what the agent is told; nothing where it is gone.
struct End {
    reason: EndReason,
    status: Option<Status>,
}

/// What became of a batch.
struct Appended {
    sequence: u64,
    /// As the journal has it.
    result: Result<Journalled, JournalError>,
}

type Appends = FuturesOrdered<Pin<Box<dyn Future<Output = Appended> + Send>>>;

// === impl Admission ===

impl<J: Journal> Admission<J> {
    /// Takes a stream. Answers the frames to the agent.
    ///
    /// # Errors
    /// What the agent is told.
    pub(super) async fn stream(
        &self,
        peer: Peer,
        body: Body,
    ) -> Result<impl Stream<Item = Result<ToAgent, Status>> + Send + use<J>, Status> {
        let mut incoming = Incoming::new(body, &self.places, self.metrics.clone());
        let hello = match first(&peer, &mut incoming).await {
            Ok(hello) => hello,
            Err((reason, status)) => {
                self.metrics.refuse(reason);
                tracing::warn!(node = %peer.node, address = %peer.address, error = status.message(), "stream refused");
                return Err(status);
            }
        };
        let stream = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let (version, instance) = (hello.version.clone(), hello.instance.clone());
        let mut lost = self.journal.lost();
        // Looked at and let go of: what is told now may change it.
        let known = *lost.borrow_and_update();
        let losses = self.compare(hello.acknowledged.unwrap_or_default(), known);
        let (formerly, ledger) = (hello.formerly.clone(), hello.ledger());
        let member = self.assigner.join(&peer.node, stream, hello).await;
        let mut member = member.map_err(|error| Status::unavailable(error.to_string()))?;
        // Its process before this one held a watch, and so it may have events from then. An epoch that was never given says nothing.
        member.has_held |= self.assigner.holdings().were_given(&formerly);
        tracing::info!(
            node = %peer.node,
            address = %peer.address,
            version,
            instance,
            ?ledger,
            "agent connected"
        );
        let session = Session {
            journal: self.journal.clone(),
            assigner: self.assigner.clone(),
            member,
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
            room: self.room.clone(),
            last_sequence: None,
            lost,
            losses,
            instance,
            turn: self.turns.begin(&peer.node),
            asked_again: false,
            peer,
        };
        let (outgoing, mut frames) = mpsc::channel(OUTGOING);
        let span = tracing::info_span!("agent", node = %session.peer.node);
        tokio::spawn(session.run(ledger, incoming, outgoing).instrument(span));
        Ok(futures_util::stream::poll_fn(move |context| frames.poll_recv(context)))
    }

    /// Tells the journal of what an agent was told that is durable. Answers how many of the losses the agent has heard of.
    fn compare(&self, acknowledged: Durable, lost: Lost) -> u64 {
        let Durable { opening, position, losses } = acknowledged;
        if opening == lost.opening {
            return losses;
        }
        if opening == 0 || lost.opening == 0 {
            // A process that begins has nothing to say of those before.
            return lost.before;
        }
        self.journal.promised(Position(position));
        // Who heard of more than the journal remembers was told by one that is gone.
        if losses > lost.before { 0 } else { losses }
    }
}

async fn first(peer: &Peer, incoming: &mut Incoming<Body>) -> Result<Hello, (ConnectionReason, Status)> {
    let frame = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await.map_err(|_| {
        let seconds = HELLO_TIMEOUT.as_secs();
        (ConnectionReason::no_hello, Status::deadline_exceeded(format!("no Hello within {seconds} s")))
    })?;
    let frame = frame.map_err(|status| (ConnectionReason::no_hello, status))?;
    let Some(FromAgent { frame: Some(from_agent::Frame::Hello(hello)) }) = frame else {
        let status = Status::invalid_argument("the first frame of a stream must be Hello");
        return Err((ConnectionReason::not_hello, status));
    };
    if hello.node != *peer.node {
        let node: String = hello.node.chars().filter(|character| !character.is_control()).take(253).collect();
        let status = Status::permission_denied(format!(
            "Hello names node `{node}`, but the certificate names node `{}`: an agent needs the certificate of its own node",
            peer.node
        ));
        return Err((ConnectionReason::other_node, status));
    }
    Ok(hello)
}

// === impl Session ===

impl<J: Journal> Session<J> {
    async fn run(
        mut self,
        ledger: LedgerOrigin,
        mut incoming: Incoming<Body>,
        outgoing: mpsc::Sender<Result<ToAgent, Status>>,
    ) {
        self.metrics.agents.inc();
        let stop = self.stop.clone();
        let begun = stop.run_until_cancelled(self.begin(ledger, &outgoing)).await;
        let mut appends = Appends::new();
        let end = match begun {
            Some(Err(end)) => end,
            // Where it stops, it says so.
            Some(Ok(())) | None => self.serve(&mut incoming, &outgoing, &mut appends).await,
        };
        self.metrics.agents.dec();
        self.metrics.end(end.reason);
        let said = end.status.as_ref().map(|status| status.message().to_owned());
        tracing::info!(address = %self.peer.address, reason = ?end.reason, said, "agent disconnected");
        if let Some(status) = end.status {
            // The agent may not be reading; then the connection's keep-alive ends it.
            let _ = outgoing.try_send(Err(status));
        }
        let Self { member, turn, .. } = self;
        drop((incoming, outgoing, member));
        // The journal keeps what it was given though nobody is told, and so it is seen to its end, in its order, and before what the
        // node's next stream asks for. Behind one that failed nothing is kept, and nothing may begin.
        while appends.next().await.is_some_and(|appended| appended.result.is_ok()) {}
        drop((appends, turn));
    }

    /// Tells what is remembered of the agent's ledger to one that has none, and forgets it of one that tells nothing of its own.
    async fn begin(
        &mut self,
        ledger: LedgerOrigin,
        outgoing: &mpsc::Sender<Result<ToAgent, Status>>,
    ) -> Result<(), End> {
        let node = self.peer.node.to_string();
        match ledger {
            LedgerOrigin::Own => Ok(()),
            LedgerOrigin::AskedFor => {
                let alone = tokio::time::timeout(ALONE_TIMEOUT, self.turn.alone()).await;
                alone.map_err(|_| {
                    let status = Status::unavailable("the stream before this one has not ended");
                    End::say(EndReason::replaced, status)
                })?;
                let remembered = self.journal.ledger(&node).await.map_err(|error| {
                    tracing::warn!(%error, "what is remembered of the agent's ledger cannot be read; the agent asks again");
                    End::say(EndReason::journal, Status::unavailable(error.to_string()))
                })?;
                let RememberedLedger { entries, partial } = &remembered;
                self.metrics.recalled(match (entries.is_empty(), partial) {
                    (true, _) => Recalled::nothing,
                    (false, true) => Recalled::partial,
                    (false, false) => Recalled::whole,
                });
                tracing::info!(entries = entries.len(), partial, "the agent's ledger is given back to it");
                for part in parts(remembered) {
                    let frame = Some(to_agent::Frame::Remembered(part));
                    let sent = outgoing.send(Ok(ToAgent { frame })).await;
                    sent.map_err(|_| End { reason: EndReason::closed, status: None })?;
                }
                Ok(())
            }
            LedgerOrigin::Unspecified if self.journal.remembers(&node) => {
                let ledger = Some(LedgerChanges { first: true, ..LedgerChanges::default() });
                let forgotten = self.journal.append(Taken { node, ledger, ..Taken::default() }).await;
                forgotten
                    .map(drop)
                    .map_err(|error| End::say(EndReason::journal, Status::unavailable(error.to_string())))
            }
            LedgerOrigin::Unspecified => Ok(()),
        }
    }

    async fn serve(
        &mut self,
        incoming: &mut Incoming<Body>,
        outgoing: &mpsc::Sender<Result<ToAgent, Status>>,
        appends: &mut Appends,
    ) -> End {
        let mut waiting: Option<Waiting> = None;
        let mut acknowledge: Option<u64> = None;
        let mut assign: Option<Assignment> = Some(self.member.assignments.borrow_and_update().clone());
        let mut negotiate = false;
        let mut question: Option<u64> = None;
        let mut durable = Position::default();
        let mut remember_again = false;
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                // Acknowledgements first: they make room on the other side.
                biased;
                () = stop.cancelled() => {
                    return End::say(EndReason::stopping, Status::unavailable("the aggregator is stopping"));
                }
                changed = self.member.assignments.changed() => match changed {
                    Ok(()) => assign = Some(self.member.assignments.borrow_and_update().clone()),
                    Err(_) => {
                        let node = &self.peer.node;
                        let status = Status::aborted(format!("another stream of node `{node}` took the place of this one"));
                        return End::say(EndReason::replaced, status);
                    }
                },
                Ok(()) = self.member.negotiations.changed() => negotiate = true,
                Ok(()) = self.member.questions.changed() => {
                    question = Some(*self.member.questions.borrow_and_update());
                }
                Ok(()) = self.lost.changed() => {}
                permit = outgoing.reserve(),
                    if assign.is_some() || acknowledge.is_some() || negotiate || question.is_some()
                        || remember_again || self.has_losses() => {
                    let Ok(permit) = permit else { return End { reason: EndReason::closed, status: None } };
                    let frame = match assign.take() {
                        Some(assignment) => Some(to_agent::Frame::Assignment(assignment)),
                        // Before an acknowledgement, by which the agent takes it that it has heard all.
                        None if self.has_losses() => Some(to_agent::Frame::Lost(self.tell_losses())),
                        None if std::mem::take(&mut negotiate) => {
                            Some(to_agent::Frame::Negotiate(Negotiate {}))
                        }
                        None if std::mem::take(&mut remember_again) => {
                            Some(to_agent::Frame::RememberAgain(RememberAgain {}))
                        }
                        None if question.is_some() => {
                            question.take().map(|number| to_agent::Frame::Reach(Reach { number }))
                        }
                        None => acknowledge.take().map(|sequence| {
                            let durable = self.durable(durable);
                            to_agent::Frame::Ack(Ack { sequence, durable })
                        }),
                    };
                    permit.send(Ok(ToAgent { frame }));
                }
                Some(appended) = appends.next(), if !appends.is_empty() => {
                    let mut next = Some(appended);
                    // One acknowledgement for all that became durable together.
                    while let Some(appended) = next {
                        match self.appended(appended) {
                            Ok((sequence, head, again)) => {
                                acknowledge = Some(sequence);
                                durable = durable.max(head);
                                remember_again |= again;
                            }
                            Err(end) => {
                                appends.clear();
                                return end;
                            }
                        }
                        next = appends.next().now_or_never().flatten();
                    }
                }
                // Beside the appends, and not in their way: the room that is waited for may be this stream's own.
                room = room(&mut waiting) => if let Some((batch, room)) = room {
                    let taken = self.take_batch(&batch, room, appends);
                    drop(batch);
                    incoming.leave();
                    if let Err(end) = taken {
                        return end;
                    }
                },
                frame = incoming.message(), if waiting.is_none() && appends.len() < APPENDS => match frame {
                    Ok(Some(frame)) => match self.take(frame).await {
                        Ok(None) => incoming.leave(),
                        Ok(batch) => waiting = batch,
                        Err(end) => return end,
                    },
                    Ok(None) => return End { reason: EndReason::closed, status: None },
                    Err(status) => {
                        tracing::debug!(error = %status, "stream broke");
                        return End { reason: EndReason::cut, status: None };
                    }
                },
            }
        }
    }

    /// Whether the journal lost something that the agent has not heard of.
    fn has_losses(&self) -> bool {
        self.lost.borrow().total() > self.losses
    }

    fn tell_losses(&mut self) -> nodetap_wire::Lost {
        let lost = *self.lost.borrow_and_update();
        self.losses = lost.total();
        nodetap_wire::Lost { opening: lost.opening, times: self.losses }
    }

    /// What the agent is to remember of an acknowledgement, in case the journal is opened again and does not reach so far.
    fn durable(&self, head: Position) -> Option<Durable> {
        let opening = self.lost.borrow().opening;
        (opening != 0).then_some(Durable { opening, position: head.0, losses: self.losses })
    }

    /// Takes a frame; a batch is to wait for room.
    async fn take(&mut self, frame: FromAgent) -> Result<Option<Waiting>, End> {
        match frame.frame {
            Some(from_agent::Frame::Batch(batch)) => Ok(Some(Waiting::new(batch, &self.room, &self.metrics))),
            Some(from_agent::Frame::WatchReport(report)) => self.say(Said::Report(report)).await,
            Some(from_agent::Frame::Findings(findings)) => self.say(Said::Findings(findings)).await,
            Some(from_agent::Frame::Namespaces(changes)) => self.say(Said::Namespaces(changes)).await,
            Some(from_agent::Frame::Progress(progress)) => self.say(Said::Progress(progress)).await,
            Some(from_agent::Frame::Reached(reached)) => self.say(Said::Reached(reached)).await,
            Some(from_agent::Frame::Draining(_)) => self.say(Said::Draining).await,
            Some(from_agent::Frame::Hello(_)) => {
                let status = Status::invalid_argument("a second Hello on one stream");
                Err(End::say(EndReason::out_of_turn, status))
            }
            // Of a newer agent.
            None => Ok(None),
        }
    }

    async fn say(&self, said: Said) -> Result<Option<Waiting>, End> {
        let stopping = |_| End::say(EndReason::stopping, Status::unavailable("the aggregator is stopping"));
        self.member.say(said).await.map_err(stopping)?;
        Ok(None)
    }

    fn take_batch(
        &mut self,
        batch: &Batch,
        room: OwnedSemaphorePermit,
        appends: &mut Appends,
    ) -> Result<(), End> {
        let sequence = batch.sequence;
        let follows = self.last_sequence.map_or(sequence > 0, |last| last.checked_add(1) == Some(sequence));
        if !follows {
            let last = self.last_sequence.unwrap_or(0);
            let status = Status::invalid_argument(format!("batch {sequence} does not follow batch {last}"));
            return Err(End::say(EndReason::out_of_turn, status));
        }
        let records = frame::decode(batch).map_err(|error| {
            tracing::warn!(sequence, %error, "batch refused");
            let status = Status::invalid_argument(format!("batch {sequence} is refused: {error}"));
            End::say(EndReason::bad_batch, status)
        })?;
        self.last_sequence = Some(sequence);
        self.metrics.bytes.inc_by(batch.payload.len() as u64);
        if !self.member.has_held {
            self.member.has_held = !self.member.assignments.borrow().watches.is_empty();
        }
        let sender = Sender { node: &self.peer.node, has_held: self.member.has_held };
        let checked = check::batch(sender, &self.assigner.holdings(), records);
        self.count(sequence, &checked);
        let journal = self.journal.clone();
        let mut taken = checked.taken;
        if let Some(changes) = &mut taken.ledger {
            changes.instance.clone_from(&self.instance);
            changes.sequence = sequence;
            self.asked_again &= !changes.first;
        }
        for (node, is_cordoned) in taken.records.iter().filter_map(cordoned) {
            self.member.hint(Said::Cordoned(node.to_owned(), is_cordoned));
        }
        let given = self.metrics.give(taken.records.len() as u64);
        appends.push_back(Box::pin(async move {
            let nothing = taken.records.is_empty() && taken.checkpoints.is_empty() && taken.ledger.is_none();
            let result = match nothing {
                true => Ok(Journalled::default()),
                false => journal.append(taken).await,
            };
            if result.is_ok() {
                given.kept();
            }
            drop(room);
            Appended { sequence, result }
        }));
        Ok(())
    }

    fn count(&self, sequence: u64, checked: &check::Checked) {
        for refused in &checked.refused {
            let reason = RecordReason::from(refused);
            self.metrics.refused_records.get_or_create_owned(&RecordLabels { reason }).inc();
        }
        if let Some(first) = checked.refused.first() {
            tracing::warn!(sequence, records = checked.refused.len(), error = %first, "records refused");
        }
        let checkpoints = [
            (CheckpointReason::old_epoch, checked.old_checkpoints),
            (CheckpointReason::not_holder, checked.foreign_checkpoints),
        ];
        for (reason, count) in checkpoints.into_iter().filter(|(_, count)| *count > 0) {
            self.metrics
                .refused_checkpoints
                .get_or_create_owned(&CheckpointLabels { reason })
                .inc_by(count as u64);
        }
    }

    /// The sequence to acknowledge, the journal's last position with it, and whether all of the ledger is to be asked for.
    fn appended(&mut self, appended: Appended) -> Result<(u64, Position, bool), End> {
        match appended.result {
            Ok(Journalled { head, ledger: LedgerKept { without_base, refused }, .. }) => {
                if refused > 0 {
                    self.metrics.ledger_entries_refused.inc_by(refused as u64);
                    tracing::warn!(
                        sequence = appended.sequence,
                        entries = refused,
                        "no room to remember more of the agent's ledger: an agent that starts without its own counts less"
                    );
                }
                let again = without_base && !self.asked_again;
                self.asked_again |= without_base;
                if again {
                    self.metrics.ledgers_asked_again.inc();
                    tracing::info!("nothing is remembered of the agent's ledger: all of it is asked for");
                }
                Ok((appended.sequence, head, again))
            }
            Err(error) => {
                tracing::warn!(sequence = appended.sequence, %error, "batch not durable; the agent sends it again");
                let status =
                    Status::unavailable(format!("batch {} is not durable: {error}", appended.sequence));
                Err(End::say(EndReason::journal, status))
            }
        }
    }
}

/// What is remembered of a ledger as frames, of which the last says that it is.
fn parts(remembered: RememberedLedger) -> Vec<Remembered> {
    let RememberedLedger { entries, partial } = remembered;
    let mut parts = vec![Remembered::default()];
    let mut bytes = 0;
    for entry in entries {
        bytes += entry.state.len();
        match parts.last_mut() {
            Some(part) if part.ledger.is_empty() || bytes <= ledger::FRAME_BYTES => part.ledger.push(entry),
            _ => {
                bytes = entry.state.len();
                parts.push(Remembered { ledger: vec![entry], ..Remembered::default() });
            }
        }
    }
    if let Some(last) = parts.last_mut() {
        last.complete = true;
        last.partial = partial;
    }
    parts
}

/// What is said of a node when `kubectl cordon` or `uncordon` was called: nobody need be asked for it.
fn cordoned(record: &Record) -> Option<(&str, bool)> {
    let Some(record::Kind::Event(event)) = &record.kind else { return None };
    // What a list has may be long over.
    let is_new = matches!(event.change(), Change::Added | Change::Modified);
    let is_cordoned = cordons::is_cordoned(&event.kind, &event.reason).filter(|_| is_new)?;
    Some((&event.object, is_cordoned))
}

/// A batch for which there is room now; waits for ever where none waits. May be dropped and called again.
async fn room(waiting: &mut Option<Waiting>) -> Option<(Batch, OwnedSemaphorePermit)> {
    let Some(first) = waiting else { return std::future::pending().await };
    let room = (&mut first.room).await;
    // Nobody closes the semaphore; were it closed, the stream would end with the aggregator.
    waiting.take().zip(room.ok()).map(|(first, room)| (first.batch, room))
}

// === impl Waiting ===

impl Waiting {
    fn new(batch: Batch, room: &Arc<Semaphore>, metrics: &Metrics) -> Self {
        // One that says it is larger is refused before it is unpacked.
        let bytes = batch.raw_bytes.clamp(1, LARGEST);
        Self { batch, room: Box::pin(room.clone().acquire_many_owned(bytes)), _counted: metrics.wait() }
    }
}

// === impl End ===

impl End {
    fn say(reason: EndReason, status: Status) -> Self {
        Self { reason, status: Some(status) }
    }
}

/// Shared by all streams of one aggregator.
pub(super) fn admission<J: Journal>(
    journal: J,
    assigner: Assigner,
    metrics: Metrics,
    stop: CancellationToken,
) -> Arc<Admission<J>> {
    let room = Arc::new(Semaphore::new(DECODED_BYTES));
    let (streams, turns, places) = (AtomicU64::new(0), Turns::default(), Places::default());
    Arc::new(Admission { journal, assigner, metrics, streams, turns, places, room, stop })
}
