use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::receivers::{BatchConfig, Receiver, ReceiverBody, TlsConfig};
use crate::route::template::Template;
use crate::sinks::build;
use crate::sinks::encode::Encoder;
use crate::sinks::metrics::SinkMetrics;
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::server::{Reply, Server};
use crate::sinks::tests::{delivery, looping};

fn config(url: &str) -> LokiConfig {
    LokiConfig {
        url: url.parse().unwrap(),
        labels: Vec::new(),
        tenant: None,
        tls: TlsConfig::default(),
        headers: Vec::new(),
        layout: None,
        batch: BatchConfig { max_records: 100, max_bytes: 1 << 20, max_wait: Duration::from_secs(1) },
        timeout: Duration::from_secs(10),
    }
}

fn deliver(journal: &Memory, config: LokiConfig) -> SinkMetrics {
    let receiver =
        Receiver { name: "loki".to_owned(), body: ReceiverBody::Loki(config), delivery: Default::default() };
    let (delivering, metrics) =
        looping("loki", journal, Encoder::new(&receiver.body), build(&receiver).unwrap());
    tokio::spawn(delivering.run(CancellationToken::new()));
    metrics
}

/// The lines of a push.
fn lines(body: &str) -> Vec<String> {
    let push: serde_json::Value = serde_json::from_str(body).unwrap();
    let streams = push["streams"].as_array().unwrap();
    let values = streams.iter().flat_map(|stream| stream["values"].as_array().unwrap());
    values.map(|value| value[1].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_push_has_a_stream_for_each_label_set_and_its_entries_by_time() {
    let with = |time_ns: i64, app: &str, line: &'static str| Delivery {
        time_ns,
        labels: vec![("app".to_owned(), app.to_owned()), ("kind".to_owned(), "Pod".to_owned())],
        body: line.into(),
        ..delivery(1, "a")
    };
    let batch = [
        with(1_700_000_000_000_000_002, "x", r#"{"n":1}"#),
        with(1_700_000_000_000_000_009, "y", r#"{"n":2}"#),
        with(1_700_000_000_000_000_001, "x", r#"{"n":3}"#),
        with(1_700_000_000_000_000_002, "x", r#"{"n":4}"#),
    ];
    let expected = concat!(
        r#"{"streams":[{"stream":{"app":"x","kind":"Pod"},"values":["#,
        r#"["1700000000000000001","{\"n\":3}"],["1700000000000000002","{\"n\":1}"],["1700000000000000002","{\"n\":4}"]]},"#,
        r#"{"stream":{"app":"y","kind":"Pod"},"values":[["1700000000000000009","{\"n\":2}"]]}]}"#
    );
    assert_eq!(payload(batch.iter()), expected);
}

#[test]
fn a_bare_address_gets_the_push_path_and_any_other_is_left_alone() {
    for (given, pushed) in [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
        ("https://loki/?x=1", "https://loki/loki/api/v1/push?x=1"),
        ("http://gate/loki/api/v1/push", "http://gate/loki/api/v1/push"),
        ("http://gate/tenants/a/push", "http://gate/tenants/a/push"),
    ] {
        assert_eq!(push_address(&given.parse().unwrap()).unwrap().to_string(), pushed);
    }
}

#[test]
fn a_label_that_loki_would_refuse_is_an_error_before_anything_starts() {
    let mut config = config("http://loki:3100");
    config.labels = vec![("a-b".to_owned(), Template::literal("x"))];
    let error = Loki::new("loki", &config).unwrap_err().to_string();
    assert_eq!(error, r#"labels: "a-b" is no label name: letters, digits and underscores, no digit first"#);
}

#[tokio::test(start_paused = true)]
async fn with_a_bare_address_and_no_labels_events_arrive_at_their_own_time_and_in_batches() {
    let server = Server::start(|_| Reply::Status(204)).await;
    let journal = Memory::new();
    for _ in 0..250 {
        journal.event("a", "x");
    }
    let mut config = config(&format!("http://{}", server.address));
    config.tenant = Some(Template::literal("team-a"));
    let metrics = deliver(&journal, config);
    journal.reached("loki", 250).await;
    let got = server.got();
    assert_eq!(got.iter().map(|got| lines(&got.body).len()).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(got[0].path, "/loki/api/v1/push");
    assert_eq!(got[0].headers["content-type"], "application/json");
    assert_eq!(got[0].headers["x-scope-orgid"], "team-a");
    let push: serde_json::Value = serde_json::from_str(&got[0].body).unwrap();
    assert_eq!(push["streams"][0]["stream"], serde_json::json!({"app": "kubernetes-event-exporter"}));
    // 2026-11-21T10:00:00Z
    assert_eq!(push["streams"][0]["values"][0][0], "1795255200000000000");
    assert_eq!(metrics.delivered.get(), 250);
}

#[tokio::test(start_paused = true)]
async fn of_a_push_refused_in_part_only_that_part_is_a_dead_letter_and_the_rest_is_there() {
    // As Loki does: what is fine is kept although the answer is 400.
    let kept = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let store = kept.clone();
    let server = Server::start(move |got| {
        let mut refused = false;
        for line in lines(&got.body) {
            if line.contains("too-old") {
                refused = true;
            } else {
                store.lock().unwrap().insert(line);
            }
        }
        if refused { Reply::Text(400, "entry with timestamp too far behind") } else { Reply::Status(204) }
    })
    .await;
    let journal = Memory::new();
    for index in 0..60 {
        journal.event("a", if index == 20 || index == 41 { "too-old" } else { "fine" });
    }
    let metrics = deliver(&journal, config(&server.url("")));
    journal.reached("loki", 60).await;
    let reason = "answered 400 Bad Request: entry with timestamp too far behind".to_owned();
    assert_eq!(journal.dead("loki"), [(21, reason.clone()), (42, reason)]);
    assert_eq!(metrics.delivered.get(), 58);
    assert_eq!(kept.lock().unwrap().len(), 58);
    assert!(server.got().len() < 30, "{} pushes", server.got().len());
}

#[tokio::test(start_paused = true)]
async fn a_loki_that_fails_gets_the_same_push_again() {
    let mut answers = vec![204, 429, 500, 503];
    let server = Server::start(move |_| Reply::Status(answers.pop().unwrap_or(204))).await;
    let journal = Memory::new();
    for _ in 0..10 {
        journal.event("a", "x");
    }
    let metrics = deliver(&journal, config(&server.url("")));
    journal.reached("loki", 10).await;
    let bodies = server.bodies();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|body| *body == bodies[0]), "labels, times or lines of a repeat differ");
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn records_of_different_tenants_go_in_pushes_of_their_own() {
    let server = Server::start(|_| Reply::Status(204)).await;
    let journal = Memory::new();
    journal.event("a", "x");
    journal.event("b", "x");
    journal.event("a", "y");
    let mut config = config(&server.url(""));
    config.tenant = Some(Template::compile("t-{{ .InvolvedObject.Name }}").unwrap());
    deliver(&journal, config);
    journal.reached("loki", 3).await;
    let got: Vec<_> = server
        .got()
        .iter()
        .map(|got| (got.headers["x-scope-orgid"].clone(), lines(&got.body).len()))
        .collect();
    assert_eq!(got, [("t-a".parse().unwrap(), 2), ("t-b".parse().unwrap(), 1)]);
}
