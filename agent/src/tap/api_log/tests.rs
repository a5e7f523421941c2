#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use kube::client::Body;
use serde_json::{Value, json};
use tonic::codegen::Service;

use super::*;
use crate::kubernetes::requests::Requests;

const ENDED: &str = "2026-11-22T00:00:09Z";

/// Answers each request with the next status and body, and keeps what was asked; the last answer is given again and again.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<(u16, String)>,
    asked: Vec<String>,
}

/// Never answers.
#[derive(Clone)]
struct Silent;

// === impl Scripted ===

impl Scripted {
    fn of(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        Self(Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), asked: Vec::new() })))
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    fn api_log(&self) -> (ApiLog, Requests) {
        let requests = Requests::default();
        let metrics = Metrics::with(requests.clone());
        (ApiLog::new(Client::new(self.clone(), "default"), metrics), requests)
    }
}

impl Service<http::Request<Body>> for Scripted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.asked.push(request.uri().to_string());
        let next = script.answers.pop_front().unwrap();
        if script.answers.is_empty() {
            script.answers.push_back(next.clone());
        }
        let (status, body) = next;
        let body = Body::from(body.into_bytes());
        ready(Ok(http::Response::builder().status(status).body(body).unwrap()))
    }
}

// === impl Silent ===

impl Service<http::Request<Body>> for Silent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

fn ended(id: &str) -> Value {
    json!({"terminated": {"exitCode": 7, "startedAt": "2026-11-22T00:00:05Z", "finishedAt": ENDED, "containerID": id}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-11-22T00:00:10Z"}})
}

/// A pod with the container `app`.
fn shows(uid: &str, state: &Value, last: &Value) -> Value {
    json!({"metadata": {"name": "web-0", "namespace": "shop", "uid": uid},
        "status": {"containerStatuses": [{"name": "app", "state": state, "lastState": last}]}})
}

/// The pod, and the answer to who asks for it.
fn pod_of(state: &Value, last: &Value) -> (Pod, (u16, String)) {
    let pod = shows("u-1", state, last);
    (serde_json::from_value(pod.clone()).unwrap(), (200, pod.to_string()))
}

fn death() -> ContainerDied {
    ContainerDied {
        namespace: "shop".into(),
        pod: "web-0".into(),
        pod_uid: "u-1".into(),
        container: "app".into(),
        container_id: "containerd://a".into(),
        exit_code: Some(7),
        started_ns: time::parse_ns("2026-11-22T00:00:05Z").unwrap(),
        finished_ns: time::parse_ns(ENDED).unwrap(),
        ..ContainerDied::default()
    }
}

fn lines_at(seconds: &[&str]) -> (u16, String) {
    let line = |at: &&str| format!("2026-11-22T00:00:{at}Z at {at}\n");
    (200, seconds.iter().map(line).collect())
}

async fn answer(api_log: &mut ApiLog, pod: &Pod) -> Result<Vec<String>, Missing> {
    api_log.ask(pod, &death(), Missing::NoFolder)?;
    let (told, lines) = api_log.next().await.unwrap();
    assert_eq!(told, death());
    assert_eq!(api_log.waiting().count(), 0);
    lines.map(|lines| lines.into_iter().map(|line| line.text).collect())
}

#[tokio::test(start_paused = true)]
async fn the_previous_instance_is_asked_for_with_bounds_and_looked_at_afterwards() {
    let (pod, now) = pod_of(&running(), &ended("containerd://a"));
    let server = Scripted::of([lines_at(&["05.5", "09.1"]), now]);
    let (mut api_log, requests) = server.api_log();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap(), ["at 05.5", "at 09.1"]);
    assert_eq!(
        server.asked(),
        [
            "/api/v1/namespaces/shop/pods/web-0/log?container=app&previous=true&tailLines=55&limitBytes=1048576&timestamps=true",
            "/api/v1/namespaces/shop/pods/web-0"
        ]
    );
    assert_eq!((requests.counted("get", "pods/log", "2xx"), requests.counted("get", "pods", "2xx")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_started_again_meanwhile_is_asked_for_where_it_stands_then() {
    let (pod, _) = pod_of(&ended("containerd://a"), &json!({}));
    let (_, moved) = pod_of(&running(), &ended("containerd://a"));
    // What came first is of the instance that runs now.
    let server = Scripted::of([lines_at(&["10.5"]), moved.clone(), lines_at(&["06.5"]), moved]);
    let (mut api_log, _) = server.api_log();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap(), ["at 06.5"]);
    let asked = server.asked();
    assert!(asked[0].contains("previous=false") && asked[2].contains("previous=true"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn the_words_of_another_life_are_never_taken() {
    let (pod, still) = pod_of(&running(), &ended("containerd://a"));
    let (_, gone_on) = pod_of(&running(), &ended("containerd://b"));
    let recreated = (200, shows("u-2", &running(), &ended("containerd://a")).to_string());
    for (log, afterwards, why) in [
        (lines_at(&["06.5"]), gone_on, "it died again meanwhile"),
        (lines_at(&["06.5"]), recreated, "another pod has its name"),
        (lines_at(&["11.5", "12.5"]), still.clone(), "the API server is behind: they are of after its end"),
        (lines_at(&["09.9", "11.0"]), still.clone(), "the same, begun in the second of its end"),
        (lines_at(&["04.9", "05.1"]), still, "they begin before it did"),
    ] {
        let (mut api_log, _) = Scripted::of([log, afterwards]).api_log();
        assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), Missing::OtherLife, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_times_do_not_tell_two_lives_apart_the_pod_is_looked_at_a_second_later() {
    let (pod, still) = pod_of(&running(), &ended("containerd://a"));
    let (mut api_log, _) = Scripted::of([lines_at(&["09.2", "09.8"]), still]).api_log();
    let began = Instant::now();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap(), ["at 09.2", "at 09.8"]);
    assert!(began.elapsed() >= BEHIND);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_switches_it_off_until_it_is_tried_again() {
    let (pod, now) = pod_of(&running(), &ended("containerd://a"));
    let server = Scripted::of([(403, "no".into()), lines_at(&["06.0"]), now]);
    let (mut api_log, requests) = server.api_log();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), Missing::Forbidden);
    assert_eq!(requests.counted("get", "pods/log", "4xx"), 1);
    assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), Missing::Forbidden);
    assert_eq!(server.asked().len(), 1, "it is not asked while it is off");
    tokio::time::advance(AFTER_A_REFUSAL).await;
    assert_eq!(answer(&mut api_log, &pod).await.unwrap(), ["at 06.0"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_log_is_told_by_reason_and_loses_no_death() {
    let (pod, now) = pod_of(&running(), &ended("containerd://a"));
    let words = "unable to retrieve container logs for containerd://a".to_owned();
    let long = format!("2026-11-22T00:00:06Z {}\n", "x".repeat(LIMIT));
    for (log, expected) in [
        ((200, words), Missing::NoFile),
        ((200, String::new()), Missing::Empty),
        ((200, long), Missing::TooLong),
        ((404, "no pod".into()), Missing::NoFile),
        ((400, "no instance".into()), Missing::NoFile),
        ((429, "later".into()), Missing::Unanswered),
        ((500, "broken".into()), Missing::Unanswered),
    ] {
        let (mut api_log, _) = Scripted::of([log, now.clone()]).api_log();
        assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), expected);
    }
    let (mut api_log, _) = Scripted::of([lines_at(&["06.0"]), (200, "{".into())]).api_log();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), Missing::Unanswered);
}

#[tokio::test(start_paused = true)]
async fn what_the_status_does_not_show_as_ended_is_not_asked_for() {
    let server = Scripted::default();
    let (mut api_log, _) = server.api_log();
    let (other, _) = pod_of(&running(), &ended("containerd://b"));
    assert_eq!(api_log.ask(&other, &death(), Missing::NoFile), Err(Missing::NoFile));
    let (pod, _) = pod_of(&running(), &ended("containerd://a"));
    let by_its_file = ContainerDied { container_id: String::new(), ..death() };
    assert_eq!(api_log.ask(&pod, &by_its_file, Missing::NoFile), Err(Missing::NoFile));
    let strange = ContainerDied { container: "../x".into(), ..death() };
    assert_eq!(api_log.ask(&pod, &strange, Missing::NoFile), Err(Missing::Name));
    assert!(server.asked().is_empty() && api_log.waiting().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_where_everything_crashes_asks_no_more_than_its_allowance() {
    let (pod, now) = pod_of(&running(), &ended("containerd://a"));
    let (mut api_log, _) = Scripted::of([now]).api_log();
    for _ in 0..BURST {
        api_log.ask(&pod, &death(), Missing::NoFolder).unwrap();
    }
    assert_eq!(api_log.ask(&pod, &death(), Missing::NoFolder), Err(Missing::Busy));
    for _ in 0..BURST {
        drop(api_log.next().await.unwrap());
    }
    assert!(api_log.next().await.is_none());
    tokio::time::advance(2 * EVERY).await;
    for _ in 0..2 {
        api_log.ask(&pod, &death(), Missing::NoFolder).unwrap();
    }
    assert_eq!(api_log.ask(&pod, &death(), Missing::NoFolder), Err(Missing::Busy));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_keeps_a_death_no_longer_than_its_bound() {
    let (pod, _) = pod_of(&running(), &ended("containerd://a"));
    let mut api_log = ApiLog::new(Client::new(Silent, "default"), Metrics::default());
    let began = Instant::now();
    assert_eq!(answer(&mut api_log, &pod).await.unwrap_err(), Missing::Unanswered);
    assert!(began.elapsed() >= WITHIN && began.elapsed() < 2 * WITHIN);
}
