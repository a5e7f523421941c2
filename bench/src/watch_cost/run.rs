//! One variant, once: who watches is started, events are posted, and the API server's CPU is read before and after.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Arguments;
use super::variant::Variant;
use crate::client::Client;
use crate::control_plane::ApiServer;
use crate::figures::process::Sample;
use crate::figures::report::count;
use crate::fleet::{self, Access, Fleet};
use crate::journal;
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::posting::Posting;

/// What one run is about.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) variant: Variant,
    pub(super) server: &'a ApiServer,
    pub(super) namespaces: &'a [String],
    pub(super) folder: PathBuf,
    /// Of the run, for the events of it.
    pub(super) name: String,
}

/// What one run came to.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    /// Of the API server, less what it takes when nothing happens.
    pub(super) cpu: Duration,
    pub(super) events: usize,
    /// How many agents held a watch, and the most that one held.
    pub(super) spread: Option<(usize, usize)>,
}

/// Who gets the events.
enum Takers {
    Plain(Plain),
    Agents(Box<Agents>),
}

/// Plain watches, each on a connection of its own.
struct Plain {
    taken: Vec<Arc<AtomicUsize>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Agents and their aggregator.
struct Agents {
    fleet: Fleet,
    aggregator: Child,
    journal: PathBuf,
}

/// For everybody to be connected and watching, and for what was posted to arrive.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// For how long nothing may change until it is taken for settled.
const CALM: Duration = Duration::from_secs(2);
/// How long the API server's own needs are measured.
const IDLE: Duration = Duration::from_secs(10);
/// A naive run posts so many times fewer: each of its events costs that much more.
const NAIVE_SHARE: usize = 4;

// === impl Run ===

impl Run<'_> {
    /// # Errors
    /// Something does not start, or does not get every event.
    pub(super) async fn measure(&self) -> anyhow::Result<Cost> {
        let measured = self.try_measure().await;
        measured.with_context(|| format!("variant {}", self.variant.name()))
    }

    async fn try_measure(&self) -> anyhow::Result<Cost> {
        let Arguments { rate, events, .. } = *self.arguments;
        let events = if self.variant == Variant::Naive { events / NAIVE_SHARE } else { events };
        let client = self.server.client()?;
        let takers = self.start(&client).await?;
        let posting = |run: String| Posting::new(client.clone(), self.namespaces.to_vec(), run);

        // One in every namespace: whoever watches is seen to watch, and connections are open.
        let before = takers.taken()?;
        let first = 2 * self.namespaces.len();
        posting(format!("{}-first", self.name)).post(first, rate).await?;
        takers.until(before, first).await?;
        sleep(CALM).await;

        let start = self.sample()?;
        sleep(IDLE).await;
        let calm = self.sample()?.since(&start);
        let before = takers.taken()?;
        let start = self.sample()?;
        posting(self.name.clone()).post(events, rate).await?;
        takers.until(before, events).await?;
        let taken = self.sample()?.since(&start);
        let own = calm.cpu.mul_f64(taken.elapsed.as_secs_f64() / calm.elapsed.as_secs_f64());

        let spread = takers.spread();
        takers.stop().await;
        Ok(Cost { cpu: taken.cpu.saturating_sub(own), events, spread })
    }

    fn sample(&self) -> anyhow::Result<Sample> {
        Sample::of_process(self.server.id()?)
    }

    async fn start(&self, client: &Client) -> anyhow::Result<Takers> {
        match self.variant.plain_watches(self.arguments.agents) {
            Some(watches) => Ok(Takers::Plain(Plain::start(client, watches).await?)),
            None => Ok(Takers::Agents(Box::new(self.start_agents().await?))),
        }
    }

    async fn start_agents(&self) -> anyhow::Result<Agents> {
        let binaries = launch::binaries(self.arguments.binaries.as_deref())?;
        let nodes = fleet::nodes(self.arguments.agents);
        let agents: Vec<_> =
            nodes.iter().map(|node| Agent::elsewhere(node, &self.server.kubeconfig)).collect();
        let wishes = Wishes { events: self.variant.section(self.arguments.agents), ..Wishes::default() };
        let setup = Setup::write(&self.folder, &binaries, &agents, &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let fleet = Fleet::start(&setup, &nodes, Access::Each(&self.server.kubeconfig), None).await?;
        let mode = self.variant.section(1);
        launch::until_divided(&aggregator, mode["watch"].as_str().unwrap_or_default(), PATIENCE).await?;
        let deadline = Instant::now() + PATIENCE;
        let mut settled = (0, Instant::now());
        // All are connected, every assigned watch is open, and that has not changed for a while.
        loop {
            let (connected, watching) = (fleet.connected(), fleet.watching());
            let holdings = fleet.holdings().len();
            if watching == 0 || watching != holdings || connected < nodes.len() || watching != settled.0 {
                settled = (watching, Instant::now());
            } else if settled.1.elapsed() > CALM {
                break;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{connected} of {} agents are connected, {watching} of {holdings} watches are open; see {}",
                nodes.len(),
                self.folder.display()
            );
            sleep(LOOK).await;
        }
        Ok(Agents { fleet, aggregator, journal: setup.journal })
    }
}

// === impl Takers ===

impl Takers {
    /// The events that the slowest has by now.
    fn taken(&self) -> anyhow::Result<usize> {
        match self {
            Self::Plain(plain) => {
                Ok(plain.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).min().unwrap_or(0))
            }
            Self::Agents(agents) => journal::events(&agents.journal),
        }
    }

    /// Until so many more have been taken.
    async fn until(&self, before: usize, more: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.taken()? - before;
            if taken >= more {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{taken} of {more} events came");
            sleep(LOOK).await;
        }
    }

    fn spread(&self) -> Option<(usize, usize)> {
        match self {
            Self::Plain(_) => None,
            Self::Agents(agents) => Some(agents.fleet.spread()),
        }
    }

    async fn stop(self) {
        if let Self::Agents(agents) = self {
            agents.fleet.stop().await;
            agents.aggregator.stop().await;
        }
    }
}

// === impl Plain ===

impl Plain {
    async fn start(client: &Client, watches: usize) -> anyhow::Result<Self> {
        let listed = client.get("/api/v1/events?limit=1").await?.json();
        let version =
            listed["metadata"]["resourceVersion"].as_str().context("a list without a resourceVersion")?;
        let path = format!("/api/v1/events?watch=1&resourceVersion={version}&timeoutSeconds=3600");
        let mut plain = Self { taken: Vec::new(), tasks: JoinSet::new() };
        for _ in 0..watches {
            let mut lines = client.watch(&path).await?;
            let taken = Arc::new(AtomicUsize::new(0));
            plain.taken.push(Arc::clone(&taken));
            plain.tasks.spawn(async move {
                while let Some(lines) = lines.count().await? {
                    taken.fetch_add(lines, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Ok(plain)
    }
}

// === impl Cost ===

impl Cost {
    /// Microseconds of CPU for each event.
    pub(super) fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.events.max(1))
    }

    pub(super) fn describe(&self) -> String {
        let held = self.spread.map_or_else(String::new, |(holders, most)| {
            format!(", {holders} agents held watches, at most {most} each")
        });
        format!("{:>7.0} us an event{held}", self.micros())
    }
}
