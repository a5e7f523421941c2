//! Thousands of agents lose their aggregator at once: how long until all are back, what it takes, and which watches move.
//!
//! The agents are the agent's own link and watches in this process, each with its own certificate, TLS connection and back-off, on
//! loopback; the aggregator is a process. It is killed, so that nobody can say goodbye, and started again at once. What the
//! agents take of the machine is taken from the aggregator, so that the figures are upper bounds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::{Options, SimulatedCluster};
use crate::figures::process::Sample;
use crate::figures::report::{Figure, count, megabytes};
use crate::fleet::ledgers::Ledgers;
use crate::fleet::{self, Access, Fleet};
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::load::Load;
use crate::{journal, say};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Agents.
    #[arg(long, default_value_t = 5000)]
    pub agents: usize,
    /// How often the aggregator is killed.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How many agents that watch are killed after that, one after the other.
    #[arg(long, default_value_t = 30)]
    pub handovers: usize,
    /// `events.watch` of the aggregator's configuration.
    #[arg(long, default_value = "auto")]
    pub watch: String,
    /// How long all streams are open before the aggregator is killed.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::demo::duration, default_value = "15s")]
    pub length: Duration,
    /// Events a second meanwhile.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Pods of each node whose ledger its agent has the aggregator remember.
    #[arg(long, default_value_t = 0)]
    pub pods: usize,
    /// Deaths that each agent has to tell when its aggregator is back, about 2 KiB each.
    #[arg(long, default_value_t = 0)]
    pub backlog: usize,
    /// Namespaces of the simulated cluster.
    #[arg(long, default_value_t = 100)]
    pub namespaces: usize,
    /// Where nodetap-aggregator is; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Decides what the simulated cluster draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What one restart came to.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// From the kill until all were back.
    back: Duration,
    /// From then on, until the aggregator had what they had to tell.
    caught_up: Duration,
    /// The aggregator's memory while all streams were open, and its peak, in bytes.
    rss: u64,
    peak: u64,
    /// Of the aggregator with all streams open, in percent of a core.
    cpu: f64,
    /// Watches that another agent holds afterwards.
    moved: usize,
    watches: usize,
}

struct Bench {
    setup: Setup,
    aggregator: Child,
    fleet: Fleet,
    agents: usize,
}

const RECONNECT_SECONDS: f64 = 30.0;
const HANDOVER_SECONDS: f64 = 5.0;
const RSS_MB: f64 = 400.0;
/// For anything at all to happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// For all that agents have to tell.
const CATCH_UP: Duration = Duration::from_secs(300);
/// Records that agents have not been told of being durable, with nothing but the load of the bench.
const IN_FLIGHT: i64 = 200;
const LOOK: Duration = Duration::from_millis(50);
/// After all are back, what would still move has moved by then: ten times what a holder has to come back.
const SETTLED: Duration = Duration::from_secs(10);
/// Standard streams, the simulated cluster, and the aggregator's own files.
const OTHER_FILES: u64 = 500;

/// Measures, and tells.
///
/// # Errors
/// Something could not be started, ended before its time, or does not come back at all.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    raise_open_files(arguments.agents as u64 + OTHER_FILES)?;
    tokio::select! {
        measured = measure(&arguments) => measured,
        () = crate::signalled() => anyhow::bail!("interrupted"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-reconnect-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let options =
        Options { seed: arguments.seed, folder: Some(folder.join("cluster")), ..Options::default() };
    let cluster = SimulatedCluster::start(options).await?;
    let load = Load {
        events: arguments.rate,
        deaths: 0.0,
        namespaces: arguments.namespaces,
        pods: 2 * arguments.namespaces,
        seed: arguments.seed,
        ..Load::default()
    };
    let mut load = load.begin(&cluster).await?;
    tokio::select! {
        measured = rounds(arguments, &folder, &cluster) => measured,
        ended = load.go() => { ended?; anyhow::bail!("the load ended") }
    }
}

async fn rounds(
    arguments: &Arguments,
    folder: &std::path::Path,
    cluster: &SimulatedCluster,
) -> anyhow::Result<ExitCode> {
    let (mut bench, first) = Bench::start(arguments, folder, cluster).await?;
    say(&format!("{} agents connected in {:.1} s", arguments.agents, first.as_secs_f64()));
    let mut done = Vec::new();
    for number in 1..=arguments.rounds {
        let round = bench.round(arguments).await?;
        say(&format!(
            "round {number}: all back after {:.1} s, caught up {:.1} s later; aggregator with {} streams {:.0} MB (peak {:.0}), {:.1} % of a core; {} of {} watches moved",
            round.back.as_secs_f64(),
            round.caught_up.as_secs_f64(),
            arguments.agents,
            megabytes(round.rss),
            megabytes(round.peak),
            round.cpu,
            round.moved,
            round.watches,
        ));
        done.push(round);
    }
    let mut handovers = Vec::new();
    for _ in 0..arguments.handovers {
        handovers.extend(bench.handover().await?);
    }
    handovers.sort();
    anyhow::ensure!(journal::events(&bench.setup.journal)? > 0, "no event came: nobody watched");
    bench.fleet.stop().await;
    bench.aggregator.stop().await;
    let most = |of: fn(&Round) -> f64| done.iter().map(of).fold(0.0, f64::max);
    let mut figures = vec![
        Figure::new("reconnect-first", first.as_secs_f64(), "s"),
        Figure::new("reconnect", most(|round| round.back.as_secs_f64()), "s").limit(RECONNECT_SECONDS),
        Figure::new("reconnect-caught-up", most(|round| round.caught_up.as_secs_f64()), "s"),
        Figure::new("reconnect-aggregator-rss", most(|round| megabytes(round.rss)), "MB").limit(RSS_MB),
        Figure::new("reconnect-aggregator-peak", most(|round| megabytes(round.peak)), "MB"),
        Figure::new("reconnect-aggregator-cpu", most(|round| round.cpu), "%"),
        Figure::new("reconnect-watches-moved", most(|round| count(round.moved)), "watches").limit(0.0),
    ];
    let rank = |percent: usize| handovers.get((handovers.len() * percent).div_ceil(100).saturating_sub(1));
    if let (Some(middle), Some(last)) = (rank(50), rank(99)) {
        figures.push(Figure::new("handover-p50", middle.as_secs_f64(), "s"));
        figures.push(Figure::new("handover-p99", last.as_secs_f64(), "s").limit(HANDOVER_SECONDS));
    }
    say("");
    for figure in &figures {
        say(&figure.line());
    }
    Ok(if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Each agent is a connection here, and one in the aggregator, which has the limit from here.
fn raise_open_files(wanted: u64) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).with_context(|| {
            format!("{wanted} open files are needed, {hard} are allowed: raise `ulimit -n`")
        })?;
    }
    Ok(())
}

// === impl Bench ===

impl Bench {
    /// Answers how long it took until all were connected, too.
    async fn start(
        arguments: &Arguments,
        folder: &std::path::Path,
        cluster: &SimulatedCluster,
    ) -> anyhow::Result<(Self, Duration)> {
        let binaries = launch::binaries(arguments.binaries.as_deref())?;
        let kubeconfig = &cluster.nodes().first().context("the simulated cluster has no node")?.kubeconfig;
        let nodes = fleet::nodes(arguments.agents);
        let agents: Vec<_> = nodes.iter().map(|node| Agent::elsewhere(node, kubeconfig)).collect();
        let wishes = Wishes { events: json!({"watch": arguments.watch}), ..Wishes::default() };
        let setup = Setup::write(folder, &binaries, &agents, &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let begun = Instant::now();
        let ledgers = Ledgers::of(arguments.pods, arguments.seed)?;
        if let Some(ledgers) = &ledgers {
            let (pods, bytes) = (arguments.pods, ledgers.bytes());
            say(&format!("each agent has a ledger of {pods} pods remembered, {bytes} bytes"));
        }
        let fleet = Fleet::start(&setup, &nodes, Access::Shared(kubeconfig), ledgers.as_ref()).await?;
        let mut bench = Self { setup, aggregator, fleet, agents: agents.len() };
        bench.until_connected().await?;
        let connected = begun.elapsed();
        launch::until_divided(&bench.aggregator, &arguments.watch, PATIENCE).await?;
        sleep(SETTLED).await;
        Ok((bench, connected))
    }

    async fn round(&mut self, arguments: &Arguments) -> anyhow::Result<Round> {
        let start = Sample::of(&mut self.aggregator)?;
        sleep(arguments.length).await;
        let end = Sample::of(&mut self.aggregator)?;
        let before = self.fleet.holdings();
        anyhow::ensure!(!before.is_empty() && self.fleet.watching() > 0, "nobody watches");

        let killed = Instant::now();
        self.aggregator.kill().await?;
        while self.fleet.connected() > 0 {
            sleep(LOOK).await;
        }
        let begun = Instant::now();
        self.fleet.fall_behind(arguments.backlog, arguments.seed).await;
        let telling = begun.elapsed();
        self.aggregator = self.setup.start_aggregator()?;
        self.until_connected().await?;
        let back = killed.elapsed().saturating_sub(telling);
        let connected = Instant::now();
        while self.fleet.behind() > IN_FLIGHT {
            self.aggregator.check()?;
            let behind = self.fleet.behind();
            anyhow::ensure!(
                connected.elapsed() < CATCH_UP,
                "{behind} records are not taken after {CATCH_UP:?}"
            );
            sleep(LOOK).await;
        }
        let caught_up = connected.elapsed();
        sleep(SETTLED).await;
        let after = self.fleet.holdings();
        let moved =
            before.iter().filter(|(shard, held)| after.get(*shard).map(|now| &now.0) != Some(&held.0));
        let sample = Sample::of(&mut self.aggregator)?;
        Ok(Round {
            back,
            caught_up,
            rss: end.rss.max(sample.rss),
            peak: end.peak.max(sample.peak),
            cpu: end.since(&start).percent(),
            moved: moved.count(),
            watches: before.len(),
        })
    }

    /// Kills an agent that watches. Answers how long each of its shards was without a watch.
    async fn handover(&mut self) -> anyhow::Result<Vec<Duration>> {
        let holder = self.fleet.holdings().into_values().next().context("nobody holds a watch")?.0;
        let killed = Instant::now();
        let mut left = self.fleet.kill(&holder);
        self.agents -= 1;
        let mut taken = Vec::new();
        while !left.is_empty() {
            left.retain(|shard| {
                let watched = self.fleet.is_watched(shard);
                if watched {
                    taken.push(killed.elapsed());
                }
                !watched
            });
            anyhow::ensure!(killed.elapsed() < PATIENCE, "nobody takes {} shards over", left.len());
            sleep(LOOK).await;
        }
        Ok(taken)
    }

    async fn until_connected(&mut self) -> anyhow::Result<()> {
        let agents = self.agents;
        self.until("all agents are connected", |fleet| fleet.connected() == agents).await
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Fleet) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.fleet) {
            self.aggregator.check()?;
            let connected = self.fleet.connected();
            anyhow::ensure!(
                Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}; {connected} are connected"
            );
            sleep(LOOK).await;
        }
        Ok(())
    }
}
