//! Chaos: load that never stops, while agents, the aggregator, the sink, the ways between them, their disks, files and
//! certificates, and the watch fail at random times; and what came of every record that there truly was.
//!
//! Ends with figures: records lost (bar 0), records twice in the history (bar 0), and the time from when a failure was put right
//! until the sink had everything that had happened by then. The seed decides which failures there are, in which order and how
//! long each lasts; how they fall on the processes' own timing differs between runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nodetap_wire::identity::Identity;
use tokio::time::{Instant, sleep};

use crate::cluster::{Options, SimulatedCluster};
use crate::figures::report::Figure;
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::load::Load;
use crate::{Random, complain, journal, say};

mod accident;
mod proxy;
mod sink;

use accident::Accident;
use proxy::Proxy;
use sink::{Mood, Sink};

/// What a run is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How long it goes on.
    #[arg(long, default_value_t = 30.0)]
    pub minutes: f64,
    /// Decides every failure and the load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Events a second.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Deaths of containers a second.
    #[arg(long, default_value_t = 1.0)]
    pub deaths: f64,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// What runs, but for the cluster.
#[derive(Debug)]
struct Stage {
    setup: Setup,
    sink: Arc<Sink>,
    proxy: Proxy,
    aggregator: Child,
    agents: Vec<(Agent, Child)>,
}

/// What came of the failures of a kind.
#[derive(Debug, Default)]
struct Outcome {
    /// How long it took until everything was delivered; of two at one time, by the later.
    recoveries: Vec<Duration>,
    /// What was delivered again until then; of two at one time, by each.
    repeats: usize,
}

type Outcomes = BTreeMap<Accident, Outcome>;

/// Small filesystems of this run's own, which can be filled.
#[derive(Debug, Default)]
struct Disks(Vec<PathBuf>);

/// Twice as long as any failure lasts, so that the kubelet shows a death to whoever looks again.
const VISIBLE: Duration = Duration::from_secs(10);

/// How long everything may take to be delivered once nothing fails any more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at what is not delivered yet.
const LOOK: Duration = Duration::from_millis(200);

/// How long the processes run before something fails.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs it.
///
/// # Errors
/// Something could not be started, or ended though nobody killed it: with the last lines of its log.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-chaos-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let binaries = launch::binaries(arguments.binaries.as_deref())?;
    let options = Options {
        nodes: 3,
        seed: arguments.seed,
        back_off: Duration::from_secs(3),
        back_off_max: Duration::from_secs(6),
        folder: Some(folder.join("cluster")),
        ..Options::default()
    };
    let cluster = SimulatedCluster::start(options).await?;
    let agents: Vec<Agent> = cluster.nodes().iter().map(|node| Agent::on(&cluster, node)).collect();
    let mut disks = Disks::default();
    let mut stage = Stage::start(&folder, &binaries, agents, &mut disks).await?;
    cluster.recorder().keep_apart(true);
    let load = Load {
        events: arguments.rate,
        deaths: arguments.deaths,
        seed: arguments.seed,
        visible: VISIBLE,
        ..Load::default()
    };
    let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut outcomes = Outcomes::default();
    let ended = tokio::select! {
        ended = load.run(&cluster) => ended,
        ended = fail(&cluster, &mut stage, &disks, arguments.seed, end, &mut outcomes) => ended,
        () = crate::signalled() => Ok(()),
    };
    let ended = match ended {
        Ok(()) => conclude(&cluster, stage, &outcomes).await,
        Err(error) => Err(error.context(format!("seed {}", arguments.seed))),
    };
    drop(disks);
    ended
}

/// One failure after the other until the end, sometimes two before the first is got over.
async fn fail(
    cluster: &SimulatedCluster,
    stage: &mut Stage,
    disks: &Disks,
    seed: u64,
    end: Instant,
    outcomes: &mut Outcomes,
) -> anyhow::Result<()> {
    cluster.until_watches(|open| !cluster.open_event_watches().is_empty() && !open.is_empty()).await;
    cluster.recorder().keep_apart(false);
    sleep(WARM_UP).await;
    let random = Random::new(seed);
    while Instant::now() < end {
        sleep(Duration::from_millis(random.below(1_500) as u64)).await;
        let mut accident = Accident::draw(&random, !disks.0.is_empty());
        let mut happened = BTreeSet::from([accident]);
        let (_, before) = stage.sink.counts();
        say(&format!(
            "{:>6.1} s left: {accident:?}",
            end.saturating_duration_since(Instant::now()).as_secs_f64()
        ));
        accident.happen(cluster, stage, &random).await?;
        if random.chance(30) {
            accident = Accident::draw(&random, !disks.0.is_empty());
            happened.insert(accident);
            say(&format!("          and {accident:?}"));
            accident.happen(cluster, stage, &random).await?;
        }
        let took = stage.until_delivered(cluster).await.with_context(|| format!("after {accident:?}"))?;
        let (_, after) = stage.sink.counts();
        for accident in happened {
            outcomes.entry(accident).or_default().repeats += after - before;
        }
        outcomes.entry(accident).or_default().recoveries.push(took);
    }
    Ok(())
}

async fn conclude(
    cluster: &SimulatedCluster,
    mut stage: Stage,
    outcomes: &Outcomes,
) -> anyhow::Result<ExitCode> {
    cluster.faults().clear();
    stage.sink.set(Mood::Well);
    if let Err(error) = stage.until_delivered(cluster).await {
        complain(&format!("{error:#}"));
    }
    let (deaths, truth) = (cluster.truth().deaths(), cluster.truth().keys());
    let missing = stage.sink.missing(&deaths, &truth);
    let strangers = stage.sink.strangers(&deaths, &truth);
    let (delivered, repeats) = stage.sink.counts();
    let refused = stage.sink.repeats_of_refused();
    let journal = stage.setup.journal.clone();
    stage.check()?;
    stage.stop().await;
    let twice = twice(&journal)?;
    twice.iter().take(10).for_each(|identity| complain(&format!("twice in the history: {identity}")));
    for (what, keys) in [("lost", &missing), ("never happened", &strangers)] {
        keys.iter().take(10).for_each(|key| complain(&format!("{what}: {key}")));
    }
    say("");
    say("failure                          times   recovery p50   longest   delivered again");
    for (accident, Outcome { recoveries: times, repeats }) in outcomes {
        let [p50, _, longest] = percentiles(times.clone());
        let name = format!("{accident:?}");
        say(&format!("{name:<32} {:>5}   {p50:>10.2} s   {longest:>5.2} s   {repeats:>15}", times.len()));
    }
    let [p50, p99, longest] =
        percentiles(outcomes.values().flat_map(|outcome| &outcome.recoveries).copied().collect());
    let failures: usize = outcomes.values().map(|outcome| outcome.recoveries.len()).sum();
    say("");
    say(&format!(
        "taken {} (deaths {}) delivered {delivered} repeats {repeats} ({refused} of what the receiver took and refused) failures {failures}",
        truth.len(),
        deaths.len()
    ));
    let figures = [
        Figure::new("chaos-lost", count(missing.len()), "records").limit(0.0),
        Figure::new("chaos-strangers", count(strangers.len()), "records").limit(0.0),
        Figure::new("chaos-twice", count(twice.len()), "records").limit(0.0),
        Figure::new("chaos-recovery-p50", p50, "s"),
        Figure::new("chaos-recovery-p99", p99, "s"),
        Figure::new("chaos-recovery-longest", longest, "s"),
    ];
    figures.iter().for_each(|figure| say(&figure.line()));
    Ok(if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Records that stand in the journal more than once.
fn twice(journal: &Path) -> anyhow::Result<Vec<Identity>> {
    let identities = journal::identities(journal, "simulated")
        .with_context(|| format!("cannot read the journal {}", journal.display()))?;
    anyhow::ensure!(!identities.is_empty(), "there is nothing in the journal {}", journal.display());
    let mut seen = HashSet::new();
    Ok(identities.into_iter().filter(|identity| !seen.insert(identity.clone())).collect())
}

/// The median, the 99th percentile and the longest, in seconds.
fn percentiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    let at = |percent: usize| {
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(place).map_or(0.0, Duration::as_secs_f64)
    };
    [at(50), at(99), at(100)]
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

// === impl Stage ===

impl Stage {
    async fn start(
        folder: &Path,
        binaries: &Path,
        agents: Vec<Agent>,
        disks: &mut Disks,
    ) -> anyhow::Result<Self> {
        let sink = Sink::start().await?;
        let wishes = Wishes { webhook: Some(sink.url.clone()), poll_seconds: 1, ..Wishes::default() };
        let mut setup = Setup::write(folder, binaries, &agents, &wishes)?;
        let proxy = Proxy::start(setup.agents).await?;
        setup.by_way_of = proxy.address;
        disks.mount(&setup.journal, 512);
        for agent in &agents {
            let state = setup.state(&agent.node);
            std::fs::create_dir_all(&state)?;
            disks.mount(&state, 8);
        }
        if disks.0.is_empty() {
            say("NOT RUN: full disks, because this user may not mount a tmpfs");
        }
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let mut started = Vec::new();
        for agent in agents {
            let mut child = setup.start_agent(&agent)?;
            child.alive(START).await?;
            started.push((agent, child));
        }
        Ok(Self { setup, sink, proxy, aggregator, agents: started })
    }

    fn state(&self, at: usize) -> PathBuf {
        self.agents.get(at).map(|(agent, _)| self.setup.state(&agent.node)).unwrap_or_default()
    }

    async fn kill_agent(&mut self, at: usize) -> anyhow::Result<()> {
        match self.agents.get_mut(at) {
            Some((_, child)) => child.kill().await,
            None => Ok(()),
        }
    }

    fn start_agent(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some((agent, child)) = self.agents.get_mut(at) {
            *child = self.setup.start_agent(agent)?;
        }
        Ok(())
    }

    fn halt_agent(&self, at: usize, halted: bool) {
        if let Some((_, child)) = self.agents.get(at) {
            child.halt(halted);
        }
    }

    /// Waits until the sink has everything that happened up to now. Answers how long that took.
    async fn until_delivered(&mut self, cluster: &SimulatedCluster) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let deaths = cluster.truth().deaths();
        let mut missing: HashSet<String> = cluster.truth().keys();
        loop {
            missing = self.sink.missing(&deaths, &missing).into_iter().collect();
            self.check()?;
            if missing.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                let some: Vec<_> = missing.iter().take(5).map(String::as_str).collect();
                anyhow::bail!(
                    "{} records are not delivered after {PATIENCE:?}: {}",
                    missing.len(),
                    some.join(", ")
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Fails when a process ended that nobody killed.
    fn check(&mut self) -> anyhow::Result<()> {
        self.aggregator.check()?;
        self.agents.iter_mut().try_for_each(|(_, child)| child.check())
    }

    async fn stop(self) {
        for (_, child) in self.agents {
            child.stop().await;
        }
        self.aggregator.stop().await;
    }
}

// === impl Disks ===

impl Disks {
    /// Puts a filesystem of so many megabytes there; where this user may not, nothing.
    fn mount(&mut self, path: &Path, megabytes: usize) {
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            self.0.push(path.to_owned());
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for path in &self.0 {
            Command::new("umount").arg("-l").arg(path).status().ok();
        }
    }
}
