//! What a real kube-apiserver pays for an event: with many agents under each plan, against one bare watch, and with a watch an
//! agent, which is what a DaemonSet of watchers does.
//!
//! CPU by the API server's process clock, less what it takes when nothing happens; in rounds whose order is shuffled, so that
//! what else the machine does falls on all variants alike, and on a CPU of its own beside ones that are always busy, so that those who
//! take the events do not make it slower. A run counts only when every watch got every event.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::control_plane::{self, ApiServer, ControlPlane};
use crate::figures::report::Figure;
use crate::{Random, launch, posting, say};

mod apart;
mod run;
mod variant;

use run::{Cost, Run};
use variant::Variant;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Events of one run.
    #[arg(long, default_value_t = 2000)]
    pub events: usize,
    /// Events a second.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Agents; and watches of the naive variant.
    #[arg(long, default_value_t = 200)]
    pub agents: usize,
    /// Namespaces that the events are spread over.
    #[arg(long, default_value_t = 200)]
    pub namespaces: usize,
    /// Lets the scheduler put everything anywhere. Without it the API servers and etcd have the first CPU, and who posts and takes
    /// the others, which are kept busy, so that it costs an API server nothing that others work.
    #[arg(long)]
    pub together: bool,
    /// Only these variants, and the bare watch that they are compared with.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Variant>,
    /// Where nodetap-aggregator is; without: beside this program.
    #[arg(long, value_name = "FOLDER")]
    pub binaries: Option<PathBuf>,
    /// Where journals, logs and certificates go, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Decides the order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Two API servers on one etcd, so that no variant waits for a start: they differ in nothing but the watch cache of events.
#[derive(Debug)]
struct Servers {
    plain: ApiServer,
    cached: Option<ApiServer>,
}

const SHARDING: &str = "--feature-gates=ShardedListAndWatch=true";
/// KEP-5866 is cheap only where events are in the watch cache, and by default they are not.
const WATCH_CACHE: &str = "--watch-cache-sizes=events#1,events.events.k8s.io#1";
const CACHED_PORT: u16 = 6444;
/// No event is to expire while it is measured.
const TTL: &str = "--event-ttl=6h";
/// What the API server does after its start is over by then.
const CALM: Duration = Duration::from_secs(10);

/// Measures, and tells.
///
/// # Errors
/// Something could not be started, ended before its time, or does not get every event.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let up = ["--apiserver-flag", SHARDING, "--apiserver-flag", TTL];
    if let Some(ended) = control_plane::enter(&up).await? {
        return Ok(ended);
    }
    tokio::select! {
        measured = measure(&arguments) => measured,
        () = crate::signalled() => anyhow::bail!("interrupted"),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::Builder::new().prefix("nodetap-watch-cost-").tempdir()?;
    let folder = launch::folder_of_run(arguments.folder.as_deref(), temporary.path())?;
    let variants = variant::chosen(&arguments.only);
    let plane = ControlPlane::find()?;
    let cached = match variants.iter().any(|variant| variant.is_cached()) {
        true => Some(plane.another(CACHED_PORT, &[WATCH_CACHE]).await?),
        false => None,
    };
    let _apart = match arguments.together {
        true => None,
        false => Some(apart::keep(&plane, cached.as_ref()).await?),
    };
    let servers = Servers { plain: plane.api_server, cached };
    let namespaces =
        posting::namespaces(&servers.plain.client()?, "watch-cost", arguments.namespaces).await?;
    tokio::time::sleep(CALM).await;

    let random = Random::new(arguments.seed);
    let mut costs: BTreeMap<Variant, Vec<Cost>> = BTreeMap::new();
    for round in 1..=arguments.rounds {
        let mut order = variants.clone();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last + 1));
        }
        for variant in order {
            let server = servers.of(variant);
            let name = format!("{}-{round}", variant.name());
            let folder = folder.join(&name);
            std::fs::create_dir_all(&folder)?;
            let run = Run { arguments, variant, server, namespaces: &namespaces, folder, name };
            let cost = run.measure().await?;
            say(&format!("round {round}  {:<16} {}", variant.name(), cost.describe()));
            costs.entry(variant).or_default().push(cost);
        }
    }
    Ok(tell(&costs))
}

/// The table and the figures.
fn tell(costs: &BTreeMap<Variant, Vec<Cost>>) -> ExitCode {
    say("");
    say(
        "variant           us of API-server CPU an event: median (each round)                against its bare watch",
    );
    let medians: BTreeMap<_, _> = costs.iter().map(|(variant, costs)| (*variant, median(costs))).collect();
    let mut figures = Vec::new();
    for (variant, each) in costs {
        let rounds: Vec<_> = each.iter().map(|cost| format!("{:.0}", cost.micros())).collect();
        let of = medians.get(variant).copied().unwrap_or_default();
        let ratio = medians.get(&variant.bare()).map(|bare| of / bare);
        let against = ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        say(&format!("{:<16} {of:>7.0}  ({:<44})  {against:>8}", variant.name(), rounds.join(", ")));
        let named = |suffix: &str| format!("watch-cost-{}{suffix}", variant.name());
        if let Some(ratio) = ratio.filter(|_| variant.bare() != *variant) {
            let figure = Figure::new(named(""), ratio, "x");
            figures.push(match variant.bar() {
                Some(bar) => figure.limit(bar),
                None => figure,
            });
        }
        figures.push(Figure::new(named("-us"), of, "us"));
    }
    say("");
    for figure in &figures {
        say(&figure.line());
    }
    if figures.iter().any(Figure::is_failure) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn median(costs: &[Cost]) -> f64 {
    let mut micros: Vec<_> = costs.iter().map(Cost::micros).collect();
    micros.sort_by(f64::total_cmp);
    let middle = micros.len() / 2;
    match (micros.get(middle), micros.len() % 2) {
        (Some(high), 0) => (high + micros.get(middle.saturating_sub(1)).unwrap_or(high)) / 2.0,
        (Some(one), _) => *one,
        (None, _) => 0.0,
    }
}

// === impl Servers ===

impl Servers {
    fn of(&self, variant: Variant) -> &ApiServer {
        self.cached.as_ref().filter(|_| variant.is_cached()).unwrap_or(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let of = |micros: &[u64]| {
            let cost = |cpu: &u64| Cost { cpu: Duration::from_micros(*cpu), events: 1, spread: None };
            median(&micros.iter().map(cost).collect::<Vec<_>>())
        };
        assert_eq!(of(&[9, 1, 5]), 5.0);
        assert_eq!(of(&[9, 1, 5, 7]), 6.0);
        assert_eq!(of(&[]), 0.0);
    }
}
