//! `throughput`: events as fast as they come through, for a time: the simulated API server's watch, a real agent, mutual TLS,
//! the journal, one file sink.
//!
//! The simulator writes no further ahead of the file than `WINDOW`, so what is measured is what comes through, not how fast
//! memory fills. Its own CPU is not counted, but it runs on the same cores, so it keeps no events to be listed. Events are about pods whose facts the agent has
//! announced, so enrichment is in it. Everything written must be in the file once at the end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Options, Resource, SimulatedCluster};
use crate::figures::file::Records;
use crate::figures::process::Sample;
use crate::figures::report::{Figure, count, megabytes};
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::load::{Load, Run};
use crate::say;

/// What is measured, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// For how long, such as 60s.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::demo::duration, default_value = "60s")]
    pub length: Duration,
    /// Pods on the node.
    #[arg(long, default_value_t = 110)]
    pub pods: usize,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, the file and logs go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Decides everything that the simulated cluster draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Events written and not yet in the file: enough that no part waits for another, and not a backlog that a rate which is sustained
/// would not have.
const WINDOW: usize = 20_000;
/// Events written between two looks at the window.
const SLICE: usize = 500;
/// How long the writer waits where the window is full.
const FULL: Duration = Duration::from_millis(2);
/// Changes that the simulated API server can go back.
///
/// The watch has read what is in the file, so it is never further behind than the window and a slice. A tenth is compacted at a
/// time, pods change rarely, and the rest is room. More would be memory that is cold whenever it is written again.
const HISTORY: usize = 3 * WINDOW;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// For so long nothing comes though something is missing: it will not come.
const STALLED: Duration = Duration::from_secs(30);
/// Until pods are announced.
const CALM: Duration = Duration::from_secs(2);

const EVENTS_PER_SECOND: f64 = 50_000.0;
const CPU_PER_EVENT_US: f64 = 24.0;
const AGGREGATOR_RSS_MB: f64 = 96.0;
const AGENT_RSS_MB: f64 = 40.0;

/// What the writer and the counter tell each other.
#[derive(Debug, Default)]
struct Progress {
    delivered: AtomicUsize,
    over: AtomicBool,
}

struct Bench {
    cluster: Arc<SimulatedCluster>,
    agent: Child,
    aggregator: Child,
    records: Records,
}

/// Measures, and tells.
///
/// # Errors
/// Something could not be started, ended before its time, or does not deliver any more.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    tokio::select! {
        measured = measure(&arguments) => measured,
        () = crate::signalled() => anyhow::bail!("interrupted"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-throughput-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let options = Options {
        nodes: 1,
        seed: arguments.seed,
        history: HISTORY,
        folder: Some(folder.join("cluster")),
        ..Options::default()
    };
    let cluster = Arc::new(SimulatedCluster::start(options).await?);
    cluster.recorder().keep_apart(true);
    let load = Load { pods: arguments.pods, seed: arguments.seed, ..Load::default() };
    let load = load.begin(&cluster).await?;
    let mut bench = Bench::start(arguments, &folder, cluster).await?;
    sleep(CALM).await;
    bench.deliver(&Progress::default()).await?;
    bench.cluster.keep_no_events();

    say(&format!("events as they come through for {:?}", arguments.length));
    let before = bench.happened();
    let progress = Arc::new(Progress::default());
    progress.delivered.store(before, Ordering::Relaxed);
    let (agent, aggregator) = (Sample::of(&mut bench.agent)?, Sample::of(&mut bench.aggregator)?);
    let writer = tokio::task::spawn_blocking({
        let (cluster, progress) = (Arc::clone(&bench.cluster), Arc::clone(&progress));
        move || write(&cluster, &load, &progress)
    });
    let began = Instant::now();
    while began.elapsed() < arguments.length {
        bench.look(&progress)?;
        sleep(LOOK).await;
    }
    progress.over.store(true, Ordering::Relaxed);
    writer.await?;
    bench.deliver(&progress).await?;
    let seconds = began.elapsed().as_secs_f64();
    let agent = Sample::of(&mut bench.agent)?.since(&agent);
    let aggregator = Sample::of(&mut bench.aggregator)?.since(&aggregator);
    let events = bench.happened() - before;
    // A repeat would come after the rest.
    sleep(CALM).await;
    let repeats = bench.records.count()? - bench.happened();
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / count(events.max(1));
    let figures = [
        Figure::new("throughput-events", count(events) / seconds, "events/s").at_least(EVENTS_PER_SECOND),
        Figure::new("throughput-cpu-per-event", each(agent.cpu + aggregator.cpu), "us")
            .limit(CPU_PER_EVENT_US),
        Figure::new("throughput-agent-cpu-per-event", each(agent.cpu), "us"),
        Figure::new("throughput-aggregator-cpu-per-event", each(aggregator.cpu), "us"),
        Figure::new("throughput-agent-rss", megabytes(agent.rss), "MB").limit(AGENT_RSS_MB),
        Figure::new("throughput-aggregator-rss", megabytes(aggregator.rss), "MB").limit(AGGREGATOR_RSS_MB),
        Figure::new("throughput-lost", 0.0, "records").limit(0.0),
        Figure::new("throughput-repeated", count(repeats), "records").limit(0.0),
    ];
    say(&format!("{events} events in {seconds:.1} s"));
    bench.agent.stop().await;
    bench.aggregator.stop().await;
    for figure in &figures {
        say(&figure.line());
    }
    Ok(if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes events, but no further ahead of what is delivered than the window.
fn write(cluster: &SimulatedCluster, load: &Run, progress: &Progress) {
    let pods = load.pods();
    while !progress.over.load(Ordering::Relaxed) {
        let ahead = cluster.truth().event_count().saturating_sub(progress.delivered.load(Ordering::Relaxed));
        if ahead < WINDOW {
            load.burst(&pods, SLICE);
        } else {
            std::thread::sleep(FULL);
        }
    }
}

// === impl Bench ===

impl Bench {
    async fn start(
        arguments: &Arguments,
        folder: &std::path::Path,
        cluster: Arc<SimulatedCluster>,
    ) -> anyhow::Result<Self> {
        let node = cluster.nodes().first().context("the simulated cluster has no node")?;
        let agent = Agent::on(&cluster, node);
        let binaries = launch::binaries(arguments.binaries.as_deref())?;
        let wishes = Wishes { poll_seconds: 10, ..Wishes::default() };
        let setup = Setup::write(folder, &binaries, std::slice::from_ref(&agent), &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let mut agent = setup.start_agent(&agent)?;
        agent.ready(START).await?;
        let watched =
            cluster.until_watches(|open| open.iter().any(|watch| watch.resource == Resource::Events));
        timeout(START, watched).await.with_context(|| format!("nobody watches events after {START:?}"))?;
        Ok(Self { cluster, agent, aggregator, records: Records::new(&setup.file) })
    }

    /// How many records there are to be.
    fn happened(&self) -> usize {
        self.cluster.truth().event_count() + self.cluster.truth().death_count()
    }

    fn look(&mut self, progress: &Progress) -> anyhow::Result<usize> {
        self.agent.check()?;
        self.aggregator.check()?;
        let delivered = self.records.count()?;
        progress.delivered.store(delivered, Ordering::Relaxed);
        Ok(delivered)
    }

    /// Waits until as many records are in the file as happened.
    async fn deliver(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let (delivered, happened) = (self.look(progress)?, self.happened());
            if delivered >= happened {
                return Ok(());
            }
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
            anyhow::ensure!(
                last.1.elapsed() < STALLED,
                "{delivered} of {happened} are delivered and no more come"
            );
            sleep(LOOK).await;
        }
    }
}
