//! An aggregator and agents as child processes over mutual TLS: their files, flags and ports, and how they are waited for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

mod child;
mod setup;

pub(crate) use child::Child;
pub(crate) use setup::{Agent, Setup, Wishes};

const LOOK: Duration = Duration::from_millis(100);
/// How long a process may take until it is ready.
pub(crate) const START: Duration = Duration::from_secs(15);

/// Where nodetap-agent and nodetap-aggregator are: where it is said, else beside this program.
pub(crate) fn binaries(said: Option<&Path>) -> anyhow::Result<PathBuf> {
    match said {
        Some(binaries) => Ok(binaries.to_owned()),
        None => Ok(std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default()),
    }
}

/// A folder of this run: in the one that is given, else the temporary one.
///
/// One of its own each time: a journal of an earlier run knows the same uids and resourceVersions.
pub(crate) fn folder_of_run(given: Option<&Path>, temporary: &Path) -> anyhow::Result<PathBuf> {
    let folder = match given {
        Some(folder) => {
            std::path::absolute(folder)?.join(format!("{:.0}", jiff::Timestamp::now()).replace(':', ""))
        }
        None => temporary.to_owned(),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Waits until an aggregator has divided the events as a mode has it, and nobody watches as before any more.
pub(crate) async fn until_divided(aggregator: &Child, mode: &str, within: Duration) -> anyhow::Result<()> {
    if mode == "auto" {
        // Whatever it is, it is that already.
        return Ok(());
    }
    // No released API server selects by spec.source.host, so that there is a single watch.
    let by = if mode == "host" { "cluster" } else { mode };
    let wanted = [
        (format!("nodetap_watch_partition{{by=\"{by}\"}}"), 1.0),
        ("nodetap_watch_changing".to_owned(), 0.0),
    ];
    let deadline = Instant::now() + within;
    for (series, value) in wanted {
        while aggregator.metric(&series).await != Some(value) {
            anyhow::ensure!(Instant::now() < deadline, "the aggregator's {series} is not {value}");
            sleep(LOOK).await;
        }
    }
    Ok(())
}
