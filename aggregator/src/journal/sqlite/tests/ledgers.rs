//! What is remembered of agents' ledgers, over restarts, from file to file, and where files are lost.

use nodetap_wire::LedgerEntry;

use super::*;
use crate::journal::{LedgerChanges, LedgerKept, RememberedLedger};

fn entry(uid: &str, state: &'static str) -> LedgerEntry {
    LedgerEntry { pod_uid: uid.into(), version: 1, state: state.into() }
}

fn told(sequence: u64, first: bool, entries: Vec<LedgerEntry>, records: Vec<Record>) -> Taken {
    let ledger = Some(LedgerChanges { instance: "a".into(), sequence, first, entries });
    Taken { ledger, ..taken(records) }
}

async fn remembered(journal: &SqliteJournal) -> Vec<LedgerEntry> {
    let RememberedLedger { entries, partial } = journal.ledger("n1").await.unwrap();
    assert!(!partial);
    assert_eq!(journal.remembers("n1"), !entries.is_empty());
    entries
}

#[tokio::test]
async fn what_is_remembered_of_a_ledger_is_there_after_a_restart_and_in_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    assert!(remembered(&journal).await.is_empty());
    journal.append(told(1, true, vec![entry("", "node"), entry("p1", "one")], vec![])).await.unwrap();
    let appended =
        journal.append(told(2, false, vec![entry("p2", "two")], vec![death("a", 0)])).await.unwrap();
    assert_eq!((appended.new, appended.ledger), (1, LedgerKept::default()));
    let journal = reopen(journal, &settings).await;
    assert_eq!(remembered(&journal).await, [entry("", "node"), entry("p1", "one"), entry("p2", "two")]);
    // A batch that comes again, with the death that the journal has.
    let again =
        journal.append(told(2, false, vec![entry("p2", "older")], vec![death("a", 0)])).await.unwrap();
    assert_eq!((again.new, again.duplicates), (0, 1));
    clock.advance(DAY);
    journal.append(taken(vec![event("e", 1, 1)])).await.unwrap();
    assert_eq!(pieces(folder.path()).len(), 2);
    journal.append(told(3, false, vec![entry("p1", "")], vec![])).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(remembered(&journal).await, [entry("", "node"), entry("p2", "two")]);
    assert_eq!(journal.ledger("n2").await.unwrap(), RememberedLedger::default(), "another node's");
}

#[tokio::test]
async fn what_was_not_told_of_for_days_is_not_carried_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    journal.append(told(1, true, vec![entry("p1", "one")], vec![])).await.unwrap();
    clock.advance(2 * DAY);
    journal.append(taken(vec![event("e", 1, 1)])).await.unwrap();
    assert_eq!(remembered(&journal).await.len(), 1);
    clock.advance(DAY);
    journal.append(taken(vec![event("e", 2, 2)])).await.unwrap();
    assert!(remembered(&journal).await.is_empty());
    let more = told(2, false, vec![entry("p2", "two")], vec![]);
    assert!(journal.append(more).await.unwrap().ledger.without_base);
}

#[tokio::test]
async fn an_older_files_ledger_does_not_stand_in_for_that_of_a_file_that_is_lost() {
    for is_open in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let settings = clock.settings(folder.path());
        let journal = open(&settings);
        journal.append(told(1, true, vec![entry("p1", "one")], vec![event("e", 1, 1)])).await.unwrap();
        clock.advance(DAY);
        let more = told(2, false, vec![entry("p1", "two")], vec![death("a", 0)]);
        journal.append(more).await.unwrap();
        let newest = folder::day_path(folder.path(), "2026-07-02");
        let journal = if is_open {
            let failure = folder::Failure::new(&newest, rusqlite::Error::InvalidQuery);
            journal.writer.send(Command::SetAside(failure)).unwrap();
            journal
        } else {
            journal.close().await;
            drop(journal);
            std::fs::write(&newest, [0xa5; 8_192]).unwrap();
            open(&settings)
        };
        assert!(remembered(&journal).await.is_empty(), "{is_open}");
        let more = told(3, false, vec![entry("p2", "two")], vec![event("e", 2, 2)]);
        assert!(journal.append(more).await.unwrap().ledger.without_base, "{is_open}");
        let journal = reopen(journal, &settings).await;
        assert!(remembered(&journal).await.is_empty(), "{is_open}: nor after another restart");
        journal.append(told(4, true, vec![entry("p3", "three")], vec![])).await.unwrap();
        assert_eq!(remembered(&journal).await, [entry("p3", "three")], "{is_open}");
    }
}

#[tokio::test]
async fn a_file_of_before_ledgers_were_remembered_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    journal.append(taken(vec![event("e", 1, 1)])).await.unwrap();
    journal.close().await;
    drop(journal);
    let file = rusqlite::Connection::open(folder::day_path(folder.path(), "2026-07-01")).unwrap();
    file.execute_batch("DROP TABLE ledger; DROP TABLE ledger_base;").unwrap();
    drop(file);
    let journal = open(&settings);
    journal.append(told(1, true, vec![entry("p1", "one")], vec![])).await.unwrap();
    assert_eq!(remembered(&reopen(journal, &settings).await).await, [entry("p1", "one")]);
}
