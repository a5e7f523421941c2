//! What goes wrong with watches, on a real API server: agents, API servers, networks and the aggregator fail, one after the other,
//! while events are written; and a plain watch tells what had to arrive.
//!
//! Each agent has a network namespace of its own. A fault's gap is the longest that an event was in the journal later than at the
//! plain watch; lost is what the plain watch had and the journal has not; twice is what the journal has more than once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::control_plane::{self, ControlPlane};
use crate::{launch, posting, say};

mod act;
mod nodes;
mod proxy;
mod stage;
mod verdict;

pub use act::Fault;
use nodes::Nodes;
use stage::Stage;
use verdict::Verdict;

/// What is to go wrong.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Fault>,
    /// `events.watch` of the aggregator's configuration; several: all faults with each.
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    pub watch: Vec<String>,
    /// Events a second, every other one a recurrence.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Over so many namespaces.
    #[arg(long, default_value_t = 20)]
    pub namespaces: usize,
    /// Agents, each in a network namespace of its own; at most 9.
    #[arg(long, default_value_t = 3)]
    pub agents: usize,
    /// How long packets are dropped and the aggregator is down.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::demo::duration, default_value = "60s")]
    pub length: Duration,
    /// Where nodetap-agent and nodetap-aggregator are; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where journals, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Compaction is asked for where it is wanted, and is not to happen elsewhere.
const FLAGS: [&str; 6] = [
    "--apiserver-flag",
    "--feature-gates=ShardedListAndWatch=true",
    "--event-ttl",
    "6h",
    "--etcd-compaction-interval",
    "1h",
];

/// Lets everything go wrong, and tells.
///
/// # Errors
/// Something could not be started. That events are lost is no error here, but a failure.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(ended) = control_plane::enter(&FLAGS).await? {
        return Ok(ended);
    }
    tokio::select! {
        done = all(&arguments) => done,
        () = crate::signalled() => anyhow::bail!("interrupted"),
    }
}

async fn all(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-faults-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let mut plane = ControlPlane::find()?;
    let nodes = Nodes::make(&plane, arguments.agents).await?;
    let client = plane.api_server.client()?;
    let namespaces = posting::namespaces(&client, "fault", arguments.namespaces).await?;
    let mut rows = Vec::new();
    for watch in &arguments.watch {
        for fault in act::chosen(&arguments.only) {
            let name = format!("{watch}-{}", fault.name());
            let folder = folder.join(&name);
            std::fs::create_dir_all(&folder)?;
            let stage = Stage { arguments, watch, folder: &folder, nodes: &nodes, namespaces: &namespaces };
            let outcome = stage.play(&mut plane, fault).await;
            say(&match &outcome {
                Ok(verdict) => format!("{name:<36} {}", verdict.describe()),
                Err(error) => format!("{name:<36} FAILED: {error:#}"),
            });
            rows.push((name, outcome));
        }
    }
    Ok(tell(&rows))
}

fn tell(rows: &[(String, anyhow::Result<Verdict>)]) -> ExitCode {
    say("");
    say("fault                                 events  lost  twice    gap s  recovered s after its end");
    for (name, outcome) in rows {
        match outcome {
            Ok(verdict) => say(&format!("{name:<36} {}", verdict.row())),
            Err(error) => say(&format!("{name:<36} FAILED: {error:#}")),
        }
    }
    let good =
        rows.iter().filter(|(_, outcome)| matches!(outcome, Ok(verdict) if verdict.is_whole())).count();
    say(&format!("\n{good} of {} without a loss", rows.len()));
    if good == rows.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
