//! How many and how long.

use std::sync::Arc;
use std::time::Duration;

use nodetap_aggregator::history::HistoryError;
use nodetap_aggregator::history::api::Limits;

use crate::client::Served;
use crate::store::Store;
use crate::{event, eventually, three};

#[tokio::test]
async fn more_questions_than_may_be_are_refused_until_one_is_answered() {
    let store = three();
    let served =
        Arc::new(Served::start_as(store.clone(), Limits { queries: 1, ..Limits::default() }, &[]).await);
    store.hold(true);
    let asking = {
        let served = served.clone();
        tokio::spawn(async move { served.get("/api/v1/records").await.status })
    };
    eventually(|| store.asked() == 1).await;
    for path in ["/api/v1/records", "/api/v1/counts", "/api/v1/records/1"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 429, "{path}");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.message().contains("1 questions are open"), "{}", answer.text());
    }
    store.hold(false);
    assert_eq!(asking.await.unwrap(), 200);
    assert_eq!(served.get("/api/v1/records").await.status, 200);
}

#[tokio::test]
async fn more_tails_than_may_be_are_refused_until_one_goes() {
    let served = Served::start_as(three(), Limits { tails: 2, ..Limits::default() }, &[]).await;
    let first = served.tail("/api/v1/tail", None).await;
    let _second = served.tail("/api/v1/tail", None).await;
    let answer = served.get("/api/v1/tail").await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "10");
    drop(first);
    eventually(|| served.metrics.tails.get() == 1).await;
    served.tail("/api/v1/tail", None).await;
}

#[tokio::test]
async fn what_the_history_cannot_answer_is_said() {
    let store = three();
    let served = Served::start(store.clone()).await;
    for (error, status, said) in [
        (HistoryError::Deadline(10_000), 503, "narrow the time range"),
        (HistoryError::Busy, 429, "ask again"),
        (HistoryError::Text("no such word".to_owned()), 400, "no such word"),
        (HistoryError::TooMany, 400, "ask for a longer step, a shorter time range, or more filters"),
        (HistoryError::Storage("disk I/O error".to_owned()), 500, "disk I/O error"),
    ] {
        store.fail(Some(error));
        let answer = served.get("/api/v1/records?text=x").await;
        assert_eq!(answer.status, status);
        assert!(answer.message().contains(said), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_history_that_does_not_answer_in_time_is_given_up() {
    let store = three();
    let limits = Limits { deadline: Duration::from_millis(1), ..Limits::default() };
    let served = Served::start_as(store.clone(), limits, &[]).await;
    store.hold(true);
    let answer = served.get("/api/v1/counts").await;
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("not answered within 1 ms"));
}

#[tokio::test]
async fn more_connections_than_may_be_are_closed() {
    let served = Served::start_as(three(), Limits { connections: 1, ..Limits::default() }, &[]).await;
    let tail = served.tail("/api/v1/tail", None).await;
    assert!(served.send(http::Method::GET, "/", &[], None).await.is_err());
    drop(tail);
    while served.send(http::Method::GET, "/", &[], None).await.is_err() {}
}

#[tokio::test]
async fn a_tail_and_an_export_whose_reads_do_not_come_back_give_their_places_back() {
    let limits = Limits { deadline: Duration::from_millis(1), tails: 1, exports: 1, ..Limits::default() };
    let store = Store::new();
    for number in 1..=2_000 {
        store.put(event(number, number, "x"), None);
    }
    let served = Served::start_as(store.clone(), limits, &[]).await;
    let mut read = served.tail("/api/v1/tail?after=0", None).await;
    assert_eq!(read.event().await.id, Some(1), "one that comes back in time");
    drop(read);
    eventually(|| served.metrics.tails.get() == 0).await;

    store.hold_reads();
    let mut tail = served.tail("/api/v1/tail?after=0", None).await;
    assert_eq!(tail.event().await.data["reason"], "journal");
    eventually(|| served.metrics.tails.get() == 0).await;

    let oldest = "/api/v1/export?order=oldest";
    assert_eq!(served.get(oldest).await.status, 503, "before anything was sent");
    store.let_read(1);
    let answer = served.get(oldest).await;
    assert_eq!((answer.status.as_u16(), answer.is_cut), (200, true), "in the middle");
    store.let_read(100);
    let answer = served.get(oldest).await;
    assert_eq!((answer.status.as_u16(), answer.is_cut), (200, false), "there is a place");
}
