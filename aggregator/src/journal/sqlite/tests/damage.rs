//! Files that are torn, cut or overwritten.

use std::fs;

use super::*;
use crate::journal::metrics::{ErrorLabel, Failed};
use crate::journal_command;

/// A journal of three days with three records each, closed.
async fn three_days(folder: &Path) -> (TestClock, Settings) {
    let clock = TestClock::new();
    let settings = clock.settings(folder);
    let journal = open(&settings);
    for day in 0..3 {
        let records = (0..3).map(|n| event(&format!("{day}-{n}"), 100 + day * 10 + n, 1)).collect();
        let checkpoints = vec![checkpoint(1, &format!("{}", 102 + day * 10))];
        journal.append(Taken { checkpoints, ..taken(records) }).await.unwrap();
        if day < 2 {
            clock.advance(DAY);
        }
    }
    journal.close().await;
    (clock, settings)
}

fn damage(path: &Path, how: &str) {
    let mut bytes = fs::read(path).unwrap();
    match how {
        "empty" => bytes.clear(),
        "header" => bytes[..100].fill(0xa5),
        "cut" => bytes.truncate(bytes.len() / 3),
        "zeroed" => bytes.fill(0),
        "schema" => bytes[100..4_096].fill(0xff),
        _ => panic!("{how}"),
    }
    fs::write(path, bytes).unwrap();
}

fn set_aside(folder: &Path) -> usize {
    folder::set_aside_files(folder).len()
}

#[tokio::test]
async fn a_damaged_file_is_put_aside_and_the_rest_is_served() {
    for how in ["header", "cut", "zeroed", "schema"] {
        for date in ["2026-07-01", "2026-07-02", "2026-07-03"] {
            let folder = tempfile::tempdir().unwrap();
            let (_clock, settings) = three_days(folder.path()).await;
            damage(&folder::day_path(folder.path(), date), how);
            let metrics = JournalMetrics::default();
            let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(()))
                .unwrap_or_else(|error| panic!("{how} {date}: {error}"));
            let left = all(&journal).await;
            assert_eq!(left.len(), 6, "{how} {date}");
            assert_eq!(positions(&found(&journal).await), positions(&left), "{how} {date}");
            assert_eq!(counted(&journal).await, 6, "{how} {date}");
            assert_eq!(metrics.set_aside.get(), 1, "{how} {date}");
            assert!(set_aside(folder.path()) >= 1, "{how} {date}");
            // Positions go on above anything ever handed out, and what was lost is taken again.
            let again = (0..3)
                .flat_map(|day| (0..3).map(move |n| event(&format!("{day}-{n}"), 100 + day * 10 + n, 1)));
            let appended = journal.append(taken(again.collect())).await.unwrap();
            assert_eq!((appended.new, appended.duplicates), (3, 6), "{how} {date}");
            assert!(appended.head >= Position(12), "{how} {date}: {appended:?}");
            let journal = reopen(journal, &settings).await;
            let mut found = versions(&all(&journal).await);
            found.sort();
            assert_eq!(found.len(), 9, "{how} {date}: {found:?}");
            assert_eq!(counted(&journal).await, 9, "{how} {date}");
        }
    }
}

#[tokio::test]
async fn without_the_newest_file_the_checkpoint_before_it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    damage(&folder::day_path(folder.path(), "2026-07-03"), "header");
    let journal = open(&settings);
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "112")]);
}

#[tokio::test]
async fn a_lost_newest_file_does_not_make_positions_repeat() {
    for name in ["journal-2026-07-03.sqlite", "journal-2026-07-02.sqlite"] {
        let folder = tempfile::tempdir().unwrap();
        let (_clock, settings) = three_days(folder.path()).await;
        fs::remove_file(folder.path().join(name)).unwrap();
        let journal = open(&settings);
        let appended = journal.append(taken(vec![event("new", 999, 1)])).await.unwrap();
        assert!(appended.head.0 > 9, "{name}: {appended:?}");
    }
}

#[tokio::test]
async fn a_file_damaged_while_it_is_served_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    damage(&folder::day_path(folder.path(), "2026-07-02"), "zeroed");
    assert_eq!(all(&journal).await.len(), 6);
    // A read tells the writer, which has done it before it answers what comes after.
    journal.append(taken(vec![event("new", 999, 1)])).await.unwrap();
    assert_eq!(metrics.set_aside.get(), 1);
    assert_eq!(all(&journal).await.len(), 7);
    assert_eq!((found(&journal).await.len(), counted(&journal).await), (7, 7));
}

#[tokio::test]
async fn what_is_taken_after_older_files_were_put_aside_is_read_and_found_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, settings) = three_days(folder.path()).await;
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    for (date, version) in [("2026-07-01", 900), ("2026-07-02", 901)] {
        damage(&folder::day_path(folder.path(), date), "zeroed");
        found(&journal).await;
        journal.append(taken(vec![event("new", version, 1)])).await.unwrap();
    }
    let head = journal.append(taken(vec![event("last", 999, 1)])).await.unwrap().head;
    let expected = [7, 8, 9, 10, 11, 12];
    assert_eq!((metrics.set_aside.get(), head), (2, Position(12)));
    assert_eq!(positions(&found(&journal).await), expected);
    assert_eq!(counted(&journal).await, 6);
    assert_eq!(positions(&all(&journal).await), expected);
    clock.advance(DAY);
    journal.append(taken(vec![event("next day", 1_000, 1)])).await.unwrap();
    assert_eq!(all(&journal).await.len(), 7);
}

#[tokio::test]
async fn a_file_that_a_question_finds_damaged_is_put_aside_and_the_next_is_answered_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    damage(&folder::day_path(folder.path(), "2026-07-02"), "zeroed");
    assert_eq!(positions(&found(&journal).await), [1, 2, 3, 7, 8, 9]);
    assert!(metrics.set_aside.get() == 1 && set_aside(folder.path()) > 0);
    assert_eq!(counted(&journal).await, 6);
}

#[tokio::test]
async fn an_empty_newest_file_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    damage(&folder::day_path(folder.path(), "2026-07-03"), "empty");
    let journal = open(&settings);
    let appended = journal.append(taken(vec![event("2-0", 120, 1)])).await.unwrap();
    assert_eq!(appended.new, 1);
    assert!(appended.head.0 > 9);
    assert_eq!(all(&journal).await.len(), 7);
}

#[tokio::test]
async fn damaged_cursors_are_put_aside_and_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    damage(&folder.path().join("cursors.sqlite"), "header");
    let journal = open(&settings);
    assert_eq!(all(&journal).await.len(), 9);
    journal.commit("loki", Position(3), vec![]).await.unwrap();
    assert_eq!(journal.cursor("loki").await.unwrap(), Some(Position(3)));
}

#[tokio::test]
async fn sinks_begin_with_the_oldest_record_where_cursors_were_put_aside_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    fs::remove_file(folder.path().join("journal-2026-07-01.sqlite")).unwrap();
    // With its log, from which it would be whole again.
    let cursors = folder.path().join("cursors.sqlite");
    folder::remove(&cursors).unwrap();
    fs::write(&cursors, vec![0xa5; 4096]).unwrap();
    let settings = Settings { required: vec!["sink/now".to_owned()], ..settings };
    let journal = open(&settings);
    let oldest = all(&journal).await[0].position;
    assert_eq!(journal.cursor("sink/now").await.unwrap(), Some(Position(oldest.0 - 1)));
    assert_eq!(journal.cursor("sink/other").await.unwrap(), None);
}

#[tokio::test]
async fn a_checkpoint_of_a_shard_that_is_not_known_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    let path = folder::day_path(folder.path(), "2026-07-03");
    let database = rusqlite::Connection::open(path).unwrap();
    database.execute("INSERT INTO checkpoint VALUES ('zone/a', 7, '9999', 0)", []).unwrap();
    drop(database);
    let journal = open(&settings);
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "122")]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_out_and_its_file_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    let path = folder::day_path(folder.path(), "2026-07-02");
    let database = rusqlite::Connection::open(path).unwrap();
    // The second day has 4, 5 and 6: 4 is a death that is none, of 5 what was known of its object is none.
    let (first, bytes, body): (i64, i64, Vec<u8>) = database
        .query_row("SELECT first, bytes, body FROM block", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    let mut unpacker = block::Unpacker::new().unwrap();
    let mut packer = block::Packer::new().unwrap();
    for stored in unpacker.records(first as u64, &body, bytes as usize).unwrap() {
        packer.push(&match stored.position {
            4 => block::Stored { is_death: true, body: b"{", ..stored },
            5 => block::Stored { facts: Some(b"no"), ..stored },
            _ => stored,
        });
    }
    let block = packer.pack().unwrap();
    database
        .execute("UPDATE block SET bytes = ?1, body = ?2", rusqlite::params![block.bytes as i64, block.body])
        .unwrap();
    drop(database);
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    // A page of one is not empty for what was left out.
    assert_eq!(journal.read_from(Position(3), 1).await.unwrap()[0].position, Position(6));
    assert!(metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Record }).get() >= 2);
    assert_eq!(all(&journal).await.len(), 7);
    assert_eq!(found(&journal).await.len(), 7);
    assert_eq!((metrics.set_aside.get(), set_aside(folder.path())), (0, 0));
}

#[tokio::test]
async fn a_block_with_a_flipped_bit_is_left_out_and_its_file_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    let path = folder::day_path(folder.path(), "2026-07-02");
    let database = rusqlite::Connection::open(path).unwrap();
    let mut body: Vec<u8> = database.query_row("SELECT body FROM block", [], |row| row.get(0)).unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 0x10;
    database.execute("UPDATE block SET body = ?1", [body]).unwrap();
    drop(database);
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    assert_eq!(journal.read_from(Position(3), 1).await.unwrap()[0].position, Position(7));
    assert!(metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Record }).get() >= 3);
    assert_eq!(all(&journal).await.len(), 6);
    assert_eq!(found(&journal).await.len(), 6);
    assert_eq!((metrics.set_aside.get(), set_aside(folder.path())), (0, 0));
}

#[tokio::test]
async fn cursors_damaged_while_they_are_written_are_begun_anew_by_both_who_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.commit("loki", Position(1), vec![]).await.unwrap();
    let path = folder.path().join("cursors.sqlite");
    for file in folder::companions(&path) {
        let length = fs::metadata(&file).unwrap().len();
        fs::write(&file, vec![0xa5; length as usize]).unwrap();
    }
    let mut committed = journal.commit("loki", Position(1), vec![]).await;
    for _ in 0..3 {
        if committed.is_ok() {
            break;
        }
        committed = journal.commit("loki", Position(1), vec![]).await;
    }
    committed.unwrap();
    assert_eq!(metrics.set_aside.get(), 1);
    journal.close().await;
    // What the writer noted at its end is in the same file as the cursor.
    let database = rusqlite::Connection::open(&path).unwrap();
    let found: (i64, i64) = database
        .query_row("SELECT (SELECT position FROM cursor), (SELECT committed FROM head)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(found, (1, 1));
}

#[tokio::test]
async fn a_version_that_one_place_alone_says_is_damage_and_one_that_both_say_is_newer() {
    for both in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (_clock, settings) = three_days(folder.path()).await;
        let database = rusqlite::Connection::open(folder::day_path(folder.path(), "2026-07-03")).unwrap();
        database.execute_batch("UPDATE meta SET value = 19 WHERE key = 'schema'").unwrap();
        if both {
            database.pragma_update(None, "user_version", 19).unwrap();
        }
        drop(database);
        match SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())) {
            Ok(journal) => {
                assert!(!both, "a newer version's file was taken for damaged");
                assert_eq!((all(&journal).await.len(), set_aside(folder.path()) > 0), (6, true));
            }
            Err(error) => assert!(both && error.to_string().contains("newer version"), "{error}"),
        }
    }
}

/// The same, with the index of the days that have ended in their files.
async fn three_indexed_days(folder: &Path) -> Settings {
    let (_clock, settings) = three_days(folder).await;
    let journal = open(&settings);
    let is_indexed = async {
        while journal.shared.directory.read(|state| state.stored.len()) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_indexed).await.unwrap();
    journal.close().await;
    settings
}

/// Changes a file as only damage does.
fn change(path: &Path, statement: &str) {
    let database = rusqlite::Connection::open(path).unwrap();
    assert!(database.execute(statement, []).unwrap() > 0, "{statement}");
}

#[tokio::test]
async fn a_part_of_the_index_that_is_damaged_costs_no_answer_and_is_made_anew() {
    for how in [
        "UPDATE term SET terms = substr(terms, 1, length(terms) - 1) || x'00'",
        "UPDATE term SET first = first || x'00'",
        "DELETE FROM term",
        "UPDATE chunk SET times = x'00'",
        "UPDATE chunk SET times = 'text'",
        "UPDATE chunk SET min_ns = min_ns + 1",
        "DELETE FROM chunk",
        "UPDATE segment SET max_ns = 0",
        "UPDATE segment SET terms = 0",
        "DELETE FROM segment",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = three_indexed_days(folder.path()).await;
        change(&folder::day_path(folder.path(), "2026-07-02"), how);
        let metrics = JournalMetrics::default();
        let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        let again = Filter { text: Some("again".into()), ..Filter::default() };
        for filter in [Filter::default(), again] {
            assert_eq!(positions(&found_by(&journal, &filter).await), (1..=9).collect::<Vec<_>>(), "{how}");
        }
        assert_eq!(counted(&journal).await, 9, "{how}");
        assert_eq!((metrics.set_aside.get(), set_aside(folder.path())), (0, 0), "{how}");
        mended(&journal).await;
        // And for good.
        let journal = reopen(journal, &settings).await;
        assert_eq!((found(&journal).await.len(), counted(&journal).await), (9, 9), "{how}");
        assert!(journal.shared.directory.read(|state| state.damaged.is_empty()), "{how}");
        journal.close().await;
        for report in offline::report(folder.path(), true).unwrap() {
            assert_eq!(report.problems, Vec::<String>::new(), "{how}");
        }
    }
}

#[tokio::test]
async fn an_event_is_known_again_though_the_versions_of_its_segment_are_damaged() {
    for how in [
        "UPDATE version SET versions = x'00'",
        "UPDATE version SET first = first + 1",
        "UPDATE version SET first = first - 1",
        "DELETE FROM version",
        "UPDATE segment SET min_version = max_version",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = three_indexed_days(folder.path()).await;
        change(&folder::day_path(folder.path(), "2026-07-02"), how);
        let metrics = JournalMetrics::default();
        let mut journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        for _ in 0..2 {
            let again = (0..3)
                .flat_map(|day| (0..3).map(move |n| event(&format!("{day}-{n}"), 100 + day * 10 + n, 1)));
            let appended = journal.append(taken(again.collect())).await.unwrap();
            assert_eq!((appended.new, appended.duplicates), (0, 9), "{how}");
            mended(&journal).await;
            assert_eq!(found(&journal).await.len(), 9, "{how}");
            journal = reopen(journal, &settings).await;
        }
        assert_eq!(set_aside(folder.path()), 0, "{how}");
    }
}

#[tokio::test]
async fn a_block_that_is_not_where_it_was_written_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    change(&folder::day_path(folder.path(), "2026-07-03"), "UPDATE block SET first = first + 1");
    let journal = open(&settings);
    assert_eq!(positions(&all(&journal).await), [1, 2, 3, 4, 5, 6]);
    assert_eq!(positions(&found(&journal).await), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_watch_lists_again_where_its_checkpoint_is_not_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = three_days(folder.path()).await;
    change(&folder::day_path(folder.path(), "2026-07-03"), "UPDATE checkpoint SET resource_version = '132'");
    assert_eq!(open(&settings).checkpoints().await.unwrap(), [checkpoint(1, "")]);
}

#[tokio::test]
async fn a_watermark_that_is_not_what_was_written_lets_no_event_be_taken_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, settings) = three_days(folder.path()).await;
    change(&folder::day_path(folder.path(), "2026-07-03"), "UPDATE watermark SET resource_version = '100'");
    let journal = open(&settings);
    for day in 0..4 {
        let appended = journal.append(taken(vec![event("2-2", 122, 1), event("new", 123, 1)])).await.unwrap();
        assert_eq!((appended.new, appended.duplicates), if day == 0 { (1, 1) } else { (0, 2) });
        clock.advance(DAY);
    }
}

#[tokio::test]
async fn a_cursor_that_is_not_what_was_written_makes_no_sink_pass_over_a_record() {
    for how in
        ["UPDATE cursor SET position = position + 4", "UPDATE ahead SET bits = x'ff' || substr(bits, 2)"]
    {
        let folder = tempfile::tempdir().unwrap();
        let (_clock, settings) = three_days(folder.path()).await;
        let settings = Settings { required: vec!["sink/a".to_owned()], ..settings };
        let journal = open(&settings);
        let mut had = crate::journal::had::Had::default();
        had.insert(Position(4));
        journal.settle("sink/a", Position(2), had.changed(), vec![]).await.unwrap();
        journal.close().await;
        drop(journal);
        change(&folder.path().join("cursors.sqlite"), how);
        let journal = open(&settings);
        let cursor = journal.cursor("sink/a").await.unwrap().unwrap_or_default();
        assert!(cursor <= Position(2), "{how}: {cursor:?}");
        let had = crate::journal::had::Had::load(journal.ahead("sink/a").await.unwrap(), cursor);
        assert_eq!(had.within(Position(4), Position(9)), 0, "{how}");
    }
}

#[tokio::test]
async fn an_export_goes_on_behind_a_file_that_cannot_be_read_and_names_it_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    three_days(folder.path()).await;
    let damaged = folder::day_path(folder.path(), "2026-07-02");
    fs::write(&damaged, [0x55; 8_192]).unwrap();
    let mut out = Vec::new();
    let error = journal_command::export(folder.path(), "cluster", Position(0), true, &mut out).unwrap_err();
    let (error, out) = (error.to_string(), String::from_utf8(out).unwrap());
    assert!(error.contains(&*damaged.to_string_lossy()), "{error}");
    let of = |line: &str| {
        line.strip_prefix("{\"position\":").and_then(|line| line.split_once(',')).unwrap().0.parse()
    };
    let positions: Vec<u64> = out.lines().map(|line| of(line).unwrap()).collect();
    assert_eq!(positions, [1, 2, 3, 7, 8, 9]);
}
