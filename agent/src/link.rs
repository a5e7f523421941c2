//! The stream to the aggregator: sends batches, takes acknowledgements and assignments, reconnects.
//!
//! One task owns the outbox and the connection, so that there is nothing to lock. While there is no connection it goes on taking
//! until the outbox is full, and the watches that this agent holds stay as they are until the aggregator says otherwise.

pub mod backoff;
mod connect;
pub mod metrics;
pub mod tls;

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use nodetap_wire::time::now_ns;
use nodetap_wire::{
    AssignedWatch, Assignment, Draining, Durable, Findings, FromAgent, HeldWatch, Hello, LedgerEntry,
    LedgerOrigin, Lost, Remembered, WatchReport, WatchState, from_agent, ledger, to_agent,
};
use rustls::crypto::aws_lc_rs::default_provider;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use self::backoff::Backoff;
pub use self::connect::LinkError;
use self::connect::Stream;
use self::metrics::{Metrics, Reason};
use self::tls::Credentials;
use crate::outbox::spool::Spool;
use crate::outbox::{self, Taken, Taking, spool};
use crate::tap::memory::Answer;
use crate::watch::names::Named;
use crate::watch::reach::Reach;
use crate::watch::tally::Tally;

/// Batches on their way: enough for 10,000 records a second at an aggregator that answers after 0.8 s.
const WINDOW: usize = 16;

/// How long a stopping agent waits for the last acknowledgements.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream that has lasted this long was a good one, though nothing was sent on it.
const GOOD: Duration = Duration::from_secs(30);

/// How often it is told how far the watches came.
const PROGRESS: Duration = Duration::from_secs(10);

/// What is taken in one go before the connection gets its turn.
const TURN: usize = 512;

/// Who this agent is and where the aggregator is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// This agent's version, for people.
    pub version: String,
    /// HOST:PORT.
    pub aggregator: String,
    /// The outbox.
    pub outbox: spool::Settings,
}

/// The ends that other parts of the agent hold the other end of.
#[derive(Debug)]
pub struct Ends {
    /// What the watches and the tap took.
    pub taken: Taking,
    /// How the watches fare.
    pub reports: mpsc::Receiver<WatchReport>,
    /// What the watches are to hold.
    pub assignments: watch::Sender<Assignment>,
    /// How the link fares.
    pub health: watch::Sender<Health>,
    /// Grows where a stream opens after an acknowledgement: an aggregator that started again has forgotten what it acknowledged
    /// and does not journal. What was not acknowledged is sent again by itself.
    pub forgotten: watch::Sender<u64>,
    /// Grows where the journal lost what it had acknowledged.
    pub lost: watch::Sender<u64>,
    /// Grows when the aggregator asks what the API server accepts.
    pub negotiate: watch::Sender<u64>,
    /// What the API server was found to accept.
    pub findings: watch::Receiver<Option<Findings>>,
    /// The names of namespaces, where this agent watches them.
    pub names: watch::Receiver<Named>,
    /// What the watches took.
    pub tally: Tally,
    /// Whether the API server answers, and how soon.
    pub reach: Reach,
    /// Cancelled when this agent is to end, and its watches are to go to others before.
    pub drain: CancellationToken,
    /// What the aggregator remembers of the ledger; `None`: it is told nothing of one.
    pub memory: Option<Memory>,
}

/// The link's ends of what goes between the tap and the aggregator.
#[derive(Debug)]
pub struct Memory {
    /// Who asks what it remembers; where nobody does any longer, it is not asked.
    pub answer: oneshot::Sender<Answer>,
    /// Grows where it remembers nothing any longer.
    pub again: watch::Sender<u64>,
}

/// How the link fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// A stream is open, and the aggregator has said what this agent is to watch.
    pub connected: bool,
    /// When the last acknowledgement came, in nanoseconds since 1970; 0: none yet.
    pub acknowledged_ns: i64,
    /// Nothing more is taken, because the outbox is full.
    pub full: bool,
}

/// Reasons for a new try, or a stream.
enum Connection {
    Opening(Pin<Box<dyn Future<Output = Result<Stream, LinkError>> + Send>>),
    Open { stream: Box<Stream>, since: Instant, greeted: bool },
    Waiting(Pin<Box<Sleep>>),
}

enum Happened {
    Opened(Box<Stream>),
    Frame(to_agent::Frame),
    Failed(LinkError),
    Retry,
}

/// The last report of each watch, and whether the aggregator has it.
#[derive(Debug, Default)]
struct Reports {
    last: Vec<(WatchReport, bool)>,
}

/// What the aggregator is asked for of the ledger.
#[derive(Debug, Default)]
struct Recall {
    answer: Option<oneshot::Sender<Answer>>,
    /// None: the aggregator is told nothing of a ledger.
    again: Option<watch::Sender<u64>>,
    /// What came of it on the stream of now, and how many bytes that is.
    entries: Vec<LedgerEntry>,
    bytes: usize,
}

struct Link {
    settings: Settings,
    credentials: Credentials,
    instance: String,
    spool: Spool,
    outgoing: Option<mpsc::Sender<FromAgent>>,
    reports: Reports,
    backoff: Backoff,
    /// Handshakes in a row that took too long.
    given_up: u32,
    assignments: watch::Sender<Assignment>,
    health: watch::Sender<Health>,
    forgotten: watch::Sender<u64>,
    /// Something was acknowledged since `forgotten` grew.
    acknowledged: bool,
    lost: watch::Sender<u64>,
    /// What the aggregator said last of what is durable.
    durable: Option<Durable>,
    negotiate: watch::Sender<u64>,
    findings: watch::Receiver<Option<Findings>>,
    names: watch::Receiver<Named>,
    /// What the aggregator was told of the names on this stream.
    told: Option<Named>,
    tally: Tally,
    reach: Reach,
    told_at: Instant,
    drain: CancellationToken,
    recall: Recall,
    /// Frames beside batches and reports: what is found, what is named, how far the watches came. The stream's first of each is
    /// made anew, so a stream that breaks empties it.
    control: VecDeque<from_agent::Frame>,
    metrics: Metrics,
}

/// Runs the link until it is told to stop; then sends what it has, within a bound.
pub async fn run(
    settings: Settings,
    credentials: Credentials,
    ends: Ends,
    metrics: Metrics,
    outbox: outbox::metrics::Metrics,
    stop: CancellationToken,
) {
    let Ends { mut taken, mut reports, assignments, health, forgotten, lost, .. } = ends;
    let Ends { negotiate, findings, names, tally, reach, drain, memory, .. } = ends;
    let mut link = Link {
        spool: Spool::open(settings.outbox.clone(), outbox).await,
        settings,
        credentials: credentials.clone(),
        instance: instance(),
        outgoing: None,
        reports: Reports::default(),
        backoff: Backoff::default(),
        given_up: 0,
        assignments,
        health,
        forgotten,
        acknowledged: false,
        lost,
        durable: None,
        negotiate,
        findings,
        names,
        told: None,
        tally,
        reach,
        told_at: Instant::now(),
        drain: drain.clone(),
        recall: Recall::new(memory),
        control: VecDeque::new(),
        metrics,
    };
    let mut connection = link.connect();
    let follow = credentials.follow();
    tokio::pin!(follow);
    let mut following = true;
    let mut taking = true;
    let mut reporting = true;
    let mut farewell: Option<Instant> = None;
    let mut told_to_drain = false;
    let mut found = link.findings.clone();
    let mut named = link.names.clone();
    let mut answers = link.reach.answers();
    loop {
        if !taking {
            link.spool.close();
        }
        link.spool.drive();
        link.pump();
        link.observe();
        if !taking || stop.is_cancelled() {
            let until = *farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
            if (!taking && link.spool.is_empty()) || Instant::now() >= until {
                return link.spool.end().await;
            }
        }
        let tells_at = link.outgoing.is_some().then(|| link.told_at + PROGRESS);
        let (wakes_at, has_room) = (link.spool.wakes_at(), link.spool.has_room());
        let waits_for_room = !link.control.is_empty() || waits_for_room(&link.reports, &link.spool);
        let outgoing = link.outgoing.clone();
        tokio::select! {
            happened = connection.next() => connection = link.happened(connection, happened),
            received = taken.recv_of(has_room), if taking => match received {
                Some(first) => link.take(first, &mut taken),
                None => taking = false,
            },
            () = until(wakes_at) => link.spool.close_due(),
            () = link.spool.happened() => {}
            report = reports.recv(), if reporting => match report {
                Some(report) => link.reports.put(report),
                None => reporting = false,
            },
            () = until(tells_at) => link.tell_progress(),
            Ok(()) = found.changed() => link.tell_findings(),
            Ok(()) = named.changed() => link.tell_names(),
            Ok(()) = answers.changed() => {
                let answer = answers.borrow_and_update().clone();
                answer.into_iter().for_each(|answer| link.tell(from_agent::Frame::Reached(answer)));
            }
            () = drain.cancelled(), if !told_to_drain => {
                told_to_drain = true;
                link.tell(from_agent::Frame::Draining(Draining {}));
            }
            // Only to come round again once there is room for what waits.
            _ = ready(outgoing), if waits_for_room => {}
            () = stop.cancelled(), if !taken.is_closed() => taken.close(),
            () = until(farewell) => {}
            () = &mut follow, if following => following = false,
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether something is to be sent that [`Link::pump`] found no room for.
fn waits_for_room(reports: &Reports, spool: &Spool) -> bool {
    reports.wait() || spool.can_send(WINDOW)
}

async fn ready(outgoing: Option<mpsc::Sender<FromAgent>>) {
    match outgoing {
        Some(outgoing) if !outgoing.is_closed() => drop(outgoing.reserve().await),
        _ => std::future::pending().await,
    }
}

/// Tells a restart of this process from a new connection.
fn instance() -> String {
    let mut bytes = [0_u8; 16];
    if default_provider().secure_random.fill(&mut bytes).is_err() {
        // No two starts of one node fall on the same nanosecond.
        bytes[..8].copy_from_slice(&now_ns().to_be_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    if default_provider().secure_random.fill(&mut bytes).is_err() {
        return now_ns().unsigned_abs();
    }
    u64::from_le_bytes(bytes)
}

// === impl Link ===

impl Link {
    fn connect(&self) -> Connection {
        let watches = &self.assignments.borrow().watches;
        let held = watches.iter().map(|watch| HeldWatch { shard: watch.shard.clone(), epoch: watch.epoch });
        let hello = Hello {
            node: self.settings.node.clone(),
            version: self.settings.version.clone(),
            instance: self.instance.clone(),
            held: held.collect(),
            findings: self.findings.borrow().clone(),
            draining: self.drain.is_cancelled(),
            formerly: self.spool.formerly().to_vec(),
            answer_ms: self.reach.answer_ms(),
            acknowledged: self.durable,
            ledger: self.recall.origin().into(),
        };
        let address = self.settings.aggregator.clone();
        let opening = connect::open(address, self.credentials.clone(), hello, self.given_up);
        Connection::Opening(Box::pin(opening))
    }

    fn happened(&mut self, connection: Connection, happened: Happened) -> Connection {
        match (happened, connection) {
            (Happened::Opened(stream), _) => {
                self.spool.opened();
                self.recall.opened();
                self.reports.again();
                if std::mem::take(&mut self.acknowledged) {
                    self.forgotten.send_modify(|times| *times += 1);
                }
                self.outgoing = Some(stream.outgoing.clone());
                self.told = None;
                self.told_at = Instant::now();
                if self.drain.is_cancelled() {
                    // It may have been cancelled after Hello was written.
                    self.tell(from_agent::Frame::Draining(Draining {}));
                }
                self.tell_names();
                Connection::Open { stream, since: Instant::now(), greeted: false }
            }
            (Happened::Frame(frame), Connection::Open { stream, since, greeted }) => {
                if let Err(error) = self.take_frame(frame, greeted) {
                    return self.lost(&error, Some(since));
                }
                Connection::Open { stream, since, greeted: true }
            }
            (Happened::Failed(error), Connection::Open { since, .. }) => self.lost(&error, Some(since)),
            (Happened::Failed(error), _) => self.lost(&error, None),
            (Happened::Retry | Happened::Frame(_), _) => self.connect(),
        }
    }

    fn lost(&mut self, error: &LinkError, since: Option<Instant>) -> Connection {
        self.given_up = if error.is_late_handshake() { self.given_up.saturating_add(1) } else { 0 };
        self.outgoing = None;
        self.control.clear();
        self.spool.lost();
        self.metrics.connected.set(0);
        self.health.send_if_modified(|health| std::mem::replace(&mut health.connected, false));
        let reason = error.reason();
        self.metrics.disconnected(reason);
        if since.is_some_and(|since| since.elapsed() >= GOOD) {
            self.backoff.reset();
        }
        if reason == Reason::replaced {
            // Another agent says it is this node: two that fight for it must not do so at full speed.
            self.backoff.longest();
        }
        let wait = self.backoff.next(random());
        tracing::warn!(%error, ?reason, retry_in = ?wait, unacknowledged = self.spool.records(), "no stream to the aggregator");
        Connection::Waiting(Box::pin(tokio::time::sleep(wait)))
    }

    fn take_frame(&mut self, frame: to_agent::Frame, greeted: bool) -> Result<(), LinkError> {
        if !greeted {
            self.metrics.connected.set(1);
            self.health.send_if_modified(|health| !std::mem::replace(&mut health.connected, true));
            tracing::info!(aggregator = self.settings.aggregator, "stream to the aggregator is open");
        }
        match frame {
            to_agent::Frame::Ack(ack) => {
                let acknowledged = self.spool.acknowledge(ack.sequence)?;
                self.acknowledged = true;
                self.durable = ack.durable.or(self.durable);
                if self.spool.take_facts_dropped() {
                    self.forgotten.send_modify(|times| *times += 1);
                }
                if self.spool.take_ledger_dropped() {
                    self.recall.again();
                }
                self.backoff.reset();
                self.metrics.acknowledged.inc_by(acknowledged.batches as u64);
                let now = now_ns();
                self.metrics.last_acknowledged.set(now.div_euclid(1_000_000_000));
                self.health.send_modify(|health| health.acknowledged_ns = now);
            }
            to_agent::Frame::Remembered(part) => self.recall.take(part),
            to_agent::Frame::RememberAgain(_) => self.recall.again(),
            to_agent::Frame::Assignment(assignment) => {
                self.recall.assigned();
                self.metrics.watches.set(i64::try_from(assignment.watches.len()).unwrap_or(i64::MAX));
                let changed = self.assignments.send_if_modified(|current| {
                    let changed = *current != assignment;
                    current.clone_from(&assignment);
                    changed
                });
                if changed {
                    tracing::info!(watches = assignment.watches.len(), "assignment taken");
                    let held =
                        |watch: &AssignedWatch| HeldWatch { shard: watch.shard.clone(), epoch: watch.epoch };
                    self.spool.hold(assignment.watches.iter().map(held).collect());
                }
                self.reports.keep(&assignment);
            }
            to_agent::Frame::Negotiate(_) => self.negotiate.send_modify(|times| *times += 1),
            to_agent::Frame::Reach(reach) => self.reach.ask(reach.number),
            to_agent::Frame::Lost(Lost { opening, times }) => {
                tracing::warn!(
                    "the journal lost records that were acknowledged: deaths that can still be seen are told again"
                );
                let position = self.durable.map_or(0, |durable| durable.position);
                self.durable = Some(Durable { opening, position, losses: times });
                self.metrics.lost.inc();
                self.lost.send_modify(|times| *times += 1);
            }
        }
        Ok(())
    }

    /// Something to be said on this stream, if there is one.
    fn tell(&mut self, frame: from_agent::Frame) {
        if self.outgoing.is_some() {
            self.control.push_back(frame);
        }
    }

    fn tell_findings(&mut self) {
        let findings = self.findings.borrow().clone();
        if let Some(findings) = findings {
            self.tell(from_agent::Frame::Findings(findings));
        }
    }

    fn tell_names(&mut self) {
        if self.outgoing.is_none() {
            return;
        }
        let named = self.names.borrow().clone();
        for frame in named.frames(self.told.as_ref()) {
            self.tell(from_agent::Frame::Namespaces(frame));
        }
        self.told = Some(named);
    }

    fn tell_progress(&mut self) {
        let over = self.told_at.elapsed();
        self.told_at = Instant::now();
        if let Some(progress) = self.tally.take(over) {
            self.tell(from_agent::Frame::Progress(progress));
        }
    }

    /// Sends what the window and the connection have room for.
    fn pump(&mut self) {
        let Some(outgoing) = &self.outgoing else { return };
        while outgoing.capacity() > 0 {
            let report = || self.reports.take().map(from_agent::Frame::WatchReport);
            let frame = match self.control.pop_front().or_else(report) {
                Some(frame) => frame,
                None => match self.spool.send(WINDOW) {
                    Some(sent) => {
                        self.metrics.batches.inc();
                        self.metrics.records.inc_by(u64::from(sent.batch.records));
                        self.metrics.bytes.inc_by(sent.batch.payload.len() as u64);
                        self.metrics.resent.inc_by(u64::from(sent.again));
                        from_agent::Frame::Batch(sent.batch)
                    }
                    None => return,
                },
            };
            if outgoing.try_send(FromAgent { frame: Some(frame) }).is_err() {
                // The stream has ended: the connection says so next, and everything is sent again on another.
                self.outgoing = None;
                return;
            }
        }
    }

    fn take(&mut self, first: Taken, taken: &mut Taking) {
        self.spool.take(first);
        for _ in 1..TURN {
            let Some(next) = taken.try_recv(self.spool.has_room()) else { return };
            self.spool.take(next);
        }
    }

    fn observe(&mut self) {
        let full = self.spool.observe();
        self.health.send_if_modified(|health| std::mem::replace(&mut health.full, full) != full);
    }
}

// === impl Recall ===

impl Recall {
    fn new(memory: Option<Memory>) -> Self {
        let (answer, again) = memory.map(|Memory { answer, again }| (answer, again)).unzip();
        Self { answer, again, ..Self::default() }
    }

    /// What Hello says: where nobody waits for an answer any longer, the ledger is the tap's own.
    fn origin(&self) -> LedgerOrigin {
        match &self.answer {
            Some(answer) if !answer.is_closed() => LedgerOrigin::AskedFor,
            _ if self.again.is_some() => LedgerOrigin::Own,
            _ => LedgerOrigin::Unspecified,
        }
    }

    fn opened(&mut self) {
        (self.entries, self.bytes) = (Vec::new(), 0);
    }

    fn take(&mut self, part: Remembered) {
        let Remembered { ledger: entries, partial, complete } = part;
        self.bytes += entries.iter().map(|entry| ledger::ENTRY_BYTES + entry.state.len()).sum::<usize>();
        let fits = self.bytes <= 2 * (ledger::MAX_NODE_BYTES + ledger::ENTRY_BYTES * ledger::MAX_ENTRIES);
        match fits {
            true => self.entries.extend(entries),
            false => tracing::warn!("the aggregator remembers more of this node than is taken"),
        }
        if complete {
            let entries = std::mem::take(&mut self.entries);
            self.answer(Answer::Remembered { entries, partial: partial || !fits });
        }
    }

    /// It comes after what is remembered: an aggregator that says it first remembers nothing.
    fn assigned(&mut self) {
        self.answer(Answer::Unsupported);
    }

    /// The first answer counts.
    fn answer(&mut self, said: Answer) {
        if let Some(answer) = self.answer.take() {
            // Who asked may have had enough.
            let _ = answer.send(said);
        }
    }

    fn again(&self) {
        if let Some(again) = &self.again {
            again.send_modify(|times| *times += 1);
        }
    }
}

// === impl Connection ===

impl Connection {
    /// May be dropped and called again.
    async fn next(&mut self) -> Happened {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(stream) => Happened::Opened(Box::new(stream)),
                Err(error) => Happened::Failed(error),
            },
            Self::Open { stream, .. } => loop {
                match stream.next().await {
                    Ok(frame) => match frame.frame {
                        Some(frame) => return Happened::Frame(frame),
                        // Of a newer aggregator.
                        None => continue,
                    },
                    Err(error) => return Happened::Failed(error),
                }
            },
            Self::Waiting(sleep) => {
                sleep.await;
                Happened::Retry
            }
        }
    }
}

// === impl Reports ===

impl Reports {
    fn put(&mut self, report: WatchReport) {
        match self.last.iter_mut().find(|(known, _)| known.shard == report.shard) {
            Some(known) => *known = (report, false),
            None => self.last.push((report, false)),
        }
    }

    /// The next one that the aggregator does not have. One of a watch let go is not kept.
    fn take(&mut self) -> Option<WatchReport> {
        let at = self.last.iter().position(|(_, sent)| !sent)?;
        let (report, sent) = self.last.get_mut(at)?;
        *sent = true;
        let report = report.clone();
        if report.state() == WatchState::Released {
            self.last.remove(at);
        }
        Some(report)
    }

    fn wait(&self) -> bool {
        self.last.iter().any(|(_, sent)| !sent)
    }

    /// Another stream: the aggregator may be another one too.
    fn again(&mut self) {
        self.last.iter_mut().for_each(|(_, sent)| *sent = false);
    }

    /// Drops what the aggregator has of watches that are no longer assigned.
    fn keep(&mut self, assignment: &Assignment) {
        self.last.retain(|(report, sent)| {
            !sent || assignment.watches.iter().any(|watch| watch.shard == report.shard)
        });
    }
}

#[cfg(test)]
mod tests;
