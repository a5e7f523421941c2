//! Questions to the history: each answer is compared with a plain look at every record.

use std::collections::BTreeMap as Map;

use super::*;
use crate::history::query::{Count, CountBy, Field, Filter, Found, Mark, RecordKind, Search};
use crate::history::{History, HistoryError, conformance};
use crate::journal::facets::{Facets, Test};
use crate::journal::sqlite::index::stored::Segments;

const SECOND: i64 = 1_000_000_000;

/// Events of a small world, so that every filter has answers, in times that go to and fro.
fn world(from: u64, records: u64) -> Vec<Record> {
    let pick =
        |n: u64, of: &[&'static str]| of[(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % of.len()];
    (from..from + records)
        .map(|n| {
            if n.is_multiple_of(13) {
                let mut record = death(&format!("containerd://{n}"), n as u32);
                if let Some(record::Kind::Death(death)) = &mut record.kind {
                    death.finished_ns = NOON - (n as i64 * 37 % 1_000) * SECOND;
                    death.exit_code = Some((n % 3) as i32);
                    death.pod = format!("web-{}", n % 7);
                    death.last_lines[0].text = format!("panic: lost Connection to db{}", n % 5);
                }
                return record;
            }
            let time = nodetap_wire::time::format_ns(NOON - (n as i64 * 7919 % 5_000) * SECOND).unwrap();
            let namespace = pick(n, &["shop", "ops", "lab"]);
            let json = format!(
                r#"{{"metadata":{{"name":"e{n}","namespace":"{namespace}","uid":"u{n}","resourceVersion":"{n}"}},"involvedObject":{{"kind":"{}","namespace":"{namespace}","name":"web-{}","fieldPath":"spec.containers{{{}}}"}},"reason":"{}","message":"Back-off restarting {} container number {n}","count":{},"type":"{}","lastTimestamp":"{time}","source":{{"host":"{}"}}}}"#,
                pick(n ^ 1, &["Pod", "Node"]),
                n % 50,
                pick(n ^ 2, &["app", "proxy"]),
                pick(n ^ 3, &["BackOff", "Killing", "Pulled", ""]),
                pick(n ^ 4, &["failed", "Connection"]),
                1 + n % 3,
                pick(n ^ 5, &["Warning", "Normal"]),
                pick(n ^ 6, &["n1", "n2", ""]),
            );
            Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
        })
        .collect()
}

fn search(filter: Filter, limit: usize) -> Search {
    Search { filter, after: None, limit, deadline: Duration::from_secs(60) }
}

fn marks(found: &[Found]) -> Vec<Mark> {
    found.iter().map(|found| Mark { time_ns: found.time_ns, position: found.entry.position }).collect()
}

fn filters() -> Vec<Filter> {
    let of = |value: &str| vec![value.to_owned()];
    let one = Filter::default;
    vec![
        one(),
        Filter { namespaces: of("ops"), ..one() },
        Filter { namespaces: vec!["ops".into(), "lab".into()], reasons: of("BackOff"), ..one() },
        Filter { record: Some(RecordKind::Death), ..one() },
        Filter { record: Some(RecordKind::Event), object_kinds: of("Pod"), ..one() },
        Filter { objects: of("web-3"), types: of("Warning"), ..one() },
        Filter { nodes: of("n2"), containers: of("proxy"), ..one() },
        Filter { reasons: of(""), nodes: of(""), ..one() },
        Filter { owners: of("web-1"), exit_codes: vec![1, 2], ..one() },
        Filter { text: Some("connection DB3".into()), ..one() },
        Filter { text: Some("restarting conn*".into()), ..one() },
        Filter { text: Some("number 177".into()), ..one() },
        Filter { since_ns: Some(NOON - 900 * SECOND), until_ns: Some(NOON - 300 * SECOND), ..one() },
        Filter {
            since_ns: Some(NOON - 60 * SECOND),
            namespaces: of("shop"),
            text: Some("back".into()),
            ..one()
        },
        Filter { namespaces: of("nowhere"), ..one() },
    ]
}

/// Asks everything, and compares with what the records themselves say.
async fn check(journal: &SqliteJournal) {
    let entries = all(journal).await;
    for filter in filters() {
        let test = Test::new(filter.clone()).unwrap();
        let facets: Vec<_> = entries.iter().map(|entry| (entry, Facets::of(entry).unwrap())).collect();
        let matching: Vec<_> = facets.iter().filter(|(_, facets)| test.matches(facets)).collect();
        let mut expected: Vec<_> = matching
            .iter()
            .map(|(entry, facets)| Mark { time_ns: facets.time_ns, position: entry.position })
            .collect();
        expected.sort_by(|left, right| right.cmp(left));

        // Page by page, all of them.
        let (mut found, mut ask) = (Vec::new(), search(filter.clone(), expected.len() / 3 + 1));
        loop {
            let page = journal.search(ask.clone()).await.unwrap();
            assert_eq!(page.head, *journal.head().borrow());
            found.extend(marks(&page.found));
            if !page.has_more {
                break;
            }
            ask.after = found.last().copied();
        }
        assert_eq!(found.len(), expected.len(), "{filter:?}");
        assert_eq!(found, expected, "{filter:?}");

        for (field, step) in [
            (None, None),
            (Some(Field::Reason), None),
            (Some(Field::ExitCode), None),
            (Some(Field::Object), Some(Duration::from_secs(3_600))),
            (None, Some(Duration::from_secs(600))),
        ] {
            let mut wanted: Map<(String, i64), (u64, u64)> = Map::new();
            for (entry, facets) in &matching {
                let value = match field {
                    Some(Field::Reason) => facets.reason.to_string(),
                    Some(Field::ExitCode) => facets.exit_code.map_or(String::new(), |code| code.to_string()),
                    Some(Field::Object) => facets.object.to_string(),
                    _ => String::new(),
                };
                let step = step.map_or(0, |step: Duration| step.as_nanos() as i64);
                let from = if step == 0 { 0 } else { facets.time_ns / step * step };
                let number = wanted.entry((value, from)).or_default();
                *number = (number.0 + 1, number.1 + entry.occurrences);
            }
            let by = CountBy { field, step, top: 0 };
            let counts = journal.count(filter.clone(), by, Duration::from_secs(60)).await.unwrap();
            let counted: Map<_, _> = counts
                .into_iter()
                .map(|Count { value, from_ns, records, occurrences }| {
                    ((value, from_ns), (records, occurrences))
                })
                .collect();
            assert_eq!(counted, wanted, "{filter:?} {field:?}");
        }
    }
}

#[tokio::test]
async fn every_question_is_answered_as_the_records_themselves_say() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    for batch in 0..6 {
        journal.append(taken(world(1 + batch * 300, 300))).await.unwrap();
        if batch == 2 {
            clock.advance(DAY);
        }
    }
    check(&journal).await;
    // Of a file that has ended, the index comes into it; of the other one, it is built again.
    let journal = reopen(journal, &settings).await;
    check(&journal).await;
}

#[tokio::test]
async fn segments_in_files_answer_as_those_in_memory_did() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    for batch in 0..5 {
        // Small batches leave small blocks, which are packed anew.
        for part in 0..20 {
            journal.append(taken(world(1 + batch * 400 + part * 20, 20))).await.unwrap();
        }
        clock.advance(DAY);
    }
    journal.append(taken(world(3_000, 1))).await.unwrap();
    while journal.shared.directory.read(|state| state.stored.len()) < 5 {
        tokio::task::yield_now().await;
    }
    check(&journal).await;
    let database = rusqlite::Connection::open(folder::day_path(folder.path(), "2026-07-02")).unwrap();
    let blocks: i64 = database.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).unwrap();
    assert_eq!(blocks, 4, "400 records in blocks of 128");
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    // And as duplicates all of them are known.
    let mut duplicates = 0;
    for batch in 0..5 {
        duplicates += journal.append(taken(world(1 + batch * 400, 400))).await.unwrap().duplicates;
    }
    assert_eq!(duplicates, 2_000);
    let journal = reopen(journal, &settings).await;
    check(&journal).await;
    assert_eq!(journal.append(taken(world(1, 2_000))).await.unwrap().duplicates, 2_000);
}

#[tokio::test]
async fn a_question_looks_at_all_that_is_not_indexed_in_whichever_file_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let journal = open(&clock.settings(folder.path()));
    for batch in 0..4 {
        journal.append(taken(world(1 + batch * 4_250, 4_250))).await.unwrap();
    }
    clock.advance(DAY);
    journal.append(taken(world(20_000, 50))).await.unwrap();

    // Who asks the same files by an index that has not come to any record of them.
    let files = journal.shared.files.clone();
    let directory = Directory::default();
    for file in files.snapshot() {
        directory.add(file.generation, file.first - 1, &Segments::default());
    }
    let (questions, asked) = bounded(1);
    let metrics = JournalMetrics::default();
    let asker = Asker::new(files, directory, journal.head(), metrics, journal.writer.clone()).unwrap();
    spawn("asker", move || asker.run(&asked)).unwrap();
    let behind = SqliteJournal { questions, ..journal.clone() };

    let wanted = Filter { text: Some("number 17000".into()), ..Filter::default() };
    let page = behind.search(search(wanted.clone(), 10)).await.unwrap();
    assert_eq!(page.found.iter().map(|found| found.entry.position.0).collect::<Vec<_>>(), [17_000]);
    assert_eq!(page.head, Position(17_050), "a tail from here misses nothing");
    let within = Duration::from_secs(60);
    let counts = behind.count(Filter::default(), CountBy::default(), within).await.unwrap();
    assert_eq!(counts[0].records, 17_050);
}

#[tokio::test]
async fn an_answer_tells_of_nothing_that_is_not_acknowledged_yet() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    for batch in 0..2 {
        journal.append(taken(world(1 + batch * 100, 100))).await.unwrap();
    }
    // As it is between a commit and its being told.
    let files = journal.shared.files.clone();
    let directory = Directory::default();
    directory.add(files.snapshot()[0].generation, 0, &Segments::default());
    let (_told, head) = watch::channel(Position(100));
    let (questions, asked) = bounded(1);
    let metrics = JournalMetrics::default();
    let asker = Asker::new(files, directory, head, metrics, journal.writer.clone()).unwrap();
    spawn("asker", move || asker.run(&asked)).unwrap();
    let asking = SqliteJournal { questions, ..journal.clone() };
    let page = asking.search(search(Filter::default(), 1_000)).await.unwrap();
    assert_eq!((page.found.len(), page.head), (100, Position(100)));
}

#[tokio::test]
async fn a_question_without_time_and_one_without_words_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    journal.append(taken(world(1, 100))).await.unwrap();
    let late = Search { deadline: Duration::ZERO, ..search(Filter::default(), 1) };
    assert!(matches!(journal.search(late).await, Err(crate::history::HistoryError::Deadline(0))));
    let wordless = search(Filter { text: Some("--".into()), ..Filter::default() }, 1);
    assert!(matches!(journal.search(wordless).await, Err(crate::history::HistoryError::Text(_))));
}

#[tokio::test]
async fn it_answers_as_a_history_must() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&Settings::new(folder.path()));
    journal.append(taken(conformance::records())).await.unwrap();
    let entries = all(&journal).await;
    assert_eq!(entries.len(), conformance::records().len());
    conformance::conforms(&journal, &entries, &conformance::filters()).await;
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&Settings::new(folder.path()));
    journal.append(taken(conformance::records())).await.unwrap();
    let search = Search { deadline: Duration::ZERO, ..search(Filter::default(), 1) };
    assert_eq!(journal.search(search).await.unwrap_err(), HistoryError::Deadline(0));
}
