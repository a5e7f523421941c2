//! The figures: memory, CPU and times of one aggregator and one agent as processes over mutual TLS, on a simulated node of 110
//! pods, each beside the most that it may be.
//!
//! What the simulator takes is not in them: it is this process. Everything that happens is looked for in the file sink's file
//! at the end, so that no figure is had by losing something.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::cluster::{Options, Resource, SimulatedCluster};
use crate::delivered::Delivered;
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::load::Load;
use crate::say;

mod deaths;
pub(crate) mod file;
pub(crate) mod process;
pub(crate) mod report;

use deaths::Latencies;
use file::Records;
use process::Sample;
use report::{Figure, Phase, count, megabytes};

/// What is measured, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How long it is measured at rest and at each rate, such as 20s or 2m.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::demo::duration, default_value = "20s")]
    pub length: Duration,
    /// Events of the burst.
    #[arg(long, default_value_t = 100_000)]
    pub events: usize,
    /// Containers that crash; at least 30 for a percentile that says something, at most one a pod.
    #[arg(long, default_value_t = 60)]
    pub deaths: usize,
    /// Pods on the node.
    #[arg(long, default_value_t = 110)]
    pub pods: usize,
    /// How often the agent asks the kubelet, in seconds.
    #[arg(long, default_value_t = 10)]
    pub poll_interval: u32,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Decides everything that the simulated cluster draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What runs.
#[derive(Debug)]
struct Bench {
    cluster: SimulatedCluster,
    setup: Setup,
    aggregator: Child,
    agent: Child,
    records: Records,
    /// From start to ready.
    ready: (Duration, Duration),
}

/// Events a second, and how the phase is called.
const RATES: [(f64, &str); 2] = [(20.0, "20"), (300.0, "300")];
/// While containers crash.
const RATE_OF_DEATHS: f64 = 20.0;
/// For so long nothing is delivered though something is missing: it will not come.
const STALLED: Duration = Duration::from_secs(30);
/// After the last delivery what follows it, such as an acknowledgement, is over by then.
const CALM: Duration = Duration::from_secs(2);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Beside the burst: changes of pods and everything of the other phases.
const HISTORY: usize = 200_000;

/// Between two crashes of the storm: 20 a second.
const STORM: Duration = Duration::from_millis(50);

const AGENT_RSS_MB: f64 = 25.0;
const AGENT_RSS_STORM_MB: f64 = 40.0;
const AGENT_CPU_REST_PERCENT: f64 = 1.0;
const AGGREGATOR_RSS_MB: f64 = 96.0;
const READY_SECONDS: f64 = 1.0;
const DEATH_SECONDS: f64 = 5.0;
const CPU_PER_EVENT_US: f64 = 24.0;

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
    let temporary = tempfile::Builder::new().prefix("nodetap-figures-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let options = Options {
        nodes: 1,
        seed: arguments.seed,
        history: arguments.events + HISTORY,
        folder: Some(folder.join("cluster")),
        ..Options::default()
    };
    let cluster = SimulatedCluster::start(options).await?;
    // Until somebody watches, nothing may overwrite a state that nobody could have seen.
    cluster.recorder().keep_apart(true);
    let load = Load { pods: arguments.pods, seed: arguments.seed, ..Load::default() };
    let mut load = load.begin(&cluster).await?;
    let mut bench = Bench::start(arguments, &folder, cluster).await?;
    watched(&bench.cluster).await?;
    bench.cluster.recorder().keep_apart(false);
    bench.delivered().await?;
    sleep(CALM).await;

    let mut phases = Vec::new();
    say(&format!("at rest for {:?}", arguments.length));
    let start = bench.start_phase()?;
    sleep(arguments.length).await;
    phases.push(bench.end_phase("rest", start).await?);
    for (rate, name) in RATES {
        say(&format!("{rate} events/s for {:?}", arguments.length));
        let start = bench.start_phase()?;
        match timeout(arguments.length, load.at(rate, 0.0).go()).await {
            Ok(ended) => ended?,
            Err(_over) => {}
        }
        phases.push(bench.end_phase(name, start).await?);
    }
    say(&format!("{} crashes at {RATE_OF_DEATHS} events/s", arguments.deaths));
    let start = bench.start_phase()?;
    let (told, truly) = tokio::select! {
        measured = deaths::measure(&bench.cluster, &bench.setup.journal, arguments.deaths) => measured?,
        ended = load.at(RATE_OF_DEATHS, 0.0).go() => {
            ended?;
            anyhow::bail!("the load ended by itself")
        }
    };
    phases.push(bench.end_phase("deaths", start).await?);
    say(&format!("a crash each {STORM:?} for {:?}", arguments.length));
    let start = bench.start_phase()?;
    let storm_rss = tokio::select! {
        most = bench.storm(arguments.length) => most?,
        ended = load.at(RATE_OF_DEATHS, 0.0).go() => {
            ended?;
            anyhow::bail!("the load ended by itself")
        }
    };
    phases.push(bench.end_phase("storm", start).await?);
    say(&format!("{} events as fast as they can be written", arguments.events));
    bench.cluster.recorder().keep_apart(true);
    let start = bench.start_phase()?;
    let events = arguments.events;
    tokio::task::spawn_blocking(move || load.burst(&load.pods(), events)).await?;
    phases.push(bench.end_phase("burst", start).await?);

    let mut figures = bench.figures(&phases, storm_rss)?;
    let [p50, p99] = of_deaths("death-to-journal", &told);
    figures.extend([p50, p99.limit(DEATH_SECONDS)]);
    figures.extend(of_deaths("true-death-to-journal", &truly));
    figures.extend(bench.check().await?);
    bench.stop().await;
    report::table(&phases);
    for figure in &figures {
        say(&figure.line());
    }
    Ok(if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The middle and the worst but one in a hundred.
fn of_deaths(name: &str, latencies: &Latencies) -> [Figure; 2] {
    let figure = |percent: usize| {
        Figure::new(format!("{name}-p{percent}"), latencies.percentile(percent).as_secs_f64(), "s")
    };
    [figure(50), figure(99)]
}

async fn watched(cluster: &SimulatedCluster) -> anyhow::Result<()> {
    let watch = cluster.until_watches(|open| open.iter().any(|watch| watch.resource == Resource::Events));
    timeout(START, watch).await.with_context(|| format!("nobody watches events after {START:?}"))
}

// === impl Bench ===

impl Bench {
    async fn start(
        arguments: &Arguments,
        folder: &std::path::Path,
        cluster: SimulatedCluster,
    ) -> anyhow::Result<Self> {
        let node = cluster.nodes().first().context("the simulated cluster has no node")?;
        let agent = Agent::on(&cluster, node);
        let binaries = launch::binaries(arguments.binaries.as_deref())?;
        let wishes = Wishes { poll_seconds: arguments.poll_interval, ..Wishes::default() };
        let setup = Setup::write(folder, &binaries, std::slice::from_ref(&agent), &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        let aggregator_ready = aggregator.ready(START).await?;
        let mut agent = setup.start_agent(&agent)?;
        let agent_ready = agent.ready(START).await?;
        let records = Records::new(&setup.file);
        Ok(Self { cluster, setup, aggregator, agent, records, ready: (agent_ready, aggregator_ready) })
    }

    fn start_phase(&mut self) -> anyhow::Result<(usize, Sample, Sample)> {
        Ok((self.happened(), Sample::of(&mut self.agent)?, Sample::of(&mut self.aggregator)?))
    }

    /// Crashes one container after the other for so long; answers the most that the agent's memory was after any of them.
    async fn storm(&mut self, length: Duration) -> anyhow::Result<u64> {
        let (mut most, mut pods) = (0, Vec::new());
        let (until, mut ticks) = (Instant::now() + length, interval(STORM));
        while ticks.tick().await < until {
            if pods.is_empty() {
                pods = self.cluster.lives().pods();
            }
            let pod = pods.pop().context("there is no pod")?;
            deaths::crash_loudly(&self.cluster, &pod)?;
            most = most.max(Sample::of(&mut self.agent)?.rss);
        }
        Ok(most)
    }

    /// When everything that happened in it is delivered.
    async fn end_phase(
        &mut self,
        name: &'static str,
        (happened, agent, aggregator): (usize, Sample, Sample),
    ) -> anyhow::Result<Phase> {
        self.delivered().await?;
        Ok(Phase {
            name,
            records: self.happened() - happened,
            agent: Sample::of(&mut self.agent)?.since(&agent),
            aggregator: Sample::of(&mut self.aggregator)?.since(&aggregator),
        })
    }

    /// How many records there are to be.
    fn happened(&self) -> usize {
        let truth = self.cluster.truth();
        truth.event_count() + truth.death_count()
    }

    /// Waits until as many records are in the file as happened.
    async fn delivered(&mut self) -> anyhow::Result<()> {
        let mut last = (0, Instant::now());
        loop {
            let (count, happened) = (self.records.count()?, self.happened());
            if count >= happened {
                return Ok(());
            }
            if count > last.0 {
                last = (count, Instant::now());
            }
            self.agent.check()?;
            self.aggregator.check()?;
            if last.1.elapsed() > STALLED {
                let missing = self.missing(&self.records.read()?);
                let some: Vec<_> = missing.iter().take(5).collect();
                anyhow::bail!(
                    "{count} of {happened} are delivered and no more come; missing are such as {some:?}"
                );
            }
            sleep(LOOK).await;
        }
    }

    fn missing(&self, delivered: &Delivered) -> Vec<String> {
        delivered.missing(&self.cluster.truth().deaths(), &self.cluster.truth().keys())
    }

    /// The figures of the issue, and those of every phase beside them.
    fn figures(&mut self, phases: &[Phase], storm_rss: u64) -> anyhow::Result<Vec<Figure>> {
        let (agent, aggregator) = self.ready;
        let mut figures = vec![
            Figure::new("ready-agent", agent.as_secs_f64(), "s").limit(READY_SECONDS),
            Figure::new("ready-aggregator", aggregator.as_secs_f64(), "s").limit(READY_SECONDS),
        ];
        let [rest, .., burst] = phases else { anyhow::bail!("nothing was measured") };
        figures.push(Figure::new("agent-rss-rest", megabytes(rest.agent.rss), "MB").limit(AGENT_RSS_MB));
        figures.push(Figure::new("agent-rss-storm", megabytes(storm_rss), "MB").limit(AGENT_RSS_STORM_MB));
        let cpu = rest.agent.percent();
        figures.push(Figure::new("agent-cpu-rest", cpu, "%").limit(AGENT_CPU_REST_PERCENT));
        let after = megabytes(burst.aggregator.rss);
        figures.push(Figure::new("aggregator-rss", after, "MB").limit(AGGREGATOR_RSS_MB));
        if let Some(cpu) = burst.cpu_per_record() {
            figures.push(Figure::new("cpu-per-event", cpu, "us").aim(CPU_PER_EVENT_US));
        }
        figures.push(Figure::new("events-through", burst.rate(), "events/s"));
        let named: Vec<_> = figures.iter().map(|figure| figure.name().to_owned()).collect();
        let others = phases.iter().flat_map(Phase::figures);
        figures.extend(others.filter(|figure| !named.iter().any(|name| name == figure.name())));
        let (agent, aggregator) = (Sample::of(&mut self.agent)?, Sample::of(&mut self.aggregator)?);
        figures.push(Figure::new("agent-rss-peak", megabytes(agent.peak), "MB"));
        figures.push(Figure::new("aggregator-rss-peak", megabytes(aggregator.peak), "MB"));
        Ok(figures)
    }

    /// Whether everything that happened is in the file, once.
    async fn check(&mut self) -> anyhow::Result<[Figure; 3]> {
        // A repeat or a stranger would come after the rest.
        sleep(CALM).await;
        let delivered = self.records.read()?;
        let missing = self.missing(&delivered);
        let truth = self.cluster.truth();
        let strangers = delivered.strangers(&truth.deaths(), &truth.keys());
        for key in missing.iter().take(10) {
            crate::complain(&format!("lost: {key}"));
        }
        for key in strangers.iter().take(10) {
            crate::complain(&format!("delivered, though it never happened: {key}"));
        }
        Ok([
            Figure::new("lost", count(missing.len()), "records").limit(0.0),
            Figure::new("never-happened", count(strangers.len()), "records").limit(0.0),
            Figure::new("duplicated", count(delivered.counts().1), "records"),
        ])
    }

    async fn stop(self) {
        self.agent.stop().await;
        self.aggregator.stop().await;
    }
}
