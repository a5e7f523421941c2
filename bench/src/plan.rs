//! How long one plan of the watches takes, what memory, how evenly it spreads them, and what one lost node moves.
//!
//! The plan is the aggregator's own function. Beside the figures it draws the picture of `docs/`.

mod picture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nodetap_aggregator::assign::spread::{Candidate, Effort, Piece, spread};

use crate::{complain, say};

/// Measure one plan of 15,000 agents and 10,000 namespaces.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the picture goes; without: none is drawn.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// What one number of nodes comes to.
#[derive(Clone, Debug)]
pub(crate) struct Spreading {
    pub(crate) nodes: usize,
    pub(crate) shares: usize,
    /// Nodes that hold so many shares, by that number.
    pub(crate) holding: Vec<usize>,
    /// Shares that one lost node moves, and one that comes back: the most of all that were tried.
    pub(crate) lost: usize,
    pub(crate) joined: usize,
}

const NODES: [usize; 4] = [50, 500, 5_000, 15_000];
const NAMESPACES: usize = 10_000;
const ROUNDS: usize = 9;
/// Nodes that are lost, one at a time, for the picture.
const LOSSES: usize = 20;

/// Most milliseconds, and most megabytes.
const TIME_BAR: f64 = 50.0;
const MEMORY_BAR: f64 = 32.0;

/// Runs the benchmark.
///
/// # Errors
/// Where the picture cannot be written.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let nodes = names("ip-10-0", NODES[NODES.len() - 1]);
    let shares = names("namespace/team", NAMESPACES);
    let (mut times, mut again) = (Vec::new(), Vec::new());
    let before = resident();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let holders = plan(&nodes, &shares, &vec![None; shares.len()]);
        times.push(started.elapsed());
        let started = Instant::now();
        plan(&nodes[1..], &shares, &without_first(&holders));
        again.push(started.elapsed());
    }
    let memory = (peak() - before).max(0.0);
    let mut is_short = false;
    for (name, value, unit, bar) in [
        ("plan-first", median(&mut times), "ms", TIME_BAR),
        ("plan-one-lost", median(&mut again), "ms", TIME_BAR),
        ("plan-memory", memory, "MB", MEMORY_BAR),
    ] {
        let verdict = if value <= bar { "ok" } else { "short" };
        is_short |= value > bar;
        say(&format!("figure {name} {value:.1} {unit} bar {bar:.0} {verdict}"));
    }
    let spreadings: Vec<Spreading> = NODES.iter().map(|nodes| spreading(*nodes, NAMESPACES)).collect();
    for Spreading { nodes, shares, holding, lost, joined } in &spreadings {
        let held: Vec<String> = holding
            .iter()
            .enumerate()
            .filter(|(_, nodes)| **nodes > 0)
            .map(|(held, nodes)| format!("{nodes} hold {held}"))
            .collect();
        let held = held.join(", ");
        say(&format!("{nodes} nodes, {shares} shares: {held}; one lost moves {lost}, one more {joined}"));
    }
    if let Some(path) = &arguments.picture {
        std::fs::write(path, picture::svg(&spreadings))?;
        say(&format!("picture {}", path.display()));
    }
    if is_short {
        complain("a figure is short of its bar");
    }
    Ok(if is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn names(kind: &str, number: usize) -> Vec<String> {
    (0..number).map(|number| format!("{kind}-{number}")).collect()
}

fn plan(nodes: &[String], shares: &[String], holders: &[Option<usize>]) -> Vec<Option<usize>> {
    let agents: Vec<Candidate<'_>> =
        nodes.iter().map(|node| Candidate { node, weight: 1, takes: true }).collect();
    let pieces: Vec<Piece<'_>> = shares
        .iter()
        .zip(holders)
        .map(|(name, holder)| Piece { name, holder: *holder, is_hot: false })
        .collect();
    spread(&agents, &pieces, usize::MAX / 2, Effort::Balance)
}

/// The holders as they are once the first node is gone.
fn without_first(holders: &[Option<usize>]) -> Vec<Option<usize>> {
    holders.iter().map(|holder| holder.and_then(|at| at.checked_sub(1))).collect()
}

fn spreading(number: usize, shares: usize) -> Spreading {
    let (mut nodes, shares) = (names("ip-10-0", number), names("namespace/team", shares));
    let holders = plan(&nodes, &shares, &vec![None; shares.len()]);
    let mut counts = vec![0; number];
    holders.iter().flatten().for_each(|at| counts[*at] += 1);
    let mut holding = vec![0; counts.iter().max().copied().unwrap_or(0) + 1];
    counts.iter().for_each(|count| holding[*count] += 1);
    let (mut lost, mut joined) = (0, 0);
    let mut now = holders;
    for _ in 0..LOSSES.min(number - 1) {
        // The first goes, and comes back as the last.
        let left = without_first(&now);
        let after = plan(&nodes[1..], &shares, &left);
        lost = lost.max(moved(&left, &after));
        nodes.rotate_left(1);
        let back = plan(&nodes, &shares, &after);
        joined = joined.max(moved(&after, &back));
        now = back;
    }
    Spreading { nodes: number, shares: shares.len(), holding, lost, joined }
}

fn moved(before: &[Option<usize>], after: &[Option<usize>]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64) * 1e3
}

/// In megabytes, as the kernel counts them now.
fn resident() -> f64 {
    of_status("VmRSS:")
}

/// The same at its highest.
fn peak() -> f64 {
    of_status("VmHWM:")
}

fn of_status(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
    kilobytes / 1e3
}
