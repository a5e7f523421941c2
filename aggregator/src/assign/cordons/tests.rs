#![allow(clippy::unwrap_used)]

use nodetap_wire::{Change, EventSeen, Record, record};

use super::*;
use crate::journal::metrics::JournalMetrics;
use crate::journal::sqlite::{Settings, SqliteJournal};
use crate::journal::{Journal, Taken};

/// An event of a node, `seconds` past noon.
fn event(number: usize, node: &str, reason: &str, seconds: u32) -> Record {
    let json = format!(
        r#"{{"metadata":{{"uid":"u{number}","resourceVersion":"{number}","namespace":"default"}},
        "involvedObject":{{"kind":"Node","name":"{node}"}},"reason":"{reason}","source":{{"host":"{node}"}},
        "lastTimestamp":"2026-01-01T12:{:02}:{:02}Z"}}"#,
        seconds / 60,
        seconds % 60
    );
    Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
}

fn open(path: &std::path::Path) -> SqliteJournal {
    SqliteJournal::open(Settings::new(path), JournalMetrics::default(), Box::new(())).unwrap()
}

#[tokio::test]
async fn the_latest_event_of_each_node_says_whether_it_was_cordoned_when_the_aggregator_started() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let records = vec![
        event(1, "cordoned", "NodeNotSchedulable", 10),
        event(2, "opened", "NodeNotSchedulable", 11),
        event(3, "opened", "NodeSchedulable", 20),
        event(4, "again", "NodeSchedulable", 30),
        // It came later, and happened before: as an agent that was away sends it.
        event(5, "again", "NodeNotSchedulable", 40),
        event(6, "again", "NodeSchedulable", 35),
        event(7, "removed", "NodeNotSchedulable", 50),
        event(8, "removed", "RemovingNode", 60),
        event(9, "other", "NodeReady", 70),
    ];
    let taken = Taken { node: "n".to_owned(), records, ..Taken::default() };
    journal.append(taken).await.unwrap();
    journal.close().await;
    drop(journal);
    // As after a restart.
    let known = known(&open(folder.path())).await.unwrap();
    let known: Vec<_> = known.iter().map(|(node, is_cordoned)| (node.as_str(), *is_cordoned)).collect();
    assert_eq!(known, [("again", true), ("cordoned", true), ("opened", false), ("removed", false)]);
}

#[tokio::test]
async fn cordons_of_more_events_than_a_page_has_are_all_found() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut records = vec![event(0, "first", "NodeNotSchedulable", 0)];
    let many = 2 * PAGE + 7;
    records.extend((1..=many).map(|number| event(number, "busy", "NodeSchedulable", 1 + number as u32)));
    journal.append(Taken { node: "n".to_owned(), records, ..Taken::default() }).await.unwrap();
    let known = known(&journal).await.unwrap();
    assert_eq!((known["first"], known["busy"]), (true, false));
}

#[tokio::test]
async fn a_journal_without_such_events_knows_of_no_cordon() {
    let folder = tempfile::tempdir().unwrap();
    assert!(known(&open(folder.path())).await.unwrap().is_empty());
}
