//! `nodetap-bench`: the simulated cluster by itself, and the demo.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nodetap_bench::cluster::{Options, SimulatedCluster};
use nodetap_bench::load::Load;
use nodetap_bench::{
    chaos, compare, demo, faults, figures, journal_speed, plan, reconnect, redact, sink_day, tap_latency,
    throughput, watch_cost,
};
use tracing_subscriber::EnvFilter;

/// A simulated Kubernetes cluster, and what is shown and measured on it.
#[derive(Debug, Parser)]
#[command(name = "nodetap-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a simulated API server and kubelets under load until a signal comes.
    Simulate(Simulate),
    /// Show nodetap at work: an aggregator and three agents on a simulated cluster, with things that go wrong.
    Demo(demo::Arguments),
    /// Measure one plan of the watches, and draw how it spreads them.
    Plan(plan::Arguments),
    /// Measure memory, CPU and times of an aggregator and an agent on a simulated node of 110 pods.
    Figures(figures::Arguments),
    /// Measure how fast the agent takes secrets out of a log.
    Redact(redact::Arguments),
    /// Measure the journal alone: records a second, bytes a record, and questions at ten million records.
    Journal(journal_speed::Arguments),
    /// Measure on a real Kubernetes how long a container's death takes from its end to the answer of a query.
    TapLatency(tap_latency::Arguments),
    /// Measure what a real kube-apiserver pays for each event: with 200 agents, against one bare watch.
    WatchCost(watch_cost::Arguments),
    /// Kill an aggregator of 5,000 streams, and measure until all agents are back.
    Reconnect(reconnect::Arguments),
    /// Let agents, API servers, networks and the aggregator fail on a real API server, and count what is lost.
    Faults(faults::Arguments),
    /// Measure how many events come through, and what each takes, at full speed for a time.
    Throughput(throughput::Arguments),
    /// Put the load of the peers' figures on a real kube-apiserver, and tell nodetap's beside them.
    Compare(compare::Arguments),
    /// Let a sink be down for a day, and measure how it catches up.
    SinkDay(sink_day::Arguments),
    /// Kill, stop, cut, fill and tear everything at random under load, and count what is lost and what is twice.
    Chaos(chaos::Arguments),
}

#[derive(Debug, clap::Args)]
struct Simulate {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Events a second.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Deaths of containers a second.
    #[arg(long, default_value_t = 0.5)]
    deaths: f64,
    /// Namespaces that the load is spread over.
    #[arg(long, default_value_t = 5)]
    namespaces: usize,
    /// Pods on each node.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Seconds that an event is kept after its last write.
    #[arg(long, default_value_t = 3600)]
    ttl: u64,
    /// Decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where certificates, kubeconfigs and logs go; without: a folder that is removed at the end.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,nodetap_agent=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let ended = match Arguments::parse().command {
        Command::Simulate(arguments) => simulate(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Figures(arguments) => figures::run(arguments).await,
        Command::Redact(arguments) => redact::run(&arguments),
        Command::Journal(arguments) => journal_speed::run(arguments).await,
        Command::TapLatency(arguments) => tap_latency::run(&arguments).await,
        Command::WatchCost(arguments) => watch_cost::run(arguments).await,
        Command::Reconnect(arguments) => reconnect::run(arguments).await,
        Command::Faults(arguments) => faults::run(arguments).await,
        Command::Throughput(arguments) => throughput::run(arguments).await,
        Command::Compare(arguments) => compare::run(arguments).await,
        Command::SinkDay(arguments) => sink_day::run(arguments).await,
        Command::Chaos(arguments) => chaos::run(arguments).await,
    };
    ended.unwrap_or_else(|error| {
        nodetap_bench::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

async fn simulate(arguments: Simulate) -> anyhow::Result<()> {
    let Simulate { nodes, rate, deaths, namespaces, pods, ttl, seed, folder } = arguments;
    let event_ttl = Duration::from_secs(ttl);
    let cluster =
        SimulatedCluster::start(Options { nodes, seed, event_ttl, folder, ..Options::default() }).await?;
    nodetap_bench::say(&cluster.describe());
    let load = Load { events: rate, deaths, namespaces, pods, seed, ..Load::default() };
    tokio::select! {
        ended = load.run(&cluster) => ended?,
        () = nodetap_bench::signalled() => {}
    }
    let truth = cluster.truth();
    nodetap_bench::say(&format!("events {} deaths {}", truth.event_count(), truth.death_count()));
    Ok(())
}
