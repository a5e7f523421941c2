#![allow(clippy::unwrap_used, missing_docs)]

use super::*;
use crate::history::conformance;
use crate::history::query::Field;
use crate::journal::metrics::JournalMetrics;
use crate::journal::sqlite::{Settings, SqliteJournal};

async fn journal() -> (tempfile::TempDir, Scan<SqliteJournal>) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::new(folder.path());
    let journal = SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())).unwrap();
    let taken = Taken { node: "node-1".into(), records: conformance::records(), checkpoints: Vec::new() };
    journal.append(taken).await.unwrap();
    (folder, Scan(journal))
}

#[tokio::test]
async fn it_answers_as_a_history_must() {
    let (_folder, scan) = journal().await;
    let entries = scan.read_from(Position(0), 1_000).await.unwrap();
    assert_eq!(entries.len(), conformance::records().len());
    conformance::conforms(&scan, &entries, &conformance::filters()).await;
}

#[tokio::test]
async fn the_values_with_the_most_records_are_counted() {
    let (_folder, scan) = journal().await;
    let by = CountBy { field: Some(Field::Reason), step: None, top: 2 };
    let all = scan
        .count(Filter::default(), CountBy { top: 0, ..by.clone() }, Duration::from_secs(60))
        .await
        .unwrap();
    let top = scan.count(Filter::default(), by, Duration::from_secs(60)).await.unwrap();
    assert_eq!(top, all[..2]);
    assert!(all.is_sorted_by_key(|count| Reverse(count.records)));
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up() {
    let (_folder, scan) = journal().await;
    let search = Search { filter: Filter::default(), after: None, limit: 1, deadline: Duration::ZERO };
    assert_eq!(scan.search(search).await.unwrap_err(), HistoryError::Deadline(0));
}
