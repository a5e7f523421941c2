//! The journal alone: how fast it takes records for good, what one takes on the disk, and how soon a question is answered while
//! more come in.
//!
//! The journal runs in this process, with `synchronous=FULL` and the batches that agents send, checked as at the door; making and
//! checking the events costs CPU of the same cores, and is counted in.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use nodetap_aggregator::admit::check::{Sender, check_record};
use nodetap_aggregator::history::History as _;
use nodetap_aggregator::history::query::{Filter, RecordKind, Search};
use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use nodetap_aggregator::journal::{Journal as _, Taken};
use nodetap_wire::Record;
use nodetap_wire::frame::BATCH_RECORDS;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::figures::process;
use crate::{Random, say};
use mix::Mix;

mod mix;

/// Agents that send at the same time, each a batch at a time: so many that the next commit is there once one is done, as it is where
/// the journal is what limits.
const SENDERS: u64 = 16;

/// Records a second that come in while questions are asked.
const LIVE: u64 = 5_000;

/// What is measured, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Records that the journal is filled with.
    #[arg(long, default_value_t = 10_000_000)]
    pub records: u64,
    /// How long questions are asked, such as 20s or 2m.
    #[arg(long = "for", value_name = "TIME", value_parser = crate::demo::duration, default_value = "30s")]
    pub length: Duration,
    /// Where the journal goes, in a folder of this run; without: one that is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// One kind of question, and how long each was under way.
struct Asked {
    name: &'static str,
    took: Vec<Duration>,
    found: usize,
}

/// Measures, and fails where a bar is not met.
///
/// # Errors
/// The journal cannot be kept, or does not answer.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = match &arguments.folder {
        Some(folder) => tempfile::Builder::new().prefix("journal-").tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .context("no folder for the journal")?;
    let metrics = JournalMetrics::default();
    let settings = Settings { max_bytes: 1 << 40, ..Settings::new(folder.path()) };
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(()))?;
    let mix = Arc::new(Mix::new(arguments.seed));
    let mut is_short = false;

    let taken = fill(&journal, &mix, arguments.records, &metrics).await?;
    let seconds = taken.elapsed.as_secs_f64();
    let rate = arguments.records as f64 / seconds;
    say(&format!(
        "{} records in {seconds:.1} s, {:.0} bytes of JSON each in the mean; a commit has {:.0} records",
        arguments.records,
        mix.mean_bytes(),
        arguments.records as f64 / metrics.commits.get() as f64,
    ));
    let behind = Instant::now();
    while metrics.unindexed.get() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(&format!("the index had come on {:.1} s later", behind.elapsed().as_secs_f64()));
    let bytes = process::folder_bytes(folder.path())? as f64 / arguments.records as f64;

    let asked = ask(&journal, &mix, arguments.length).await?;
    say("");
    say("question                        asked   found     p50 ms     p99 ms     max ms");
    let mut all = Vec::new();
    for Asked { name, mut took, found } in asked {
        took.sort();
        say(&format!(
            "{name:<30} {:>6} {:>7.1} {:>10.2} {:>10.2} {:>10.2}",
            took.len(),
            found as f64 / took.len().max(1) as f64,
            milliseconds(percentile(&took, 50)),
            milliseconds(percentile(&took, 99)),
            milliseconds(percentile(&took, 100)),
        ));
        all.extend(took);
    }
    all.sort();
    say("");
    is_short |= figure("journal-rate", rate, "records/s", 100_000.0, rate >= 100_000.0);
    let p99 = milliseconds(percentile(&all, 99));
    is_short |= figure("journal-query-p99", p99, "ms", 100.0, p99 <= 100.0);
    is_short |= figure("journal-bytes", bytes, "bytes/record", 400.0, bytes <= 400.0);
    let early = taken.memory_early as f64 / 1e6;
    let late = process::own_memory() as f64 / 1e6;
    say(&format!("figure journal-rss-early {early:.1} MB"));
    say(&format!("figure journal-rss-late {late:.1} MB"));
    journal.close().await;
    Ok(if is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Filled {
    elapsed: Duration,
    /// What the process took after a tenth of the records.
    memory_early: u64,
}

async fn fill(
    journal: &SqliteJournal,
    mix: &Arc<Mix>,
    records: u64,
    metrics: &JournalMetrics,
) -> anyhow::Result<Filled> {
    let started = Instant::now();
    journal.append(Taken { node: "n".to_owned(), records: mix.facts(), ..Taken::default() }).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (journal, mix, sent) = (journal.clone(), Arc::clone(mix), Arc::clone(&sent));
        senders.spawn(async move {
            loop {
                let before = sent.fetch_add(BATCH_RECORDS as u64, Ordering::Relaxed);
                let batch = (BATCH_RECORDS as u64).min(records.saturating_sub(before));
                if batch == 0 {
                    return Ok(());
                }
                let taken = checked(format!("n{sender}"), mix.records(batch));
                let appended = journal.append(taken).await.context("an append failed")?;
                anyhow::ensure!(
                    appended.new as u64 == batch,
                    "{} records were taken for duplicates",
                    appended.duplicates
                );
            }
        });
    }
    let (mut memory_early, mut told) = (0, 0);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            joined = senders.join_next() => match joined {
                None => break,
                Some(ended) => ended??,
            },
            _ = tick.tick() => {
                let head = journal.head().borrow().0;
                if memory_early == 0 && head >= records / 10 {
                    memory_early = process::own_memory();
                }
                if head >= told + 1_000_000 {
                    told = head;
                    let rate = head as f64 / started.elapsed().as_secs_f64();
                    say(&format!(
                        "{head:>9} records, {rate:.0}/s so far, {} not indexed, {:.1} MB",
                        metrics.unindexed.get(),
                        process::own_memory() as f64 / 1e6
                    ));
                }
            }
        }
    }
    Ok(Filled { elapsed: started.elapsed(), memory_early })
}

/// A batch as the door hands it over: with what it read of the events.
fn checked(node: String, records: Vec<Record>) -> Taken {
    let sender = Sender { node: &node, has_held: true };
    // The deaths of the mix are of many nodes, and nothing is read of a death.
    let outline = |record| check_record(sender, record).ok().flatten().map(Arc::new);
    let outlines = records.iter().map(outline).collect();
    Taken { node, records, outlines, ..Taken::default() }
}

/// Asks one question after another for a while, each kind in turn, while records come in.
async fn ask(journal: &SqliteJournal, mix: &Arc<Mix>, length: Duration) -> anyhow::Result<Vec<Asked>> {
    let stop = Arc::new(AtomicBool::new(false));
    let live = tokio::spawn({
        let (journal, mix, stop) = (journal.clone(), Arc::clone(mix), Arc::clone(&stop));
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                let taken = checked("live".to_owned(), mix.records(LIVE / 20));
                journal.append(taken).await.context("an append failed")?;
            }
            anyhow::Ok(())
        }
    });
    let random = Random::new(7);
    let started = Instant::now();
    let mut asked: Vec<Asked> = Vec::new();
    while started.elapsed() < length {
        for (index, (name, filter)) in questions(mix, &random).into_iter().enumerate() {
            let search = Search { filter, after: None, limit: 100, deadline: Duration::from_secs(10) };
            let begun = Instant::now();
            let page = journal.search(search).await.with_context(|| format!("{name} was not answered"))?;
            let took = begun.elapsed();
            if asked.len() <= index {
                asked.push(Asked { name, took: Vec::new(), found: 0 });
            }
            if let Some(asked) = asked.get_mut(index) {
                asked.took.push(took);
                asked.found += page.found.len();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    live.await??;
    Ok(asked)
}

/// The newest 100 by each single filter, by pairs, and by text.
fn questions(mix: &Mix, random: &Random) -> Vec<(&'static str, Filter)> {
    let one = Filter::default;
    let pod = mix.pod(random);
    let other = mix.pod(random);
    let reason = || vec![mix.reason(random).to_owned()];
    let text = |text: String| Filter { text: Some(text), ..one() };
    vec![
        ("newest", one()),
        ("namespace", Filter { namespaces: vec![pod.namespace.clone()], ..one() }),
        ("object", Filter { objects: vec![pod.name.clone()], ..one() }),
        ("kind", Filter { object_kinds: vec!["Deployment".to_owned()], ..one() }),
        ("node", Filter { nodes: vec![pod.node.clone()], ..one() }),
        ("reason", Filter { reasons: reason(), ..one() }),
        ("type", Filter { types: vec!["Warning".to_owned()], ..one() }),
        ("owner", Filter { owners: vec![pod.owner.clone()], ..one() }),
        ("container", Filter { containers: vec!["app".to_owned()], ..one() }),
        ("exit code", Filter { exit_codes: vec![137], ..one() }),
        ("deaths", Filter { record: Some(RecordKind::Death), ..one() }),
        (
            "namespace and reason",
            Filter { namespaces: vec![pod.namespace.clone()], reasons: reason(), ..one() },
        ),
        (
            "node and type",
            Filter { nodes: vec![pod.node.clone()], types: vec!["Normal".to_owned()], ..one() },
        ),
        ("node and reason", Filter { nodes: vec![pod.node.clone()], reasons: reason(), ..one() }),
        ("object and reason", Filter { objects: vec![pod.name.clone()], reasons: reason(), ..one() }),
        (
            "pair that never meets",
            Filter { objects: vec![pod.name.clone()], nodes: vec![other.node.clone()], ..one() },
        ),
        (
            "namespace and exit code",
            Filter { namespaces: vec![pod.namespace.clone()], exit_codes: vec![1], ..one() },
        ),
        ("text: two common words", text("readiness probe".to_owned())),
        ("text: a rare word", text(pod.name.clone())),
        (
            "text: common, with namespace",
            Filter { namespaces: vec![pod.namespace.clone()], ..text("deadline".to_owned()) },
        ),
        ("text: the beginning of a word", text("unsched*".to_owned())),
        ("text: a word that is nowhere", text("xyzzy".to_owned())),
    ]
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Says a figure; whether it is short of its bar.
fn figure(name: &str, value: f64, unit: &str, bar: f64, is_met: bool) -> bool {
    let verdict = if is_met { "ok" } else { "short" };
    say(&format!("figure {name} {value:.3} {unit} bar {bar} {verdict}"));
    !is_met
}
