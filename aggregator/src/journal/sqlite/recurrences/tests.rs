#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;
use crate::journal::sqlite::memory::Memory;
use crate::journal::sqlite::{Synchronous, day};

const HOUR_NS: i64 = 3_600 * 1_000_000_000;

/// A file without records.
fn file(folder: &std::path::Path) -> Connection {
    let path = folder.join("journal-2026-07-01.sqlite");
    let mut connection = day::open_to_write(&path, Synchronous::Normal, 1 << 20).unwrap();
    day::initialise(&mut connection, &Memory::default(), None, 0).unwrap();
    connection
}

fn store(recurrences: &mut Recurrences, connection: &mut Connection, counts: &[(u64, u64)], now_ns: i64) {
    let transaction = connection.transaction().unwrap();
    recurrences.write(&transaction, counts, now_ns).unwrap();
    transaction.commit().unwrap();
    recurrences.written(counts, now_ns);
}

/// What merging asks.
fn count(recurrences: &Recurrences, connection: &Connection, uid: u64) -> Option<u64> {
    recurrences.get(uid).max(state::last_count(connection, uid).unwrap())
}

fn number(connection: &Connection, table: &str) -> u64 {
    connection
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        .map(unsigned)
        .unwrap()
}

/// Uids all over, of which every third comes again with every segment.
fn segment(number: u64) -> Vec<(u64, u64)> {
    let uid = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut counts: Vec<_> = (0..300)
        .map(|index| match index % 3 {
            0 => (uid(index), 2 + number),
            _ => (uid(1_000 * (1 + number) + index), 2),
        })
        .collect();
    counts.sort_unstable_by_key(|(uid, _)| uid.cast_signed());
    counts
}

#[test]
fn every_count_is_known_after_each_segment_and_each_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = file(folder.path());
    let mut recurrences = Recurrences::default();
    let mut expected = HashMap::new();
    for round in 0..50 {
        let counts = segment(round);
        store(&mut recurrences, &mut connection, &counts, HOUR_NS);
        expected.extend(counts);
        let loaded = Recurrences::load(&connection).unwrap();
        assert_eq!((loaded.last, &loaded.waiting), (recurrences.last, &recurrences.waiting), "round {round}");
        for (uid, known) in &expected {
            assert_eq!(count(&loaded, &connection, *uid), Some(*known), "round {round}");
        }
        if round % 7 == 0 {
            recurrences = loaded;
        }
    }
    assert_eq!(count(&recurrences, &connection, 1), None);
}

#[test]
fn what_waits_is_bounded_and_what_was_moved_is_in_the_table_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = file(folder.path());
    let mut recurrences = Recurrences::default();
    let slices = SLICES as u64;
    for round in 0..3 * slices {
        store(&mut recurrences, &mut connection, &segment(round), HOUR_NS);
    }
    assert_eq!(number(&connection, "recurrence_run"), slices - 1);
    let waiting: usize = recurrences.waiting.iter().map(BTreeMap::len).sum();
    assert!(waiting <= 300 * SLICES / 2, "{waiting}");
    for _ in 0..slices {
        store(&mut recurrences, &mut connection, &[], HOUR_NS);
    }
    assert!(recurrences.waiting.iter().all(BTreeMap::is_empty));
    assert_eq!(number(&connection, "recurrence"), 100 + 200 * 3 * slices);
}

#[test]
fn a_count_never_falls_and_an_older_one_is_seen_as_late_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = file(folder.path());
    let mut recurrences = Recurrences::default();
    store(&mut recurrences, &mut connection, &[(7, 10)], HOUR_NS);
    store(&mut recurrences, &mut connection, &[(7, 3)], 2 * HOUR_NS);
    assert_eq!(count(&recurrences, &connection, 7), Some(10));
    for _ in 0..SLICES {
        store(&mut recurrences, &mut connection, &[], 3 * HOUR_NS);
    }
    assert_eq!((recurrences.get(7), count(&recurrences, &connection, 7)), (None, Some(10)));
    let seen_ns: i64 =
        connection.query_row("SELECT seen_ns FROM recurrence WHERE uid = 7", [], |row| row.get(0)).unwrap();
    assert_eq!(seen_ns, 2 * HOUR_NS);
}

#[test]
fn a_run_that_is_cut_off_costs_what_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = file(folder.path());
    store(&mut Recurrences::default(), &mut connection, &[(2 << 60, 10), (3 << 60, 20)], HOUR_NS);
    connection
        .execute("UPDATE recurrence_run SET counts = substr(counts, 1, length(counts) - 1)", [])
        .unwrap();
    let loaded = Recurrences::load(&connection).unwrap();
    assert_eq!((loaded.get(2 << 60), loaded.get(3 << 60)), (Some(10), None));
}

#[test]
fn counts_that_wait_are_known_in_the_file_that_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = file(folder.path());
    store(&mut Recurrences::default(), &mut connection, &[(2 << 60, 10)], HOUR_NS);
    let mut next =
        day::open_to_write(&folder.path().join("next.sqlite"), Synchronous::Normal, 1 << 20).unwrap();
    let before = folder.path().join("journal-2026-07-01.sqlite");
    day::initialise(&mut next, &Memory::default(), Some(&before), 2 * HOUR_NS).unwrap();
    assert_eq!(Recurrences::load(&next).unwrap().get(2 << 60), Some(10));
}
