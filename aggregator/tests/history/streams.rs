//! The live tail and the export.

use std::time::Duration;

use http_body_util::BodyExt;
use nodetap_aggregator::history::api::{Cut, CutLabel, Limits};

use crate::client::{Served, TOKEN};
use crate::store::Store;
use crate::{death, event, eventually, three};

#[tokio::test]
async fn a_tail_shows_what_comes_and_its_filter_lets_through() {
    let store = three();
    let served = Served::start(store.clone()).await;
    let mut tail = served.tail("/api/v1/tail?record=death&namespace=bank", None).await;
    assert_eq!(tail.next().await.unwrap().id, Some(3), "the id is there at once");
    store.put(event(4, 40, "no death"), None);
    store.put(death(50), None);
    let sent = tail.event().await;
    assert_eq!((sent.id, sent.event.as_str()), (Some(5), "record"));
    assert_eq!(sent.data, served.json("/api/v1/records/5").await);
    let mut of_another = served.tail("/api/v1/tail?cluster=other&after=0", None).await;
    assert_eq!(of_another.next().await.unwrap().event, "");
    assert_eq!(served.metrics.tails.get(), 2);
    drop((tail, of_another));
    eventually(|| served.metrics.tails.get() == 0).await;
}

#[tokio::test]
async fn a_tail_that_comes_back_with_its_last_id_has_no_gap_and_no_repeat() {
    let store = Store::new();
    let served = Served::start(store.clone()).await;
    let (mut seen, mut number) = (Vec::new(), 0);
    let mut last = Some(0);
    for round in 0..5 {
        let mut tail = served.tail("/api/v1/tail", last).await;
        for _ in 0..400 {
            number += 1;
            store.put(event(number, number, "x"), None);
        }
        // The first tails are left in the middle.
        while seen.len() < 300 * (round + 1) {
            let sent = tail.event().await;
            assert_eq!(sent.event, "record");
            seen.push(sent.id.unwrap());
        }
        last = seen.last().copied();
    }
    let mut tail = served.tail("/api/v1/tail", last).await;
    while seen.len() < 2_000 {
        seen.push(tail.event().await.id.unwrap());
    }
    assert_eq!(seen, (1..=2_000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_tail_behind_what_is_kept_says_where_the_gap_is() {
    let store = three();
    store.forget_up_to(2);
    let served = Served::start(store.clone()).await;
    let mut tail = served.tail("/api/v1/tail?after=0", None).await;
    let gap = tail.event().await;
    assert_eq!((gap.event.as_str(), gap.data), ("gap", serde_json::json!({"after": 0, "next": 3})));
    assert_eq!(tail.event().await.id, Some(3));

    store.forget_up_to(3);
    let mut tail = served.tail("/api/v1/tail", Some(1)).await;
    assert_eq!(tail.event().await.data, serde_json::json!({"after": 1, "next": 4}));

    // An id of a journal that is no more.
    let mut tail = served.tail("/api/v1/tail", Some(100)).await;
    assert_eq!(tail.event().await.data, serde_json::json!({"after": 100, "next": 4}));
    store.put(death(50), None);
    assert_eq!(tail.event().await.id, Some(4));
}

#[tokio::test]
async fn a_tail_with_nothing_to_say_says_so_with_the_id_to_come_back_with() {
    let store = three();
    let limits = Limits { keep_alive: Duration::from_millis(20), ..Limits::default() };
    let served = Served::start_as(store.clone(), limits, &[]).await;
    let mut tail = served.tail("/api/v1/tail?namespace=nowhere", None).await;
    assert_eq!(tail.next().await.unwrap().id, Some(3));
    store.put(death(50), None);
    loop {
        let sent = tail.next().await.unwrap();
        assert_eq!(sent.event, "");
        if sent.id == Some(4) {
            break;
        }
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_told_why() {
    let store = Store::new();
    let limits = Limits { stall: Duration::from_millis(100), ..Limits::default() };
    let served = Served::start_as(store.clone(), limits, &[]).await;
    let mut tail = served.tail("/api/v1/tail", None).await;
    let long = "x".repeat(128 << 10);
    for number in 1..=160 {
        // More than the sockets between them hold.
        store.put(event(number, number, &long), None);
    }
    let slow = CutLabel { reason: Cut::slow };
    eventually(|| served.metrics.cut.get_or_create(&slow).get() == 1).await;
    let mut last = 0;
    let end = loop {
        let sent = tail.event().await;
        if sent.event == "end" {
            break sent;
        }
        assert_eq!(sent.id, Some(last + 1));
        last += 1;
    };
    assert_eq!(end.data["reason"], "slow");
    assert!(last < 160);
    assert_eq!(tail.next().await, None);
    let mut again = served.tail("/api/v1/tail", Some(last)).await;
    assert_eq!(again.event().await.id, Some(last + 1));
}

#[tokio::test]
async fn a_tail_is_told_that_the_aggregator_stops() {
    let served = Served::start(three()).await;
    let mut tail = served.tail("/api/v1/tail", None).await;
    tail.next().await.unwrap();
    served.stop.cancel();
    assert_eq!(tail.event().await.data["reason"], "stopping");
    assert_eq!(tail.next().await, None);
    served.running.await.unwrap();
}

#[tokio::test]
async fn an_export_has_every_record_once_in_either_order() {
    let store = Store::new();
    for number in 1..=1_300 {
        store.put(if number % 2 == 0 { death(number) } else { event(number, number, "x") }, None);
    }
    let served = Served::start(store).await;
    let export = async |query: &str| -> Vec<u64> {
        let answer = served.get(&format!("/api/v1/export?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.is_cut), (200, false));
        assert_eq!(answer.headers["content-type"], "application/x-ndjson");
        let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        answer.text().lines().map(|line| row(line)["position"].as_u64().unwrap()).collect()
    };
    assert_eq!(export("").await, (1..=1_300).rev().collect::<Vec<_>>());
    assert_eq!(export("order=oldest").await, (1..=1_300).collect::<Vec<_>>());
    assert_eq!(export("order=oldest&record=death").await, (1..=650).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(export("record=death").await, (1..=650).rev().map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(export("limit=3").await, [1_300, 1_299, 1_298]);
    assert_eq!(export("limit=600&order=oldest").await, (1..=600).collect::<Vec<_>>());
    assert!(export("cluster=other").await.is_empty());
}

#[tokio::test]
async fn an_export_that_cannot_go_on_breaks_off() {
    let store = Store::new();
    for number in 1..=1_300 {
        store.put(event(number, number, "x"), None);
    }
    store.fail_after(1);
    let served = Served::start(store.clone()).await;
    let answer = served.get("/api/v1/export").await;
    assert_eq!((answer.status.as_u16(), answer.is_cut), (200, true), "it must not be taken for the whole");
    let answer = served.get("/api/v1/export").await;
    assert_eq!(answer.status, 500, "what fails at once is refused");
}

#[tokio::test]
async fn an_export_whose_reader_goes_away_gives_its_place_back() {
    let store = Store::new();
    let long = "x".repeat(64 << 10);
    for number in 1..=500 {
        store.put(event(number, number, &long), None);
    }
    let served = Served::start_as(store, Limits { exports: 1, ..Limits::default() }, &[]).await;
    let bearer = format!("Bearer {}", TOKEN);
    let begin = async || {
        let headers = [("authorization", bearer.as_str())];
        served.begin(http::Method::GET, "/api/v1/export", &headers, None).await.unwrap()
    };
    let mut first = begin().await;
    first.body_mut().frame().await.unwrap().unwrap();
    let second = begin().await;
    assert_eq!(second.status(), 429);
    assert_eq!(second.headers()["retry-after"], "30");
    drop(first);
    while begin().await.status() != 200 {}
}

#[tokio::test]
async fn an_export_goes_on_behind_records_that_cannot_be_read_and_says_so_in_its_last_line() {
    let store = Store::new();
    for number in 1..=1_300 {
        store.put(event(number, number, "x"), None);
    }
    // More than are read at one time.
    store.damage(200..=1_250);
    let served = Served::start(store).await;
    let answer = served.get("/api/v1/export").await;
    assert_eq!((answer.status.as_u16(), answer.is_cut), (200, false));
    let lines: Vec<serde_json::Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, rows) = lines.split_last().unwrap();
    let positions: Vec<u64> = rows.iter().map(|row| row["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1_251..=1_300).rev().chain((1..=199).rev()).collect::<Vec<_>>());
    assert_eq!(*last, serde_json::json!({"unreadable": 1_051}));
    assert_eq!(served.metrics.unreadable.get(), 1_051);
}

#[tokio::test]
async fn an_export_from_the_oldest_says_where_the_journal_has_no_more() {
    let store = Store::new();
    for number in 1..=1_300 {
        store.put(event(number, number, "x"), None);
    }
    let served = Served::start(store.clone()).await;
    let export = async |query: &str| -> Vec<serde_json::Value> {
        let answer = served.get(&format!("/api/v1/export?order=oldest{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.is_cut), (200, false));
        let line = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["position"].is_null() { line } else { line["position"].clone() }
        };
        answer.text().lines().map(line).collect()
    };
    let gap = |after: u64, next: u64| serde_json::json!({"gap": {"after": after, "next": next}});
    let rows =
        |positions: std::ops::RangeInclusive<u64>| positions.map(serde_json::Value::from).collect::<Vec<_>>();
    store.forget_up_to(100);
    // More than are read at one time.
    store.damage(200..=999);
    let expected = [vec![gap(0, 101)], rows(101..=199), vec![gap(199, 1_000)], rows(1_000..=1_300)].concat();
    assert_eq!(export("").await, expected);
    assert_eq!(export("&limit=99").await, expected[..100], "what comes after the last row is not told");
    store.damage(200..=1_300);
    assert_eq!(export("").await, [vec![gap(0, 101)], rows(101..=199), vec![gap(199, 1_301)]].concat());
    assert_eq!(export("&record=death").await, [gap(0, 101), gap(199, 1_301)]);
    store.forget_up_to(1_300);
    assert_eq!(export("").await, [gap(0, 1_301)]);
}

/// A journal of so many events, of which nothing is read until it is let.
async fn behind(records: u64, limits: Limits) -> (Store, Served) {
    let store = Store::new();
    for number in 1..=records {
        store.put(event(number, number, "x"), None);
    }
    store.hold_reads();
    let served = Served::start_as(store.clone(), limits, &[]).await;
    (store, served)
}

#[tokio::test]
async fn a_tail_that_is_behind_reads_nothing_more_once_its_token_is_taken_back() {
    let (store, served) = behind(2_000, Limits::default()).await;
    let mut tail = served.tail("/api/v1/tail?after=0", None).await;
    store.let_read(1);
    assert_eq!(tail.event().await.id, Some(1));
    served.identity.put("token", "fedcba9876543210fedcba9876543210");
    assert!(served.api.refresh());
    store.let_read(100);
    let mut last = 1;
    let end = loop {
        let sent = tail.event().await;
        if sent.event == "end" {
            break sent;
        }
        last = sent.id.unwrap();
    };
    assert_eq!(end.data["reason"], "access");
    assert!(last <= 512, "what was read before, and the read that was under way: {last}");
}

#[tokio::test]
async fn a_tail_that_is_behind_says_how_far_it_has_come_though_its_filter_lets_nothing_through() {
    let (store, served) = behind(2_000, Limits { keep_alive: Duration::ZERO, ..Limits::default() }).await;
    let mut tail = served.tail("/api/v1/tail?after=0&namespace=nowhere", None).await;
    for expected in [0, 256, 512] {
        while tail.next().await.unwrap().id != Some(expected) {}
        store.let_read(1);
    }
}

#[tokio::test]
async fn a_tail_that_is_behind_goes_with_its_reader_and_with_the_aggregator() {
    let (_store, served) = behind(2_000, Limits::default()).await;
    let first = served.tail("/api/v1/tail?after=0", None).await;
    let mut second = served.tail("/api/v1/tail?after=0", None).await;
    eventually(|| served.metrics.tails.get() == 2).await;
    drop(first);
    eventually(|| served.metrics.tails.get() == 1).await;
    served.stop.cancel();
    assert_eq!(second.event().await.data["reason"], "stopping");
    served.running.await.unwrap();
}

#[tokio::test]
async fn an_export_breaks_off_once_its_token_is_taken_back() {
    let (store, served) = behind(2_000, Limits::default()).await;
    store.let_read(1);
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let path = "/api/v1/export?order=oldest";
    let mut body = served.begin(http::Method::GET, path, &headers, None).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    served.identity.put("token", "fedcba9876543210fedcba9876543210");
    assert!(served.api.refresh());
    store.let_read(100);
    let (mut rows, mut is_cut) = (0, false);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => rows += frame.into_data().unwrap().iter().filter(|byte| **byte == b'\n').count(),
            Err(_) => {
                is_cut = true;
                break;
            }
        }
    }
    assert!(is_cut && rows <= 1_000, "{rows}");
}

#[tokio::test]
async fn a_text_means_the_same_in_a_search_a_tail_and_an_export_of_either_order() {
    let store = Store::new();
    // The lower case of a Greek word is not that of its letters.
    let messages = ["ΣΟΦΟΣ", "σοφος", "ο ΣΟΦΟΣ.", "ÜBER Größe", "refused"];
    for (number, message) in (1..).zip(messages) {
        store.put(event(number, number, message), None);
    }
    store.put(event(6, 6, "ΤΕΛΟΣ"), None);
    let served = Served::start(store).await;
    let texts = [("σοφος", 3), ("ΣΟΦΟΣ", 3), ("σοφοσ", 3), ("σοφ*", 3), ("über GRÖ*", 1), ("refus*", 1)];
    for (text, expected) in texts {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = served.get(&format!("/api/v1/records?text={encoded}")).await.positions();
        assert_eq!(found.len(), expected, "{text}");
        let mut exported: Vec<Vec<u64>> = Vec::new();
        for order in ["newest", "oldest"] {
            let answer = served.get(&format!("/api/v1/export?order={order}&text={encoded}")).await;
            let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            let positions =
                answer.text().lines().map(|line| row(line)["position"].as_u64().unwrap()).collect();
            exported.push(positions);
        }
        exported[1].reverse();
        assert_eq!((&exported[0], &exported[1]), (&found, &found), "{text}");
        let mut tail = served.tail(&format!("/api/v1/tail?after=0&text={encoded}"), None).await;
        for position in found.iter().rev() {
            assert_eq!(tail.event().await.id, Some(*position), "{text}");
        }
    }
}
