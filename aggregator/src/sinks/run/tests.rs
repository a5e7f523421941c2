use nodetap_wire::{Change, EventSeen, Record, record};

use super::*;
use crate::config::receivers::{BatchConfig, FileConfig, LokiConfig, ReceiverBody, TlsConfig};
use crate::journal::Taken;
use crate::journal::metrics::JournalMetrics;
use crate::journal::sqlite::{Settings, SqliteJournal};
use crate::route::pattern::Pattern;
use crate::route::rule::{Field, Rule};
use crate::route::tree::{Match, Route};
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::server::{Reply, Server};
use crate::sinks::tests::webhook;

fn to(receiver: &str, message: Option<&str>) -> Match {
    let mut rule = Rule::default();
    if let Some(message) = message {
        rule.add(Field::Message, Pattern::new(message));
    }
    Match { rule, receiver: Some(receiver.to_owned()) }
}

#[tokio::test]
async fn each_sink_gets_what_is_routed_to_it_with_a_cursor_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    let hook = Server::start(|_| Reply::Status(200)).await;
    let loki = Server::start(|_| Reply::Status(204)).await;
    let file = FileConfig {
        path: path.clone(),
        layout: None,
        max_bytes: 1 << 20,
        max_age: None,
        max_backups: None,
        de_dot: false,
    };
    let loki_config = LokiConfig {
        url: loki.url("").parse().unwrap(),
        labels: Vec::new(),
        tenant: None,
        tls: TlsConfig::default(),
        headers: Vec::new(),
        layout: None,
        batch: BatchConfig { max_wait: Duration::ZERO, ..BatchConfig::default() },
        timeout: Duration::from_secs(10),
    };
    let receiver = |name: &str, body| Receiver { name: name.to_owned(), body, delivery: Default::default() };
    let receivers = [
        receiver("file", ReceiverBody::File(file)),
        receiver("hook", ReceiverBody::Webhook(webhook(&hook.url("/")))),
        receiver("loki", ReceiverBody::Loki(loki_config)),
    ];
    let route = Route {
        r#match: vec![
            to("file", None),
            to("hook", Some("crash")),
            to("loki", None),
            to("loki", Some("crash")),
        ],
        ..Route::default()
    };
    let journal = Memory::new();
    for index in 0..9 {
        journal.event("a", if index % 3 == 0 { "crash" } else { "fine" });
    }
    let context = Context {
        journal: journal.clone(),
        router: Arc::new(Router::new(&route, &["file", "hook", "loki"])),
        cluster: "prod".into(),
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        stop: CancellationToken::new(),
        drained: crate::sinks::tests::drained(),
    };
    let (tasks, _) = spawn_all(Built::new(&receivers).unwrap(), &context);
    assert_eq!(
        tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(),
        ["sink file", "sink hook", "sink loki"]
    );
    for name in ["file", "hook", "loki"] {
        journal.reached(name, 9).await;
    }
    context.stop.cancel();
    for task in tasks {
        task.handle.await.unwrap().unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 9);
    assert_eq!(hook.got().len(), 3);
    let pushed: usize = loki.bodies().iter().map(|body| body.matches(r#"\"id\""#).count()).sum();
    assert_eq!(pushed, 12, "what two rules send goes twice");
}

fn taken(versions: std::ops::Range<u64>) -> Taken {
    let record = |version: u64| {
        let json = format!(
            r#"{{"metadata":{{"name":"web.{version}","namespace":"shop","uid":"u{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web","uid":"pod-1"}},"reason":"BackOff","count":1}}"#
        );
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
    };
    Taken { node: "n1".to_owned(), records: versions.map(record).collect(), ..Taken::default() }
}

#[tokio::test]
async fn over_the_real_journal_a_file_has_each_record_once_however_often_its_sink_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    let settings = Settings::new(folder.path().join("journal"));
    let journal = SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())).unwrap();
    let file = FileConfig {
        path: path.clone(),
        layout: None,
        max_bytes: 1 << 30,
        max_age: None,
        max_backups: None,
        de_dot: false,
    };
    let receivers =
        [Receiver { name: "file".to_owned(), body: ReceiverBody::File(file), delivery: Default::default() }];
    let route = Route { r#match: vec![to("file", None)], ..Route::default() };
    let router = Arc::new(Router::new(&route, &["file"]));
    for round in 0..4 {
        let context = Context {
            journal: journal.clone(),
            router: Arc::clone(&router),
            cluster: "prod".into(),
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
            stop: CancellationToken::new(),
            drained: crate::sinks::tests::drained(),
        };
        let (tasks, _) = spawn_all(Built::new(&receivers).unwrap(), &context);
        let head = journal.append(taken(1 + round * 1500..1 + (round + 1) * 1500)).await.unwrap().head;
        if round == 3 {
            while journal.cursor("sink/file").await.unwrap() != Some(head) {
                tokio::task::yield_now().await;
            }
        }
        context.stop.cancel();
        for task in tasks {
            task.handle.await.unwrap().unwrap();
        }
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let versions: Vec<u64> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(versions, (1..=6000).collect::<Vec<_>>());
    journal.close().await;
}
