//! The counts of Events that happened more than once, on their way into the table of their file.
//!
//! Uids have no order in time: the counts of a segment, put into the table at once, change a page each, all over it, and a file of
//! millions of records wrote several times as much for them as for its records. So they are written as one row first, a run
//! (`recurrence_run`), and each segment moves those of one sixteenth of all uids, of the last sixteen runs, into the table
//! (`recurrence`), where they lie side by side. Until then they are known from memory, and after a restart from the runs.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::day::{signed, unsigned};
use super::{state, varint};

/// Parts of all uids, by their first bits, and so runs that wait: more of them cost memory, fewer cost pages.
const SLICES: usize = 16;

/// What is not in the table yet: about 2 MB where a quarter of all records happen again.
#[derive(Debug, Default)]
pub(super) struct Recurrences {
    /// By slice, and by the hash of the uid.
    waiting: [BTreeMap<u64, Waiting>; SLICES],
    /// Number of the last run; 0: there was none.
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    count: u64,
    /// In nanoseconds since 1970.
    seen_ns: i64,
}

// === impl Recurrences ===

impl Recurrences {
    /// What a file's runs say that its table does not.
    pub(super) fn load(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let last: Option<i64> =
            connection.query_row("SELECT max(id) FROM recurrence_run", [], |row| row.get(0))?;
        let mut loaded = Self { last: last.map_or(0, unsigned), ..Self::default() };
        let mut statement =
            connection.prepare("SELECT id, seen_ns, counts FROM recurrence_run ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (run, seen_ns) = (unsigned(row.get(0)?), row.get(1)?);
            let known = each(row.get_ref(2)?.as_blob()?, |uid, count| {
                if !is_moved(slice_of(uid), run, loaded.last) {
                    loaded.raise(uid, Waiting { count, seen_ns });
                }
            });
            if known.is_none() {
                tracing::warn!(run, "counts of Events cannot be read, some that go on are counted anew once");
            }
        }
        Ok(loaded)
    }

    /// The count of an Event by the hash of its uid, where it waits. The table may have a higher one.
    pub(super) fn get(&self, uid: u64) -> Option<u64> {
        let waiting = self.waiting.get(slice_of(uid))?;
        waiting.get(&uid).map(|waiting| waiting.count)
    }

    /// Writes the counts of a segment as a run, and moves one slice of those that wait, within a transaction. Once that is committed,
    /// [`written`](Self::written) is to be told.
    pub(super) fn write(
        &self,
        connection: &Connection,
        counts: &[(u64, u64)],
        now_ns: i64,
    ) -> Result<(), rusqlite::Error> {
        let run = self.last + 1;
        connection.prepare_cached("INSERT INTO recurrence_run VALUES (?1, ?2, ?3)")?.execute(params![
            signed(run),
            now_ns,
            encode(counts)
        ])?;
        // All slices of it were moved with the runs since.
        connection
            .prepare_cached("DELETE FROM recurrence_run WHERE id <= ?1")?
            .execute([signed((run + 1).saturating_sub(SLICES as u64))])?;
        for (uid, Waiting { count, seen_ns }) in self.waiting.get(moves(run)).into_iter().flatten() {
            state::write_recurrence(connection, *uid, *count, *seen_ns)?;
        }
        for (uid, count) in counts.iter().filter(|(uid, _)| slice_of(*uid) == moves(run)) {
            state::write_recurrence(connection, *uid, *count, now_ns)?;
        }
        Ok(())
    }

    /// What [`write`](Self::write) wrote is committed.
    pub(super) fn written(&mut self, counts: &[(u64, u64)], now_ns: i64) {
        self.last += 1;
        let moved = moves(self.last);
        if let Some(waiting) = self.waiting.get_mut(moved) {
            waiting.clear();
        }
        for (uid, count) in counts.iter().filter(|(uid, _)| slice_of(*uid) != moved) {
            self.raise(*uid, Waiting { count: *count, seen_ns: now_ns });
        }
    }

    fn raise(&mut self, uid: u64, seen: Waiting) {
        let Some(waiting) = self.waiting.get_mut(slice_of(uid)) else { return };
        let known = waiting.entry(uid).or_insert(seen);
        known.count = known.count.max(seen.count);
        known.seen_ns = known.seen_ns.max(seen.seen_ns);
    }
}

/// Which slice is moved with a run.
fn moves(run: u64) -> usize {
    (run % SLICES as u64) as usize
}

/// Whether a slice of a run is in the table when another run is the last: it was moved with one of them.
fn is_moved(slice: usize, run: u64, last: u64) -> bool {
    (run..=last).rev().take(SLICES).any(|later| moves(later) == slice)
}

/// The table is in the order of signed numbers: what has the same first bits lies side by side there too.
fn slice_of(uid: u64) -> usize {
    (uid >> (u64::BITS - SLICES.trailing_zeros())) as usize
}

fn encode(counts: &[(u64, u64)]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(counts.len() * 9);
    for (uid, count) in counts {
        raw.extend_from_slice(&uid.to_le_bytes());
        varint::put(&mut raw, *count);
    }
    raw
}

/// Tells the counts of a run; `None` where the rest of it is none.
fn each(mut raw: &[u8], mut tell: impl FnMut(u64, u64)) -> Option<()> {
    while !raw.is_empty() {
        let (uid, rest) = raw.split_first_chunk()?;
        raw = rest;
        tell(u64::from_le_bytes(*uid), varint::take(&mut raw)?);
    }
    Some(())
}

#[cfg(test)]
mod tests;
