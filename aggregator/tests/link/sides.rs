//! An agent's link and an aggregator's admission, as their binaries put them together.

use std::net::SocketAddr;
use std::time::Instant;

use nodetap_agent::link::metrics::{DisconnectLabels, Reason};
use nodetap_agent::link::{self, Ends, Health, Settings};
use nodetap_agent::outbox::queue::Bounds;
use nodetap_agent::outbox::spool::Settings as Spooled;
use nodetap_agent::outbox::{self, Intake, Taken};
use nodetap_agent::tap::memory::Answer;
use nodetap_agent::watch::{names::Names, reach::Reach, tally::Tally};
use nodetap_aggregator::admit::metrics::{ConnectionLabels, ConnectionReason, EndLabels, EndReason};
use nodetap_aggregator::admit::{self, Limits};
use nodetap_aggregator::assign::choose::Wish;
use nodetap_aggregator::assign::{self, Assigner, plan::Patience, plan::Plan};
use nodetap_aggregator::journal::Journal;
use nodetap_aggregator::journal::lost::Losses;
use nodetap_wire::{AssignedWatch, Assignment, Findings, Reached, Record, WatchReport, WatchState};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Identity};
use crate::journal::Memory;

pub struct Aggregator<J = Memory> {
    pub journal: J,
    pub identity: Identity,
    pub credentials: admit::tls::Credentials,
    pub address: SocketAddr,
    pub metrics: admit::metrics::Metrics,
    assigning: assign::metrics::Metrics,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    pub wishes: watch::Sender<Wish>,
    pub losses: Losses,
    pub plan: Assigner,
}

pub struct Agent {
    pub intake: Intake,
    pub reports: mpsc::Sender<WatchReport>,
    pub credentials: link::tls::Credentials,
    pub metrics: link::metrics::Metrics,
    pub outbox: outbox::metrics::Metrics,
    assignments: watch::Receiver<Assignment>,
    health: watch::Receiver<Health>,
    pub forgotten: watch::Receiver<u64>,
    pub lost: watch::Receiver<u64>,
    pub drain: CancellationToken,
    pub negotiations: watch::Receiver<u64>,
    pub findings: watch::Sender<Option<Findings>>,
    pub reach: Reach,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Aggregator {
    pub async fn start(authority: &Authority) -> Self {
        Self::start_as(authority.server("nodetap-aggregator"), Limits::default()).await
    }

    pub async fn start_as(identity: Identity, limits: Limits) -> Self {
        Self::start_with(identity, limits, Memory::new()).await
    }

    pub async fn start_with(identity: Identity, limits: Limits, journal: Memory) -> Self {
        let losses = journal.losses.clone();
        Self::start_on(identity, limits, journal, losses).await
    }
}

impl<J: Journal> Aggregator<J> {
    pub async fn start_on(identity: Identity, limits: Limits, journal: J, losses: Losses) -> Self {
        let metrics = admit::metrics::Metrics::default();
        let credentials = admit::tls::Credentials::load(identity.files(), metrics.clone()).unwrap();
        let plan = Plan::cluster(Instant::now(), Patience::default());
        let assigning = assign::metrics::Metrics::default();
        let (wishes, wished) = watch::channel(Wish::default());
        let settings = assign::Settings { wishes: wished, lost: journal.lost() };
        let assigned = assign::assign(plan, journal.clone(), settings, assigning.clone()).await;
        let (assigner, driver) = assigned.unwrap();
        let plan = assigner.clone();
        let stop = CancellationToken::new();
        tokio::spawn(driver.run(stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admission = admit::run(
            listener,
            credentials.clone(),
            limits,
            journal.clone(),
            assigner,
            metrics.clone(),
            stop.clone(),
        );
        let serving = tokio::spawn(async move { admission.await.unwrap() });
        Self {
            journal,
            identity,
            credentials,
            address,
            metrics,
            assigning,
            stop,
            serving,
            wishes,
            losses,
            plan,
        }
    }

    pub fn refused(&self, reason: ConnectionReason) -> u64 {
        self.metrics.refused_connections.get_or_create_owned(&ConnectionLabels { reason }).get()
    }

    pub fn ended(&self, reason: EndReason) -> u64 {
        self.metrics.ended.get_or_create_owned(&EndLabels { reason }).get()
    }

    /// Reports of watches that watch.
    pub fn reports(&self) -> u64 {
        let labels = assign::metrics::ReportLabels { state: assign::metrics::StateLabel::watching };
        self.assigning.reports.get_or_create_owned(&labels).get()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

impl Agent {
    pub fn start(authority: &Authority, node: &str, aggregator: SocketAddr) -> Self {
        Self::start_as(&authority.agent(node), node, aggregator, Bounds::default())
    }

    pub fn start_as(identity: &Identity, node: &str, aggregator: SocketAddr, bounds: Bounds) -> Self {
        Self::start_told(identity, node, aggregator, bounds, None)
    }

    /// One that asks for what the aggregator remembers of its ledger.
    pub fn start_asking(
        authority: &Authority,
        node: &str,
        aggregator: SocketAddr,
    ) -> (Self, oneshot::Receiver<Answer>, watch::Receiver<u64>) {
        let (answer, answered) = oneshot::channel();
        let (forget, forgotten) = watch::channel(0);
        let memory = Some(link::Memory { answer, again: forget });
        let agent = Self::start_told(&authority.agent(node), node, aggregator, Bounds::default(), memory);
        (agent, answered, forgotten)
    }

    fn start_told(
        identity: &Identity,
        node: &str,
        aggregator: SocketAddr,
        bounds: Bounds,
        memory: Option<link::Memory>,
    ) -> Self {
        let metrics = link::metrics::Metrics::default();
        let outbox = outbox::metrics::Metrics::default();
        let credentials =
            link::tls::Credentials::load(identity.files(), node, "nodetap-aggregator", metrics.clone())
                .unwrap();
        let (intake, taken) = outbox::intake();
        let (reports, reported) = mpsc::channel(8);
        let (assigned, assignments) = watch::channel(Assignment::default());
        let (healthy, health) = watch::channel(Health::default());
        let (forget, forgotten) = watch::channel(0);
        let (lose, lost) = watch::channel(0);
        let stop = CancellationToken::new();
        let settings = Settings {
            node: node.to_owned(),
            version: "1".to_owned(),
            aggregator: aggregator.to_string(),
            outbox: Spooled { folder: None, bounds },
        };
        let (negotiate, negotiations) = watch::channel(0);
        let (find, findings) = watch::channel(None);
        let (names, tally, reach) = <(Names, Tally, Reach)>::default();
        let drain = CancellationToken::new();
        let ends = Ends {
            taken,
            reports: reported,
            assignments: assigned,
            health: healthy,
            forgotten: forget,
            lost: lose,
            negotiate,
            findings,
            names: names.subscribe(),
            tally: tally.clone(),
            reach: reach.clone(),
            drain: drain.clone(),
            memory,
        };
        let running =
            link::run(settings, credentials.clone(), ends, metrics.clone(), outbox.clone(), stop.clone());
        let running = tokio::spawn(running);
        Self {
            intake,
            reports,
            credentials,
            metrics,
            outbox,
            assignments,
            health,
            forgotten,
            lost,
            drain,
            negotiations,
            findings: find,
            reach,
            stop,
            running,
        }
    }

    pub async fn take(&self, record: Record) {
        self.intake.take(Taken::Record(record)).await.unwrap();
    }

    pub async fn assigned(&self) -> AssignedWatch {
        let mut assignments = self.assignments.clone();
        let assignment = assignments.wait_for(|assignment| !assignment.watches.is_empty()).await.unwrap();
        assignment.watches[0].clone()
    }

    pub fn assignment(&self) -> Assignment {
        self.assignments.borrow().clone()
    }

    pub fn watches(&self) -> Vec<(String, u64)> {
        let watches = &self.assignments.borrow().watches;
        watches.iter().map(|watch| (watch.shard.as_ref().unwrap().name(), watch.epoch)).collect()
    }

    /// Reports of everything that it is to watch that it watches it.
    pub async fn watch_all(&self) {
        self.report_all(WatchState::Watching).await;
    }

    /// Answers the next question whether the API server is reached.
    pub async fn answer(&self, reached: bool) {
        let mut asked = self.reach.asked();
        let number = *asked.wait_for(|number| *number > 0).await.unwrap();
        self.reach.answer(Reached { number, reached, ..Reached::default() });
    }

    /// Reports of everything that it is to watch.
    pub async fn report_all(&self, state: WatchState) {
        for AssignedWatch { shard, epoch, .. } in self.assignment().watches {
            let mut report = WatchReport { shard, epoch, ..WatchReport::default() };
            report.set_state(state);
            self.reports.send(report).await.unwrap();
        }
    }

    pub async fn all_acknowledged(&self) {
        crate::eventually(|| self.outbox.records.get() == 0 && self.outbox.bytes.get() == 0).await;
    }

    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    pub fn ended(&self, reason: Reason) -> u64 {
        self.metrics.disconnects.get_or_create_owned(&DisconnectLabels { reason }).get()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// Ends it as `kill -9` would.
    pub async fn kill(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
    }
}
