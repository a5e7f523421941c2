//! The state that goes with the records into a file, and from file to file: checkpoints, watermarks, recurrences, the agents'
//! ledgers, and up to when records were dropped.

use nodetap_wire::{Checkpoint, Shard};
use rusqlite::{Connection, OptionalExtension, params};

use super::day::{signed, unsigned};
use super::memory::Memory;
use super::{hash, ledgers};

/// How long the count of an Event that happened more than once is carried into the next file: an API server keeps an
/// Event for its TTL after its last change, one hour unless configured, and hardly ever above a day.
const RECURRENCE_KEPT_NS: i64 = 2 * 86_400 * 1_000_000_000;

/// How long a namespace's watermark is carried into new files after it was raised, for the same reason: what the API server
/// still has of a namespace is younger.
pub(super) const WATERMARK_KEPT_NS: i64 = RECURRENCE_KEPT_NS;

/// Writes what is remembered into a file that begins, and carries over what the file before has.
pub(super) fn write_all(
    connection: &Connection,
    memory: &Memory,
    has_before: bool,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    for (shard, checkpoint) in &memory.checkpoints {
        write_checkpoint(connection, shard, checkpoint)?;
    }
    for (namespace, version) in &memory.watermarks {
        let raised_ns = memory.raised.get(namespace).copied().unwrap_or(now_ns);
        write_watermark(connection, namespace, version, raised_ns)?;
    }
    if let Some(dropped_ns) = memory.dropped_ns {
        write_dropped(connection, dropped_ns)?;
    }
    if has_before {
        connection.execute(
            "INSERT INTO recurrence SELECT * FROM before.recurrence WHERE seen_ns > ?1",
            [now_ns - RECURRENCE_KEPT_NS],
        )?;
        ledgers::carry(connection, &memory.ledgers)?;
        connection.execute("INSERT INTO recurrence_run SELECT * FROM before.recurrence_run", [])?;
    }
    Ok(())
}

/// Reads the state into memory, but for the head.
pub(super) fn read(connection: &Connection, memory: &mut Memory) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT namespace, resource_version, raised_ns, digest FROM watermark")?;
    let mut rows = statement.query([])?;
    memory.watermarks.clear();
    memory.raised.clear();
    while let Some(row) = rows.next()? {
        let (namespace, version): (String, String) = (row.get(0)?, row.get(1)?);
        let is_whole = row.get::<_, i64>(3)? == hash::row(&[&namespace, &version], row.get(2)?);
        // One that is damaged is taken for so high that all is looked up, for as long as there are new files.
        let (version, raised_ns) =
            if is_whole { (version, row.get(2)?) } else { (i64::MAX.to_string(), i64::MAX) };
        memory.raised.insert(namespace.clone(), raised_ns);
        memory.watermarks.insert(namespace, version);
    }
    let mut statement =
        connection.prepare("SELECT shard, epoch, resource_version, digest FROM checkpoint")?;
    let mut rows = statement.query([])?;
    memory.checkpoints.clear();
    while let Some(row) = rows.next()? {
        // One that a newer version wrote has another share; its watch lists first.
        let name: String = row.get(0)?;
        let Some(shard) = Shard::parse(&name) else { continue };
        let (epoch, mut resource_version): (_, String) = (row.get(1)?, row.get(2)?);
        if row.get::<_, i64>(3)? != hash::row(&[&name, &resource_version], epoch) {
            // It may be beyond what was taken.
            tracing::error!(shard = name, "a checkpoint is not what was written, its watch lists again");
            resource_version.clear();
        }
        let checkpoint = Checkpoint { shard: Some(shard), epoch: unsigned(epoch), resource_version };
        memory.checkpoints.insert(name, checkpoint);
    }
    ledgers::read(connection, &mut memory.ledgers)?;
    memory.dropped_ns = connection
        .query_row("SELECT value FROM meta WHERE key = 'dropped_ns'", [], |row| row.get(0))
        .optional()?;
    Ok(())
}

pub(super) fn write_checkpoint(
    connection: &Connection,
    shard: &str,
    checkpoint: &Checkpoint,
) -> Result<(), rusqlite::Error> {
    let Checkpoint { epoch, resource_version, .. } = checkpoint;
    let epoch = signed(*epoch);
    connection
        .prepare_cached("INSERT OR REPLACE INTO checkpoint VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![shard, epoch, resource_version, hash::row(&[shard, resource_version], epoch)])?;
    Ok(())
}

pub(super) fn forget_checkpoint(connection: &Connection, shard: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("DELETE FROM checkpoint WHERE shard = ?1")?.execute([shard])?;
    Ok(())
}

pub(super) fn write_watermark(
    connection: &Connection,
    namespace: &str,
    version: &str,
    raised_ns: i64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO watermark VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![namespace, version, raised_ns, hash::row(&[namespace, version], raised_ns)])?;
    Ok(())
}

/// Up to when records were dropped by retention.
pub(super) fn write_dropped(connection: &Connection, dropped_ns: i64) -> Result<(), rusqlite::Error> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('dropped_ns', ?1)", [dropped_ns])?;
    Ok(())
}

/// When it was last seen, without a record, that the file can be written to.
pub(super) fn write_proved(connection: &Connection, now_ns: i64) -> Result<(), rusqlite::Error> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('proved_ns', ?1)", [now_ns])?;
    Ok(())
}

/// Notes the count of an Event, by the hash of its uid; a count never falls.
pub(super) fn write_recurrence(
    connection: &Connection,
    uid: u64,
    count: u64,
    now_ns: i64,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO recurrence VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET count = max(count, excluded.count), seen_ns = max(seen_ns, excluded.seen_ns)",
        )?
        .execute(params![uid.cast_signed(), signed(count), now_ns])?;
    Ok(())
}

pub(super) fn last_count(connection: &Connection, uid: u64) -> Result<Option<u64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT count FROM recurrence WHERE uid = ?1")?;
    Ok(statement.query_row([uid.cast_signed()], |row| row.get(0)).optional()?.map(unsigned))
}
