//! What is remembered of the agents' ledgers of deaths, so that an agent that starts without its own goes on from there.
//!
//! In the newest file, in the transaction of the records that it covers: a death is in the journal and in the ledger, or in
//! neither. Of each node a base is kept beside it: whose entries they are, and up to which batch. What does not follow on the base
//! is not taken, since it would be a part taken for the whole.

use foldhash::HashMap;
use nodetap_wire::LedgerEntry;
use nodetap_wire::ledger::{MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_NODE_BYTES, MAX_UID_BYTES};
use rusqlite::{Connection, OptionalExtension, params};

use super::day::{signed, unsigned};
use crate::journal::{LedgerChanges, LedgerKept, RememberedLedger};

/// How long a node's ledger is carried into new files after it was told of last; an agent tells of it each hour. What ran on a
/// node that was away for so long runs elsewhere.
pub(super) const KEPT_NS: i64 = 2 * 86_400 * 1_000_000_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS ledger (
    node TEXT NOT NULL,
    uid TEXT NOT NULL,
    version INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (node, uid)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_base (
    node TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    partial INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Whose the entries of a node are, and how much they take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base {
    instance: String,
    /// The last batch that changed them.
    sequence: u64,
    /// When that was, in nanoseconds since 1970.
    seen_ns: i64,
    entries: usize,
    /// Of their states.
    bytes: usize,
    /// Some found no room.
    partial: bool,
}

/// The bases of all nodes. Entries without one are of no use, and go with the next file.
#[derive(Debug, Default)]
pub(super) struct Bases {
    of: HashMap<String, Base>,
    bytes: usize,
}

// === impl Bases ===

impl Bases {
    pub(super) fn get(&self, node: &str) -> Option<&Base> {
        self.of.get(node)
    }

    /// Takes over what has become durable; `None`: nothing is remembered any longer.
    pub(super) fn set(&mut self, node: String, base: Option<Base>) {
        let added = base.as_ref().map_or(0, |base| base.bytes);
        let before = match base {
            Some(base) => self.of.insert(node, base),
            None => self.of.remove(&node),
        };
        self.bytes = (self.bytes + added).saturating_sub(before.map_or(0, |before| before.bytes));
    }

    /// Nothing that stands in a file holds any longer.
    pub(super) fn clear(&mut self) {
        self.of.clear();
        self.bytes = 0;
    }

    /// Forgets those that were not told of since a time.
    pub(super) fn forget(&mut self, before_ns: i64) {
        self.of.retain(|_, base| base.seen_ns >= before_ns);
        self.bytes = self.of.values().map(|base| base.bytes).sum();
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.of.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Of the states of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Makes the tables where a file of an older version has none.
pub(super) fn make_tables(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(TABLES)
}

/// Sees to it that a file that is written on has the tables, and nothing in them that no base stands for: that is of before something
/// was lost. Writes nothing where there is nothing to do, for the sake of a disk that is full.
pub(super) fn prepare(connection: &Connection, bases: &Bases) -> Result<(), rusqlite::Error> {
    if !are_there(connection, "main")? {
        return make_tables(connection);
    }
    let is_left = |table: &str| {
        let query = format!("SELECT EXISTS (SELECT 1 FROM {table})");
        connection.query_row(&query, [], |row| row.get::<_, bool>(0))
    };
    if bases.len() == 0 && (is_left("ledger")? || is_left("ledger_base")?) {
        return clear(connection);
    }
    Ok(())
}

/// Forgets all that a file has.
pub(super) fn clear(connection: &Connection) -> Result<(), rusqlite::Error> {
    make_tables(connection)?;
    connection.execute_batch("DELETE FROM ledger; DELETE FROM ledger_base;")
}

/// Reads the bases.
pub(super) fn read(connection: &Connection, bases: &mut Bases) -> Result<(), rusqlite::Error> {
    bases.clear();
    if !are_there(connection, "main")? {
        return Ok(());
    }
    let mut statement = connection
        .prepare("SELECT node, instance, sequence, seen_ns, entries, bytes, partial FROM ledger_base")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let base = Base {
            instance: row.get(1)?,
            sequence: unsigned(row.get(2)?),
            seen_ns: row.get(3)?,
            entries: size(row.get(4)?),
            bytes: size(row.get(5)?),
            partial: row.get(6)?,
        };
        bases.set(row.get(0)?, Some(base));
    }
    Ok(())
}

/// Carries what holds from the file before, attached as `before`, into one that begins.
pub(super) fn carry(connection: &Connection, bases: &Bases) -> Result<(), rusqlite::Error> {
    if !are_there(connection, "before")? {
        return Ok(());
    }
    for (node, base) in &bases.of {
        write_base(connection, node, base)?;
    }
    connection.execute(
        "INSERT INTO ledger SELECT * FROM before.ledger WHERE node IN (SELECT node FROM main.ledger_base)",
        [],
    )?;
    Ok(())
}

/// What is remembered of a node.
pub(super) fn recall(
    connection: &Connection,
    bases: &Bases,
    node: &str,
) -> Result<RememberedLedger, rusqlite::Error> {
    let Some(base) = bases.get(node) else { return Ok(RememberedLedger::default()) };
    let mut statement =
        connection.prepare_cached("SELECT uid, version, state FROM ledger WHERE node = ?1")?;
    let entries = statement.query_map([node], |row| {
        let state = row.get_ref(2)?.as_blob()?;
        Ok(LedgerEntry {
            pod_uid: row.get(0)?,
            version: row.get(1)?,
            state: bytes::Bytes::copy_from_slice(state),
        })
    })?;
    Ok(RememberedLedger { entries: entries.collect::<Result<_, _>>()?, partial: base.partial })
}

/// Writes what a batch changes, on the base that there is. Answers with the base that there is then.
pub(super) fn write(
    connection: &Connection,
    base: Option<&Base>,
    node: &str,
    changes: &LedgerChanges,
    now_ns: i64,
) -> Result<(Option<Base>, LedgerKept), rusqlite::Error> {
    let LedgerChanges { instance, sequence, first, entries } = changes;
    let mut kept = LedgerKept::default();
    let own = base.filter(|base| base.instance == *instance);
    if own.is_some_and(|base| *sequence <= base.sequence) {
        return Ok((base.cloned(), kept));
    }
    let mut base = match own {
        _ if *first => {
            connection.prepare_cached("DELETE FROM ledger WHERE node = ?1")?.execute([node])?;
            Base { instance: instance.clone(), ..Base::default() }
        }
        Some(own) => own.clone(),
        None => {
            kept.without_base = true;
            return Ok((base.cloned(), kept));
        }
    };
    if *first && entries.is_empty() {
        connection.prepare_cached("DELETE FROM ledger_base WHERE node = ?1")?.execute([node])?;
        return Ok((None, kept));
    }
    for entry in entries {
        kept.refused += usize::from(!write_entry(connection, &mut base, node, entry)?);
    }
    base.sequence = *sequence;
    base.seen_ns = now_ns;
    base.partial |= kept.refused > 0;
    write_base(connection, node, &base)?;
    Ok((Some(base), kept))
}

/// Whether there was room for it. What there was before goes in any case: it is older than what was told with this one.
fn write_entry(
    connection: &Connection,
    base: &mut Base,
    node: &str,
    entry: &LedgerEntry,
) -> Result<bool, rusqlite::Error> {
    let LedgerEntry { pod_uid, version, state } = entry;
    let before = connection
        .prepare_cached("SELECT length(state) FROM ledger WHERE node = ?1 AND uid = ?2")?
        .query_row([node, pod_uid], |row| row.get(0))
        .optional()?
        .map(size);
    base.entries = base.entries.saturating_sub(usize::from(before.is_some()));
    base.bytes = base.bytes.saturating_sub(before.unwrap_or(0));
    let fits = state.len() <= MAX_ENTRY_BYTES && pod_uid.len() <= MAX_UID_BYTES;
    let has_room = fits && base.entries < MAX_ENTRIES && base.bytes + state.len() <= MAX_NODE_BYTES;
    if state.is_empty() || !has_room {
        if before.is_some() {
            let delete = "DELETE FROM ledger WHERE node = ?1 AND uid = ?2";
            connection.prepare_cached(delete)?.execute([node, pod_uid])?;
        }
        return Ok(state.is_empty());
    }
    let insert = "INSERT OR REPLACE INTO ledger VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(insert)?.execute(params![node, pod_uid, version, state.as_ref()])?;
    base.entries += 1;
    base.bytes += state.len();
    Ok(true)
}

fn write_base(connection: &Connection, node: &str, base: &Base) -> Result<(), rusqlite::Error> {
    let Base { instance, sequence, seen_ns, partial, .. } = base;
    let (entries, bytes) = (signed(base.entries as u64), signed(base.bytes as u64));
    connection
        .prepare_cached("INSERT OR REPLACE INTO ledger_base VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![node, instance, signed(*sequence), seen_ns, entries, bytes, partial])?;
    Ok(())
}

fn size(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn are_there(connection: &Connection, schema: &str) -> Result<bool, rusqlite::Error> {
    let query = format!("SELECT count(*) FROM {schema}.sqlite_schema WHERE name = 'ledger_base'");
    let tables: i64 = connection.query_row(&query, [], |row| row.get(0))?;
    Ok(tables > 0)
}

#[cfg(test)]
mod tests;
