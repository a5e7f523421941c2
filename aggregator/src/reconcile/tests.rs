#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use nodetap_wire::{Change, EventSeen, Record, record};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::receivers::{DeliveryConfig, Receiver, ReceiverBody};
use crate::journal::sqlite::{Settings, SqliteJournal};
use crate::journal::{Journal, Letters, Taken};
use crate::route::Router;
use crate::route::tree::{Match, Route};
use crate::sinks::tests::server::{Reply, Server};
use crate::sinks::tests::webhook;
use crate::sinks::{Built, Context, spawn_all};

fn taken(versions: std::ops::Range<u64>) -> Taken {
    let record = |version: u64| {
        let pod = version % 7;
        let json = format!(
            r#"{{"metadata":{{"name":"web.{version}","namespace":"shop","uid":"u{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web-{pod}","uid":"pod-{pod}"}},"reason":"BackOff","count":1}}"#
        );
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
    };
    Taken { node: "n1".to_owned(), records: versions.map(record).collect(), ..Taken::default() }
}

fn version(body: &str) -> u64 {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// mustafaakin/kubernetes-event-exporter#24: a hole of 17 s at each change of leader.
#[tokio::test]
async fn defect_8_over_kills_refusals_and_repeats_no_record_is_missing_and_the_accounts_add_up_at_every_look()
{
    let folder = tempfile::tempdir().unwrap();
    let took: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let kept = Arc::clone(&took);
    // One in ten refused for good; each third request of the others finds nobody at home.
    let mut requests = 0;
    let server = Server::start(move |got| {
        requests += 1;
        let version = version(&got.body);
        match (version % 10, requests % 3) {
            (3, _) => Reply::Text(400, "no such index"),
            (_, 0) => Reply::RetryAfter(503, "0"),
            _ => {
                kept.lock().unwrap().insert(version);
                Reply::Status(200)
            }
        }
    })
    .await;
    let receiver = |name: &str, path: &str| Receiver {
        name: name.to_owned(),
        body: ReceiverBody::Webhook(webhook(&server.url(path))),
        delivery: DeliveryConfig::default(),
    };
    let receivers = [receiver("all", "/all"), receiver("none", "/none")];
    let rule = Match { receiver: Some("all".to_owned()), ..Match::default() };
    let route = Route { r#match: vec![rule], ..Route::default() };
    let router = Arc::new(Router::new(&route, &["all", "none"]));
    const ROUNDS: u64 = 4;
    for round in 0..ROUNDS {
        let metrics = JournalMetrics::default();
        let settings = Settings::new(folder.path());
        let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
        let door = admit::metrics::Metrics::default();
        let sinks = sinks::Metrics::register(&mut Registry::default());
        let sources = Sources::new(door.clone(), metrics, &journal, sinks);
        let context = Context {
            journal: journal.clone(),
            router: Arc::clone(&router),
            cluster: "prod".into(),
            metrics: sources.sinks.clone(),
            stop: CancellationToken::new(),
            drained: crate::sinks::tests::drained(),
        };
        let (tasks, orders) = spawn_all(Built::new(&receivers).unwrap(), &context);
        let first = 1 + round * 40;
        // What was sent before, sent again: only half of it is new.
        for versions in [first.saturating_sub(20).max(1)..first, first..first + 20, first..first + 40] {
            let given = door.give(versions.clone().count() as u64);
            let appended = journal.append(taken(versions.clone())).await.unwrap();
            assert!(sources.report().adds_up, "before the door knows");
            given.kept();
            assert_eq!(appended.new + appended.duplicates, versions.count());
        }
        let last = round + 1 == ROUNDS;
        loop {
            let report = sources.report();
            assert!(report.adds_up, "{report:#?}");
            let sink = report.sinks.get("all").copied();
            let done = |sink: SinkReport| sink.unread == 0 && sink.account.pending == 0;
            if sink.is_some_and(|sink| if last { done(sink) } else { sink.account.delivered >= 5 }) {
                break;
            }
            tokio::task::yield_now().await;
        }
        let report = sources.report();
        assert_eq!(report.intake.journalled, 40);
        assert_eq!((report.from, report.head), (round * 40, (round + 1) * 40));
        let taken = report.intake.taken;
        assert_eq!((taken, report.intake.in_flight), (if round == 0 { 60 } else { 80 }, 0));
        assert_eq!(report.intake.journalled + report.intake.duplicates, taken);
        if last {
            let all = report.sinks["all"].account;
            assert_eq!(all.deliveries, all.delivered + all.dead);
            while journal.cursor("sink/all").await.unwrap().map(|cursor| cursor.0) != Some(report.head) {
                tokio::task::yield_now().await;
            }
        }
        drop(orders);
        for task in tasks {
            // As by kill -9: nothing of it is said to anybody.
            task.handle.abort();
            let _ = task.handle.await;
        }
        if last {
            let letters = journal.dead_letters(Letters::default(), 1000).await.unwrap();
            assert!(letters.iter().all(|kept| kept.letter.reason.contains("no such index")), "{letters:?}");
            let dead: BTreeSet<u64> = letters.iter().map(|kept| kept.letter.position.0).collect();
            let all: BTreeSet<u64> = took.lock().unwrap().union(&dead).copied().collect();
            assert_eq!(all, (1..=ROUNDS * 40).collect(), "every record is there or a dead letter");
            assert_eq!(dead.len() as u64, ROUNDS * 4);
        }
        journal.close().await;
        drop(context);
        drop(journal);
    }
}

#[test]
fn the_intake_adds_up_where_each_record_that_was_taken_is_counted_once() {
    let intake = Intake {
        refused: BTreeMap::new(),
        given: 14,
        taken: 10,
        not_kept: 1,
        in_flight: 3,
        journalled: 5,
        duplicates: 3,
        pod_facts: 1,
        unknown: 1,
    };
    assert!(intake.adds_up());
    let with = |taken, in_flight| Intake { given: taken + 1 + in_flight, taken, in_flight, ..intake.clone() };
    // What the journal has kept, and has not told the door.
    assert!(with(8, 2).adds_up() && with(10, 0).adds_up());
    assert!(!with(8, 1).adds_up(), "more than was given");
    assert!(!with(11, 3).adds_up(), "taken, and not there");
    assert!(!Intake { given: 15, ..intake.clone() }.adds_up());
    let reaches = |head| intake.reaches(Position(100), head);
    assert_eq!([101, 102, 105, 106].map(reaches), [false, true, true, false], "5 journalled, 3 in flight");
}

#[tokio::test]
async fn after_a_loss_found_at_start_a_sink_misses_what_is_lost_and_not_what_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let day = Arc::new(std::sync::atomic::AtomicI64::new(1_783_000_000_000_000_000));
    let clock = Arc::clone(&day);
    let settings = Settings {
        clock: Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed)),
        ..Settings::new(folder.path())
    };
    let open = |metrics| SqliteJournal::open(settings.clone(), metrics, Box::new(())).unwrap();
    let journal = open(JournalMetrics::default());
    // Of 20 records the sink has had 4; those of the second day are lost with their file.
    journal.append(taken(1..11)).await.unwrap();
    day.fetch_add(86_400_000_000_000, std::sync::atomic::Ordering::Relaxed);
    journal.append(taken(11..21)).await.unwrap();
    journal.commit("sink/all", Position(4), Vec::new()).await.unwrap();
    journal.close().await;
    drop(journal);
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| path.to_str().unwrap().ends_with(".sqlite"));
    let newest = newest.filter(|path| path.to_str().unwrap().contains("journal-2")).max().unwrap();
    std::fs::remove_file(newest).unwrap();
    let server = Server::start(|_| Reply::Hang).await;
    // A second start knows it no worse than the one that found it.
    for new in [21..26, 26..31] {
        let metrics = JournalMetrics::default();
        let journal = open(metrics.clone());
        let records = new.end - 21;
        journal.append(taken(new)).await.unwrap();
        let receivers = [Receiver {
            name: "all".to_owned(),
            body: ReceiverBody::Webhook(webhook(&server.url("/"))),
            delivery: DeliveryConfig::default(),
        }];
        let rule = Match { receiver: Some("all".to_owned()), ..Match::default() };
        let router = Router::new(&Route { r#match: vec![rule], ..Route::default() }, &["all"]);
        let mut registry = Registry::default();
        let sinks = sinks::Metrics::register(&mut registry);
        let sources = Sources::new(admit::metrics::Metrics::default(), metrics, &journal, sinks);
        let context = Context {
            journal: journal.clone(),
            router: Arc::new(router),
            cluster: "prod".into(),
            metrics: sources.sinks.clone(),
            stop: CancellationToken::new(),
            drained: crate::sinks::tests::drained(),
        };
        let (tasks, orders) = spawn_all(Built::new(&receivers).unwrap(), &context);
        let sink = loop {
            tokio::task::yield_now().await;
            let report = sources.report();
            let sink = report.sinks.get("all").copied();
            if let Some(sink) = sink.filter(|sink| sink.unread == 0 && sink.account.routed > 0) {
                assert!(sink.adds_up && report.head > 1_000_000, "{report:#?}");
                break sink.account;
            }
        };
        assert_eq!((sink.routed, sink.missed), (6 + records, 10), "{sink:?}");
        assert!(sink.never_given > 900_000);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("nodetap_sink_missed_total{sink=\"all\"} 10\n"), "{text}");
        let lag = text.lines().find_map(|line| line.strip_prefix("nodetap_sink_lag_records{sink=\"all\"} "));
        assert!(lag.unwrap().parse::<u64>().unwrap() <= 16 + records, "{lag:?}");
        drop(orders);
        for task in tasks {
            task.handle.abort();
            let _ = task.handle.await;
        }
        journal.close().await;
    }
}
