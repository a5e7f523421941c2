//! One fault from its beginning to its verdict: the aggregator, agents, load and plain watch that it happens to.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::Arguments;
use super::act::{self, Fault};
use super::nodes::{Node, Nodes};
use super::proxy::Proxy;
use super::verdict::Verdict;
use crate::client::Client;
use crate::control_plane::{ADDRESS, ApiServer, ControlPlane};
use crate::journal;
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::oracle::Oracle;
use crate::posting::{self, Posting};

/// What a fault is played with.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) arguments: &'a Arguments,
    /// `events.watch`
    pub(super) watch: &'a str,
    pub(super) folder: &'a Path,
    pub(super) nodes: &'a Nodes,
    pub(super) namespaces: &'a [String],
}

/// What runs while a fault happens, for the fault to touch.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) plane: &'a mut ControlPlane,
    /// Of an API server that no fault ends but its own.
    pub(super) client: Client,
    pub(super) setup: Setup,
    pub(super) aggregator: Child,
    pub(super) agents: Vec<Player<'a>>,
    pub(super) namespaces: &'a [String],
    pub(super) length: Duration,
    spare: Option<(ApiServer, Proxy)>,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Player<'a> {
    pub(super) agent: Agent,
    pub(super) node: &'a Node,
    pub(super) child: Child,
}

const SPARE_PORT: u16 = 6444;
/// Load before and after the fault.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(15);
/// For everything to arrive once all is well again.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);
/// After everything has arrived, what comes twice has come by then.
const CALM: Duration = Duration::from_secs(3);

// === impl Stage ===

impl Stage<'_> {
    /// # Errors
    /// Something does not start, or does not arrive at all.
    pub(super) async fn play(&self, plane: &mut ControlPlane, fault: Fault) -> anyhow::Result<Verdict> {
        let mut scene = self.set(plane, fault).await?;
        self.arrives(&scene, START).await.context("before the fault")?;
        launch::until_divided(&scene.aggregator, self.watch, PATIENCE).await?;
        sleep(CALM).await;
        let oracle = Oracle::start(scene.client.clone()).await?;
        let above = oracle.version();
        let until = Arc::new(AtomicUsize::new(usize::MAX));
        // Modes share the namespaces, and an event that is there already is not taken again.
        let run = format!("{}-{}", self.watch, fault.name());
        let posting = Posting::new(scene.client.clone(), self.namespaces.to_vec(), run);
        let load = tokio::spawn({
            let (until, rate) = (Arc::clone(&until), self.arguments.rate);
            async move { posting.go(rate, true, &until).await }
        });
        sleep(BEFORE).await;
        let happened = fault.happen(&mut scene).await;
        let ended_ns = i64::try_from(Timestamp::now().as_nanosecond())?;
        sleep(AFTER).await;
        until.store(0, Ordering::Relaxed);
        let posted = load.await?;
        happened?;
        if !fault.refuses() {
            posted.all()?;
        }
        let last = self.arrives(&scene, PATIENCE).await.context("after the fault")?;
        sleep(CALM).await;
        let deadline = Instant::now() + PATIENCE;
        while oracle.version() < last {
            anyhow::ensure!(Instant::now() < deadline, "the plain watch is behind");
            sleep(LOOK).await;
        }
        let truth = oracle.between(above, last)?;
        let mut kept = journal::states(&scene.setup.journal)?;
        kept.retain(|state| above < state.version && state.version <= last);
        scene.clear().await?;
        Ok(Verdict::of(&truth, &kept, ended_ns))
    }

    async fn set<'s>(&'s self, plane: &'s mut ControlPlane, fault: Fault) -> anyhow::Result<Scene<'s>> {
        let mut kubeconfig = plane.api_server.kubeconfig.clone();
        let mut client = plane.api_server.client()?;
        let mut spare = None;
        if fault == Fault::ApiServerOfTwo {
            let other = plane.another(SPARE_PORT, &[]).await?;
            client = other.client()?;
            let address: Ipv4Addr = ADDRESS.parse()?;
            let servers = vec![(address, crate::control_plane::PORT).into(), (address, SPARE_PORT).into()];
            let proxy = Proxy::start(ADDRESS, servers).await?;
            kubeconfig = plane.kubeconfig(&kubeconfig, proxy.port, "balanced")?;
            spare = Some((other, proxy));
        }
        let binaries = launch::binaries(self.arguments.binaries.as_deref())?;
        let agents: Vec<_> = self.nodes.iter().map(|node| (node.agent(&kubeconfig), node)).collect();
        let certified: Vec<_> = agents.iter().map(|(agent, _)| agent.clone()).collect();
        let wishes =
            Wishes { address: ADDRESS.parse()?, events: act::events(self.watch), ..Wishes::default() };
        let setup = Setup::write(self.folder, &binaries, &certified, &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let mut players = Vec::new();
        for (agent, node) in agents {
            let mut child = setup.start_agent(&agent)?;
            child.ready(START).await?;
            players.push(Player { agent, node, child });
        }
        Ok(Scene {
            plane,
            client,
            setup,
            aggregator,
            agents: players,
            namespaces: self.namespaces,
            length: self.arguments.length,
            spare,
        })
    }

    /// Posts an event in every namespace and waits until the journal has all. Answers the highest of their versions.
    async fn arrives(&self, scene: &Scene<'_>, within: Duration) -> anyhow::Result<u64> {
        let mut wanted = Vec::new();
        for namespace in self.namespaces {
            wanted.push(posting::marker(&scene.client, namespace).await?);
        }
        let last = wanted.iter().copied().max().unwrap_or_default();
        let deadline = Instant::now() + within;
        loop {
            let kept = journal::states(&scene.setup.journal)?;
            wanted.retain(|version| kept.iter().all(|state| state.version != *version));
            if wanted.is_empty() {
                return Ok(last);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "the newest events of {} of {} namespaces are not in the journal after {within:?}",
                wanted.len(),
                self.namespaces.len()
            );
            sleep(LOOK).await;
        }
    }
}

// === impl Scene ===

impl<'a> Scene<'a> {
    /// The agent that holds most watches.
    pub(super) async fn holder(&mut self) -> anyhow::Result<&mut Player<'a>> {
        let mut most = (0.0, 0);
        for (number, player) in self.agents.iter().enumerate() {
            let watches = player.child.metric("nodetap_agent_link_assigned_watches").await.unwrap_or(0.0);
            if watches > most.0 {
                most = (watches, number);
            }
        }
        anyhow::ensure!(most.0 > 0.0, "no agent says that it holds a watch");
        self.agents.get_mut(most.1).context("an agent that is not there")
    }

    /// Starts an agent where it was.
    pub(super) fn restart(setup: &Setup, player: &mut Player<'_>) -> anyhow::Result<()> {
        player.child = setup.start_agent(&player.agent)?;
        Ok(())
    }

    async fn clear(self) -> anyhow::Result<()> {
        for player in self.agents {
            player.child.stop().await;
        }
        self.aggregator.stop().await;
        drop(self.spare);
        // Whoever killed it left it to the next fault as it was.
        if self.plane.api_server.id().is_err() {
            self.plane.api_server.start().await?;
        }
        Ok(())
    }
}
