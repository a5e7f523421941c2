//! An aggregator's journal, read with SQLite as anybody would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, Row};

/// One state of an event, as it was kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The event's uid.
    pub(crate) uid: String,
    /// And resourceVersion.
    pub(crate) version: u64,
    /// When it was taken, in nanoseconds since 1970.
    pub(crate) taken_ns: i64,
}

/// How long its writer may be in the way.
const BUSY: Duration = Duration::from_secs(10);

/// How many states of events there are.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn events(journal: &Path) -> anyhow::Result<usize> {
    let counts =
        rows(journal, "SELECT count(*) FROM record WHERE kind = 'event'", |row| row.get::<_, i64>(0))?;
    Ok(counts.into_iter().filter_map(|count| usize::try_from(count).ok()).sum())
}

/// All states of events, in the order in which they were kept.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn states(journal: &Path) -> anyhow::Result<Vec<Kept>> {
    let query = "SELECT uid, CAST(resource_version AS INTEGER), taken_ns FROM record WHERE kind = 'event' ORDER BY position";
    rows(journal, query, |row| {
        let version = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        Ok(Kept { uid: row.get(0)?, version, taken_ns: row.get(2)? })
    })
}

fn rows<T>(
    journal: &Path,
    query: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut found = Vec::new();
    for path in days(journal)? {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let of_day = || -> rusqlite::Result<Vec<T>> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.prepare(query)?.query_map([], &read)?.collect()
        };
        found.extend(of_day().with_context(|| format!("cannot read the journal {}", path.display()))?);
    }
    Ok(found)
}

fn days(journal: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut days = Vec::new();
    for entry in std::fs::read_dir(journal).with_context(|| format!("cannot read {}", journal.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("journal-") && name.ends_with(".sqlite") {
            days.push(path);
        }
    }
    days.sort();
    Ok(days)
}
