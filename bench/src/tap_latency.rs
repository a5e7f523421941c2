//! How long a container's death takes on a real Kubernetes, from the time at which its runtime saw the end of its process to
//! the answer of a query that names it.
//!
//! `ci/deaths --only latency` makes the cluster and the deaths, takes the ends from `ctr events` of each node and asks the
//! aggregator's history over HTTPS up to twenty times a second; here what it measured is held against the bars.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::process::Command;

use crate::figures::report::{Figure, count};
use crate::say;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How many deaths.
    #[arg(long, default_value_t = 200)]
    pub deaths: usize,
    /// Take the release binaries of agent and aggregator that are there.
    #[arg(long)]
    pub no_build: bool,
    /// The repository's folder.
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    pub repository: PathBuf,
}

/// Seconds: half of the deaths, and all but one in a hundred.
const P50: f64 = 2.0;
const P99: f64 = 5.0;

/// Measures, and tells the figures.
///
/// # Errors
/// Where the cluster cannot be had, or a death was never found.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { deaths, no_build, repository } = arguments;
    anyhow::ensure!(*deaths >= 100, "fewer than 100 deaths have no 99th percentile");
    let mut command = Command::new(repository.join("ci/deaths"));
    command.args(["--only", "latency", "--deaths", &deaths.to_string()]);
    if *no_build {
        command.arg("--no-build");
    }
    let status =
        command.status().await.with_context(|| format!("cannot run {}/ci/deaths", repository.display()))?;
    anyhow::ensure!(status.success(), "ci/deaths ended with {status}: what it says is above");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    let latencies = read(&target.join("deaths/latencies.json"))?;
    anyhow::ensure!(latencies.len() >= *deaths, "{} of {deaths} deaths were measured", latencies.len());
    let figures = [
        Figure::new("tap-latency-deaths", count(latencies.len()), "deaths"),
        Figure::new("tap-latency-p50", percentile(&latencies, 50), "s").limit(P50),
        Figure::new("tap-latency-p99", percentile(&latencies, 99), "s").limit(P99),
        Figure::new("tap-latency-longest", percentile(&latencies, 100), "s"),
    ];
    for figure in &figures {
        say(&figure.line());
    }
    Ok(if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Seconds, shortest first.
fn read(path: &Path) -> anyhow::Result<Vec<f64>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut latencies: Vec<f64> =
        serde_json::from_str(&text).with_context(|| format!("{} is no list of seconds", path.display()))?;
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// The nearest rank; 0 where there are none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank_of_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latencies.json");
        let written: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        std::fs::write(&path, serde_json::to_vec(&written).unwrap()).unwrap();
        let latencies = read(&path).unwrap();
        assert_eq!((percentile(&latencies, 50), percentile(&latencies, 99)), (100.0, 198.0));
        assert!(percentile(&[], 99).abs() < f64::EPSILON);
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_err());
    }
}
