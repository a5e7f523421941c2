//! How long a death takes until it is in the journal.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use tokio::time::{Instant, sleep};

use crate::cluster::{Ending, PodRef, SimulatedCluster};

/// Times from deaths to the journal, shortest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

/// When a death of the journal happened as the kubelet tells it, and when the journal took it: nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Kept {
    finished_ns: i64,
    taken_ns: i64,
}

/// Between two crashes: not in step with any interval that is counted in seconds.
const PAUSE: Duration = Duration::from_millis(330);
/// A death carries fifty.
const LOUD_LINES: u32 = 60;
/// How long the last ones may take.
const PATIENCE: Duration = Duration::from_secs(60);
const BUSY: Duration = Duration::from_secs(5);

// === impl Latencies ===

impl Latencies {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The nearest rank of a percentile; 0 where there are none.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

/// Crashes containers, one after the other, each of another pod, and starts each again at once, as the kubelet does the first time.
/// Answers the times from `finishedAt`, which has whole seconds, and from the true end.
///
/// # Errors
/// There are not enough pods, or a death is not in the journal after a minute.
pub(super) async fn measure(
    cluster: &SimulatedCluster,
    journal: &Path,
    crashes: usize,
) -> anyhow::Result<(Latencies, Latencies)> {
    let lives = cluster.lives();
    let mut died: HashMap<String, Timestamp> = HashMap::new();
    for pod in lives.pods() {
        if died.len() >= crashes {
            break;
        }
        let Some(container) = lives.running(&pod).pop() else { continue };
        let at = Timestamp::now();
        let ending = Ending::exit(7, "fatal: cannot reach the database at db:5432: connection refused");
        let death = lives.end(&pod, &container, &ending)?;
        died.insert(death.key(), at);
        lives.start(&pod, &container)?;
        sleep(PAUSE).await;
    }
    anyhow::ensure!(died.len() >= crashes, "there are {} pods: too few for {crashes} crashes", died.len());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let kept = read(journal)?;
        let found: Vec<_> = died.iter().filter_map(|(id, at)| Some((at, kept.get(id)?))).collect();
        if found.len() == died.len() {
            let told = found.iter().map(|(_, kept)| between(kept.finished_ns, kept.taken_ns)).collect();
            let truly = found.iter().map(|(at, kept)| {
                between(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX), kept.taken_ns)
            });
            return Ok((Latencies::of(told), Latencies::of(truly.collect())));
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} of {} deaths are in the journal after {PATIENCE:?}",
            found.len(),
            died.len()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// Crashes a container of a pod that has written more than a death carries, a secret among it, and starts it again at once.
///
/// # Errors
/// There is no such pod, or its log cannot be written.
pub(super) fn crash_loudly(cluster: &SimulatedCluster, pod: &PodRef) -> anyhow::Result<()> {
    let lives = cluster.lives();
    let Some(container) = lives.running(pod).pop() else { return Ok(()) };
    let line = |number| {
        format!(
            "worker {number}: GET https://orders.shop.svc:8443/v1/orders?page={number}&token=4f9d{number:08x} \
             took 5.002 s: upstream connect error or disconnect/reset before headers; trying again in {number} s"
        )
    };
    let ending = Ending { last_lines: (0..LOUD_LINES).map(line).collect(), ..Ending::exit(7, "") };
    lives.end(pod, &container, &ending)?;
    lives.start(pod, &container)
}

fn between(from_ns: i64, to_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(to_ns.saturating_sub(from_ns)).unwrap_or(0))
}

/// The deaths of all days, by the key that the truth gives them.
fn read(journal: &Path) -> anyhow::Result<HashMap<String, Kept>> {
    let mut kept = HashMap::new();
    for path in days(journal)? {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = || -> rusqlite::Result<Vec<(String, Kept)>> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            let mut statement = connection.prepare(
                "SELECT 'death/' || uid || '/' || container || '/' || container_id, time_ns, taken_ns FROM death",
            )?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, Kept { finished_ns: row.get(1)?, taken_ns: row.get(2)? }))
            })?;
            rows.collect()
        };
        kept.extend(read().with_context(|| format!("cannot read the journal {}", path.display()))?);
    }
    Ok(kept)
}

fn days(journal: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", journal.display());
    let mut days = Vec::new();
    for entry in std::fs::read_dir(journal).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("journal-") && name.ends_with(".sqlite") {
            days.push(path);
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let latencies = Latencies::of((1..=40).rev().map(Duration::from_millis).collect());
        assert_eq!(latencies.percentile(50), Duration::from_millis(20));
        assert_eq!(latencies.percentile(99), Duration::from_millis(40));
        assert_eq!(Latencies::default().percentile(99), Duration::ZERO);
    }
}
