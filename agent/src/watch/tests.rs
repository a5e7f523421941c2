//! The runner against an API server that answers by script, in virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use nodetap_wire::record::Kind;
use nodetap_wire::shard::Share;
use nodetap_wire::{Change, Checkpoint, Record, Shard, WatchState, WholeCluster};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codegen::Service;

use super::*;
use crate::outbox::{Taken, Taking, intake};

const STREAMED_LIST: &str = "sendInitialEvents=true";

/// What the API server does with one request.
enum Reply {
    Refusal(u16, Option<&'static str>, &'static str),
    Parts(Vec<Part>),
    /// The answer begins after a while.
    Late(Duration, Vec<Part>),
    /// No connection.
    Refused,
    Silence,
}

/// What a body is made of; it ends as it should after the last one.
enum Part {
    Bytes(Vec<u8>),
    Cut,
    Pause(Duration),
    Silence,
}

#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn with(script: Vec<Reply>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into())), ..Self::default() }
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<UnsyncBoxBody<Bytes, std::io::Error>>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.headers()["accept-encoding"], "identity");
        self.asked.lock().unwrap().push(request.uri().to_string());
        let reply = self.script.lock().unwrap().pop_front().unwrap_or(Reply::Silence);
        Box::pin(async move {
            let (status, retry_after, parts) = match reply {
                Reply::Refusal(status, retry_after, body) => {
                    (status, retry_after, vec![Part::Bytes(body.as_bytes().to_vec())])
                }
                Reply::Parts(parts) => (200, None, parts),
                Reply::Late(late, parts) => {
                    tokio::time::sleep(late).await;
                    (200, None, parts)
                }
                Reply::Refused => return Err(std::io::ErrorKind::ConnectionRefused.into()),
                Reply::Silence => std::future::pending().await,
            };
            let parts = stream::iter(parts).then(|part| async move {
                match part {
                    Part::Bytes(bytes) => Ok(Frame::data(Bytes::from(bytes))),
                    Part::Cut => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                    Part::Pause(pause) => {
                        tokio::time::sleep(pause).await;
                        Ok(Frame::data(Bytes::new()))
                    }
                    Part::Silence => std::future::pending().await,
                }
            });
            let mut response = Response::builder().status(status);
            if let Some(retry_after) = retry_after {
                response = response.header("retry-after", retry_after);
            }
            Ok(response.body(StreamBody::new(parts).boxed_unsync()).unwrap())
        })
    }
}

/// What came out, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Out {
    Event(String, Change),
    Checkpoint(String, u64),
}

fn out(record: Record) -> Out {
    match record.kind {
        Some(Kind::Event(event)) => Out::Event(event.resource_version.to_string(), event.change()),
        other => panic!("{other:?}"),
    }
}

struct Bench {
    server: Server,
    assignments: watch::Sender<Assignment>,
    taken: Taking,
    /// What came out together and was not looked at yet.
    outs: VecDeque<Out>,
    reports: mpsc::Receiver<WatchReport>,
    progress: Progress,
    metrics: Metrics,
    reach: Reach,
    tally: Tally,
    cancel: CancellationToken,
    runner: JoinHandle<()>,
}

impl Bench {
    fn start(assignment: Assignment, script: Vec<Reply>) -> Self {
        let server = Server::with(script);
        let (assignments, receiver) = watch::channel(assignment);
        let (intake, taken) = intake();
        let (report_to, reports) = mpsc::channel(1);
        let (reach, tally) = <(Reach, Tally)>::default();
        let (progress, metrics, cancel) = (Progress::default(), Metrics::default(), CancellationToken::new());
        let wiring = Wiring {
            assignments: receiver,
            intake,
            reports: report_to,
            tally: tally.clone(),
            names: Names::default(),
            reach: reach.clone(),
            metrics: metrics.clone(),
            progress: progress.clone(),
        };
        let client = Client::new(server.clone(), "default");
        tokio::spawn(reach::run(client.clone(), reach.clone(), metrics.clone(), cancel.clone()));
        let runner = tokio::spawn(run(client, wiring, cancel.clone()));
        let outs = VecDeque::new();
        Self { server, assignments, taken, outs, reports, progress, metrics, reach, tally, cancel, runner }
    }

    async fn next(&mut self) -> Out {
        while self.outs.is_empty() {
            match self.taken.recv().await.expect("the runner has ended") {
                Taken::Events(run) => self.outs.extend(run.records().unwrap().into_iter().map(out)),
                Taken::Checkpoint(Checkpoint { resource_version, epoch, .. }) => {
                    self.outs.push_back(Out::Checkpoint(resource_version, epoch));
                }
                other => panic!("{other:?}"),
            }
        }
        self.outs.pop_front().unwrap()
    }

    async fn expect(&mut self, outs: &[Out]) {
        for (place, out) in outs.iter().enumerate() {
            assert_eq!(self.next().await, *out, "{place} of {outs:?}");
        }
    }

    async fn report(&mut self) -> (WatchState, u64, String) {
        let report = self.reports.recv().await.expect("the runner has ended");
        (report.state(), report.epoch, report.failure)
    }

    async fn reported(&mut self, state: WatchState) -> String {
        loop {
            let (reported, _, failure) = self.report().await;
            if reported == state {
                return failure;
            }
        }
    }

    fn asked(&self) -> Vec<String> {
        self.server.asked.lock().unwrap().clone()
    }

    async fn asked_times(&self, times: usize) -> Vec<String> {
        while self.asked().len() < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.asked()
    }

    fn exposed(&self) -> String {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.runner.await.unwrap();
    }
}

fn cluster() -> Shard {
    Shard { share: Some(Share::Cluster(WholeCluster {})) }
}

fn namespace(name: &str) -> Shard {
    Shard { share: Some(Share::Namespace(name.to_owned())) }
}

fn assigned(watches: &[(Shard, u64, &str)]) -> Assignment {
    let watches = watches.iter().map(|(shard, epoch, resource_version)| AssignedWatch {
        shard: Some(shard.clone()),
        epoch: *epoch,
        resource_version: (*resource_version).to_owned(),
        ..AssignedWatch::default()
    });
    Assignment { watches: watches.collect() }
}

fn from(resource_version: &str) -> Assignment {
    assigned(&[(cluster(), 1, resource_version)])
}

fn event(version: u64) -> String {
    format!(
        r#"{{"metadata":{{"name":"e{version}","namespace":"n","uid":"u{version}","resourceVersion":"{version}"}}}}"#
    )
}

fn frame(kind: &str, object: &str) -> Vec<u8> {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into_bytes()
}

fn added(version: u64) -> Vec<u8> {
    frame("ADDED", &event(version))
}

fn end_of_list(version: u64) -> Vec<u8> {
    frame(
        "BOOKMARK",
        &format!(
            r#"{{"metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}}}}"#
        ),
    )
}

fn page(version: u64, next: &str, items: &[u64]) -> Reply {
    let items: Vec<_> = items.iter().map(|version| event(*version)).collect();
    let body = format!(
        r#"{{"kind":"EventList","metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":[{}]}}"#,
        items.join(",")
    );
    Reply::Parts(vec![Part::Bytes(body.into_bytes())])
}

/// A stream of these frames, each in a chunk of its own, which then is silent.
fn open(frames: Vec<Vec<u8>>) -> Reply {
    Reply::Parts(frames.into_iter().map(Part::Bytes).chain([Part::Silence]).collect())
}

fn cut(frames: Vec<Vec<u8>>) -> Reply {
    Reply::Parts(frames.into_iter().map(Part::Bytes).chain([Part::Cut]).collect())
}

fn listed(version: u64) -> Out {
    Out::Event(version.to_string(), Change::Listed)
}

fn seen(version: u64) -> Out {
    Out::Event(version.to_string(), Change::Added)
}

fn checkpoint(version: u64) -> Out {
    Out::Checkpoint(version.to_string(), 1)
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_and_its_watch_take_one_request() {
    let stream = open(vec![
        added(9),
        added(4),
        end_of_list(12),
        added(13),
        frame("MODIFIED", &event(14)),
        frame("DELETED", &event(15)),
    ]);
    let mut bench = Bench::start(from(""), vec![stream]);
    bench
        .expect(&[
            listed(9),
            listed(4),
            checkpoint(12),
            seen(13),
            checkpoint(13),
            Out::Event("14".to_owned(), Change::Modified),
            checkpoint(14),
            checkpoint(15),
        ])
        .await;
    let asked = bench.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("/api/v1/events?") && asked[0].contains(STREAMED_LIST), "{asked:?}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_watched_from_with_no_list() {
    let mut bench = Bench::start(from("41"), vec![open(vec![added(42)])]);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    let asked = bench.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("resourceVersion=41") && !asked[0].contains(STREAMED_LIST), "{asked:?}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_streams_no_lists_is_paged_and_watched() {
    let script = vec![
        Reply::Refusal(
            422,
            None,
            r#"{"kind":"Status","code":422,"message":"sendInitialEvents is forbidden"}"#,
        ),
        page(70, "next", &[3, 1]),
        page(70, "", &[2]),
        open(vec![added(71)]),
    ];
    let mut bench = Bench::start(from(""), script);
    bench.expect(&[listed(3), listed(1), listed(2), checkpoint(70), seen(71), checkpoint(71)]).await;
    let asked = bench.asked();
    assert_eq!(asked[1..3], ["/api/v1/events?limit=500", "/api/v1/events?limit=500&continue=next"]);
    assert!(asked[3].contains("resourceVersion=70"), "{asked:?}");
    let exposed = bench.exposed();
    for line in [
        r#"nodetap_agent_api_requests_total{verb="list",resource="events",code="2xx"} 2"#,
        r#"nodetap_agent_api_requests_total{verb="watch",resource="events",code="4xx"} 1"#,
        r#"nodetap_agent_watches{share="cluster",state="watching"} 1"#,
        r#"nodetap_agent_watches{share="cluster",state="listing"} 0"#,
        r#"nodetap_agent_watch_frames_total{type="listed"} 3"#,
        "nodetap_agent_watch_records_total 4",
    ] {
        assert!(exposed.contains(line), "{line} is not in {exposed}");
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_within_a_line_loses_and_doubles_nothing() {
    let half = added(43)[..20].to_vec();
    let script = vec![cut(vec![added(42), half]), open(vec![added(43), added(44)])];
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42), seen(43), checkpoint(43), seen(44), checkpoint(44)]).await;
    let asked = bench.asked();
    assert!(asked[1].contains("resourceVersion=42"), "{asked:?}");
    assert!(bench.exposed().contains(r#"nodetap_agent_watch_refused_total{reason="cut_line"} 1"#));
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_after_a_410_is_tried_until_it_works() {
    let gone = r#"{"kind":"Status","message":"too old resource version","reason":"Expired","code":410}"#;
    let mut script = vec![open(vec![added(42), frame("ERROR", gone)])];
    script.extend((0..5).map(|_| Reply::Refusal(500, None, "internal")));
    script.push(open(vec![added(44), end_of_list(50), added(51)]));
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42), listed(44), checkpoint(50), seen(51), checkpoint(51)]).await;
    assert_eq!(bench.asked().len(), 7);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_answer_410_lists_again() {
    let script = vec![Reply::Refusal(410, None, "gone"), open(vec![added(44), end_of_list(50)])];
    let mut bench = Bench::start(from("41"), script);
    let started = Instant::now();
    bench.expect(&[listed(44), checkpoint(50)]).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "the first time there is no wait");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_and_reported() {
    let script = vec![Reply::Refusal(429, Some("7"), "slow down"), open(vec![added(42)])];
    let mut bench = Bench::start(from("41"), script);
    let started = Instant::now();
    assert_eq!(bench.report().await, (WatchState::BackingOff, 1, "429 slow down".to_owned()));
    assert_eq!(bench.progress.shards()["cluster"].state, WatchState::BackingOff);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    assert!(started.elapsed() >= Duration::from_secs(7), "{:?}", started.elapsed());
    assert_eq!(bench.reported(WatchState::Watching).await, "");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_is_counted_and_the_rest_is_taken() {
    let long =
        format!(r#"{{"metadata":{{"uid":"u","resourceVersion":"43"}},"message":"{}"}}"#, "x".repeat(3 << 20));
    let mut body: Vec<u8> = [
        added(42),
        frame("ADDED", &long),
        b"garbage\n".to_vec(),
        b"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"uid\":\"\xff\"}}}\n".to_vec(),
        frame("ADDED", r#"{"metadata":{"uid":"u","uid":"u","resourceVersion":"44"}}"#),
        frame("ADDED", r#"{"metadata":{"resourceVersion":"44"}}"#),
        frame("NOVEL", "{}"),
    ]
    .concat();
    body.extend(added(45));
    let chunks = body.chunks(100_003).map(<[u8]>::to_vec).collect();
    let mut bench = Bench::start(from("41"), vec![open(chunks)]);
    bench.expect(&[seen(42), checkpoint(42), seen(45), checkpoint(45)]).await;
    let exposed = bench.exposed();
    for reason in
        ["too_long", "malformed_frame", "not_utf8", "malformed_event", "no_identity", "unknown_type"]
    {
        let line = format!(r#"nodetap_agent_watch_refused_total{{reason="{reason}"}} 1"#);
        assert!(exposed.contains(&line), "{line} is not in {exposed}");
    }
    assert_eq!(bench.asked().len(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_item_of_a_page_costs_no_other() {
    let body = format!(
        r#"{{"metadata":{{"resourceVersion":"70"}},"items":[{},{{"metadata":{{"name":"bad"}}}},{}]}}"#,
        event(1),
        event(2)
    );
    let script = vec![
        Reply::Refusal(400, None, ""),
        Reply::Parts(vec![Part::Bytes(b"{\"items\":[".to_vec())]),
        Reply::Parts(vec![Part::Bytes(body.into_bytes())]),
    ];
    let mut bench = Bench::start(from(""), script);
    bench.expect(&[listed(1), listed(2), checkpoint(70)]).await;
    let exposed = bench.exposed();
    assert!(exposed.contains(r#"nodetap_agent_watch_refused_total{reason="no_identity"} 1"#), "{exposed}");
    assert!(exposed.contains(r#"nodetap_agent_watch_refused_total{reason="malformed_page"} 1"#), "{exposed}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_of_too_many_bytes_is_asked_for_in_halves() {
    let chunk = || Part::Bytes(vec![b' '; 4 << 20]);
    let script = vec![
        Reply::Refusal(400, None, ""),
        Reply::Parts((0..5).map(|_| chunk()).collect()),
        page(70, "", &[1]),
    ];
    let mut bench = Bench::start(from(""), script);
    bench.expect(&[listed(1), checkpoint(70)]).await;
    assert!(bench.asked()[2].ends_with("limit=250"), "{:?}", bench.asked());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_and_resumed() {
    let script = vec![open(vec![added(42)]), Reply::Silence, open(vec![added(43)])];
    let mut bench = Bench::start(from("41"), script);
    let started = Instant::now();
    bench.expect(&[seen(42), checkpoint(42), seen(43), checkpoint(43)]).await;
    assert!(started.elapsed() < Duration::from_secs(310 + 30 + 65 + 2), "{:?}", started.elapsed());
    assert!(bench.asked()[2].contains("resourceVersion=42"));
    let exposed = bench.exposed();
    for reason in ["idle", "unanswered"] {
        let line = format!(r#"nodetap_agent_watch_reconnects_total{{reason="{reason}"}} 1"#);
        assert!(exposed.contains(&line), "{line} is not in {exposed}");
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_holds_back_and_cuts_anywhere_is_waited_for_and_taken_whole() {
    let mut first = [added(42), added(43)].concat();
    let second = first.split_off(20);
    let pause = || Part::Pause(Duration::from_secs(250));
    let last = Part::Bytes(added(44));
    let parts = vec![Part::Bytes(first), pause(), Part::Bytes(second), pause(), last, Part::Silence];
    let mut bench = Bench::start(from("41"), vec![Reply::Parts(parts)]);
    bench.expect(&[seen(42), seen(43), checkpoint(43), seen(44), checkpoint(44)]).await;
    assert_eq!(bench.asked().len(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_a_proxy_holds_back_to_its_end_comes_whole_and_is_no_empty_watch() {
    let lump = |from: u64| Part::Bytes((from..from + 300).flat_map(added).collect());
    let late = |from| Reply::Parts(vec![Part::Pause(Duration::from_secs(290)), lump(from)]);
    let mut bench = Bench::start(from("0"), vec![late(1), late(301), late(601), late(901)]);
    for version in 1..=1_200 {
        loop {
            match bench.next().await {
                Out::Checkpoint(..) => {}
                out => break assert_eq!(out, seen(version)),
            }
        }
    }
    let asked = bench.asked();
    assert!(asked.iter().all(|asked| !asked.contains(STREAMED_LIST)), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=900"), "{asked:?}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_whose_end_a_proxy_holds_back_is_paged_instead() {
    // The bookmark that ends it waits in the proxy until more comes, which nothing does.
    let script = vec![open(vec![added(3)]), page(70, "", &[3, 4]), open(vec![added(71)])];
    let mut bench = Bench::start(from(""), script);
    bench.expect(&[listed(3), listed(3), listed(4), checkpoint(70), seen(71), checkpoint(71)]).await;
    assert_eq!(bench.asked().iter().filter(|asked| asked.contains(STREAMED_LIST)).count(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_begins_late_is_waited_for_and_reported_as_watching_only_then() {
    let script = vec![Reply::Late(Duration::from_secs(50), vec![Part::Bytes(added(42)), Part::Silence])];
    let mut bench = Bench::start(from("41"), script);
    let started = Instant::now();
    assert_eq!(bench.reported(WatchState::Watching).await, "");
    assert!(started.elapsed() >= Duration::from_secs(50));
    bench.expect(&[seen(42), checkpoint(42)]).await;
    assert_eq!(bench.asked().len(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clocks_that_step_to_and_fro_lose_no_event_and_cut_no_watch() {
    let at = |version: u64, time: &str| {
        let metadata =
            format!(r#""name":"e","namespace":"n","uid":"u{version}","resourceVersion":"{version}""#);
        frame("ADDED", &format!(r#"{{"metadata":{{{metadata}}},"lastTimestamp":"{time}"}}"#))
    };
    let times = [
        "2026-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "2026-01-01T00:00:01Z",
        "1901-12-13T20:45:52Z",
    ];
    let frames = times.iter().zip(42..).map(|(time, version)| at(version, time)).collect();
    let mut bench = Bench::start(from("41"), vec![open(frames)]);
    for version in 42..48 {
        bench.expect(&[seen(version), checkpoint(version)]).await;
    }
    assert_eq!(bench.asked().len(), 1);
    let progress = bench.tally.take(Duration::from_secs(10)).unwrap();
    assert_eq!(progress.shards[0].events, 6);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_waits_for_an_api_server_that_was_gone_goes_on_as_soon_as_it_is_reached() {
    let mut script = vec![cut(vec![added(42)])];
    script.extend((0..9).map(|_| Reply::Refused));
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    // It waits for up to 30 s by now.
    bench.asked_times(10).await;
    let mut answers = bench.reach.answers();
    let before = Instant::now();
    let asked = bench.asked().len();
    bench.server.script.lock().unwrap().extend([Reply::Parts(vec![]), open(vec![added(43)])]);
    bench.reach.ask(7);
    answers.changed().await.unwrap();
    let answer = answers.borrow().clone().unwrap();
    assert!((answer.number, answer.reached) == (7, true) && answer.answer_ms > 0, "{answer:?}");
    bench.expect(&[seen(43), checkpoint(43)]).await;
    assert_eq!(before.elapsed(), Duration::ZERO, "nothing is waited for");
    assert_eq!(bench.asked()[asked], "/readyz");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_or_is_not_ready_is_not_reached_and_one_that_refuses_is() {
    let client = |reply| Client::new(Server::with(vec![reply]), "default");
    for (reply, reached) in [
        (Reply::Silence, false),
        (Reply::Refused, false),
        (Reply::Refusal(500, None, "[-]poststarthook failed"), false),
        (Reply::Refusal(403, None, "forbidden"), true),
        (Reply::Parts(vec![Part::Bytes(b"ok".to_vec())]), true),
    ] {
        let (reach, metrics, cancel) = (Reach::default(), Metrics::default(), CancellationToken::new());
        let mut answers = reach.answers();
        let started = Instant::now();
        let running = tokio::spawn(reach::run(client(reply), reach.clone(), metrics, cancel.clone()));
        tokio::task::yield_now().await;
        reach.ask(1);
        answers.changed().await.unwrap();
        let answer = answers.borrow().clone().unwrap();
        assert_eq!((answer.number, answer.reached, answer.failure.is_empty()), (1, reached, reached));
        assert!(started.elapsed() <= Duration::from_secs(1), "a handover has 5 s in all");
        cancel.cancel();
        running.await.unwrap();
    }
}

#[test]
fn the_shortest_of_the_last_times_tells_how_soon_the_api_server_answers() {
    let reach = Reach::default();
    assert_eq!(reach.answer_ms(), 0);
    reach.took(Duration::from_micros(200));
    assert_eq!(reach.answer_ms(), 1, "0 says that it was not measured");
    for _ in 0..8 {
        reach.took(Duration::from_millis(40));
    }
    assert_eq!(reach.answer_ms(), 40);
    reach.took(Duration::from_secs(3));
    assert_eq!(reach.answer_ms(), 40, "a busy moment is not distance");
}

#[tokio::test(start_paused = true)]
async fn what_another_nodes_watch_has_is_let_go_unparsed_and_is_not_refused() {
    let of = |version: u64, source: &str| {
        let metadata =
            format!(r#""name":"e","namespace":"n","uid":"u{version}","resourceVersion":"{version}""#);
        frame(
            "ADDED",
            &format!(r#"{{"metadata":{{{metadata}}},"message":"the \"host\"","source":{source}}}"#),
        )
    };
    let frames = vec![
        of(42, r#"{"component":"scheduler"}"#),
        of(43, r#"{"component":"kubelet","host":"a"}"#),
        of(44, r#"{"component":"kubelet","host":"stranger"}"#),
        of(45, r#"{"component":"kubelet","host":"b"}"#),
    ];
    let mut assignment = assigned(&[(Shard::no_host(), 1, "41")]);
    assignment.watches[0].other_hosts = vec!["a".to_owned(), "b".to_owned()];
    let mut bench = Bench::start(assignment, vec![open(frames)]);
    bench.expect(&[seen(42), checkpoint(42), checkpoint(43), seen(44), checkpoint(44), checkpoint(45)]).await;
    let exposed = bench.exposed();
    let line = r#"nodetap_agent_watch_left_to_others_total{reason="other_host"} 2"#;
    assert!(exposed.contains(line) && !exposed.contains("watch_refused_total{"), "{exposed}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_makes_one_checkpoint_for_every_256_records() {
    let burst: Vec<u8> = (1..=600).flat_map(added).collect();
    let mut bench = Bench::start(from("0"), vec![open(vec![burst])]);
    let mut outs = Vec::new();
    while outs.last() != Some(&checkpoint(600)) {
        outs.push(bench.next().await);
    }
    let checkpoints: Vec<_> = outs.iter().filter(|out| matches!(out, Out::Checkpoint(..))).cloned().collect();
    assert_eq!(checkpoints, [checkpoint(256), checkpoint(512), checkpoint(600)]);
    assert_eq!(outs.len(), 603);
    let mut last = 0;
    for out in outs {
        match out {
            Out::Event(version, _) => last = version.parse().unwrap(),
            Out::Checkpoint(version, _) => assert_eq!(version, last.to_string()),
        }
    }
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_came_together_are_handed_over_together_and_no_more_of_them_than_a_run_has() {
    let large = |version: u64| {
        let metadata = format!(r#""uid":"u{version}","resourceVersion":"{version}""#);
        let message = "x".repeat(40_000);
        frame("ADDED", &format!(r#"{{"metadata":{{{metadata}}},"message":"{message}"}}"#))
    };
    let burst: Vec<u8> = (1..=100)
        .flat_map(added)
        .chain(frame("DELETED", &event(101)))
        .chain((102..=105).flat_map(large))
        .collect();
    let mut bench = Bench::start(from("0"), vec![open(vec![burst, added(106)])]);
    let mut runs = Vec::new();
    while runs.last() != Some(&Vec::new()) {
        match bench.taken.recv().await.unwrap() {
            Taken::Events(run) => runs.push(run.records().unwrap().into_iter().map(out).collect()),
            Taken::Checkpoint(checkpoint) if checkpoint.resource_version == "106" => runs.push(Vec::new()),
            Taken::Checkpoint(checkpoint) => assert_eq!(checkpoint.resource_version, "105"),
            other => panic!("{other:?}"),
        }
    }
    let expected =
        [(1..65).collect(), (65..101).chain(102..104).collect(), vec![104, 105], vec![106], vec![]];
    let expected = expected.map(|run: Vec<u64>| run.into_iter().map(seen).collect::<Vec<_>>());
    assert_eq!(runs, expected);
    assert_eq!(bench.tally.take(Duration::from_secs(10)).unwrap().shards[0].events, 105);
    assert!(bench.exposed().contains("nodetap_agent_watch_records_total 105"), "{}", bench.exposed());
    assert!(bench.exposed().contains(r#"nodetap_agent_watch_frames_total{type="added"} 105"#));
    assert!(!bench.exposed().contains(r#"{type="modified"}"#), "what never came is not exposed");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_assigned_any_more_is_let_go_of_and_the_rest_goes_on() {
    let both = assigned(&[(namespace("a"), 1, "41"), (namespace("b"), 1, "41")]);
    let script = vec![open(vec![]), open(vec![])];
    let mut bench = Bench::start(both, script);
    bench.asked_times(2).await;
    bench.assignments.send(assigned(&[(namespace("b"), 1, "41")])).unwrap();
    loop {
        let report = bench.reports.recv().await.unwrap();
        if report.state() == WatchState::Released {
            assert_eq!(report.shard, Some(namespace("a")));
            break;
        }
    }
    assert_eq!(bench.progress.shards().keys().collect::<Vec<_>>(), ["namespace/b"]);
    assert_eq!(bench.asked().len(), 2);
    let exposed = bench.exposed();
    assert!(exposed.contains(r#"nodetap_agent_watches{share="namespace",state="watching"} 1"#), "{exposed}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_keeps_the_stream_and_marks_what_comes_with_it() {
    let mut bench = Bench::start(from("41"), vec![open(vec![added(42)])]);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    bench.assignments.send(assigned(&[(cluster(), 2, "42")])).unwrap();
    bench.expect(&[Out::Checkpoint("42".to_owned(), 2)]).await;
    assert_eq!(bench.asked().len(), 1);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_beyond_what_the_journal_lost_goes_back_and_hands_it_over_again() {
    let script = vec![open(vec![added(42), added(43)]), open(vec![added(42), added(43)]), open(vec![])];
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42), seen(43), checkpoint(43)]).await;
    let lost = |epoch| {
        let mut assignment = assigned(&[(cluster(), epoch, "41")]);
        assignment.watches[0].lost_before = 2;
        assignment
    };
    bench.assignments.send(lost(2)).unwrap();
    let of = |version: &str, epoch| Out::Checkpoint(version.to_owned(), epoch);
    bench.expect(&[seen(42), of("42", 2), seen(43), of("43", 2)]).await;
    assert!(bench.asked()[1].contains("resourceVersion=41"), "{:?}", bench.asked());
    // What was lost is handed over by now.
    bench.assignments.send(lost(3)).unwrap();
    bench.expect(&[of("43", 3)]).await;
    assert_eq!(bench.asked().len(), 2);
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_that_is_further_on_starts_again_from_there() {
    let script = vec![open(vec![added(42)]), open(vec![added(61)])];
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    bench.assignments.send(assigned(&[(cluster(), 2, "60")])).unwrap();
    bench.expect(&[seen(61), Out::Checkpoint("61".to_owned(), 2)]).await;
    assert!(bench.asked()[1].contains("resourceVersion=60"), "{:?}", bench.asked());
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_takes_nothing_holds_the_watch_back_and_not_its_release() {
    let burst: Vec<u8> = (1..=600).flat_map(added).collect();
    let bench = Bench::start(from("0"), vec![open(vec![burst])]);
    while !bench.progress.shards().get("cluster").is_some_and(|shard| shard.held_back) {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(bench.progress.stalled(Duration::from_secs(600)).is_empty());
    assert_eq!(bench.asked().len(), 1, "who waits for the outbox is not idle");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reports_that_nobody_reads_hold_up_nothing_and_the_newest_wins() {
    let mut script: Vec<_> = (0..20).map(|_| Reply::Refusal(500, None, "internal")).collect();
    script.push(open(vec![added(42)]));
    let mut bench = Bench::start(from("41"), script);
    bench.expect(&[seen(42), checkpoint(42)]).await;
    let (first, ..) = bench.report().await;
    assert_eq!(first, WatchState::BackingOff);
    assert_eq!(bench.reported(WatchState::Watching).await, "");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_not_known_is_refused_and_the_others_are_held() {
    let unknown = Shard { share: None };
    let assignment = assigned(&[(unknown, 1, ""), (namespace("../x"), 1, ""), (namespace("a"), 1, "41")]);
    let bench = Bench::start(assignment, vec![open(vec![])]);
    let asked = bench.asked_times(1).await;
    assert!(asked[0].starts_with("/api/v1/namespaces/a/events?"), "{asked:?}");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_by_a_fault_is_listed_again_after_a_while() {
    let server = Server::default();
    let (intake, _taken) = intake();
    let shared = Shared {
        intake,
        metrics: Metrics::default(),
        progress: Progress::default(),
        reports: Reports::default(),
        tally: Tally::default(),
        names: Names::default(),
        reach: Reach::default(),
    };
    let mut runner = Runner {
        client: Client::new(server.clone(), "default"),
        shared: shared.clone(),
        shards: HashMap::new(),
        tasks: JoinSet::new(),
        cancel: CancellationToken::new(),
    };
    runner.hold(&from("41")).await;
    while server.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    runner.tasks.abort_all();
    let ended = runner.tasks.join_next_with_id().await.unwrap();
    assert!(ended.is_err());
    assert!(shared.progress.shards().is_empty(), "it is released");
    let before = Instant::now();
    runner.ended(ended).unwrap();
    while server.asked.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(server.asked.lock().unwrap()[1].contains(STREAMED_LIST));
    assert!(before.elapsed() >= FAULT_WAIT);
}

#[tokio::test(start_paused = true)]
async fn the_watches_end_with_the_outbox() {
    let bench = Bench::start(from("41"), vec![open(vec![added(42), added(43)])]);
    let Bench { taken, runner, assignments, .. } = bench;
    drop(taken);
    runner.await.unwrap();
    drop(assignments);
}

#[test]
fn of_a_shard_that_stands_twice_the_newest_counts() {
    let named = named(&assigned(&[(cluster(), 3, "5"), (cluster(), 7, "9"), (cluster(), 4, "6")]));
    assert_eq!(named["cluster"].1.epoch, 7);
    let many: Vec<_> = (0..2_000).map(|number| (namespace(&format!("n{number}")), 1, "")).collect();
    assert_eq!(super::named(&assigned(&many)).len(), MAX_WATCHES);
}
