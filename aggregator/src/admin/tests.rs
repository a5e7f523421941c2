#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use super::*;
use crate::admit;
use crate::journal::metrics::{JournalMetrics, Kind, KindLabel};
use crate::sinks::encode::Encoder;
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::looping;
use crate::sinks::{Delivery, Limits, Outcome, Report, Sink};

/// Refuses for as long as it is told to.
struct Picky {
    refuses: Arc<Mutex<bool>>,
    took: Arc<Mutex<Vec<String>>>,
}

impl Sink for Picky {
    fn limits(&self) -> Limits {
        Limits { records: 2, bytes: 1 << 20, wait: Duration::ZERO }
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        for (index, delivery) in batch.iter().enumerate() {
            if *self.refuses.lock().unwrap() {
                report.set(index, Outcome::Refused("answered 400 Bad Request: no such index".to_owned()));
            } else {
                self.took.lock().unwrap().push(delivery.id.to_string());
                report.set(index, Outcome::Delivered);
            }
        }
    }
}

async fn listed(folder: &Path, which: Which) -> Vec<Shown> {
    let mut out = Vec::new();
    client::list(folder, which, true, &mut out).await.unwrap();
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_delivered_again_with_the_same_id_and_dropped_while_the_aggregator_runs() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Memory::new();
    for _ in 0..5 {
        journal.event("a", "x");
    }
    let (refuses, took) = (Arc::new(Mutex::new(true)), Arc::default());
    let sink = Picky { refuses: Arc::clone(&refuses), took: Arc::clone(&took) };
    let (mut delivering, metrics) = looping("hook", &journal, Encoder::default(), sink);
    let (order, replays) = tokio::sync::mpsc::channel(4);
    delivering.replays = replays;
    let stop = CancellationToken::new();
    let delivering = tokio::spawn(delivering.run(stop.clone()));
    let orders = Orders::from([("hook".to_owned(), order)]);
    let listener = bind(folder.path()).unwrap();
    let (door, counts) = (admit::metrics::Metrics::default(), JournalMetrics::default());
    let sinks = crate::sinks::Metrics::register(&mut prometheus_client::registry::Registry::default());
    let sources = Sources::new(door.clone(), counts.clone(), &journal, sinks);
    let serving = tokio::spawn(Admin::new(journal.clone(), orders, sources).run(listener, stop.clone()));
    journal.reached("hook", 5).await;

    let all = listed(folder.path(), Which::default()).await;
    assert_eq!(all.iter().map(|letter| letter.position).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(all[0].sink, "hook");
    assert_eq!(all[0].reason, "answered 400 Bad Request: no such index");
    let one = Which { position: Some(3), ..Which::default() };
    assert_eq!(listed(folder.path(), one.clone()).await.len(), 1);

    // Refused again, it stays, and is not tried a third time.
    let commits = journal.commits();
    client::order(folder.path(), "replay", &one).await.unwrap();
    while journal.commits() == commits {
        tokio::task::yield_now().await;
    }
    assert_eq!(listed(folder.path(), Which::default()).await.len(), 5);

    *refuses.lock().unwrap() = false;
    let hook = Which { sink: Some("hook".to_owned()), ..Which::default() };
    assert_eq!(client::order(folder.path(), "replay", &hook).await.unwrap(), "ordered");
    while !journal.dead("hook").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*took.lock().unwrap(), (1..=5).map(|n| format!("event/prod/u{n}/{n}")).collect::<Vec<_>>());
    assert_eq!((metrics.replayed.get(), metrics.dead_letters.get()), (5, 5));

    *refuses.lock().unwrap() = true;
    journal.event("a", "x");
    journal.reached("hook", 6).await;
    assert_eq!(client::order(folder.path(), "drop", &Which::default()).await.unwrap(), "dropped 1");
    assert!(listed(folder.path(), Which::default()).await.is_empty());

    let said = async || {
        let report = client::reconcile(folder.path()).await.unwrap();
        serde_json::from_str::<serde_json::Value>(&report).unwrap()
    };
    let report = said().await;
    assert_eq!((report["from"].as_u64(), report["head"].as_u64()), (Some(5), Some(6)));
    assert_eq!(report["addsUp"].as_bool(), Some(false), "nobody counted the sixth as journalled");
    counts.records.get_or_create(&KindLabel { kind: Kind::Event }).inc();
    assert_eq!(said().await["addsUp"].as_bool(), Some(false), "nor at the door");
    door.give(1).kept();
    assert_eq!(said().await["addsUp"].as_bool(), Some(true));

    let nobody = Which { sink: Some("hok".to_owned()), ..Which::default() };
    let refused = client::order(folder.path(), "replay", &nobody).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no receiver \"hok\"; there are hook");
    stop.cancel();
    delivering.await.unwrap().unwrap();
    serving.await.unwrap();
    let gone = client::order(Path::new("/nonexistent"), "drop", &Which::default()).await.unwrap_err();
    assert!(gone.to_string().contains("is the aggregator running"), "{gone}");
}
