//! Shares of the events against the simulated API server: by node, by range of uids, by namespace; and what it is found to accept.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use nodetap_agent::kubernetes::KubernetesAccess;
use nodetap_agent::outbox::{Taken, Taking, intake};
use nodetap_agent::watch::metrics::Metrics;
use nodetap_agent::watch::names::{Named, Names};
use nodetap_agent::watch::tally::Tally;
use nodetap_agent::watch::{self, Wiring, negotiate};
use nodetap_bench::cluster::{
    Answer, Event, Metadata, Options, Reference, Scope, SimulatedCluster, Source, Times,
};
use nodetap_wire::record::Kind;
use nodetap_wire::shard::Share;
use nodetap_wire::{AssignedWatch, Assignment, Finding, Shard, WatchReport, WatchState};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than any back-off here adds up to: what is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Agent {
    assignments: tokio::sync::watch::Sender<Assignment>,
    taken: Taking,
    reports: mpsc::Receiver<WatchReport>,
    names: tokio::sync::watch::Receiver<Named>,
    tally: Tally,
    /// How often each state of an event came.
    seen: BTreeMap<String, usize>,
    _stop: DropGuard,
}

impl Agent {
    async fn start(cluster: &SimulatedCluster, shards: &[Shard]) -> Self {
        let client = access(cluster).await.client;
        let (assignments, receiver) = tokio::sync::watch::channel(assigned(shards));
        let (intake, taken) = intake();
        let (report, reports) = mpsc::channel(64);
        let (names, tally, stop) = (Names::default(), Tally::default(), CancellationToken::new());
        let wiring = Wiring {
            assignments: receiver,
            intake,
            reports: report,
            tally: tally.clone(),
            names: names.clone(),
            reach: watch::reach::Reach::default(),
            metrics: Metrics::default(),
            progress: watch::progress::Progress::default(),
        };
        tokio::spawn(watch::run(client, wiring, stop.clone()));
        let _stop = stop.drop_guard();
        Self { assignments, taken, reports, names: names.subscribe(), tally, seen: BTreeMap::new(), _stop }
    }

    async fn until(&mut self, truth: &HashSet<String>) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !truth.iter().all(|key| self.seen.contains_key(key)) {
                let Taken::Events(run) = self.taken.recv().await.unwrap() else { continue };
                for record in run.records().unwrap() {
                    let Some(Kind::Event(event)) = record.kind else { panic!("{record:?}") };
                    let key = format!("event/{}/{}", event.uid, event.resource_version);
                    *self.seen.entry(key).or_default() += 1;
                }
            }
        });
        assert!(waited.await.is_ok(), "{} of {} came", self.seen.len(), truth.len());
    }

    async fn until_watching(&mut self, shares: usize) {
        let mut watching = HashSet::new();
        let waited = tokio::time::timeout(PATIENCE, async {
            while watching.len() < shares {
                let report = self.reports.recv().await.unwrap();
                if report.state() == WatchState::Watching {
                    watching.insert(report.shard.unwrap().name());
                }
            }
        });
        waited.await.unwrap();
    }

    async fn until_named(&mut self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let named = self.names.wait_for(|named| *named.names == wanted);
        tokio::time::timeout(PATIENCE, named).await.unwrap().unwrap();
    }
}

fn assigned(shards: &[Shard]) -> Assignment {
    let hosts = shards.iter().filter_map(|shard| match &shard.share {
        Some(Share::Host(host)) => Some(host.clone()),
        _ => None,
    });
    let hosts: Vec<_> = hosts.collect();
    let watch = |shard: &Shard| AssignedWatch {
        shard: Some(shard.clone()),
        epoch: 1,
        resource_version: String::new(),
        other_hosts: if *shard == Shard::no_host() { hosts.clone() } else { Vec::new() },
        ..AssignedWatch::default()
    };
    Assignment { watches: shards.iter().map(watch).collect() }
}

async fn access(cluster: &SimulatedCluster) -> KubernetesAccess {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    KubernetesAccess::new(Some(cluster.kubeconfig())).await.unwrap()
}

fn post(cluster: &SimulatedCluster, namespace: &str, name: &str, host: &str) {
    let event = Event {
        metadata: Metadata { name: name.to_owned(), ..Metadata::default() },
        involved_object: Reference { kind: "Pod".to_owned(), name: "web".to_owned(), ..Reference::default() },
        reason: "Tested".to_owned(),
        r#type: "Normal".to_owned(),
        source: Source { component: "kubelet".to_owned(), host: host.to_owned() },
        count: 1,
        ..Event::default()
    };
    cluster.post_event(namespace, event).unwrap();
}

fn events(cluster: &SimulatedCluster) -> HashSet<String> {
    cluster.truth().events().iter().map(|event| event.key()).collect()
}

#[tokio::test]
async fn with_a_watch_a_node_every_event_comes_once_whichever_node_it_names_or_none() {
    let options = Options { nodes: 3, host_selector: true, ..Options::default() };
    let cluster = SimulatedCluster::start(options).await.unwrap();
    // The third has no agent, and no share of its own.
    let hosts = ["node-1", "node-2", "node-3", ""];
    let post_all = |when: &str| {
        for number in 0..80 {
            post(&cluster, ["shop", "bank"][number % 2], &format!("{when}-{number}"), hosts[number % 4]);
        }
    };
    post_all("before");
    let mut shards: Vec<Shard> = hosts[..2].iter().map(|host| Shard::host(*host)).collect();
    shards.push(Shard::no_host());
    let mut agent = Agent::start(&cluster, &shards).await;
    agent.until(&events(&cluster)).await;
    agent.until_watching(3).await;
    post_all("after");
    agent.until(&events(&cluster)).await;
    assert_eq!(agent.seen.len(), 160);
    assert!(agent.seen.values().all(|times| *times == 1));
    let took = agent.tally.take(PATIENCE).unwrap();
    let events =
        |shard: &Shard| took.shards.iter().find(|took| took.shard.as_ref() == Some(shard)).unwrap().events;
    assert_eq!(shards.iter().map(events).collect::<Vec<_>>(), [20, 20, 40]);
    assert_eq!(cluster.requests("list events"), 0);
}

#[tokio::test]
async fn ranges_of_uids_bring_every_event_once_from_one_that_shards_and_from_one_that_does_not() {
    for shard_selector in [true, false] {
        let options = Options { shard_selector, ..Options::default() };
        let cluster = SimulatedCluster::start(options).await.unwrap();
        for number in 0..60 {
            post(&cluster, "shop", &format!("before-{number}"), "");
        }
        let shards: Vec<Shard> = (0..3).map(|number| Shard::uid_range(number, 3)).collect();
        let mut agent = Agent::start(&cluster, &shards).await;
        agent.until(&events(&cluster)).await;
        agent.until_watching(3).await;
        for number in 0..60 {
            post(&cluster, "shop", &format!("after-{number}"), "");
        }
        agent.until(&events(&cluster)).await;
        assert!(agent.seen.values().all(|times| *times == 1), "where it shards: {shard_selector}");
        let took = agent.tally.take(PATIENCE).unwrap();
        assert_eq!(took.shards.iter().map(|took| took.events).sum::<u64>(), 60);
        assert!(took.shards.len() == 3, "each has some: {took:?}");
    }
}

#[tokio::test]
async fn the_names_of_the_namespaces_are_known_and_followed_without_a_list() {
    let cluster = SimulatedCluster::start(Options::default()).await.unwrap();
    let four = ["default", "kube-node-lease", "kube-public", "kube-system"];
    let mut agent = Agent::start(&cluster, &[Shard::namespaces()]).await;
    agent.until_named(&four).await;
    cluster.create_namespace("bank");
    post(&cluster, "shop", "made-by-itself", "");
    agent.until_named(&[&["bank", "shop"][..], &four[..]].concat()).await;
    cluster.delete_namespace("bank");
    agent.until_named(&[&["shop"][..], &four[..]].concat()).await;
    assert_eq!((cluster.requests("list namespaces"), cluster.requests("watch namespaces")), (0, 1));

    // What happened while the API server was away and compacted is found by listing again.
    cluster.faults().api_server_down(true);
    cluster.delete_namespace("shop");
    cluster.create_namespace("late");
    cluster.compact();
    cluster.faults().api_server_down(false);
    agent.until_named(&[&["late"][..], &four[..]].concat()).await;

    agent.assignments.send(Assignment::default()).unwrap();
    let forgotten = agent.names.wait_for(|named| *named == Named::default());
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_api_server_that_does_not_stream_the_names_is_paged() {
    let cluster = SimulatedCluster::start(Options::default()).await.unwrap();
    (0..1_200).for_each(|number| cluster.create_namespace(&format!("team-{number}")));
    cluster.faults().answer(Scope::Namespaces, Answer::Garbage, Times::Next(1));
    let mut agent = Agent::start(&cluster, &[Shard::namespaces()]).await;
    let named = agent.names.wait_for(|named| named.names.len() == 1_204);
    tokio::time::timeout(PATIENCE, named).await.unwrap().unwrap();
    assert_eq!(cluster.requests("list namespaces"), 3);
}

#[tokio::test]
async fn what_an_api_server_accepts_is_found_out_by_five_requests() {
    let stock = SimulatedCluster::start(Options::default()).await.unwrap();
    let metrics = Metrics::default();
    let found = negotiate::ask(&access(&stock).await.client, &metrics).await;
    assert_eq!(found.version, "v1.36.3");
    assert_eq!((found.host_selector(), found.shard_selector()), (Finding::Refused, Finding::Refused));
    assert_eq!((found.send_initial_events(), found.api_servers), (Finding::Accepted, 1));
    assert_eq!(found.failure, "");
    assert!(found.answer_ms < u32::MAX);
    assert_eq!((stock.requests("list events"), stock.requests("watch events")), (2, 1));

    let options = Options { host_selector: true, shard_selector: true, api_servers: 3, ..Options::default() };
    let other = SimulatedCluster::start(options).await.unwrap();
    other.set_version("v1.40.0");
    let found = negotiate::ask(&access(&other).await.client, &metrics).await;
    assert_eq!((found.version.as_str(), found.api_servers), ("v1.40.0", 3));
    assert_eq!((found.host_selector(), found.shard_selector()), (Finding::Accepted, Finding::Accepted));
}

#[tokio::test]
async fn what_cannot_be_found_out_is_said_and_not_taken_for_a_refusal() {
    let cluster =
        SimulatedCluster::start(Options { host_selector: true, ..Options::default() }).await.unwrap();
    cluster.faults().answer(Scope::EventLists, Answer::Forbidden, Times::Always);
    let found = negotiate::ask(&access(&cluster).await.client, &Metrics::default()).await;
    assert_eq!((found.host_selector(), found.shard_selector()), (Finding::Unspecified, Finding::Unspecified));
    assert!(found.failure.contains("selector by host: 403"), "{}", found.failure);
    assert_eq!(found.send_initial_events(), Finding::Accepted);
}
