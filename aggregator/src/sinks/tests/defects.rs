//! What users reported of other exporters, as tests: reference numbers are those of their issues.

use nodetap_wire::{Change, EventSeen, Record, record};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::journal::Memory;
use super::server::{Reply, Server};
use super::*;
use crate::config::receivers::{BatchConfig, FileConfig, LokiConfig};
use crate::journal::metrics::JournalMetrics;
use crate::journal::sqlite::{Settings, SqliteJournal};
use crate::journal::{Journal, Taken};
use crate::route::template::Layout;

fn receiver(name: &str, body: ReceiverBody) -> Receiver {
    Receiver { name: name.to_owned(), body, delivery: Default::default() }
}

/// As little as a person would write.
fn loki(server: &Server) -> LokiConfig {
    LokiConfig {
        url: server.url("/loki/api/v1/push").parse().unwrap(),
        labels: Vec::new(),
        tenant: None,
        tls: TlsConfig::default(),
        headers: Vec::new(),
        layout: None,
        batch: BatchConfig::default(),
        timeout: Duration::from_secs(10),
    }
}

/// Runs the receiver's loop over a journal.
fn run(receiver: &Receiver, journal: &Memory) -> (tokio::task::JoinHandle<()>, metrics::SinkMetrics) {
    let encoder = encode::Encoder::new(&receiver.body);
    let (delivering, metrics) = looping(&receiver.name, journal, encoder, build(receiver).unwrap());
    let stop = CancellationToken::new();
    (tokio::spawn(async move { delivering.run(stop).await.unwrap() }), metrics)
}

/// A file in a folder, to which everything goes.
fn to_a_file(folder: &std::path::Path) -> ([Receiver; 1], Arc<Router>, std::path::PathBuf) {
    let path = folder.join("events.json");
    let file = FileConfig {
        path: path.clone(),
        layout: None,
        max_bytes: 1 << 30,
        max_age: None,
        max_backups: None,
        de_dot: false,
    };
    let rule = Match { receiver: Some("file".to_owned()), ..Match::default() };
    let router = Arc::new(Router::new(&Route { r#match: vec![rule], ..Route::default() }, &["file"]));
    ([receiver("file", ReceiverBody::File(file))], router, path)
}

/// Defect 1, mustafaakin/kubernetes-event-exporter#196: "Event discarded as being older then maxEventAgeSeconds".
#[tokio::test(start_paused = true)]
async fn defect_1_events_of_the_last_hour_are_all_delivered_however_old_they_are() {
    let journal = Memory::new();
    let now = nodetap_wire::time::now_ns();
    for minutes in 0..60_i64 {
        let time = jiff::Timestamp::from_nanosecond(i128::from(now - minutes * 60_000_000_000)).unwrap();
        journal.raw(format!(
            r#"{{"metadata":{{"name":"e","namespace":"shop","uid":"u{minutes}","resourceVersion":"{minutes}"}},"involvedObject":{{"kind":"Pod","name":"web"}},"reason":"BackOff","lastTimestamp":"{time:.0}"}}"#
        ));
    }
    let server = Server::start(|_| Reply::Status(200)).await;
    let hook = receiver("hook", ReceiverBody::Webhook(webhook(&server.url("/"))));
    let (_task, metrics) = run(&hook, &journal);
    journal.reached("hook", 60).await;
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get(), metrics.missed.get()), (60, 0, 0));
    assert_eq!(server.got().len(), 60);
}

/// Defect 3, mustafaakin/kubernetes-event-exporter#51: an event that is counted up is not exported again.
#[tokio::test]
async fn defect_3_an_event_that_is_counted_to_fifty_is_told_of_fifty_times_in_the_history_and_by_a_sink() {
    let folder = tempfile::tempdir().unwrap();
    let (receivers, router, path) = to_a_file(folder.path());
    let settings = Settings::new(folder.path().join("journal"));
    let journal = SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())).unwrap();
    let context = Context {
        journal: journal.clone(),
        router,
        cluster: "prod".into(),
        metrics: Metrics::register(&mut Registry::default()),
        stop: CancellationToken::new(),
        drained: crate::sinks::tests::drained(),
    };
    let (tasks, _orders) = spawn_all(Built::new(&receivers).unwrap(), &context);
    let state = |count: u64| {
        let json = format!(
            r#"{{"metadata":{{"name":"web.1","namespace":"shop","uid":"u1","resourceVersion":"{}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web"}},"reason":"BackOff","count":{count}}}"#,
            100 + count
        );
        let change = if count == 1 { Change::Added } else { Change::Modified };
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, change).unwrap())) }
    };
    for records in [1..=20, 21..=50] {
        let taken =
            Taken { node: "n1".to_owned(), records: records.map(state).collect(), ..Taken::default() };
        journal.append(taken).await.unwrap();
    }
    let entries = journal.read_from(Position(0), 100).await.unwrap();
    assert_eq!(entries.len(), 50);
    assert_eq!(entries.iter().map(|entry| entry.occurrences).sum::<u64>(), 50);
    while journal.cursor("sink/file").await.unwrap() != Some(Position(50)) {
        tokio::task::yield_now().await;
    }
    context.stop.cancel();
    for task in tasks {
        task.handle.await.unwrap().unwrap();
    }
    journal.close().await;
    let written = std::fs::read_to_string(&path).unwrap();
    let told: Vec<serde_json::Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts: Vec<u64> = told.iter().map(|told| told["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
    assert_eq!(told.iter().map(|told| told["occurrences"].as_u64().unwrap()).sum::<u64>(), 50);
}

/// Defect 5, opsgenie/kubernetes-event-exporter#194: a zero timestamp makes Loki reject the whole push.
#[tokio::test(start_paused = true)]
async fn defect_5_an_event_without_a_time_reaches_loki_with_that_of_its_taking() {
    let journal = Memory::new();
    let before = nodetap_wire::time::now_ns();
    for (number, times) in [
        r#""firstTimestamp":null,"lastTimestamp":null"#,
        r#""firstTimestamp":"0001-01-01T00:00:00Z","lastTimestamp":"0001-01-01T00:00:00Z""#,
        r#""eventTime":"1970-01-01T00:00:00Z""#,
        r#""count":1"#,
    ]
    .iter()
    .enumerate()
    {
        journal.raw(format!(
            r#"{{"metadata":{{"name":"e","namespace":"shop","uid":"u{number}","resourceVersion":"{number}"}},"involvedObject":{{"kind":"Pod","name":"web"}},{times}}}"#
        ));
    }
    let server = Server::start(|_| Reply::Status(204)).await;
    let loki = receiver("loki", ReceiverBody::Loki(loki(&server)));
    let (_task, _) = run(&loki, &journal);
    journal.reached("loki", 4).await;
    let mut entries = 0;
    for body in server.bodies() {
        let push: serde_json::Value = serde_json::from_str(&body).unwrap();
        for value in push["streams"].as_array().unwrap().iter().flat_map(|s| s["values"].as_array().unwrap())
        {
            let time: i64 = value[0].as_str().unwrap().parse().unwrap();
            assert!(time >= before, "{value}");
            assert!(!value[1].as_str().unwrap().contains("0001-01-01"), "{value}");
            entries += 1;
        }
    }
    assert_eq!(entries, 4);
}

/// Defect 9, opsgenie/kubernetes-event-exporter#137: memory grows behind a blocked sink.
#[tokio::test(start_paused = true)]
async fn defect_9_a_blocked_sink_holds_two_batches_however_many_records_come() {
    let journal = Memory::new();
    let server = Server::start(|_| Reply::Hang).await;
    let hook = receiver("hook", ReceiverBody::Webhook(webhook(&server.url("/"))));
    for _ in 0..5000 {
        journal.event("a", "x");
    }
    let (_task, metrics) = run(&hook, &journal);
    while metrics.retried.get() < 5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        journal.event("a", "x");
    }
    // What one read brings at most, beside what stood there.
    let pending = metrics.account().pending;
    assert!(pending <= 64 * 2 + 512, "{pending} are held");
    assert!(metrics.lag_records.get() >= 5000);
}

/// Defect 11, opsgenie/kubernetes-event-exporter#170: a template's error is silent, and the event not sent.
#[tokio::test(start_paused = true)]
async fn defect_11_a_template_that_fails_for_a_record_makes_a_dead_letter_that_is_counted() {
    let journal = Memory::new();
    journal.event("a", "x");
    let server = Server::start(|_| Reply::Status(200)).await;
    let layout = Layout::compile(&serde_json::json!({"n": "{{ fail \"no\" }}"}));
    let config = WebhookConfig { layout: Some(layout.unwrap()), ..webhook(&server.url("/")) };
    let (_task, metrics) = run(&receiver("hook", ReceiverBody::Webhook(config)), &journal);
    journal.reached("hook", 1).await;
    assert_eq!(metrics.dead_letters.get(), 1);
    let dead = journal.dead("hook");
    assert!(dead[0].1.starts_with("layout: "), "{dead:?}");
    assert!(server.got().is_empty());
}

/// Defect 12, mustafaakin/kubernetes-event-exporter#119: Loki as in the README sends nothing and shows no error.
#[tokio::test(start_paused = true)]
async fn defect_12_loki_without_labels_delivers_and_what_it_refuses_is_kept_with_its_answer() {
    let journal = Memory::new();
    journal.event("a", "fine");
    journal.event("a", "refused");
    let server = Server::start(|got| match got.body.contains("refused") {
        true => Reply::Text(400, "error at least one label pair is required per stream"),
        false => Reply::Status(204),
    })
    .await;
    let (_task, metrics) = run(&receiver("loki", ReceiverBody::Loki(loki(&server))), &journal);
    journal.reached("loki", 2).await;
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (1, 1));
    assert!(server.bodies().iter().all(|body| body.contains(r#""stream":{"app":"#)));
    assert!(journal.dead("loki")[0].1.ends_with("at least one label pair is required per stream"));
}

/// Defect 13, opsgenie/kubernetes-event-exporter#179: a webhook's passing failure loses the event.
#[tokio::test(start_paused = true)]
async fn defect_13_a_webhook_that_answers_503_for_ten_minutes_gets_everything_in_the_order_of_each_object() {
    let journal = Memory::new();
    for index in 0..40 {
        journal.event(if index % 2 == 0 { "a" } else { "b" }, "x");
    }
    let began = tokio::time::Instant::now();
    let server = Server::start(move |_| {
        if began.elapsed() < Duration::from_secs(600) { Reply::Status(503) } else { Reply::Status(200) }
    })
    .await;
    let hook = receiver("hook", ReceiverBody::Webhook(webhook(&server.url("/"))));
    let (_task, metrics) = run(&hook, &journal);
    journal.reached("hook", 40).await;
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (40, 0));
    let ids: Vec<String> =
        server.got().iter().map(|got| got.headers["nodetap-id"].to_str().unwrap().to_owned()).collect();
    let last = &ids[ids.len() - 40..];
    // In order for each object; the two go side by side.
    for first in [1, 2] {
        let taken: Vec<String> = (first..=40).step_by(2).map(|n| format!("event/prod/u{n}/{n}")).collect();
        let of_object: Vec<String> = last.iter().filter(|id| taken.contains(id)).cloned().collect();
        assert_eq!(of_object, taken);
    }
}

/// Defect 14, mustafaakin/kubernetes-event-exporter#163: `labels.app` is a text in one document and an object in the next, which
/// is rejected and gone.
#[tokio::test(start_paused = true)]
async fn defect_14_labels_of_both_styles_are_texts_and_a_rejected_document_is_kept_with_its_answer() {
    let labels = |labels: &str| {
        format!(
            r#"{{"metadata":{{"name":"e","namespace":"shop","uid":"u","resourceVersion":"1","labels":{labels}}},"involvedObject":{{"kind":"Pod","name":"web"}}}}"#
        )
    };
    // Under deDot no key is another's parent.
    let stdout = ReceiverBody::Stdout(StdoutConfig { de_dot: true, ..StdoutConfig::default() });
    let mut encoder = encode::Encoder::new(&stdout);
    let journal = Memory::new();
    journal.raw(labels(r#"{"app":"web","app.kubernetes.io/name":"web"}"#));
    let entry = journal.read_from(Position(0), 1).await.unwrap().remove(0);
    let delivery = encoder.encode(&entry.face("prod").unwrap(), Position(1), 1).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
    let expected = serde_json::json!({"app": "web", "app_kubernetes_io/name": "web"});
    assert_eq!(body["metadata"]["labels"], expected);

    // A store that takes dots as nesting rejects the one without, and has the other.
    const ANSWER: &str = "mapper_parsing_exception: object mapping for [metadata.labels.app] tried to parse field [app] as object";
    journal.raw(labels(r#"{"app":"web"}"#));
    let server = Server::start(|got| match got.body.contains("app.kubernetes.io") {
        true => Reply::Text(400, ANSWER),
        false => Reply::Status(200),
    })
    .await;
    let hook = receiver("hook", ReceiverBody::Webhook(webhook(&server.url("/"))));
    let (_task, metrics) = run(&hook, &journal);
    journal.reached("hook", 2).await;
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (1, 1));
    let dead = journal.dead("hook");
    assert!(dead[0].0 == 1 && dead[0].1.contains("mapper_parsing_exception"), "{dead:?}");
}

fn listed(versions: std::ops::Range<u64>, change: Change) -> Taken {
    let record = |version: u64| {
        let json = format!(
            r#"{{"metadata":{{"name":"web.{version}","namespace":"shop","uid":"u{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web","uid":"pod-1"}},"reason":"BackOff","count":1}}"#
        );
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, change).unwrap())) }
    };
    Taken { node: "n1".to_owned(), records: versions.map(record).collect(), ..Taken::default() }
}

/// Defects 16 and 17, vmware-archive/eventrouter#60 and #67: a restart, and a list, send everything again.
#[tokio::test]
async fn defect_16_and_17_twenty_restarts_and_lists_journal_and_deliver_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (receivers, router, path) = to_a_file(folder.path());
    for round in 0..20 {
        let settings = Settings::new(folder.path().join("journal"));
        let journal = SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())).unwrap();
        let context = Context {
            journal: journal.clone(),
            router: Arc::clone(&router),
            cluster: "prod".into(),
            metrics: Metrics::register(&mut Registry::default()),
            stop: CancellationToken::new(),
            drained: crate::sinks::tests::drained(),
        };
        let (tasks, orders) = spawn_all(Built::new(&receivers).unwrap(), &context);
        let change = if round == 0 { Change::Added } else { Change::Listed };
        let appended = journal.append(listed(1..101, change)).await.unwrap();
        assert_eq!(appended.new, if round == 0 { 100 } else { 0 });
        assert_eq!(appended.head, Position(100));
        while journal.cursor("sink/file").await.unwrap() != Some(Position(100)) {
            tokio::task::yield_now().await;
        }
        context.stop.cancel();
        for task in tasks {
            task.handle.await.unwrap().unwrap();
        }
        journal.close().await;
        drop((orders, context, journal));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
}

/// Defect 18, vmware-archive/eventrouter#103: gigabytes, and a series for each object.
#[test]
fn defect_18_a_million_objects_make_no_more_series_than_are_allowed() {
    let mut registry = Registry::default();
    let switches = crate::metrics::compatibility::Switches::default();
    let metrics = crate::metrics::ClusterMetrics::register(&mut registry, switches);
    for number in 0..1_000_000_u64 {
        let event = EventSeen {
            uid: format!("u{number}").into(),
            namespace: format!("team-{number}").into(),
            object: format!("web-{number}").into(),
            reason: format!("Reason{number}").into(),
            kind: "Pod".into(),
            r#type: "Warning".into(),
            ..EventSeen::default()
        };
        metrics.count(&Record { kind: Some(record::Kind::Event(event)) }, 1);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 5_000, "{series} series");
    assert!(!text.contains("web-"), "an object's name is no label");
}
