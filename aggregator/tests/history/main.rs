//! The history's API over real TLS on loopback, with a journal in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

#[path = "../link/certificates.rs"]
mod certificates;
mod client;
mod document;
mod hostile;
mod limits;
mod real;
mod refusals;
mod store;
mod streams;

use std::collections::BTreeSet;

use nodetap_aggregator::journal::Body;
use nodetap_wire::face::Object;
use nodetap_wire::{ContainerDied, LogLine, Owner};

use client::{Served, positions};
use store::Store;

/// 2026-01-01T00:00:00Z
const BEGIN: u64 = 1_767_225_600;

/// Until something is so. Each look lets everything else go on; what never comes to be hangs, and the test's runner says so.
async fn eventually(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn event(number: u64, seconds: u64, message: &str) -> Body {
    let at = nodetap_wire::time::format_ns(((BEGIN + seconds) * 1_000_000_000) as i64).unwrap();
    let json = serde_json::json!({
        "metadata": {"uid": format!("e{number}"), "resourceVersion": number.to_string(), "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-0", "fieldPath": "spec.containers{app}"},
        "reason": "BackOff", "type": "Warning", "message": message, "count": 3,
        "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": at,
    });
    Body::Event(json.to_string().into())
}

fn death(seconds: u64) -> Body {
    Body::Death(Box::new(ContainerDied {
        namespace: "bank".into(),
        pod: "ledger-0".into(),
        pod_uid: "p".into(),
        node: "node-2".into(),
        container: "db".into(),
        exit_code: Some(137),
        reason: "OOMKilled".into(),
        finished_ns: ((BEGIN + seconds) * 1_000_000_000) as i64,
        last_lines: vec![LogLine { text: "cannot allocate <b>memory</b>".into(), ..LogLine::default() }],
        ..ContainerDied::default()
    }))
}

fn owned_by(name: &str) -> Option<Object> {
    Some(Object { owners: vec![Owner { name: name.into(), ..Owner::default() }], ..Object::default() })
}

/// 1: an event, 2: a death, 3: an event of another shape.
fn three() -> Store {
    let store = Store::new();
    store.put(event(1, 10, "Back-off pulling image"), None);
    store.put(death(20), owned_by("ledger"));
    let json = r#"{"metadata":{"uid":"n","resourceVersion":"9","namespace":"default"},"reason":"Rebooted","type":"Normal",
        "involvedObject":{"kind":"Node","name":"node-3"},"message":"Node has been rebooted","eventTime":"2026-01-01T00:00:30.5Z",
        "reportingComponent":"kubelet","reportingInstance":"node-3"}"#;
    store.put(Body::Event(json.into()), None);
    store
}

#[tokio::test]
async fn each_filter_finds_what_it_names() {
    let served = Served::start(three()).await;
    for (query, expected) in [
        ("", &[3, 2, 1][..]),
        ("since=2026-01-01T00:00:20Z", &[3, 2]),
        ("since=2026-01-01T02:00:20%2B02:00", &[3, 2]),
        ("since=2026-01-01T02:00:20+02:00", &[3, 2]),
        ("since=1767225620", &[3, 2]),
        ("since=1767225630.25", &[3]),
        ("until=2026-01-01T00:00:20Z", &[1]),
        ("since=1767225615&until=1767225625", &[2]),
        ("since=1d&until=now&namespace=nowhere", &[]),
        ("record=event", &[3, 1]),
        ("record=death", &[2]),
        ("namespace=bank", &[2]),
        ("namespace=bank&namespace=default", &[3, 2]),
        ("kind=Node", &[3]),
        ("name=web-0", &[1]),
        ("node=node-2", &[2]),
        ("node=node-3", &[3]),
        ("reason=ContainerOOMKilled", &[2]),
        ("type=Normal", &[3]),
        ("owner=ledger", &[2]),
        ("container=app", &[1]),
        ("container=db", &[2]),
        ("exitCode=137", &[2]),
        ("exitCode=0", &[]),
        ("text=back+off", &[1]),
        ("text=allocate%20mem*", &[2]),
        ("cluster=c", &[3, 2, 1]),
        ("cluster=other", &[]),
        ("cluster=other&cluster=c&kind=Pod&type=Warning", &[2, 1]),
        ("limit=2", &[3, 2]),
    ] {
        assert_eq!(served.get(&format!("/api/v1/records?{query}")).await.positions(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_record_has_its_face_and_first_last_and_count() {
    let served = Served::start(three()).await;
    let row = served.json("/api/v1/records/1").await;
    assert_eq!(row["position"], 1);
    assert_eq!(row["record"], "event");
    assert_eq!(row["time"], "2026-01-01T00:00:10Z");
    assert_eq!(row["firstTime"], "2026-01-01T00:00:00Z");
    assert_eq!(row["lastTime"], "2026-01-01T00:00:10Z");
    assert_eq!(row["count"], 3);
    assert_eq!(row["event"]["clusterName"], "c");
    assert_eq!(row["event"]["involvedObject"]["fieldPath"], "spec.containers{app}");
    let page = served.json("/api/v1/records").await;
    assert_eq!(page["records"][2], row);
    assert_eq!((&page["cursor"], &page["head"]), (&serde_json::Value::Null, &3.into()));

    let death = served.json("/api/v1/records/2").await;
    assert_eq!(death["event"]["container"]["exitCode"], 137);
    assert_eq!(death["event"]["container"]["lastLines"][0], "cannot allocate <b>memory</b>");
    assert_eq!(death["event"]["involvedObject"]["ownerReferences"][0]["name"], "ledger");
    assert_eq!((&death["firstTime"], &death["count"]), (&death["lastTime"], &1.into()));
}

#[tokio::test]
async fn a_record_that_is_not_there_is_not_found() {
    let store = three();
    let served = Served::start(store.clone()).await;
    assert_eq!(served.get("/api/v1/records/4").await.status, 404);
    store.forget_up_to(2);
    let answer = served.get("/api/v1/records/2").await;
    assert_eq!(answer.status, 404);
    assert!(answer.message().contains("retention has dropped it"));
    for position in ["0", "-1", "x", "18446744073709551616", "%31"] {
        let answer = served.get(&format!("/api/v1/records/{position}")).await;
        assert_eq!(answer.status, 400, "{position}");
        assert!(answer.message().contains("expected a whole number from 1"), "{}", answer.text());
    }
    assert_eq!(served.get("/api/v1/records/").await.status, 404);
    assert_eq!(served.get("/api/v1/records/1/2").await.status, 404);
}

#[tokio::test]
async fn pages_have_no_gap_and_no_repeat_while_records_come_in() {
    let store = Store::new();
    for number in 1..=250 {
        // Ten in each second.
        store.put(event(number, number / 10, "x"), None);
    }
    let served = Served::start(store.clone()).await;
    let (mut seen, mut path) = (Vec::new(), "/api/v1/records?limit=7&since=9999d&reason=BackOff".to_owned());
    loop {
        let page = served.json(&path).await;
        seen.extend(positions(&page));
        let number = 1000 + seen.len() as u64;
        store.put(event(number, 10_000 + number, "newer than all of them"), None);
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/api/v1/records?limit=7&since=9999d&reason=BackOff&cursor={cursor}");
    }
    assert_eq!(seen, (1..=250).rev().collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_cursor_keeps_the_range_of_time_of_the_first_page() {
    let store = Store::new();
    let now = nodetap_wire::time::now_ns() as u64 / 1_000_000_000 - BEGIN;
    store.put(event(1, now - 60, "x"), None);
    store.put(event(2, now - 50, "x"), None);
    let served = Served::start(store.clone()).await;
    let first = served.json("/api/v1/records?limit=1&since=64s").await;
    assert_eq!(positions(&first), [2]);
    let cursor = first["cursor"].as_str().unwrap();
    // Until the older one is out of the same range asked anew.
    while positions(&served.json("/api/v1/records?limit=2&since=64s").await) != [2] {}
    let second = served.json(&format!("/api/v1/records?limit=1&since=64s&cursor={cursor}")).await;
    assert_eq!(positions(&second), [1]);
}

#[tokio::test]
async fn counts_are_by_field_and_time() {
    let store = three();
    store.put(event(4, 3_700, "x"), None);
    let served = Served::start(store).await;
    let counts = served.json("/api/v1/counts?by=reason").await["counts"].clone();
    let of = |value: &str| {
        counts.as_array().unwrap().iter().find(|count| count["value"] == value).unwrap().clone()
    };
    assert_eq!(of("BackOff"), serde_json::json!({"value": "BackOff", "records": 2, "occurrences": 2}));
    assert_eq!(counts.as_array().unwrap().len(), 3);

    let of_cluster = served.json("/api/v1/counts?by=cluster").await["counts"].clone();
    assert_eq!(of_cluster, serde_json::json!([{"value": "c", "records": 4, "occurrences": 4}]));
    let of_owner = served.json("/api/v1/counts?by=owner&record=death").await["counts"].clone();
    assert_eq!(of_owner, serde_json::json!([{"value": "ledger", "records": 1, "occurrences": 1}]));

    let counts = served
        .json("/api/v1/counts?by=reason&top=1&since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z")
        .await;
    assert_eq!(counts["counts"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&counts["since"], &counts["until"]),
        (&"2026-01-01T00:00:00Z".into(), &"2026-01-02T00:00:00Z".into())
    );

    let counts =
        served.json("/api/v1/counts?step=1h&since=2026-01-01T00:00:00Z&until=2026-01-01T03:00:00Z").await;
    let rows: BTreeSet<(String, u64)> = counts["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| (count["from"].as_str().unwrap().to_owned(), count["records"].as_u64().unwrap()))
        .collect();
    let expected = [("2026-01-01T00:00:00Z".to_owned(), 3), ("2026-01-01T01:00:00Z".to_owned(), 1)];
    assert_eq!(rows, expected.into());
    assert_eq!(
        served.json("/api/v1/counts?by=reason&step=1h&top=10").await["counts"].as_array().unwrap().len(),
        0,
        "the last 500 hours"
    );
    assert_eq!(served.json("/api/v1/counts?cluster=other").await["counts"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn the_page_and_the_document_are_there_without_a_token() {
    let served = Served::start(Store::new()).await;
    let page = served.get_as("/", &[], None).await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let document = served.get_as("/openapi.json", &[], None).await;
    assert_eq!(document.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn pages_go_on_behind_records_that_cannot_be_read_and_say_how_many_there_were() {
    let store = Store::new();
    for number in 1..=250 {
        store.put(event(number, number, "x"), None);
    }
    store.damage(60..=187);
    let served = Served::start(store).await;
    let (mut seen, mut unreadable, mut path) = (Vec::new(), 0, "/api/v1/records?limit=50".to_owned());
    let mut empty = 0;
    loop {
        let page = served.json(&path).await;
        seen.extend(positions(&page));
        empty += usize::from(positions(&page).is_empty());
        unreadable += page["unreadable"].as_u64().unwrap();
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/api/v1/records?limit=50&cursor={cursor}");
    }
    assert_eq!(seen, (188..=250).rev().chain((1..=59).rev()).collect::<Vec<u64>>());
    assert_eq!((unreadable, served.metrics.unreadable.get(), empty), (128, 128, 1));
}
