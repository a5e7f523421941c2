//! What was durable and is gone: the end of the log, all of it, a file. What is left says rightly how far it goes, and what was lost is
//! taken again.

use std::fs;

use super::*;
use crate::journal::lost::{Lost, What};

/// Batches, each of three events, a death, and the checkpoint that covers them.
const BATCHES: u64 = 20;

fn batch(number: u64) -> Taken {
    let mut records: Vec<_> =
        (0..3).map(|n| event(&noisy(&format!("{number}-{n}")), 10 * number + n, 1)).collect();
    records.push(death(&format!("containerd://{number}"), u32::try_from(number).unwrap()));
    Taken { checkpoints: vec![checkpoint(1, &(10 * number + 2).to_string())], ..taken(records) }
}

/// What a process leaves that is killed after its last commit.
async fn killed(folder: &Path) -> Settings {
    let running = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(running.path());
    let journal = open(&settings);
    for number in 1..=BATCHES {
        journal.append(batch(number)).await.unwrap();
    }
    for entry in fs::read_dir(running.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().unwrap().ends_with("-shm") {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    journal.close().await;
    Settings { path: folder.to_owned(), ..settings }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

const LOG: &str = "journal-2026-07-01.sqlite-wal";

/// At a length; none: all of it is gone.
fn cut_off(log: &Path, length: Option<u64>) {
    match length {
        Some(length) => fs::OpenOptions::new().write(true).open(log).unwrap().set_len(length).unwrap(),
        None => fs::remove_file(log).unwrap(),
    }
}

fn said(journal: &SqliteJournal) -> Lost {
    *journal.lost().borrow()
}

#[tokio::test]
async fn wherever_the_log_is_cut_off_the_checkpoint_is_that_of_the_last_record_and_all_behind_it_is_taken_again()
 {
    let whole = tempfile::tempdir().unwrap();
    let settings = killed(whole.path()).await;
    let length = fs::metadata(whole.path().join(LOG)).unwrap().len();
    assert!(length > 100 << 10, "{length}");
    let cuts = (0..40).map(|n| n * length / 40 + n * 7 % 4_096).chain([length - 1]).map(Some);
    let mut lengths = BTreeMap::new();
    for cut in cuts.chain([None]) {
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        cut_off(&folder.path().join(LOG), cut);
        // What the machine that ended as well left of it says nothing.
        fs::remove_file(folder.path().join(told::FILE)).unwrap();
        let metrics = JournalMetrics::default();
        let settings = Settings { path: folder.path().to_owned(), ..settings.clone() };
        let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        let left = all(&journal).await.len() as u64;
        assert_eq!(left % 4, 0, "{cut:?}: a part of a batch");
        assert_eq!((found(&journal).await.len(), counted(&journal).await as u64), (left as usize, left));
        *lengths.entry(left).or_insert(0) += 1;
        let expected: Vec<_> =
            (left > 0).then(|| checkpoint(1, &(10 * (left / 4) + 2).to_string())).into_iter().collect();
        assert_eq!(journal.checkpoints().await.unwrap(), expected, "{cut:?}");
        // Nothing here says that there was more, but the agents do.
        assert_eq!((said(&journal).times, metrics.lost.get()), (0, 0), "{cut:?}");
        let opening = said(&journal);
        for promised in [left, 4 * BATCHES] {
            journal.promised(Position(promised));
        }
        let lost = 4 * BATCHES - left;
        assert_eq!(metrics.lost.get(), lost, "{cut:?}");
        assert_eq!(said(&journal).since(&opening), (lost > 0).then_some(What::End), "{cut:?}");
        let mut new = 0;
        for number in 1..=BATCHES {
            new += journal.append(batch(number)).await.unwrap().new;
        }
        assert_eq!(new as u64, lost, "{cut:?}");
        no_position_is_another_records(&all(&journal).await, left);
        let journal = reopen(journal, &settings).await;
        assert_eq!(all(&journal).await.len() as u64, 4 * BATCHES, "{cut:?}");
        assert_eq!(said(&journal).times, 0, "{cut:?}: it is whole again");
    }
    assert!(lengths.len() > 10, "{lengths:?}");
}

/// Whatever was there before keeps its position, and what is new has one that nobody had.
fn no_position_is_another_records(entries: &[Entry], left: u64) {
    let positions: Vec<_> = entries.iter().map(|entry| entry.position.0).collect();
    let (old, new) = positions.split_at(usize::try_from(left).unwrap());
    assert_eq!(old, (1..=left).collect::<Vec<_>>());
    assert!(
        new.iter().all(|position| *position > 4 * BATCHES),
        "of {BATCHES} batches {left} records are left: {new:?}"
    );
}

#[tokio::test]
async fn a_position_that_a_tail_has_had_is_not_given_to_another_record_and_the_loss_is_known_at_once() {
    let whole = tempfile::tempdir().unwrap();
    let settings = killed(whole.path()).await;
    let length = fs::metadata(whole.path().join(LOG)).unwrap().len();
    for cut in [Some(length / 3), Some(length - 1), None] {
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        cut_off(&folder.path().join(LOG), cut);
        let metrics = JournalMetrics::default();
        let settings = Settings { path: folder.path().to_owned(), ..settings.clone() };
        let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        let left = all(&journal).await.len() as u64;
        assert!(left < 4 * BATCHES, "{cut:?}");
        assert_eq!((said(&journal).ends, metrics.lost.get()), (1, 4 * BATCHES - left), "{cut:?}");
        // Killed before anything came, and closed: neither makes it forget.
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let again = open(&Settings { path: copied.path().to_owned(), ..settings.clone() });
        let again = reopen(again, &Settings { path: copied.path().to_owned(), ..settings.clone() }).await;
        for journal in [journal, again] {
            journal.append(batch(100)).await.unwrap();
            no_position_is_another_records(&all(&journal).await, left);
        }
    }
}

#[tokio::test]
async fn positions_go_on_without_a_gap_after_a_kill_and_on_another_machine_after_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let settings = killed(folder.path()).await;
    let journal = open(&settings);
    assert_eq!(journal.append(batch(100)).await.unwrap().head, Position(4 * BATCHES + 4));
    journal.close().await;
    drop(journal);
    let said = fs::read_to_string(folder.path().join(told::FILE)).unwrap();
    assert!(said.starts_with("closed "), "{said}");
    let journal = open(&settings);
    assert_eq!(journal.append(batch(101)).await.unwrap().head, Position(4 * BATCHES + 8));
}

/// A bit of a byte, or a page from there on.
fn spoil(path: &Path, at: usize, is_bit: bool) {
    let mut bytes = fs::read(path).unwrap();
    match is_bit {
        true => bytes[at] ^= 0x10,
        false => {
            let end = bytes.len().min(at + 4_096);
            bytes[at..end].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_log_with_a_flipped_bit_or_a_page_of_zeroes_ends_there_and_serves_nothing_that_is_wrong() {
    let whole = tempfile::tempdir().unwrap();
    let settings = killed(whole.path()).await;
    let length = fs::metadata(whole.path().join(LOG)).unwrap().len() as usize;
    let written = tempfile::tempdir().unwrap();
    copy(whole.path(), written.path());
    let written = all(&open(&Settings { path: written.path().to_owned(), ..settings.clone() })).await;
    assert_eq!(written.len() as u64, 4 * BATCHES);
    let mut lengths = BTreeMap::new();
    for trial in 0..32 {
        // The log's head, a frame's head, and whatever lies behind.
        let at =
            if trial < 4 { 9 * trial } else { trial * length / 32 + trial * 131 % 4_096 }.min(length - 1);
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        spoil(&folder.path().join(LOG), at, trial % 2 == 0);
        let metrics = JournalMetrics::default();
        let settings = Settings { path: folder.path().to_owned(), ..settings.clone() };
        let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
        let left = all(&journal).await;
        let shown = |entries: &[Entry]| format!("{entries:?}");
        assert_eq!(shown(&left), shown(&written[..left.len()]), "{at}");
        assert_eq!(left.len() % 4, 0, "{at}: a part of a batch");
        assert_eq!(shown(&found(&journal).await), shown(&left), "{at}");
        *lengths.entry(left.len()).or_insert(0) += 1;
        let checkpoint = (!left.is_empty()).then(|| checkpoint(1, &(10 * (left.len() / 4) + 2).to_string()));
        assert_eq!(journal.checkpoints().await.unwrap(), checkpoint.into_iter().collect::<Vec<_>>(), "{at}");
        assert_eq!(metrics.lost.get(), 4 * BATCHES - left.len() as u64, "{at}");
        journal.append(batch(100)).await.unwrap();
        no_position_is_another_records(&all(&journal).await, left.len() as u64);
    }
    assert!(lengths.len() > 8, "{lengths:?}");
}

#[tokio::test]
async fn a_log_of_the_cursors_with_a_flipped_bit_or_a_page_of_zeroes_has_sinks_begin_again_and_costs_no_record()
 {
    const CURSORS_LOG: &str = "cursors.sqlite-wal";
    let whole = tempfile::tempdir().unwrap();
    let running = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(running.path());
    let journal = open(&settings);
    for number in 1..=BATCHES {
        let head = journal.append(batch(number)).await.unwrap().head;
        let dead = vec![DeadLetter { position: head, reason: format!("{number}") }];
        journal.commit("file", head, dead).await.unwrap();
    }
    copy(running.path(), whole.path());
    journal.close().await;
    drop(journal);
    let length = fs::metadata(whole.path().join(CURSORS_LOG)).unwrap().len() as usize;
    let mut cursors = BTreeMap::new();
    for trial in 0..24 {
        let at =
            if trial < 4 { 9 * trial } else { trial * length / 24 + trial * 131 % 4_096 }.min(length - 1);
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        for name in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if name.to_str().unwrap().ends_with("-shm") {
                fs::remove_file(name).unwrap();
            }
        }
        spoil(&folder.path().join(CURSORS_LOG), at, trial % 2 == 0);
        let settings = Settings { path: folder.path().to_owned(), ..settings.clone() };
        let journal = open(&settings);
        assert_eq!(all(&journal).await.len() as u64, 4 * BATCHES, "{at}");
        // Where a sink was once, with what it refused until then.
        let cursor = journal.cursor("file").await.unwrap().map_or(0, |cursor| cursor.0);
        assert!(cursor.is_multiple_of(4) && cursor <= 4 * BATCHES, "{at}: {cursor}");
        let letters = journal.dead_letters(Letters::default(), 1_000).await.unwrap();
        let letters: Vec<_> = letters.iter().map(|kept| kept.letter.position.0).collect();
        assert_eq!(letters, (1..=cursor / 4).map(|number| 4 * number).collect::<Vec<_>>(), "{at}");
        *cursors.entry(cursor).or_insert(0) += 1;
        // Positions go on where the records end.
        assert_eq!(journal.append(batch(100)).await.unwrap().head, Position(4 * BATCHES + 4), "{at}");
        journal.commit("file", Position(4 * BATCHES), vec![]).await.unwrap();
        let journal = reopen(journal, &settings).await;
        assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(4 * BATCHES)), "{at}");
    }
    assert!(cursors.len() > 4, "{cursors:?}");
}

/// Three days of a batch each; the second and third day's files can be told apart by their checkpoints.
async fn days(folder: &Path) -> (TestClock, Settings) {
    let clock = TestClock::new();
    let settings = clock.settings(folder);
    let journal = open(&settings);
    for day in 1..=3 {
        journal.append(batch(day)).await.unwrap();
        clock.advance(if day < 3 { DAY } else { 0 });
    }
    journal.close().await;
    (clock, settings)
}

fn zero(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::write(path, vec![0; usize::try_from(length).unwrap()]).unwrap();
}

#[tokio::test]
async fn without_the_newest_file_watches_go_on_from_the_checkpoint_of_the_one_before() {
    for gone in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (_clock, settings) = days(folder.path()).await;
        let path = folder::day_path(folder.path(), "2026-07-03");
        if gone {
            fs::remove_file(path).unwrap()
        } else {
            zero(&path)
        }
        let metrics = JournalMetrics::default();
        let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "22")]);
        let lost = said(&journal);
        assert!(lost.ends > 0 && lost.holes == 0, "{lost:?}");
        assert_eq!(metrics.lost.get(), 4);
        // A start that takes nothing changes nothing.
        journal.close().await;
        drop(journal);
        let metrics = JournalMetrics::default();
        let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
        assert_eq!((said(&journal).times, metrics.lost.get()), (0, 0));
        assert_eq!(journal.append(batch(3)).await.unwrap().new, 4);
        let journal = reopen(journal, &settings).await;
        assert_eq!((all(&journal).await.len(), said(&journal).times), (12, 0));
    }
}

#[tokio::test]
async fn without_an_older_file_watches_list_again_and_another_start_does_not_change_that() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = days(folder.path()).await;
    zero(&folder::day_path(folder.path(), "2026-07-02"));
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
    // Its epoch is never given twice.
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "")]);
    assert_eq!((said(&journal).holes, metrics.lost.get()), (1, 4));
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "")]);
    assert_eq!(said(&journal).times, 0);
    assert_eq!(journal.append(batch(2)).await.unwrap().new, 4);
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "22")]);
}

#[tokio::test]
async fn of_a_file_of_long_ago_nothing_is_listed_again_but_deaths_may_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, settings) = days(folder.path()).await;
    clock.advance(3 * DAY);
    zero(&folder::day_path(folder.path(), "2026-07-01"));
    let journal = open(&settings);
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "32")]);
    let lost = said(&journal);
    assert_eq!((lost.times, lost.ends, lost.holes), (1, 0, 0));
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_read_has_the_watches_list_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = days(folder.path()).await;
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    zero(&folder::day_path(folder.path(), "2026-07-02"));
    assert_eq!(all(&journal).await.len(), 8);
    journal.note(Vec::new(), Vec::new()).await.unwrap();
    assert_eq!((said(&journal).holes, metrics.lost.get()), (1, 4));
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "")]);
}

#[tokio::test]
async fn a_position_that_a_sink_has_had_is_not_given_to_another_record() {
    let whole = tempfile::tempdir().unwrap();
    let settings = killed(whole.path()).await;
    for letter in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        copy(whole.path(), folder.path());
        let settings = Settings { path: folder.path().to_owned(), ..settings.clone() };
        let journal = open(&settings);
        let mut bits = Box::new([0; Ahead::WORDS]);
        bits[1] = 1 << 13;
        let dead = DeadLetter { position: Position(77), reason: "refused".to_owned() };
        let (ahead, dead) = match letter {
            true => (Vec::new(), vec![dead]),
            false => (vec![Ahead { chunk: 0, bits }], Vec::new()),
        };
        journal.settle("sink", Position(2), ahead, dead).await.unwrap();
        // The cursors as they are, and nothing of the log.
        let torn = tempfile::tempdir().unwrap();
        copy(whole.path(), torn.path());
        fs::remove_file(torn.path().join("journal-2026-07-01.sqlite-wal")).unwrap();
        for name in ["cursors.sqlite", "cursors.sqlite-wal"] {
            fs::copy(folder.path().join(name), torn.path().join(name)).unwrap();
        }
        let again = open(&Settings { path: torn.path().to_owned(), ..settings.clone() });
        let appended = again.append(batch(1)).await.unwrap();
        assert!(appended.head.0 > 80, "{appended:?}");
        journal.close().await;
    }
}

#[tokio::test]
async fn that_something_was_lost_is_known_at_every_start_after() {
    let folder = tempfile::tempdir().unwrap();
    let (_clock, settings) = days(folder.path()).await;
    zero(&folder::day_path(folder.path(), "2026-07-02"));
    let known = |journal: &SqliteJournal| (said(journal).before, said(journal).times);
    // What the next start finds of a process that is killed now.
    let killed = |from: &Path| {
        let folder = tempfile::tempdir().unwrap();
        copy(from, folder.path());
        let journal = open(&Settings { path: folder.path().to_owned(), ..settings.clone() });
        (folder, journal)
    };
    let journal = open(&settings);
    assert_eq!(known(&journal), (0, 1));
    let (folder, journal) = killed(folder.path());
    assert_eq!(known(&journal), (1, 0), "the file is aside already");

    let promised = Position(journal.head().borrow().0 + 1);
    journal.promised(promised);
    assert_eq!(known(&journal), (1, 1));
    let (_folder, again) = killed(folder.path());
    assert_eq!(known(&again), (1, 0));
    again.promised(promised);
    assert_eq!(
        known(&again),
        (1, 1),
        "until something is written behind it, whoever was promised more says so again"
    );
    journal.append(batch(4)).await.unwrap();
    let (_folder, again) = killed(folder.path());
    assert_eq!(known(&again), (2, 0));
}
