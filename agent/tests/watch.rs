//! The event watches against the simulated API server, over TLS, with what goes wrong on a real one.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use nodetap_agent::kubernetes::KubernetesAccess;
use nodetap_agent::outbox::{Taken, Taking, intake};
use nodetap_agent::watch::{self, Wiring};
use nodetap_bench::cluster::{
    Answer, CutHow, Event, Metadata, Options, Reference, Scope, SimulatedCluster, Times,
};
use nodetap_wire::record::Kind;
use nodetap_wire::shard::Share;
use nodetap_wire::{
    AssignedWatch, Assignment, Change, Shard, WatchReport, WatchState, WholeCluster, resource_version,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than any back-off here adds up to: what is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent's watches, and all that they handed over.
struct Agent {
    assignments: tokio::sync::watch::Sender<Assignment>,
    taken: Taking,
    reports: mpsc::Receiver<WatchReport>,
    metrics: watch::metrics::Metrics,
    cancel: CancellationToken,
    runner: JoinHandle<()>,
    /// How often each state came, and how it was announced the first time.
    seen: BTreeMap<String, (usize, Change)>,
    /// The highest resourceVersion handed over by a watch.
    newest: String,
    checkpoint: String,
}

impl Agent {
    async fn start(cluster: &SimulatedCluster, assignment: Assignment) -> Self {
        Self::start_at(cluster.kubeconfig(), assignment).await
    }

    async fn start_at(kubeconfig: &std::path::Path, assignment: Assignment) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let access = KubernetesAccess::new(Some(kubeconfig)).await.unwrap();
        let (assignments, receiver) = tokio::sync::watch::channel(assignment);
        let (intake, taken) = intake();
        let (report_to, reports) = mpsc::channel(16);
        let (metrics, cancel) = (watch::metrics::Metrics::default(), CancellationToken::new());
        let wiring = Wiring {
            assignments: receiver,
            intake,
            reports: report_to,
            tally: watch::tally::Tally::default(),
            names: watch::names::Names::default(),
            reach: watch::reach::Reach::default(),
            metrics: metrics.clone(),
            progress: watch::progress::Progress::default(),
        };
        let runner = tokio::spawn(watch::run(access.client, wiring, cancel.clone()));
        Self {
            assignments,
            taken,
            reports,
            metrics,
            cancel,
            runner,
            seen: BTreeMap::new(),
            newest: String::new(),
            checkpoint: String::new(),
        }
    }

    async fn take_one(&mut self) {
        match self.taken.recv().await.unwrap() {
            Taken::Events(run) => {
                for record in run.records().unwrap() {
                    let Some(Kind::Event(event)) = record.kind else { panic!("{record:?}") };
                    let key = format!("event/{}/{}", event.uid, event.resource_version);
                    self.seen.entry(key).or_insert((0, event.change())).0 += 1;
                    if event.change() != Change::Listed {
                        self.newest = event.resource_version.to_string();
                    }
                }
            }
            Taken::Checkpoint(checkpoint) => {
                assert!(
                    self.newest.is_empty()
                        || !resource_version::is_later(&self.newest, &checkpoint.resource_version),
                    "records come before the checkpoint that covers them, and move it"
                );
                self.checkpoint = checkpoint.resource_version;
            }
            Taken::Mark(mark) => mark.reach(),
            other @ (Taken::Record(_) | Taken::Told(_)) => panic!("{other:?}"),
        }
    }

    /// Takes until every state of the truth has come.
    async fn until(&mut self, truth: &HashSet<String>) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !truth.iter().all(|key| self.seen.contains_key(key)) {
                self.take_one().await;
            }
        });
        if waited.await.is_err() {
            let missing = truth.iter().filter(|key| !self.seen.contains_key(*key)).count();
            panic!("{missing} of {} never came; {:?}", truth.len(), self.exposed());
        }
    }

    async fn until_truth(&mut self, cluster: &SimulatedCluster) {
        self.until(&events(cluster)).await;
    }

    /// Takes until the checkpoint is at least there.
    async fn until_checkpoint(&mut self, at: u64) {
        let at = at.to_string();
        tokio::time::timeout(PATIENCE, async {
            while self.checkpoint != at && !resource_version::is_later(&self.checkpoint, &at) {
                self.take_one().await;
            }
        })
        .await
        .unwrap();
    }

    async fn until_reported(&mut self, state: WatchState) -> String {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let report = self.reports.recv().await.unwrap();
                if report.state() == state {
                    return report.failure;
                }
            }
        })
        .await
        .unwrap()
    }

    /// What came more than once.
    fn doubled(&self) -> Vec<&str> {
        self.seen.iter().filter(|(_, (times, _))| *times > 1).map(|(key, _)| key.as_str()).collect()
    }

    fn exposed(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
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

async fn cluster() -> SimulatedCluster {
    SimulatedCluster::start(Options::default()).await.unwrap()
}

fn whole(epoch: u64, resource_version: &str) -> Assignment {
    let shard = Some(Shard { share: Some(Share::Cluster(WholeCluster {})) });
    Assignment {
        watches: vec![AssignedWatch {
            shard,
            epoch,
            resource_version: resource_version.to_owned(),
            ..AssignedWatch::default()
        }],
    }
}

fn post(cluster: &SimulatedCluster, namespace: &str, name: &str) {
    let event = Event {
        metadata: Metadata { name: name.to_owned(), ..Metadata::default() },
        involved_object: Reference { kind: "Pod".to_owned(), name: "web".to_owned(), ..Reference::default() },
        reason: "Tested".to_owned(),
        r#type: "Normal".to_owned(),
        count: 1,
        ..Event::default()
    };
    cluster.post_event(namespace, event).unwrap();
}

fn post_many(cluster: &SimulatedCluster, prefix: &str, how_many: usize) {
    for number in 0..how_many {
        post(cluster, "shop", &format!("{prefix}-{number}"));
    }
}

fn events(cluster: &SimulatedCluster) -> HashSet<String> {
    cluster.truth().events().iter().map(|event| event.key()).collect()
}

async fn until_watched(cluster: &SimulatedCluster) {
    let watched = cluster.until_watches(|watches| !watches.is_empty());
    tokio::time::timeout(PATIENCE, watched).await.unwrap();
}

#[tokio::test]
async fn every_event_listed_or_watched_comes_once_by_one_request() {
    let cluster = cluster().await;
    post_many(&cluster, "before", 1_200);
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_truth(&cluster).await;
    assert!(agent.seen.values().all(|(_, change)| *change == Change::Listed));
    agent.until_checkpoint(1).await;
    post_many(&cluster, "after", 700);
    agent.until_truth(&cluster).await;
    agent.until_checkpoint(cluster.revision()).await;
    assert_eq!(agent.doubled(), [""; 0]);
    assert_eq!(agent.seen.len(), 1_900);
    assert_eq!((cluster.requests("list events"), cluster.requests("watch events")), (0, 1));
    assert_eq!(cluster.requests("get"), 0);
    agent.stop().await;
}

/// Defect 22, grafana/agent#6516: with a huge backlog it cannot start, since its cache is not filled in time.
#[tokio::test]
async fn defect_22_ten_thousand_events_at_the_start_go_on_as_they_come_and_a_new_one_behind_them() {
    let cluster = cluster().await;
    post_many(&cluster, "before", 10_000);
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.take_one().await;
    // It waits for no end of the list: what nobody takes yet stays with the API server.
    assert_eq!(agent.checkpoint, "");
    post(&cluster, "shop", "new");
    agent.until_truth(&cluster).await;
    assert_eq!((agent.seen.len(), agent.doubled()), (10_001, vec![]));
    assert_eq!((cluster.requests("list events"), cluster.requests("watch events")), (0, 1));
    agent.stop().await;
}

#[tokio::test]
async fn an_api_server_that_streams_no_list_is_paged() {
    let cluster = cluster().await;
    post_many(&cluster, "before", 1_200);
    // A stream with nothing to understand in it, which ends.
    cluster.faults().answer(Scope::EventWatches, Answer::Garbage, Times::Next(1));
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_truth(&cluster).await;
    agent.until_checkpoint(cluster.revision()).await;
    post_many(&cluster, "after", 10);
    agent.until_truth(&cluster).await;
    assert_eq!(agent.doubled(), [""; 0]);
    assert_eq!((cluster.requests("list events"), cluster.requests("watch events")), (3, 2));
    agent.stop().await;
}

/// Defect 21, open-telemetry/opentelemetry-collector-contrib#38731 and #45897: a restart means a gap, or everything once more.
#[tokio::test]
async fn defect_21_a_restart_resumes_at_its_checkpoint_without_a_gap_and_without_a_repeat() {
    let cluster = cluster().await;
    post_many(&cluster, "before", 20);
    let mut first = Agent::start(&cluster, whole(1, "")).await;
    first.until_truth(&cluster).await;
    first.until_checkpoint(cluster.revision()).await;
    let (before, checkpoint) = (events(&cluster), first.checkpoint.clone());
    first.stop().await;

    post_many(&cluster, "between", 30);
    let mut second = Agent::start(&cluster, whole(2, &checkpoint)).await;
    let after: HashSet<_> = events(&cluster).difference(&before).cloned().collect();
    second.until(&after).await;
    assert_eq!(second.seen.len(), 30, "nothing of what the first one had comes again");
    assert!(second.seen.values().all(|(times, change)| (*times, *change) == (1, Change::Added)));
    assert_eq!(cluster.requests("list events"), 0);
    second.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_cut_in_any_way_loses_and_doubles_nothing() {
    let cluster = cluster().await;
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_reported(WatchState::Watching).await;
    for (round, how) in
        [CutHow::Clean, CutHow::Broken, CutHow::MiddleOfLine].into_iter().cycle().take(9).enumerate()
    {
        post_many(&cluster, &format!("before-{round}"), 40);
        until_watched(&cluster).await;
        cluster.faults().cut_event_watches(how);
        post_many(&cluster, &format!("after-{round}"), 40);
        agent.until_truth(&cluster).await;
    }
    assert_eq!(agent.doubled(), [""; 0]);
    assert_eq!(agent.seen.len(), 720);
    assert_eq!(cluster.requests("list events"), 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_compaction_while_the_api_server_was_away_is_listed_over() {
    for empty in [false, true] {
        let cluster = cluster().await;
        post_many(&cluster, "before", 10);
        let mut agent = Agent::start(&cluster, whole(1, "")).await;
        agent.until_truth(&cluster).await;
        agent.until_reported(WatchState::Watching).await;
        cluster.faults().empty_when_stale(empty);
        cluster.faults().api_server_down(true);
        agent.until_reported(WatchState::BackingOff).await;
        post_many(&cluster, "away", 25);
        cluster.compact();
        cluster.faults().api_server_down(false);
        agent.until_truth(&cluster).await;
        agent.until_checkpoint(cluster.revision()).await;
        assert_eq!(agent.seen.len(), 35);
        let metric = if empty { "empty" } else { "expired" };
        let line = format!(r#"nodetap_agent_watch_reconnects_total{{reason="{metric}"}}"#);
        assert!(agent.exposed().contains(&line), "{line} is not in {}", agent.exposed());
        post_many(&cluster, "after", 5);
        agent.until_truth(&cluster).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn what_the_api_server_refuses_is_reported_and_tried_again() {
    for (answer, words) in [
        (Answer::Unauthorized, "401"),
        (Answer::Forbidden, "403"),
        (Answer::TooManyRequests(1), "429"),
        (Answer::InternalError, "500"),
    ] {
        let cluster = cluster().await;
        post_many(&cluster, "before", 10);
        cluster.faults().answer(Scope::Any, answer, Times::Next(2));
        let mut agent = Agent::start(&cluster, whole(1, "")).await;
        let failure = agent.until_reported(WatchState::BackingOff).await;
        assert!(failure.starts_with(words), "{failure}");
        agent.until_truth(&cluster).await;
        assert_eq!(agent.until_reported(WatchState::Watching).await, "");
        assert_eq!(agent.doubled(), [""; 0]);
        agent.stop().await;
    }
}

#[tokio::test]
async fn answers_that_are_none_are_got_over() {
    for answer in [Answer::Garbage, Answer::Empty, Answer::Gone] {
        let cluster = cluster().await;
        post_many(&cluster, "before", 10);
        cluster.faults().answer(Scope::EventWatches, answer, Times::Next(1));
        cluster.faults().answer(Scope::EventLists, answer, Times::Next(1));
        let mut agent = Agent::start(&cluster, whole(1, "")).await;
        agent.until_truth(&cluster).await;
        agent.until_checkpoint(cluster.revision()).await;
        cluster.faults().clear();
        cluster.faults().answer(Scope::EventWatches, answer, Times::Next(2));
        cluster.faults().cut_event_watches(CutHow::Broken);
        post_many(&cluster, "after", 10);
        agent.until_truth(&cluster).await;
        assert_eq!(agent.seen.len(), 20);
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_oversized_event_is_skipped_and_the_rest_is_taken() {
    let cluster = cluster().await;
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_reported(WatchState::Watching).await;
    let huge = cluster.post_oversized_event(3 << 20).unwrap();
    post_many(&cluster, "after", 10);
    let mut truth = events(&cluster);
    truth.retain(|key| !key.contains(&huge));
    agent.until(&truth).await;
    assert_eq!(agent.seen.len(), 10);
    assert_eq!(cluster.requests("watch events"), 1, "the watch goes on");
    let line = r#"nodetap_agent_watch_refused_total{reason="too_long"} 1"#;
    assert!(agent.exposed().contains(line), "{}", agent.exposed());
    agent.stop().await;
}

#[tokio::test]
async fn lines_that_come_byte_by_byte_are_taken_whole() {
    let cluster = cluster().await;
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_reported(WatchState::Watching).await;
    cluster.faults().dribble_lines(3);
    post_many(&cluster, "dribbled", 5);
    agent.until_truth(&cluster).await;
    assert_eq!(agent.doubled(), [""; 0]);
    agent.stop().await;
}

#[tokio::test]
async fn expired_events_are_no_records_and_move_the_checkpoint() {
    let cluster = cluster().await;
    post_many(&cluster, "before", 50);
    let mut agent = Agent::start(&cluster, whole(1, "")).await;
    agent.until_truth(&cluster).await;
    agent.until_reported(WatchState::Watching).await;
    assert_eq!(cluster.expire_all_events(), 50);
    agent.until_checkpoint(cluster.revision()).await;
    assert_eq!(agent.seen.len(), 50);
    agent.stop().await;
}

#[tokio::test]
async fn namespaces_are_watched_apart_and_let_go_of_apart() {
    let cluster = cluster().await;
    let named = |names: &[&str]| Assignment {
        watches: names
            .iter()
            .map(|name| AssignedWatch {
                shard: Some(Shard { share: Some(Share::Namespace((*name).to_owned())) }),
                epoch: 1,
                resource_version: String::new(),
                ..AssignedWatch::default()
            })
            .collect(),
    };
    let mut agent = Agent::start(&cluster, named(&["a", "b"])).await;
    cluster.until_watches(|watches| watches.len() == 2).await;
    post(&cluster, "c", "of-nobody");
    let nobody = events(&cluster);
    post(&cluster, "a", "one");
    post(&cluster, "b", "two");
    agent.newest.clear();
    let truth: HashSet<_> = events(&cluster).difference(&nobody).cloned().collect();
    tokio::time::timeout(PATIENCE, async {
        while !truth.iter().all(|key| agent.seen.contains_key(key)) {
            agent.newest.clear();
            agent.take_one().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(agent.seen.len(), 2);
    agent.assignments.send(named(&["b"])).unwrap();
    let left = cluster.until_watches(|watches| {
        watches.len() == 1 && watches.iter().all(|watch| watch.namespace.as_deref() == Some("b"))
    });
    tokio::time::timeout(PATIENCE, left).await.unwrap();
    agent.stop().await;
}

/// Between the agent and the API server: passes on what the API server sends only as far as it is let through, cut anywhere.
struct Lumps {
    address: std::net::SocketAddr,
    /// Bytes that are let through, of all connections together.
    through: tokio::sync::watch::Sender<u64>,
    /// Bytes that have come.
    come: tokio::sync::watch::Receiver<u64>,
}

impl Lumps {
    async fn start(server: String) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (through, let_through) = tokio::sync::watch::channel(u64::MAX);
        let (coming, come) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::TcpStream::connect(&server).await.unwrap();
                let (mut from_agent, mut to_agent) = near.into_split();
                let (mut from_server, mut to_server) = far.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_agent, &mut to_server).await });
                let (mut let_through, coming) = (let_through.clone(), coming.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                        let mut rest = &bytes[..read];
                        let mut passed = *coming.borrow();
                        coming.send_modify(|come| *come += read as u64);
                        while !rest.is_empty() {
                            let most = *let_through.wait_for(|most| *most > passed).await.unwrap();
                            let lump = rest.len().min(usize::try_from(most - passed).unwrap_or(usize::MAX));
                            to_agent.write_all(&rest[..lump]).await.unwrap();
                            passed += lump as u64;
                            rest = &rest[lump..];
                        }
                    }
                });
            }
        });
        Self { address, through, come }
    }
}

#[tokio::test]
async fn an_api_server_whose_bytes_come_late_and_in_lumps_is_watched_on_with_one_request() {
    let cluster = cluster().await;
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let server = kubeconfig.split("https://").nth(1).unwrap();
    let server = server.split(['"', '\n', '/', ' ']).next().unwrap();
    let lumps = Lumps::start(server.to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, kubeconfig.replace(server, &lumps.address.to_string())).unwrap();
    let mut agent = Agent::start_at(&path, whole(1, "")).await;
    post(&cluster, "shop", "first");
    agent.until_truth(&cluster).await;
    agent.until_reported(WatchState::Watching).await;
    // From here on nothing comes through.
    let passed = *lumps.come.borrow();
    lumps.through.send(passed).unwrap();
    post_many(&cluster, "late", 200);
    let mut come = lumps.come.clone();
    come.wait_for(|come| *come > passed + 20_000).await.unwrap();
    let letting = async {
        let mut through = passed;
        // Longer than one frame, and no divisor of one: frames of TLS and of the watch are cut anywhere.
        loop {
            through += 777;
            lumps.through.send(through).unwrap();
            if through > *lumps.come.borrow() {
                come.changed().await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = agent.until_truth(&cluster) => {}
        () = letting => {}
    }
    assert_eq!(agent.doubled(), Vec::<&str>::new());
    let exposed = agent.exposed();
    let asked = r#"nodetap_agent_api_requests_total{verb="watch",resource="events",code="2xx"} 1"#;
    assert!(exposed.contains(asked), "{exposed}");
    agent.stop().await;
}
