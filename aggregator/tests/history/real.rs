//! The API over the journal on disk, as the aggregator runs it.

use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use nodetap_aggregator::journal::{Body, Journal, Taken};
use nodetap_wire::{Change, EventSeen, Record, record};
use serde_json::Value;

use crate::client::{Served, positions};
use crate::{death, event};

fn open(folder: &std::path::Path) -> SqliteJournal {
    SqliteJournal::open(Settings::new(folder), JournalMetrics::default(), Box::new(())).unwrap()
}

fn taken(bodies: Vec<Body>) -> Taken {
    let record = |body| match body {
        Body::Event(json) => {
            let json = std::str::from_utf8(&json).unwrap();
            record::Kind::Event(EventSeen::from_json(json, Change::Added).unwrap())
        }
        Body::Death(death) => record::Kind::Death(death),
    };
    let records = bodies.into_iter().map(|body| Record { kind: Some(record(body)) }).collect();
    Taken { node: "node-1".into(), records, ..Taken::default() }
}

/// Every page of a question.
async fn pages(served: &Served, query: &str) -> Vec<u64> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = served.json(&format!("/api/v1/records?limit=70&{query}{cursor}")).await;
        found.extend(positions(&page));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn the_journal_on_disk_is_searched_counted_exported_and_followed_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let events = (1..=300).map(|number| event(number, number, &format!("attempt {}", number % 7)));
    journal.append(taken(events.chain([death(400)]).collect())).await.unwrap();
    let mut journals = vec![journal];
    for round in 0..2_u64 {
        let journal = journals.pop().unwrap();
        let served = Served::start(journal.clone()).await;
        let last = 301 + round;
        let all: Vec<u64> = (1..=last).rev().collect();
        assert_eq!(
            pages(&served, "").await.iter().collect::<std::collections::BTreeSet<_>>().len(),
            all.len()
        );
        let threes: Vec<u64> = (1..=300).rev().filter(|number| number % 7 == 3).collect();
        assert_eq!(pages(&served, "text=ATTEMPT+3").await, threes);
        assert_eq!(pages(&served, "record=death&namespace=bank&exitCode=137&text=memory").await, [301]);
        assert_eq!(
            pages(&served, "name=web-0&until=2026-01-01T00:00:11Z").await,
            (1..=10).rev().collect::<Vec<_>>()
        );

        let counts = served.json("/api/v1/counts?by=node").await["counts"].clone();
        assert_eq!(counts[0]["value"], "node-1");
        assert_eq!(counts[0]["records"], 300 + round);
        assert_eq!(counts[1], serde_json::json!({"value": "node-2", "records": 1, "occurrences": 1}));

        let export = async |query: &str| -> Vec<u64> {
            let answer = served.get(&format!("/api/v1/export?{query}")).await;
            assert!(!answer.is_cut);
            let position =
                |line: &str| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64().unwrap();
            answer.text().lines().map(position).collect()
        };
        assert_eq!(export("order=oldest").await, (1..=last).collect::<Vec<_>>());
        assert_eq!(export("text=attempt+3").await, threes);
        assert_eq!(served.json("/api/v1/records/301").await["event"]["container"]["exitCode"], 137);

        // From a search to a tail without a gap.
        let head = served.json("/api/v1/records?limit=1").await["head"].as_u64().unwrap();
        assert_eq!(head, last);
        let mut tail = served.tail("/api/v1/tail", Some(head)).await;
        journal.append(taken(vec![event(1_000 + round, 1_000 + round, "new")])).await.unwrap();
        assert_eq!(tail.event().await.id, Some(last + 1));
        assert_eq!(positions(&served.json("/api/v1/records?limit=1").await), [last + 1]);

        served.stop.cancel();
        drop(tail);
        served.running.await.unwrap();
        journal.close().await;
        drop(journal);
        journals.push(open(folder.path()));
    }
}
