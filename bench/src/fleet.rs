//! Many agents in this process: the agent's own link and watches over mutual TLS, each with a certificate and connections of
//! its own, and no tap; what a tap would have the aggregator remember they may tell.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use nodetap_agent::kubernetes::KubernetesAccess;
use nodetap_agent::link::tls::Credentials;
use nodetap_agent::outbox::queue::Bounds;
use nodetap_agent::outbox::spool;
use nodetap_agent::watch::progress::Progress;
use nodetap_agent::{link, outbox, watch as event_watch};
use nodetap_wire::{Assignment, WatchState};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::ledgers::Ledgers;
use crate::launch::Setup;

mod backlog;
pub(crate) mod ledgers;

/// Agents that run.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// One agent.
#[derive(Debug)]
struct Member {
    node: String,
    health: watch::Receiver<link::Health>,
    assignments: watch::Receiver<Assignment>,
    progress: Progress,
    intake: outbox::Intake,
    outbox: outbox::metrics::Metrics,
    tasks: Vec<AbortHandle>,
}

/// Whom an agent's API server answers to.
#[derive(Clone, Debug)]
pub(crate) enum Access<'a> {
    /// Each agent has a client of its own.
    Each(&'a Path),
    /// All share one: where no more than a few ever ask.
    Shared(&'a Path),
}

/// As many as the agent itself has room for.
const REPORTS: usize = 16;

/// The names of so many nodes.
pub(crate) fn nodes(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("node-{number:05}")).collect()
}

// === impl Fleet ===

impl Fleet {
    /// Starts an agent for each node, whose certificates are in the setup; with `ledgers`, each tells one.
    ///
    /// # Errors
    /// The kubeconfig or a certificate cannot be used.
    pub(crate) async fn start(
        setup: &Setup,
        nodes: &[String],
        access: Access<'_>,
        ledgers: Option<&Ledgers>,
    ) -> anyhow::Result<Self> {
        let mut fleet = Self { members: Vec::new(), stop: CancellationToken::new(), tasks: JoinSet::new() };
        let shared = match access {
            Access::Shared(path) => Some(KubernetesAccess::new(Some(path)).await?),
            Access::Each(_) => None,
        };
        for node in nodes {
            let access = match (&shared, &access) {
                (Some(shared), _) => shared.clone(),
                (None, Access::Each(path) | Access::Shared(path)) => {
                    KubernetesAccess::new(Some(path)).await?
                }
            };
            fleet.join(setup, node, &access, ledgers).with_context(|| format!("the agent of {node}"))?;
        }
        Ok(fleet)
    }

    fn join(
        &mut self,
        setup: &Setup,
        node: &str,
        access: &KubernetesAccess,
        ledgers: Option<&Ledgers>,
    ) -> anyhow::Result<()> {
        let link_metrics = link::metrics::Metrics::default();
        let credentials =
            Credentials::load(setup.files(node), node, Setup::AGGREGATOR_NAME, link_metrics.clone())?;
        let (intake, taken) = outbox::intake();
        let (report, reports) = mpsc::channel(REPORTS);
        let (assign, assignments) = watch::channel(Assignment::default());
        let (say, health) = watch::channel(link::Health::default());
        let (forget, _) = watch::channel(0);
        let (negotiate, negotiations) = watch::channel(0);
        let (find, findings) = watch::channel(None);
        let (names, tally) = <(event_watch::names::Names, event_watch::tally::Tally)>::default();
        let reach = event_watch::reach::Reach::default();
        let watch_metrics = event_watch::metrics::Metrics::default();
        let progress = Progress::default();
        let (memory, telling) = ledgers.map(|ledgers| ledgers.clone().tell(intake.clone())).unzip();
        let wiring = event_watch::Wiring {
            assignments: assignments.clone(),
            intake: intake.clone(),
            reports: report,
            tally: tally.clone(),
            names: names.clone(),
            reach: reach.clone(),
            metrics: watch_metrics.clone(),
            progress: progress.clone(),
        };
        let settings = link::Settings {
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            aggregator: setup.agents().to_string(),
            outbox: spool::Settings { folder: None, bounds: Bounds::default() },
        };
        let ends = link::Ends {
            taken,
            reports,
            assignments: assign,
            health: say,
            forgotten: forget,
            lost: watch::channel(0).0,
            negotiate,
            findings,
            names: names.subscribe(),
            tally,
            reach: reach.clone(),
            // Nobody is told to end before all are.
            drain: CancellationToken::new(),
            memory,
        };
        let outbox_metrics = outbox::metrics::Metrics::default();
        let stop = self.stop.clone();
        let mut tasks = vec![
            self.tasks.spawn(event_watch::run(access.watches.clone(), wiring, stop.clone())),
            self.tasks.spawn(event_watch::reach::run(
                access.watches.clone(),
                reach,
                watch_metrics.clone(),
                stop.clone(),
            )),
            self.tasks.spawn(event_watch::negotiate::run(
                access.client.clone(),
                negotiations,
                find,
                watch_metrics,
                stop.clone(),
            )),
            self.tasks.spawn(link::run(
                settings,
                credentials,
                ends,
                link_metrics,
                outbox_metrics.clone(),
                stop,
            )),
        ];
        tasks.extend(telling.map(|telling| self.tasks.spawn(telling)));
        let outbox = outbox_metrics;
        self.members.push(Member {
            node: node.to_owned(),
            health,
            assignments,
            progress,
            intake,
            outbox,
            tasks,
        });
        Ok(())
    }

    /// Has each agent take so many deaths, which wait until the aggregator takes them. Answers once they all are with the agents.
    pub(crate) async fn fall_behind(&mut self, deaths: usize, seed: u64) {
        let mut telling = JoinSet::new();
        for (number, member) in self.members.iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            telling.spawn(backlog::tell(member.intake.clone(), member.node.clone(), deaths, seed));
        }
        while telling.join_next().await.is_some() {}
    }

    /// Records that agents have and that the aggregator has not acknowledged.
    pub(crate) fn behind(&self) -> i64 {
        self.members.iter().map(|member| member.outbox.records.get()).sum()
    }

    /// How many have a stream and an assignment.
    pub(crate) fn connected(&self) -> usize {
        self.members.iter().filter(|member| member.health.borrow().connected).count()
    }

    /// How many watches are open and past their list.
    pub(crate) fn watching(&self) -> usize {
        self.members
            .iter()
            .flat_map(|member| member.progress.shards().into_values())
            .filter(|shard| shard.state == WatchState::Watching)
            .count()
    }

    /// Who is assigned what at which epoch, by the shard's name.
    pub(crate) fn holdings(&self) -> BTreeMap<String, (String, u64)> {
        let of = |member: &Member| {
            let assigned = member.assignments.borrow();
            let named =
                assigned.watches.iter().filter_map(|watch| Some((watch.shard.as_ref()?.name(), watch.epoch)));
            named.map(|(shard, epoch)| (shard, (member.node.clone(), epoch))).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(of).collect()
    }

    /// How many agents hold a watch, and the most that one holds.
    pub(crate) fn spread(&self) -> (usize, usize) {
        let counts = self.members.iter().map(|member| member.assignments.borrow().watches.len());
        counts
            .filter(|count| *count > 0)
            .fold((0, 0), |(holders, most), count| (holders + 1, most.max(count)))
    }

    /// Ends an agent as a kill does: its connections are cut, and it says nothing. Answers the shards that it held.
    pub(crate) fn kill(&mut self, node: &str) -> Vec<String> {
        let held =
            self.holdings().into_iter().filter(|(_, (holder, _))| holder == node).map(|(shard, _)| shard);
        let held = held.collect();
        for member in self.members.extract_if(.., |member| member.node == node) {
            member.tasks.iter().for_each(AbortHandle::abort);
        }
        held
    }

    /// Somebody has an open watch of the shard, past its list.
    pub(crate) fn is_watched(&self, shard: &str) -> bool {
        let watches = |member: &Member| {
            let held = member
                .assignments
                .borrow()
                .watches
                .iter()
                .any(|watch| watch.shard.as_ref().is_some_and(|of| of.name() == shard));
            held && member.progress.shards().get(shard).is_some_and(|held| held.state == WatchState::Watching)
        };
        self.members.iter().any(watches)
    }

    /// Ends all of them in good order.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
