//! One day's file: its tables, how a record is written to it and read from it.
//!
//! Meant to be read with the `sqlite3` shell: an event's `body` is its JSON, a death's is the JSON of `ContainerDied`, `facts`
//! is what was known of the object. Times are nanoseconds since 1970. `uid` is the Event's, or the pod's of a death;
//! `resource_version` is an integer where it is a decimal number below 2^63.

use std::path::Path;

use bytes::Bytes;
use nodetap_wire::face::Object;
use nodetap_wire::{Checkpoint, ContainerDied, EventSeen, Shard};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension, Row, ToSql, params};

use super::Synchronous;
use super::memory::Memory;
use crate::journal::{Body, Entry, Position};
use crate::merge::DeathKey;

/// Goes up when a table changes in a way that an older version cannot read.
const SCHEMA_VERSION: i64 = 2;

/// How long the count of an Event that happened more than once is carried into the next day's file: an API server keeps an
/// Event for its TTL after its last change, one hour unless configured, and hardly ever above a day.
const RECURRENCE_KEPT_NS: i64 = 2 * 86_400 * 1_000_000_000;

const PAGE_BYTES: u64 = 8_192;

/// How long a namespace's watermark is carried into new files after it was raised, for the same reason: what the API server
/// still has of a namespace is younger.
pub(super) const WATERMARK_KEPT_NS: i64 = RECURRENCE_KEPT_NS;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    taken_ns INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object TEXT NOT NULL,
    reason TEXT NOT NULL,
    type TEXT NOT NULL,
    node TEXT NOT NULL,
    uid TEXT NOT NULL,
    resource_version,
    count INTEGER NOT NULL,
    occurrences INTEGER NOT NULL,
    container TEXT,
    container_id TEXT,
    ordinal INTEGER,
    exit_code INTEGER,
    body TEXT NOT NULL,
    facts TEXT
);
CREATE INDEX record_event ON record (resource_version, uid, count) WHERE kind = 'event';
CREATE INDEX record_death ON record (uid, container, container_id, ordinal) WHERE kind = 'death';
CREATE TABLE checkpoint (shard TEXT PRIMARY KEY, epoch INTEGER NOT NULL, resource_version TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE watermark (
    namespace TEXT PRIMARY KEY,
    resource_version TEXT NOT NULL,
    raised_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE recurrence (uid TEXT PRIMARY KEY, count INTEGER NOT NULL, seen_ns INTEGER NOT NULL) WITHOUT ROWID;
";

const INSERT: &str = "
INSERT INTO record (position, kind, taken_ns, time_ns, namespace, object_kind, object, reason, type, node, uid,
    resource_version, count, occurrences, container, container_id, ordinal, exit_code, body, facts)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";

/// A resourceVersion as it is stored: as a number where it fits, so that the index grows at its end.
pub(super) struct Version<'a>(pub(super) &'a str);

/// Bytes that are UTF-8 by the promise of who took them, stored as text.
struct Json<'a>(&'a [u8]);

/// Writes records; lives as long as a transaction.
pub(super) struct Insert<'a>(CachedStatement<'a>);

/// What a file says of the positions in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first position that it was made for.
    pub(super) first: u64,
    /// The last one that it holds; one below `first` where it holds none.
    pub(super) last: u64,
}

/// Opens a day's file to write to it, and makes it where it is not there. `log_bytes`: how large its log may grow.
pub(super) fn open_to_write(
    path: &Path,
    synchronous: Synchronous,
    log_bytes: u64,
) -> Result<Connection, rusqlite::Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(super::BUSY_TIMEOUT)?;
    connection.pragma_update(None, "page_size", signed(PAGE_BYTES))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", synchronous.name())?;
    // Until the log is moved into the file, and what of the log is kept.
    connection.pragma_update(None, "wal_autocheckpoint", signed(log_bytes / PAGE_BYTES).max(1))?;
    connection.pragma_update(None, "journal_size_limit", signed(log_bytes))?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    Ok(connection)
}

/// Whether the tables are there; `false` of a file that was never finished.
pub(super) fn is_initialised(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let tables: i64 =
        connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    Ok(tables > 0)
}

/// Gives a file of the first version what it lacks, all or nothing.
pub(super) fn upgrade(connection: &mut Connection, now_ns: i64) -> Result<(), rusqlite::Error> {
    if has_raised(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch("ALTER TABLE watermark ADD COLUMN raised_ns INTEGER NOT NULL DEFAULT 0")?;
    transaction.execute("UPDATE watermark SET raised_ns = ?1", [now_ns])?;
    transaction.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [SCHEMA_VERSION])?;
    transaction.commit()
}

fn has_raised(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.prepare("SELECT 1 FROM pragma_table_info('watermark') WHERE name = 'raised_ns'")?.exists([])
}

/// Makes the tables and takes over the state of the file before, all or nothing.
pub(super) fn initialise(
    connection: &mut Connection,
    memory: &Memory,
    before: Option<&Path>,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    if let Some(before) = before {
        connection.execute("ATTACH ?1 AS before", [before.to_string_lossy()])?;
    }
    let made = make_tables(connection, memory, before.is_some(), now_ns);
    if before.is_some() {
        connection.execute_batch("DETACH before")?;
    }
    made
}

fn make_tables(
    connection: &mut Connection,
    memory: &Memory,
    has_before: bool,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute(
        "INSERT INTO meta VALUES ('schema', ?1), ('first_position', ?2)",
        params![SCHEMA_VERSION, signed(memory.head + 1)],
    )?;
    for (shard, checkpoint) in &memory.checkpoints {
        write_checkpoint(&transaction, shard, checkpoint)?;
    }
    for (namespace, version) in &memory.watermarks {
        let raised_ns = memory.raised.get(namespace).copied().unwrap_or(now_ns);
        write_watermark(&transaction, namespace, version, raised_ns)?;
    }
    if has_before {
        transaction.execute(
            "INSERT INTO recurrence SELECT * FROM before.recurrence WHERE seen_ns > ?1",
            [now_ns - RECURRENCE_KEPT_NS],
        )?;
    }
    transaction.commit()
}

/// Which positions the file holds.
pub(super) fn extent(connection: &Connection) -> Result<Extent, rusqlite::Error> {
    let schema: i64 =
        connection.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |row| row.get(0))?;
    if schema > SCHEMA_VERSION {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISMATCH),
            Some(format!("written by a newer version (its tables are of version {schema})")),
        ));
    }
    let first: i64 =
        connection.query_row("SELECT value FROM meta WHERE key = 'first_position'", [], |row| row.get(0))?;
    let last: Option<i64> = connection.query_row("SELECT max(position) FROM record", [], |row| row.get(0))?;
    Ok(Extent { first: unsigned(first), last: last.map_or(unsigned(first) - 1, unsigned) })
}

/// Reads the state into memory, but for the head.
pub(super) fn read_state(
    connection: &Connection,
    memory: &mut Memory,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    // The first version has no such column: they count as raised now.
    let raised_ns = if has_raised(connection)? { "raised_ns" } else { "NULL" };
    let mut statement =
        connection.prepare(&format!("SELECT namespace, resource_version, {raised_ns} FROM watermark"))?;
    let mut rows = statement.query([])?;
    memory.watermarks.clear();
    memory.raised.clear();
    while let Some(row) = rows.next()? {
        let namespace: String = row.get(0)?;
        memory.raised.insert(namespace.clone(), row.get::<_, Option<i64>>(2)?.unwrap_or(now_ns));
        memory.watermarks.insert(namespace, row.get(1)?);
    }
    let mut statement = connection.prepare("SELECT shard, epoch, resource_version FROM checkpoint")?;
    let mut rows = statement.query([])?;
    memory.checkpoints.clear();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        // Of a newer version, which has other shards; its watch lists first.
        let Some(shard) = Shard::parse(&name) else { continue };
        let shard = Some(shard);
        let checkpoint = Checkpoint { shard, epoch: unsigned(row.get(1)?), resource_version: row.get(2)? };
        memory.checkpoints.insert(name, checkpoint);
    }
    Ok(())
}

/// Remembers the counts of the last Events of a file, at most so many.
pub(super) fn read_counts(
    connection: &Connection,
    memory: &mut Memory,
    limit: usize,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT uid, count FROM record WHERE kind = 'event' ORDER BY resource_version DESC LIMIT ?1",
    )?;
    let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        // A row that is no Event's is left out here as it is when it is read.
        let (Ok(uid), Ok(count)) = (row.get_ref(0)?.as_str(), row.get(1).map(unsigned)) else { continue };
        if memory.counts.get(uid).is_none_or(|known| known < count) {
            memory.counts.set(uid, count);
        }
    }
    Ok(())
}

/// When the first record of a file was taken.
pub(super) fn first_taken_ns(connection: &Connection) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .query_row("SELECT taken_ns FROM record ORDER BY position LIMIT 1", [], |row| row.get(0))
        .optional()
}

pub(super) fn write_checkpoint(
    connection: &Connection,
    shard: &str,
    checkpoint: &Checkpoint,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO checkpoint VALUES (?1, ?2, ?3)")?.execute(params![
        shard,
        signed(checkpoint.epoch),
        checkpoint.resource_version
    ])?;
    Ok(())
}

pub(super) fn write_watermark(
    connection: &Connection,
    namespace: &str,
    version: &str,
    raised_ns: i64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO watermark VALUES (?1, ?2, ?3)")?
        .execute(params![namespace, version, raised_ns])?;
    Ok(())
}

pub(super) fn write_recurrence(
    connection: &Connection,
    uid: &str,
    count: u64,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO recurrence VALUES (?1, ?2, ?3)")?.execute(params![
        uid,
        signed(count),
        now_ns
    ])?;
    Ok(())
}

pub(super) fn last_count(connection: &Connection, uid: &str) -> Result<Option<u64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT count FROM recurrence WHERE uid = ?1")?;
    Ok(statement.query_row([uid], |row| row.get(0)).optional()?.map(unsigned))
}

pub(super) fn contains_event(
    connection: &Connection,
    uid: &str,
    version: &str,
) -> Result<bool, rusqlite::Error> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM record WHERE kind = 'event' AND resource_version = ?1 AND uid = ?2")?;
    statement.exists(params![Version(version), uid])
}

pub(super) fn contains_death(connection: &Connection, death: &DeathKey<'_>) -> Result<bool, rusqlite::Error> {
    let DeathKey { pod_uid, container, container_id, ordinal } = death;
    if container_id.is_empty() {
        let mut statement = connection.prepare_cached(
            "SELECT 1 FROM record WHERE kind = 'death' AND uid = ?1 AND container = ?2 AND ordinal = ?3",
        )?;
        return statement.exists(params![pod_uid, container, ordinal]);
    }
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM record WHERE kind = 'death' AND uid = ?1 AND container = ?2 AND container_id = ?3
         UNION ALL
         SELECT 1 FROM record WHERE kind = 'death' AND uid = ?1 AND container = ?2 AND container_id = '' AND ordinal = ?4",
    )?;
    statement.exists(params![pod_uid, container, container_id, ordinal])
}

/// Whether a file can hold a version at all, going by the ends of its index: spares most look-ups in earlier files.
pub(super) fn version_range(connection: &Connection) -> Result<Option<(Value, Value)>, rusqlite::Error> {
    let end = |order: &str| {
        let sql = format!(
            "SELECT resource_version FROM record WHERE kind = 'event' ORDER BY resource_version {order} LIMIT 1"
        );
        connection.query_row(&sql, [], |row| row.get::<_, Value>(0)).optional()
    };
    Ok(end("ASC")?.zip(end("DESC")?))
}

/// Entries after a position, until there are `limit` or so many bytes of bodies; but one at least where there is one. Answers
/// with the positions of rows that are no entries, which are left out.
pub(super) fn read(
    connection: &Connection,
    after: u64,
    limit: usize,
    bytes: &mut usize,
    entries: &mut Vec<Entry>,
) -> Result<Vec<Position>, rusqlite::Error> {
    let mut malformed = Vec::new();
    // Without a limit, so that a reader comes past any number of rows that are left out.
    let mut statement = connection.prepare_cached(
        "SELECT position, taken_ns, kind, body, facts, occurrences FROM record WHERE position > ?1 ORDER BY position",
    )?;
    let mut rows = statement.query(params![signed(after)])?;
    while entries.len() < limit
        && let Some(row) = rows.next()?
    {
        let size = row.get_ref(3)?.as_bytes().map_or(0, <[u8]>::len);
        if size > *bytes && !entries.is_empty() {
            *bytes = 0;
            break;
        }
        match entry(row) {
            Ok(entry) => {
                *bytes = bytes.saturating_sub(size);
                entries.push(entry);
            }
            Err(error @ rusqlite::Error::SqliteFailure(..)) => return Err(error),
            Err(_) => malformed.push(Position(unsigned(row.get(0)?))),
        }
    }
    Ok(malformed)
}

fn entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    let malformed = |column: usize| {
        move |error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        }
    };
    let body = row.get_ref(3)?.as_bytes()?;
    let (body, object) = if row.get_ref(2)?.as_str()? == "death" {
        let death: ContainerDied = serde_json::from_slice(body).map_err(malformed(3))?;
        let object = death.object();
        (Body::Death(Box::new(death)), Some(object))
    } else {
        let facts = match row.get_ref(4)? {
            ValueRef::Null => None,
            facts => Some(serde_json::from_slice::<Object>(facts.as_bytes()?).map_err(malformed(4))?),
        };
        (Body::Event(Bytes::copy_from_slice(body)), facts)
    };
    Ok(Entry {
        position: Position(unsigned(row.get(0)?)),
        taken_ns: row.get(1)?,
        body,
        object,
        occurrences: unsigned(row.get(5)?),
    })
}

// === impl Insert ===

impl<'a> Insert<'a> {
    pub(super) fn prepare(connection: &'a Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self(connection.prepare_cached(INSERT)?))
    }

    pub(super) fn event(
        &mut self,
        position: u64,
        taken_ns: i64,
        event: &EventSeen,
        occurrences: u64,
        facts: Option<&str>,
    ) -> Result<(), rusqlite::Error> {
        self.0.execute(params![
            signed(position),
            "event",
            taken_ns,
            event.time_ns,
            event.namespace,
            event.kind,
            event.object,
            event.reason,
            event.r#type,
            event.node,
            event.uid,
            Version(&event.resource_version),
            signed(event.count),
            signed(occurrences),
            None::<&str>,
            None::<&str>,
            None::<u32>,
            None::<i32>,
            Json(&event.raw),
            facts,
        ])?;
        Ok(())
    }

    pub(super) fn death(
        &mut self,
        position: u64,
        taken_ns: i64,
        death: &ContainerDied,
    ) -> Result<(), rusqlite::Error> {
        let key = DeathKey::of(death);
        let json = serde_json::to_vec(death)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.0.execute(params![
            signed(position),
            "death",
            taken_ns,
            if death.finished_ns > 0 { death.finished_ns } else { death.seen_ns },
            death.namespace,
            "Pod",
            death.pod,
            if death.is_oom_kill() { "ContainerOOMKilled" } else { "ContainerDied" },
            if death.exit_code == Some(0) { "Normal" } else { "Warning" },
            death.node,
            death.pod_uid,
            None::<&str>,
            1,
            1,
            key.container,
            key.container_id,
            key.ordinal,
            death.exit_code,
            Json(&json),
            None::<&str>,
        ])?;
        Ok(())
    }
}

// === impl Version ===

impl Version<'_> {
    pub(super) fn number(&self) -> Option<i64> {
        let is_decimal = !self.0.starts_with('0') && self.0.bytes().all(|byte| byte.is_ascii_digit());
        self.0.parse().ok().filter(|_| is_decimal)
    }
}

impl ToSql for Version<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.number() {
            Some(number) => number.into(),
            None => self.0.into(),
        })
    }
}

impl ToSql for Json<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// SQLite's integers have a sign. Positions never come near 2^63; a count that does is as good as the largest.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
