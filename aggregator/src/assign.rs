//! Which agent watches what; epochs and checkpoints.
//!
//! [`choose`] says how the events are shared out, [`plan`] who holds which share, [`spread`] how the shares are dealt.
//! One task owns the plan. Streams join it and get a receiver of their assignment; a receiver that is closed means that another
//! stream of the same node took the place.

pub mod choose;
pub mod cordons;
pub mod metrics;
mod namespaces;
pub mod nearness;
pub mod negotiation;
pub mod plan;
pub mod rates;
pub mod spread;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nodetap_wire::time::now_ns;
use nodetap_wire::{
    AssignedWatch, Assignment, Findings, Hello, NamespaceChanges, Progress, Reached, Shard, WatchReport,
    WatchState,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::choose::{Choice, Wish};
use self::metrics::{ChangeLabels, Metrics, ReportLabels, StateLabel};
use self::namespaces::Names;
use self::negotiation::Negotiation;
use self::plan::{Change, Holdings, Plan};
use self::rates::Rates;
use self::status::{ApiServer, Status};
use crate::journal::lost::{Lost, What};
use crate::journal::{Journal, JournalError};

/// What streams say that is not yet heard: each waits for its turn, so this only smooths a restart with all agents at once.
const INPUTS: usize = 1_024;

/// How often what depends on time alone is looked at.
const TICK: Duration = Duration::from_millis(250);

/// For reading the checkpoints; without them a shard is given out again at the next tick.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// For keeping what is given to whom: a handover is not to wait for a disk that does not answer.
const NOTE_TIMEOUT: Duration = Duration::from_secs(1);

/// After a disk did not answer in that time: each handover would wait for it again.
const NOTE_PAUSE: Duration = Duration::from_secs(10);

/// Inputs that are heard before what follows of them is settled, once for all: a settlement may wait for a commit of the journal.
const TURN: usize = 512;

/// How often shares that there are no more are looked for.
const FORGETTING: Duration = Duration::from_secs(60);

/// How often it is looked at how the events are to be shared out.
const CHOICE: Duration = Duration::from_secs(1);

/// Nodes whose cordoning is remembered until that of the time before is known: as many as there can be.
const CORDONS: usize = 15_000;

/// Changes that are logged one by one; more at a time are counted.
const LOGGED: usize = 16;

/// What the plan depends on beside the agents and the journal.
#[derive(Debug)]
pub struct Settings {
    /// What is configured; may change.
    pub wishes: watch::Receiver<Wish>,
    /// What the journal lost.
    pub lost: watch::Receiver<Lost>,
}

/// Where streams join.
#[derive(Clone, Debug)]
pub struct Assigner {
    inputs: mpsc::Sender<Input>,
    holdings: watch::Receiver<Arc<Holdings>>,
}

/// One stream's place. Dropping it is leaving.
#[derive(Debug)]
pub struct Membership {
    node: String,
    stream: u64,
    /// What the agent is to watch. Closed: another stream of the node took the place, or the aggregator stops.
    pub assignments: watch::Receiver<Assignment>,
    /// Grows when the agent is to find out what its API server accepts.
    pub negotiations: watch::Receiver<u64>,
    /// The number of the last question whether the API server is reached.
    pub questions: watch::Receiver<u64>,
    /// The node held a shard before, or says so.
    pub has_held: bool,
    assigner: Assigner,
}

/// Assigning has ended: the aggregator is stopping.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the aggregator is stopping")]
pub struct Stopped;

#[derive(Debug)]
enum Input {
    Joined { node: String, stream: u64, hello: Box<Hello>, answer: oneshot::Sender<Joined> },
    Left { node: String, stream: u64 },
    Said { node: String, said: Said },
    Status { answer: oneshot::Sender<Status> },
    Recalled { cordoned: Vec<(String, bool)> },
}

#[derive(Debug)]
struct Joined {
    assignments: watch::Receiver<Assignment>,
    negotiations: watch::Receiver<u64>,
    questions: watch::Receiver<u64>,
    has_held: bool,
}

/// A stream that waits for its assignment.
#[derive(Debug)]
struct Joining {
    node: String,
    joined: Joined,
    answer: oneshot::Sender<Joined>,
}

/// What a stream says after its Hello.
#[derive(Clone, Debug)]
pub enum Said {
    /// A watch has another state.
    Report(WatchReport),
    /// What the API server accepts.
    Findings(Findings),
    /// The names of namespaces.
    Namespaces(NamespaceChanges),
    /// How far the watches came.
    Progress(Progress),
    /// Whether the API server answers.
    Reached(Reached),
    /// The agent is to end.
    Draining,
    /// An event of the node that is named says whether pods are put on it.
    Cordoned(String, bool),
}

/// The task that owns the plan.
#[derive(Debug)]
pub struct Driver<J> {
    plan: Plan,
    journal: J,
    inputs: mpsc::Receiver<Input>,
    members: BTreeMap<String, Member>,
    holdings: watch::Sender<Arc<Holdings>>,
    /// The plan's version that was published.
    published: u64,
    /// Streams that joined since it was last settled.
    joining: Vec<Joining>,
    /// Something was heard for which shares may have to be given to somebody, or are others.
    is_unsettled: bool,
    /// Until then nothing is noted, as the journal did not answer.
    notes_from: Option<Instant>,
    /// Nodes whose cordoning was heard of, which counts more than what is recalled.
    cordons_heard: BTreeSet<String>,
    settings: Settings,
    /// What of the journal's losses the plan has heard.
    lost: Lost,
    choice: Choice,
    next_choice: Instant,
    next_forgetting: Instant,
    negotiation: Negotiation,
    names: Names,
    rates: Rates,
    metrics: Metrics,
}

#[derive(Debug)]
struct Member {
    stream: u64,
    assignment: watch::Sender<Assignment>,
    negotiations: watch::Sender<u64>,
    questions: watch::Sender<u64>,
}

/// The plan's task and the way to it. Reads the journal's checkpoints first, so that no epoch is given twice.
///
/// # Errors
/// Where the journal cannot say what its checkpoints are.
pub async fn assign<J: Journal>(
    mut plan: Plan,
    journal: J,
    mut settings: Settings,
    metrics: Metrics,
) -> Result<(Assigner, Driver<J>), JournalError> {
    plan.known(&journal.checkpoints().await?);
    let (inputs, receiver) = mpsc::channel(INPUTS);
    let (holdings, published) = watch::channel(Arc::new(plan.holdings()));
    let lost = *settings.lost.borrow_and_update();
    if lost.ends + lost.holes > 0 {
        // The checkpoints that are left are right; who holds a watch from before may be beyond.
        plan.rewind();
    }
    settings.wishes.mark_changed();
    let now = Instant::now();
    let mut driver = Driver {
        choice: Choice { partition: plan.partition(), why: "nothing is known yet".to_owned() },
        plan,
        journal,
        inputs: receiver,
        members: BTreeMap::new(),
        holdings,
        published: 0,
        joining: Vec::new(),
        is_unsettled: false,
        notes_from: None,
        cordons_heard: BTreeSet::new(),
        settings,
        lost,
        next_choice: now,
        next_forgetting: now + FORGETTING,
        negotiation: Negotiation::new(now.into_std()),
        names: Names::default(),
        rates: Rates::new(now.into_std()),
        metrics,
    };
    driver.publish();
    Ok((Assigner { inputs, holdings: published }, driver))
}

// === impl Assigner ===

impl Assigner {
    /// A node's agent said hello on a stream. `stream` must be greater than that of any stream before.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn join(&self, node: &str, stream: u64, hello: Hello) -> Result<Membership, Stopped> {
        let (answer, answered) = oneshot::channel();
        let input = Input::Joined { node: node.to_owned(), stream, hello: Box::new(hello), answer };
        self.inputs.send(input).await.map_err(|_| Stopped)?;
        let Joined { assignments, negotiations, questions, has_held } =
            answered.await.map_err(|_| Stopped)?;
        let assigner = self.clone();
        Ok(Membership {
            node: node.to_owned(),
            stream,
            assignments,
            negotiations,
            questions,
            has_held,
            assigner,
        })
    }

    /// How the plan stands.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn status(&self) -> Result<Status, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Status { answer }).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Which nodes were cordoned before this process began, or no longer were: what was heard of since counts more.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn recall(&self, cordoned: Vec<(String, bool)>) -> Result<(), Stopped> {
        self.inputs.send(Input::Recalled { cordoned }).await.map_err(|_| Stopped)
    }

    /// Who holds what now.
    pub fn holdings(&self) -> Arc<Holdings> {
        self.holdings.borrow().clone()
    }
}

// === impl Membership ===

impl Membership {
    /// The stream said something.
    ///
    /// # Errors
    /// When the aggregator stops.
    pub async fn say(&self, said: Said) -> Result<(), Stopped> {
        let input = Input::Said { node: self.node.clone(), said };
        self.assigner.inputs.send(input).await.map_err(|_| Stopped)
    }
}

impl Membership {
    /// The same of what may be missed: it is not waited for.
    pub fn hint(&self, said: Said) {
        // Without room, the plan only knows less.
        let _ = self.assigner.inputs.try_send(Input::Said { node: self.node.clone(), said });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let input = Input::Left { node: std::mem::take(&mut self.node), stream: self.stream };
        // Where there is no room, the next tick finds the closed receiver.
        let _ = self.assigner.inputs.try_send(input);
    }
}

// === impl Driver ===

impl<J: Journal> Driver<J> {
    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                input = self.inputs.recv() => match input {
                    Some(input) => self.take_all(input).await,
                    None => return,
                },
                _ = tick.tick() => {
                    self.sweep();
                    self.look();
                    self.forget().await;
                    self.settle().await;
                    self.ask();
                }
            }
        }
    }

    /// Hears whatever there is to hear, and settles once.
    async fn take_all(&mut self, first: Input) {
        self.take(first);
        for _ in 1..TURN {
            let Ok(input) = self.inputs.try_recv() else { break };
            self.take(input);
        }
        self.hear_of_losses();
        if std::mem::take(&mut self.is_unsettled) || !self.joining.is_empty() {
            self.settle().await;
            let joining = std::mem::take(&mut self.joining);
            let assignments = if joining.is_empty() { BTreeMap::new() } else { self.plan.assignments() };
            for Joining { node, mut joined, answer } in joining {
                let assignment = assignments.get(node.as_str()).cloned().unwrap_or_default();
                joined.has_held = !assignment.watches.is_empty() || self.plan.held_before(&node);
                if let Some(member) = self.members.get(&node) {
                    member.assignment.send_replace(assignment);
                }
                // Where the stream is gone already, its receivers are dropped here and swept up at the next tick.
                let _ = answer.send(joined);
            }
            self.ask();
        }
    }

    fn take(&mut self, input: Input) {
        let now = Instant::now().into_std();
        match input {
            Input::Joined { node, stream, hello, answer } => {
                self.plan.joined(now, &node, stream, &hello.held);
                self.plan.measured(now, &node, hello.answer_ms);
                if hello.draining {
                    self.plan.draining(&node);
                }
                if let Some(findings) = hello.findings
                    && self.negotiation.recall(now_ns(), &node, findings)
                {
                    self.found();
                }
                // What it is to watch is told once it is settled.
                let (assignment, assignments) = watch::channel(Assignment::default());
                let (negotiate, negotiations) = watch::channel(0);
                let (question, questions) = watch::channel(0);
                let member = Member { stream, assignment, negotiations: negotiate, questions: question };
                // The sender that this drops is what tells an older stream that it was replaced.
                self.members.insert(node.clone(), member);
                let joined = Joined { assignments, negotiations, questions, has_held: false };
                self.joining.push(Joining { node, joined, answer });
            }
            Input::Left { node, stream } => self.left(&node, stream),
            Input::Said { node, said } => self.said(node, said),
            Input::Status { answer } => {
                // Who asked may be gone.
                let _ = answer.send(self.status(now));
            }
            Input::Recalled { cordoned } => {
                for (node, is_cordoned) in cordoned {
                    if !self.cordons_heard.contains(&node) {
                        self.plan.cordoned(now, &node, is_cordoned);
                    }
                }
                self.cordons_heard.clear();
                self.is_unsettled = true;
            }
        }
    }

    fn said(&mut self, node: String, said: Said) {
        let now = Instant::now().into_std();
        match said {
            Said::Report(report) => self.reported(now, &node, &report),
            Said::Findings(findings) => {
                // Not where nothing was answered.
                let answer_ms = if findings.answer_ms == u32::MAX { 0 } else { findings.answer_ms.max(1) };
                self.plan.measured(now, &node, answer_ms);
                let failure = findings.failure.clone();
                if self.negotiation.answer(now, now_ns(), &node, findings) {
                    self.found();
                } else if !failure.is_empty() {
                    tracing::warn!(node, failure, "not everything could be found out about the API server");
                }
            }
            Said::Namespaces(changes) => {
                let is_holder = self.plan.is_held_by(&node, &Shard::namespaces(), changes.epoch);
                if is_holder && let Some(names) = self.names.take(&node, changes) {
                    self.metrics.namespaces.set(i64::try_from(names.len()).unwrap_or(i64::MAX));
                    self.plan.namespaces(now, names.clone());
                    self.is_unsettled = true;
                }
            }
            Said::Progress(progress) => {
                for progress in &progress.shards {
                    let Some(shard) = &progress.shard else { continue };
                    // Only of those that there are, so that no agent can fill this with names.
                    if self.holdings.borrow().get(shard).is_some() {
                        self.rates.took(now, shard, progress);
                    }
                }
            }
            Said::Draining => {
                tracing::info!(node, "agent is to end: its watches go to others");
                self.plan.draining(&node);
                self.is_unsettled = true;
            }
            Said::Reached(answer) => {
                if !answer.reached {
                    self.metrics.unreached.inc();
                    tracing::warn!(node, failure = answer.failure, "an agent does not reach the API server");
                }
                self.is_unsettled |= self.plan.reached(now, &node, &answer);
            }
            Said::Cordoned(node, is_cordoned) => {
                self.plan.cordoned(now, &node, is_cordoned);
                // Bounded by the nodes that are cordoned in the moment until what was before is recalled.
                if self.cordons_heard.len() < CORDONS {
                    self.cordons_heard.insert(node);
                }
            }
        }
    }

    fn reported(&mut self, now: std::time::Instant, node: &str, report: &WatchReport) {
        let state = state(report);
        let shard = report.shard.as_ref().map(Shard::name);
        let (epoch, failure) = (report.epoch, &report.failure);
        tracing::debug!(node, shard, epoch, ?state, failure, "watch reported its state");
        self.metrics.reports.get_or_create_owned(&ReportLabels { state }).inc();
        let seconds = now_ns().div_euclid(1_000_000_000);
        self.metrics.last_report.get_or_create_owned(&ReportLabels { state }).set(seconds);
        if report.state() == WatchState::BackingOff {
            tracing::warn!(node, shard, epoch, failure, "a watch fails");
            self.negotiation.disturbed(now);
            // Others are asked at once whether they do better.
            self.is_unsettled = true;
        }
        self.plan.reported(now, node, report);
    }

    /// Asks agents whether they reach the API server, where that is to be known.
    fn ask(&mut self) {
        for (node, number) in self.plan.ask(Instant::now().into_std()) {
            if let Some(member) = self.members.get(&node) {
                self.metrics.questions.inc();
                member.questions.send_replace(number);
            }
        }
    }

    fn left(&mut self, node: &str, stream: u64) {
        let now = Instant::now().into_std();
        if self.members.get(node).is_some_and(|member| member.stream == stream) {
            self.members.remove(node);
            self.negotiation.left(now, node);
        }
        self.plan.left(now, node, stream);
    }

    fn sweep(&mut self) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.assignment.is_closed())
            .map(|(node, member)| (node.clone(), member.stream))
            .collect();
        for (node, stream) in gone {
            self.left(&node, stream);
        }
    }

    /// What the journal lost. Before an agent that joins is given an answer: what it sends under an epoch from before the loss would
    /// move the checkpoint beyond it.
    fn hear_of_losses(&mut self) {
        if self.settings.lost.has_changed().unwrap_or(false) {
            let lost = *self.settings.lost.borrow_and_update();
            match lost.since(&std::mem::replace(&mut self.lost, lost)) {
                Some(What::Hole) => {
                    tracing::warn!("the journal lost some of what it had: every watch lists again");
                    self.plan.reset();
                }
                Some(What::End) => {
                    tracing::warn!(
                        "the journal lost the newest of what it had: every watch goes on from its last checkpoint"
                    );
                    self.plan.rewind();
                }
                Some(What::Old) | None => {}
            }
        }
    }

    /// What depends on time, on the configuration and on the journal's health.
    fn look(&mut self) {
        let now = Instant::now().into_std();
        self.hear_of_losses();
        self.plan.expire(now);
        if self.negotiation.is_due(now) {
            self.negotiate(now);
        }
        if Instant::now() >= self.next_choice && !self.plan.awaits_restart(now) {
            self.next_choice = Instant::now() + CHOICE;
            self.choose(now);
            let agents = self.plan.agents();
            let holdings = self.holdings.borrow().clone();
            let hot = self.rates.hot(now, agents, |shard| holdings.get(shard).is_some());
            self.plan.hot(now, hot);
            self.metrics.events_per_second.set(self.rates.all(now).unwrap_or(0.0));
        }
        self.metrics.changing.set(i64::from(self.plan.awaits_changeover()));
    }

    fn negotiate(&mut self, now: std::time::Instant) {
        let Some(node) = self.plan.any_node().map(str::to_owned) else { return };
        let Some(member) = self.members.get(&node) else { return };
        member.negotiations.send_modify(|times| *times += 1);
        self.negotiation.ask(now, &node);
        tracing::info!(node, "asking an agent what the API server accepts");
    }

    fn found(&self) {
        let Some((findings, node, _)) = self.negotiation.findings() else { return };
        self.metrics.found(findings);
        tracing::info!(
            node,
            version = findings.version,
            host_selector = ?findings.host_selector(),
            shard_selector = ?findings.shard_selector(),
            send_initial_events = ?findings.send_initial_events(),
            api_servers = findings.api_servers,
            answer_ms = findings.answer_ms,
            failure = findings.failure,
            "found out what the API server accepts"
        );
    }

    fn choose(&mut self, now: std::time::Instant) {
        let is_new = self.settings.wishes.has_changed().unwrap_or(false);
        let wish = *self.settings.wishes.borrow_and_update();
        let choice = wish.choose(&choose::Known {
            findings: self.negotiation.findings().map(|(findings, ..)| findings),
            agents: self.plan.agents(),
            namespaces: self.plan.namespace_count(),
            events_per_second: self.rates.all(now),
            current: self.plan.partition(),
        });
        if is_new || choice.partition != self.choice.partition {
            let (partition, before) = (choice.partition.name(), self.plan.partition().name());
            tracing::info!(partition, before, why = choice.why, "chosen how the events are shared out");
        }
        self.plan.change(now, choice.partition);
        self.metrics.chosen(choice.partition);
        self.choice = choice;
    }

    async fn settle(&mut self) {
        if self.plan.is_due(Instant::now().into_std()) {
            match tokio::time::timeout(CHECKPOINT_TIMEOUT, self.journal.checkpoints()).await {
                Ok(Ok(checkpoints)) => {
                    self.plan.known(&checkpoints);
                    let changes = self.plan.settle(Instant::now().into_std());
                    self.note(&changes).await;
                    self.log(&changes);
                }
                Ok(Err(error)) => self.without_checkpoints(&error),
                Err(error) => self.without_checkpoints(&error),
            }
        }
        // Even where nothing could be given: who joined is to hear what it holds.
        self.publish();
    }

    /// Keeps the epochs before anybody hears of them. Without it they are given all the same: a journal that is full is no reason to
    /// watch nothing.
    async fn note(&mut self, changes: &[Change]) {
        let notes = self.plan.notes(changes);
        if !notes.is_empty() {
            let noting = self.journal.clone();
            self.noted(noting.note(notes, Vec::new())).await;
        }
    }

    /// Forgets shares that there are no more, so that neither memory nor journal grow with every namespace that ever was.
    async fn forget(&mut self) {
        let now = Instant::now();
        if now < self.next_forgetting {
            return;
        }
        self.next_forgetting = now + FORGETTING;
        let gone = self.plan.forget_unused(now.into_std());
        if !gone.is_empty() {
            tracing::info!(watches = gone.len(), "watches that there are no more are forgotten");
            let noting = self.journal.clone();
            self.noted(noting.note(Vec::new(), gone)).await;
        }
    }

    async fn noted(&mut self, noting: impl Future<Output = Result<(), JournalError>>) {
        if self.notes_from.is_some_and(|from| Instant::now() < from) {
            self.metrics.note_failures.inc();
            return;
        }
        let error = match tokio::time::timeout(NOTE_TIMEOUT, noting).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => {
                self.notes_from = Some(Instant::now() + NOTE_PAUSE);
                error.to_string()
            }
        };
        self.metrics.note_failures.inc();
        tracing::warn!(error, "the journal did not keep what was given to whom");
    }

    fn log(&self, changes: &[Change]) {
        for Change { shard, epoch, node, cause } in changes.iter().take(LOGGED) {
            tracing::info!(node, epoch, %shard, ?cause, "watch given to an agent");
        }
        if changes.len() > LOGGED {
            tracing::info!(
                watches = changes.len(),
                unlogged = changes.len() - LOGGED,
                "watches given to agents"
            );
        }
        for change in changes {
            self.metrics.changes.get_or_create_owned(&ChangeLabels { cause: change.cause.into() }).inc();
        }
    }

    /// Without them the new holder would list everything anew: better at the next tick with them.
    fn without_checkpoints(&self, error: &dyn std::fmt::Display) {
        self.metrics.checkpoint_failures.inc();
        tracing::warn!(%error, "no checkpoints from the journal, so no watch is given out now");
    }

    fn publish(&mut self) {
        if self.published == self.plan.version() {
            return;
        }
        self.published = self.plan.version();
        let (shards, vacant) = self.plan.counts();
        self.metrics.shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
        self.metrics.vacant.set(i64::try_from(vacant).unwrap_or(i64::MAX));
        self.metrics.epoch.set(i64::try_from(self.plan.epoch()).unwrap_or(i64::MAX));
        // First, so that a holder's first checkpoint is already known to be its own.
        self.holdings.send_replace(Arc::new(self.plan.holdings()));
        let mut assignments = self.plan.assignments();
        for (node, member) in &self.members {
            let assignment = assignments.remove(node.as_str()).unwrap_or_default();
            member.assignment.send_if_modified(|current| {
                // The resourceVersion alone moves all the time and matters only to whoever starts.
                let is_same = |(one, other): (&AssignedWatch, &AssignedWatch)| {
                    (&one.shard, one.epoch, &one.other_hosts)
                        == (&other.shard, other.epoch, &other.other_hosts)
                };
                let changed = current.watches.len() != assignment.watches.len()
                    || !current.watches.iter().zip(&assignment.watches).all(is_same);
                if changed {
                    *current = assignment;
                }
                changed
            });
        }
    }

    fn status(&self, now: std::time::Instant) -> Status {
        let watches = self.plan.rows(now).map(|row| {
            let took = self.rates.of(row.shard);
            status::Watch {
                shard: row.shard.name(),
                node: row.node.map(str::to_owned),
                epoch: row.epoch,
                held_for_seconds: row.held_for.as_secs(),
                state: status::word(&row).to_owned(),
                events_per_second: took.map_or(0.0, |took| took.rate(now)),
                behind_seconds: took.map(|took| took.behind.as_secs_f64()),
                last_event: took.map(|took| rfc3339(took.last_ns)).unwrap_or_default(),
                failure: row.failure.to_owned(),
                leaving: row.leaving.map(str::to_owned),
                answer_ms: row.answer_ms,
            }
        });
        let (near, far, unmeasured) = self.plan.nearness();
        Status {
            partition: self.plan.partition().name().to_owned(),
            why: self.choice.why.clone(),
            is_changing: self.plan.awaits_changeover(),
            agents: self.plan.agents(),
            near,
            far,
            unmeasured,
            going: self.plan.going().map(str::to_owned).collect(),
            events_per_second: self.rates.all(now),
            api_server: self
                .negotiation
                .findings()
                .map(|(findings, node, at)| ApiServer::of(findings, node, rfc3339(at))),
            vacant: self.plan.counts().1,
            losses: self.lost.times,
            watches: watches.collect(),
        }
    }
}

fn rfc3339(ns: i64) -> String {
    let at = jiff::Timestamp::from_second(ns.div_euclid(1_000_000_000));
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn state(report: &WatchReport) -> StateLabel {
    match report.state() {
        WatchState::Unspecified => StateLabel::unknown,
        WatchState::Listing => StateLabel::listing,
        WatchState::Watching => StateLabel::watching,
        WatchState::BackingOff => StateLabel::backing_off,
        WatchState::Released => StateLabel::released,
    }
}

impl Settings {
    /// What never changes, for tests and tools.
    pub fn fixed(wish: Wish) -> Self {
        Self { wishes: watch::channel(wish).1, lost: watch::channel(Lost::default()).1 }
    }
}
