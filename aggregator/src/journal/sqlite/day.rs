//! One file of the journal: its tables, and how it is opened and begun.
//!
//! Read with the `sqlite3` shell: `death` (every death), `checkpoint`, `watermark`, `ledger_base` (whose ledger is
//! remembered), `segment` (what is indexed, from when to when). `block` holds the records compressed; `nodetap-aggregator journal
//! export` prints them. Times are nanoseconds since 1970. Why it is laid out so: `docs/decisions.md`.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::memory::Memory;
use super::{Synchronous, ledgers, log, state};

/// Goes up when a table changes in a way that an older version cannot read.
const SCHEMA_VERSION: i64 = 5;

/// Small, because a block's last page is half empty.
const PAGE_BYTES: u64 = 4_096;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE block (
    first INTEGER PRIMARY KEY,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE death (
    position INTEGER PRIMARY KEY,
    taken_ns INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    pod TEXT NOT NULL,
    uid TEXT NOT NULL,
    node TEXT NOT NULL,
    container TEXT NOT NULL,
    container_id TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    exit_code INTEGER,
    reason TEXT NOT NULL
);
CREATE INDEX death_container ON death (uid, container);
CREATE TABLE opaque_version (
    uid TEXT NOT NULL,
    resource_version TEXT NOT NULL,
    PRIMARY KEY (uid, resource_version)
) WITHOUT ROWID;
CREATE TABLE checkpoint (
    shard TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    resource_version TEXT NOT NULL,
    digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE watermark (
    namespace TEXT PRIMARY KEY,
    resource_version TEXT NOT NULL,
    raised_ns INTEGER NOT NULL,
    digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE recurrence (uid INTEGER PRIMARY KEY, count INTEGER NOT NULL, seen_ns INTEGER NOT NULL);
CREATE TABLE recurrence_run (id INTEGER PRIMARY KEY, seen_ns INTEGER NOT NULL, counts BLOB NOT NULL);
CREATE TABLE segment (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    min_ns INTEGER NOT NULL,
    max_ns INTEGER NOT NULL,
    min_version INTEGER NOT NULL,
    max_version INTEGER NOT NULL,
    terms INTEGER NOT NULL,
    digest INTEGER NOT NULL
);
CREATE TABLE chunk (
    first INTEGER PRIMARY KEY,
    min_ns INTEGER NOT NULL,
    max_ns INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    times BLOB NOT NULL
);
CREATE TABLE term (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    first BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    terms BLOB NOT NULL
);
CREATE INDEX term_first ON term (segment, first);
CREATE TABLE version (
    id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    first INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    versions BLOB NOT NULL
);
CREATE INDEX version_first ON version (segment, first);
";

/// What a file says of the positions in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first position that it was made for.
    pub(super) first: u64,
    /// The last one that it holds; one below `first` where it holds none.
    pub(super) last: u64,
}

/// Opens a file to write to it, and makes it where it is not there. `log_bytes`: how large its log may grow.
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
    connection.pragma_update(None, "cache_size", -6_144)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Whether the tables are there; `false` of a file that was never finished.
pub(super) fn is_initialised(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let tables: i64 =
        connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'", [], |row| row.get(0))?;
    Ok(tables > 0)
}

/// Of a file that others followed, and that is empty now.
pub(super) fn cut_off() -> rusqlite::Error {
    let message = "it has no tables, although newer files were begun after it".to_owned();
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB), Some(message))
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
    ledgers::make_tables(&transaction)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.execute(
        "INSERT INTO meta VALUES ('schema', ?1), ('first_position', ?2)",
        params![SCHEMA_VERSION, signed(memory.head + 1)],
    )?;
    state::write_all(&transaction, memory, has_before, now_ns)?;
    transaction.commit()
}

/// Takes out what stands behind the head, and puts the state that is remembered in the place of what came with it.
pub(super) fn take_back(
    connection: &mut Connection,
    memory: &Memory,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    let head = [signed(memory.head)];
    transaction.execute("DELETE FROM block WHERE first > ?1", head)?;
    transaction.execute("DELETE FROM death WHERE position > ?1", head)?;
    transaction
        .execute_batch("DELETE FROM checkpoint; DELETE FROM watermark; DELETE FROM opaque_version;")?;
    // It may call reported what was just taken out: what is remembered of no agent is told by it again.
    ledgers::clear(&transaction)?;
    state::write_all(&transaction, memory, false, now_ns)?;
    transaction.commit()
}

/// Which positions the file holds.
pub(super) fn extent(connection: &Connection) -> Result<Extent, rusqlite::Error> {
    let schema: i64 =
        connection.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |row| row.get(0))?;
    let refuse = |code, message: String| {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(message))
    };
    // It stands in two places, as one flipped bit of it must not make a damaged file one that nobody may open.
    let head: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema != head && schema != SCHEMA_VERSION {
        let message =
            format!("it says of its tables that they are of version {schema}, and at its head {head}");
        return Err(refuse(rusqlite::ffi::SQLITE_NOTADB, message));
    }
    if schema > SCHEMA_VERSION {
        let message = format!("written by a newer version (its tables are of version {schema})");
        return Err(refuse(rusqlite::ffi::SQLITE_MISMATCH, message));
    }
    if schema < SCHEMA_VERSION {
        // No release has written them.
        let message = format!(
            "its tables are of version {schema}, which came before the first release and is not read; `sqlite3` reads it"
        );
        return Err(refuse(rusqlite::ffi::SQLITE_NOTADB, message));
    }
    let first: i64 =
        connection.query_row("SELECT value FROM meta WHERE key = 'first_position'", [], |row| row.get(0))?;
    let first = unsigned(first);
    Ok(Extent { first, last: log::last(connection)?.unwrap_or(first.saturating_sub(1)) })
}

/// SQLite's integers have a sign. Positions never come near 2^63; a count that does is as good as the largest.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
