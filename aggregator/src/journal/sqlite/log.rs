//! The log in a file: blocks, written at its end and read in order.

use rusqlite::{Connection, OptionalExtension, params};

use super::block::{Malformed, Objects, Packed, Stored, Unpacker};
use super::day::{signed, unsigned};
use crate::journal::{Entry, Position};

/// Records that cannot be read: a position, and how many from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) first: u64,
    pub(super) records: u64,
}

/// What stands beside a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) records: u64,
    pub(super) bytes: usize,
}

/// Writes a block.
pub(super) fn insert(connection: &Connection, block: &Packed) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT INTO block VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        signed(block.first),
        signed(block.records as u64),
        signed(block.bytes as u64),
        block.body
    ])?;
    Ok(())
}

/// Removes the blocks that begin within positions.
pub(super) fn remove(connection: &Connection, first: u64, last: u64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("DELETE FROM block WHERE first BETWEEN ?1 AND ?2")?
        .execute(params![signed(first), signed(last)])?;
    Ok(())
}

/// The last position in a file; `None`: it has no records.
pub(super) fn last(connection: &Connection) -> Result<Option<u64>, rusqlite::Error> {
    let last: Option<i64> = connection
        .query_row("SELECT first + records - 1 FROM block ORDER BY first DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(last.map(unsigned))
}

/// How many records a file has after a position.
pub(super) fn records_after(connection: &Connection, after: u64) -> Result<u64, rusqlite::Error> {
    let records: i64 = connection.query_row(
        "SELECT coalesce(sum(min(records, first + records - 1 - ?1)), 0) FROM block WHERE first + records - 1 > ?1",
        [signed(after)],
        |row| row.get(0),
    )?;
    Ok(unsigned(records))
}

/// Hands over the blocks that hold what follows a position, in order, until told to stop.
pub(super) fn blocks(
    connection: &Connection,
    after: u64,
    mut take: impl FnMut(Head, &[u8]) -> bool,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT first, records, bytes, body FROM block
         WHERE first >= coalesce((SELECT first FROM block WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0)
         ORDER BY first",
    )?;
    let mut rows = statement.query([signed(after.saturating_add(1))])?;
    while let Some(row) = rows.next()? {
        let head = Head {
            first: unsigned(row.get(0)?),
            records: unsigned(row.get(1)?),
            bytes: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        };
        if head.first.saturating_add(head.records) <= after.saturating_add(1) {
            continue;
        }
        if !take(head, row.get_ref(3)?.as_blob()?) {
            break;
        }
    }
    Ok(())
}

/// The heads of the blocks that hold what follows a position, in order, at most so many. Their bodies are not read.
pub(super) fn heads(connection: &Connection, after: u64, limit: usize) -> Result<Vec<Head>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT first, records, bytes FROM block
         WHERE first >= coalesce((SELECT first FROM block WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0)
         ORDER BY first LIMIT ?2",
    )?;
    let next = after.saturating_add(1);
    // One more: the first may end before.
    let rows = statement.query_map([signed(next), signed(limit as u64 + 1)], |row| {
        Ok(Head {
            first: unsigned(row.get(0)?),
            records: unsigned(row.get(1)?),
            bytes: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
        })
    })?;
    rows.filter(|head| head.as_ref().map_or(true, |head| head.first.saturating_add(head.records) > next))
        .take(limit)
        .collect()
}

/// The body of the block that begins at a position, and is listed.
pub(super) fn body(connection: &Connection, first: u64) -> Result<Vec<u8>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT body FROM block WHERE first = ?1")?
        .query_row([signed(first)], |row| Ok(row.get_ref(0)?.as_blob()?.to_vec()))
        .optional()?
        .ok_or_else(|| not_found(first))
}

/// What is known to be in a file is not found in it: it may be damaged where SQLite does not notice.
pub(super) fn not_found(position: u64) -> rusqlite::Error {
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(corrupt, Some(format!("the record at {position} is not found")))
}

/// Entries after a position, until there are `limit` or so many bytes of bodies; but one at least where there is one. Answers
/// with what cannot be read, which is left out.
pub(super) fn read(
    connection: &Connection,
    (unpacker, objects): (&mut Unpacker, &mut Objects),
    after: u64,
    limit: usize,
    bytes: &mut usize,
    entries: &mut Vec<Entry>,
) -> Result<Vec<LeftOut>, rusqlite::Error> {
    let mut left_out = Vec::new();
    if entries.len() >= limit {
        return Ok(left_out);
    }
    blocks(connection, after, |head, packed| {
        let records = match unpack(unpacker, head, packed) {
            Ok(records) => records,
            Err(Malformed) => {
                left_out.push(LeftOut { first: head.first, records: head.records });
                return true;
            }
        };
        for stored in records.iter().filter(|stored| stored.position > after) {
            if entries.len() >= limit {
                return false;
            }
            if stored.body.len() > *bytes && !entries.is_empty() {
                *bytes = 0;
                return false;
            }
            match stored.entry_among(objects) {
                Ok(entry) => {
                    *bytes = bytes.saturating_sub(stored.body.len());
                    entries.push(entry);
                }
                Err(Malformed) => left_out.push(LeftOut { first: stored.position, records: 1 }),
            }
        }
        entries.len() < limit
    })?;
    Ok(left_out)
}

/// The records of a block, which must be as many as stand beside it.
pub(super) fn unpack<'a>(
    unpacker: &'a mut Unpacker,
    head: Head,
    packed: &[u8],
) -> Result<Vec<Stored<'a>>, Malformed> {
    let records = unpacker.records(head.first, packed, head.bytes)?;
    if records.len() as u64 == head.records { Ok(records) } else { Err(Malformed) }
}

/// When the first or the last record of a file was taken.
pub(super) fn taken_ns(connection: &Connection, last: bool) -> Result<Option<i64>, rusqlite::Error> {
    let Some(unpacked) = Unpacker::new().ok() else { return Ok(None) };
    let mut unpacker = unpacked;
    let order = if last { "DESC" } else { "ASC" };
    let mut statement = connection
        .prepare(&format!("SELECT first, records, bytes, body FROM block ORDER BY first {order} LIMIT 16"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let bytes = usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0);
        let Ok(records) = unpacker.records(unsigned(row.get(0)?), row.get_ref(3)?.as_blob()?, bytes) else {
            continue;
        };
        let record = if last { records.last() } else { records.first() };
        if let Some(record) = record {
            return Ok(Some(record.taken_ns));
        }
    }
    Ok(None)
}

impl LeftOut {
    pub(super) fn position(&self) -> Position {
        Position(self.first)
    }
}
