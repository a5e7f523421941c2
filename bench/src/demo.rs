//! The demo: an aggregator and three agents over mutual TLS on a simulated cluster, what they deliver as it comes, and things
//! that go wrong on the way.
//!
//! It ends with `taken N delivered N duplicated N lost N`: taken is what the simulator did, delivered is what a receiver of its
//! own got, and neither is a number of nodetap's.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::Client;
use crate::cluster::{Options, SimulatedCluster};
use crate::launch::{self, Agent, Child, START, Setup, Wishes};
use crate::load::Load;
use crate::say;

mod accidents;
mod receiver;
mod show;

use receiver::Receiver;

/// What the demo is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Stop after this long, such as 20s or 2m; without: when interrupted.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub length: Option<Duration>,
    /// A cluster of yours instead of the simulated one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where the journal, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Events a second of the simulated cluster.
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// Deaths of containers a second of the simulated cluster.
    #[arg(long, default_value_t = 1.0)]
    pub deaths: f64,
    /// Decides everything that the simulated cluster draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What runs, but for the cluster.
#[derive(Debug)]
struct Stage {
    setup: Setup,
    receiver: Arc<Receiver>,
    aggregator: Child,
    agents: Vec<(Agent, Child)>,
}

/// Seconds. Short, so that the demo's deaths are seen before the next ones hide them.
const POLL: u32 = 1;
/// How long what was taken may take until it is delivered, once nothing new happens.
const SETTLE: Duration = Duration::from_secs(30);
/// At least this long is shown, so that the accidents have room.
const SHORTEST: Duration = Duration::from_secs(10);
/// When everything is delivered, this long a repeat or a stranger is still waited for.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Runs the demo.
///
/// # Errors
/// Something could not be started, or ended before its time: with the last lines of its log.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-demo-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let binaries = launch::binaries(arguments.binaries.as_deref())?;
    match arguments.kubeconfig.clone() {
        None => on_simulated(&arguments, &folder, &binaries).await,
        Some(kubeconfig) => on_yours(&arguments, &kubeconfig, &folder, &binaries).await,
    }
}

async fn on_simulated(
    arguments: &Arguments,
    folder: &std::path::Path,
    binaries: &std::path::Path,
) -> anyhow::Result<ExitCode> {
    say(
        "A simulated cluster of three nodes, an aggregator and three agents over mutual TLS: every event and every death of a",
    );
    say(
        "container, as a webhook of this demo receives it. On the way a watch is cut, a resume is refused with 410, an agent is killed.",
    );
    let options = Options {
        nodes: 3,
        seed: arguments.seed,
        back_off: Duration::from_secs(3),
        back_off_max: Duration::from_secs(6),
        folder: Some(folder.join("cluster")),
        ..Options::default()
    };
    let cluster = SimulatedCluster::start(options).await?;
    let agents = cluster.nodes().iter().map(|node| Agent::on(&cluster, node)).collect();
    let mut stage = Stage::start(folder, binaries, agents).await?;
    say(&stage.addresses());
    say(&format!(
        "the simulated API server {}, its faults and its truth {}",
        cluster.api_url(),
        cluster.admin_url()
    ));

    // Until somebody watches, nothing may overwrite a state that nobody could have seen.
    cluster.recorder().keep_apart(true);
    let load =
        Load { events: arguments.rate, deaths: arguments.deaths, seed: arguments.seed, ..Load::default() };
    let length = arguments.length.map(|length| length.max(SHORTEST));
    let end = length.map(|length| Instant::now() + length);
    {
        let accidents = async {
            accidents::happen(&cluster, &mut stage, length.unwrap_or(Duration::from_secs(30))).await?;
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = load.run(&cluster) => ended?,
            happened = accidents => happened?,
            () = crate::signalled() => {}
        }
    }
    cluster.faults().clear();
    let missing = settle(&cluster, &mut stage).await?;
    let (delivered, repeats) = stage.receiver.counts();
    let truth = cluster.truth().keys();
    let strangers = stage.receiver.strangers(&cluster.truth().deaths(), &truth);
    for key in strangers.iter().take(5) {
        crate::complain(&format!("delivered, though it never happened: {key}"));
    }
    for key in missing.iter().take(10) {
        crate::complain(&format!("lost: {key}"));
    }
    let (taken, lost) = (truth.len(), missing.len());
    let delivered = delivered - strangers.len();
    stage.stop().await;
    say(&format!("taken {taken} delivered {delivered} duplicated {repeats} lost {lost}"));
    Ok(if lost == 0 && strangers.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn on_yours(
    arguments: &Arguments,
    kubeconfig: &std::path::Path,
    folder: &std::path::Path,
    binaries: &std::path::Path,
) -> anyhow::Result<ExitCode> {
    say(
        "Your cluster, an aggregator and an agent for each of up to three of its nodes over mutual TLS, all on this machine: every",
    );
    say("event, and every death of a container on those nodes, as a webhook of this demo receives it.");
    let client = Client::from_kubeconfig(kubeconfig)?;
    let nodes = client.get("/api/v1/nodes?limit=3").await?;
    anyhow::ensure!(nodes.status == 200, "listing the nodes was answered with {}", nodes.status);
    let nodes = nodes.json();
    let names =
        nodes["items"].as_array().into_iter().flatten().filter_map(|node| node["metadata"]["name"].as_str());
    let kubeconfig = std::path::absolute(kubeconfig)?;
    let mut agents: Vec<Agent> = names.map(|name| Agent::elsewhere(name, &kubeconfig)).collect();
    if agents.is_empty() {
        // Events can be watched without any node.
        agents.push(Agent::elsewhere("no-node", &kubeconfig));
    }
    let mut stage = Stage::start(folder, binaries, agents).await?;
    say(&stage.addresses());
    let ended = async {
        match arguments.length {
            Some(length) => sleep(length).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ended => {}
        () = crate::signalled() => {}
        died = stage.watch_over() => died?,
    }
    let (delivered, repeats) = stage.receiver.counts();
    stage.stop().await;
    say(&format!(
        "delivered {delivered} duplicated {repeats}; what was to be taken nobody counted: that takes the simulated cluster"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Waits until everything that happened is delivered, or no longer; answers what is missing.
async fn settle(cluster: &SimulatedCluster, stage: &mut Stage) -> anyhow::Result<Vec<String>> {
    say("nothing new from here on: waiting until everything taken is delivered");
    let deadline = Instant::now() + SETTLE;
    loop {
        let missing = stage.receiver.missing(&cluster.truth().deaths(), &cluster.truth().keys());
        stage.check()?;
        if missing.is_empty() {
            sleep(AFTERMATH).await;
            return Ok(missing);
        }
        if timeout(deadline.saturating_duration_since(Instant::now()), stage.receiver.next()).await.is_err() {
            return Ok(missing);
        }
    }
}

// === impl Stage ===

impl Stage {
    async fn start(
        folder: &std::path::Path,
        binaries: &std::path::Path,
        agents: Vec<Agent>,
    ) -> anyhow::Result<Self> {
        let receiver = Receiver::start(std::io::stdout().is_terminal()).await?;
        let wishes =
            Wishes { webhook: Some(receiver.url().to_owned()), poll_seconds: POLL, ..Wishes::default() };
        let setup = Setup::write(folder, binaries, &agents, &wishes)?;
        let mut aggregator = setup.start_aggregator()?;
        aggregator.ready(START).await?;
        let mut started = Vec::new();
        for agent in agents {
            let child = setup.start_agent(&agent)?;
            started.push((agent, child));
        }
        for (_, child) in &mut started {
            child.alive(START).await?;
        }
        Ok(Self { setup, receiver, aggregator, agents: started })
    }

    fn addresses(&self) -> String {
        let agents: Vec<_> =
            self.agents.iter().map(|(agent, child)| format!("{} {}", agent.node, child.metrics())).collect();
        format!(
            "metrics: aggregator {}  {}\njournal: {}   file sink: {}",
            self.aggregator.metrics(),
            agents.join("  "),
            self.setup.journal.display(),
            self.setup.file.display()
        )
    }

    /// Fails when a process ended that nobody killed.
    fn check(&mut self) -> anyhow::Result<()> {
        self.aggregator.check()?;
        self.agents.iter_mut().try_for_each(|(_, child)| child.check())
    }

    async fn watch_over(&mut self) -> anyhow::Result<()> {
        loop {
            self.check()?;
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn stop(self) {
        for (_, child) in self.agents {
            child.stop().await;
        }
        self.aggregator.stop().await;
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text} is no time such as 20s"))?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        _ => return Err(format!("{text}: the unit is s, m or h")),
    };
    Ok(Duration::from_secs(seconds))
}
