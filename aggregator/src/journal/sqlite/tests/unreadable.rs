//! Questions whose answers lie in blocks that were damaged after they were indexed.

use super::*;
use crate::history::History;
use crate::history::query::{Filter, Search};

/// A day of 384 records in blocks of 128, whose index is in its file, and one record of the day after.
async fn a_day(folder: &Path) -> SqliteJournal {
    let clock = TestClock::new();
    let journal = open(&clock.settings(folder));
    let records: Vec<_> = (1..=384).map(|n| event(&format!("u{n}"), n, 1)).collect();
    journal.append(taken(records)).await.unwrap();
    clock.advance(DAY);
    journal.append(taken(vec![event("later", 1_000, 1)])).await.unwrap();
    while journal.shared.directory.read(|state| state.stored.is_empty()) {
        tokio::task::yield_now().await;
    }
    journal
}

/// Flips a bit of the block that holds a position.
fn flip(folder: &Path, position: i64) {
    let database = rusqlite::Connection::open(folder::day_path(folder, "2026-07-01")).unwrap();
    let holds = "first <= ?1 AND first + records > ?1";
    let read = format!("SELECT body FROM block WHERE {holds}");
    let mut body: Vec<u8> = database.query_row(&read, [position], |row| row.get(0)).unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 0x10;
    let write = format!("UPDATE block SET body = ?2 WHERE {holds}");
    assert_eq!(database.execute(&write, rusqlite::params![position, body]).unwrap(), 1);
}

#[tokio::test]
async fn pages_go_on_behind_a_damaged_block_and_say_how_many_they_could_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let journal = a_day(folder.path()).await;
    flip(folder.path(), 200);
    let (mut found, mut unreadable, mut after, mut empty) = (Vec::new(), 0, None, 0);
    loop {
        let search =
            Search { filter: Filter::default(), after, limit: 50, deadline: Duration::from_secs(60) };
        let page = journal.search(search).await.unwrap();
        assert_eq!(page.found.len() as u64 + page.unreadable, if page.has_more { 50 } else { 35 });
        found.extend(page.found.iter().map(|one| one.entry.position.0));
        unreadable += page.unreadable;
        empty += u64::from(page.found.is_empty());
        after = page.last;
        if !page.has_more {
            break;
        }
    }
    assert!(empty > 0, "a page lies wholly in the block");
    assert_eq!(unreadable, 128);
    found.sort_unstable();
    assert_eq!(found, (1..=128).chain(257..=385).collect::<Vec<u64>>());
}
