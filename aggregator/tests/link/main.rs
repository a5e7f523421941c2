//! The way from agent to aggregator, whole: both sides as they are, mutual TLS on loopback, a journal in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod account;
mod certificates;
mod journal;
mod ledger;
mod plan;
mod proxy;
mod raw;
mod sides;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nodetap_agent::link;
use nodetap_agent::link::metrics::Reason;
use nodetap_agent::outbox::Taken;
use nodetap_agent::outbox::queue::Bounds;
use nodetap_aggregator::admit::metrics::{ConnectionReason, EndReason, RecordLabels, RecordReason};
use nodetap_aggregator::admit::{self, Limits};
use nodetap_wire::{
    Batch, Change, Checkpoint, ContainerDied, EventSeen, FromAgent, Record, Records, WatchReport, WatchState,
    frame, from_agent, record,
};

use nodetap_wire::tls::node_of;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use tokio::task::JoinHandle;
use tonic::Status;

use certificates::{Authority, Identity, Life};
use proxy::Proxy;
use sides::{Agent, Aggregator};

/// Longer than anything here takes, on any machine: what is not so by then never is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Until something is so. Each look lets everything else go on.
#[track_caller]
fn eventually(mut so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let asked = std::panic::Location::caller();
    async move {
        let looks = async {
            while !so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looks).await.is_err() {
            panic!("what {asked} waits for never came to be");
        }
    }
}

fn death(node: &str, number: usize) -> Record {
    let death = ContainerDied {
        namespace: "shop".into(),
        pod: "web".into(),
        pod_uid: "p".into(),
        node: node.into(),
        container: number.to_string(),
        ..ContainerDied::default()
    };
    Record { kind: Some(record::Kind::Death(death.into())) }
}

fn event(resource_version: usize) -> Record {
    let json =
        format!(r#"{{"metadata":{{"uid":"u","resourceVersion":"{resource_version}","namespace":"n"}}}}"#);
    Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
}

fn versions(records: Vec<Record>) -> BTreeSet<String> {
    let version = |record: Record| match record.kind {
        Some(record::Kind::Event(event)) => event.resource_version.to_string(),
        other => panic!("{other:?}"),
    };
    records.into_iter().map(version).collect()
}

fn numbers(records: Vec<Record>) -> Vec<usize> {
    let number = |record: Record| match record.kind {
        Some(record::Kind::Death(death)) => death.container.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    records.into_iter().map(number).collect()
}

#[tokio::test]
async fn records_arrive_in_order_and_are_acknowledged() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    for number in 0..2_000 {
        agent.take(death("node-1", number)).await;
    }
    aggregator.journal.holds(2_000).await;
    agent.all_acknowledged().await;
    assert_eq!(numbers(aggregator.journal.records()), (0..2_000).collect::<Vec<_>>());
    assert!(aggregator.journal.nodes().iter().all(|node| node == "node-1"));
    assert!(agent.health().connected && agent.health().acknowledged_ns > 0);
    assert_eq!(aggregator.metrics.records.get(), 2_000);
    assert_eq!(aggregator.metrics.agents.get(), 1);
}

#[tokio::test]
async fn agents_that_come_when_the_roomy_windows_are_taken_are_served_as_the_others() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    // Two more than there are such windows.
    let nodes: Vec<String> = (0..66).map(|number| format!("node-{number}")).collect();
    let agents: Vec<Agent> =
        nodes.iter().map(|node| Agent::start(&authority, node, aggregator.address)).collect();
    for (number, (agent, node)) in agents.iter().zip(&nodes).enumerate() {
        agent.take(death(node, number)).await;
    }
    aggregator.journal.holds(66).await;
    for agent in &agents {
        agent.all_acknowledged().await;
    }
}

#[tokio::test]
async fn a_holder_that_dies_is_replaced_and_the_next_one_goes_on_from_its_checkpoint() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let first = Agent::start(&authority, "node-1", aggregator.address);
    let watch = first.assigned().await;
    assert_eq!((watch.epoch, watch.resource_version.as_str()), (1, ""));
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| second.health().connected).await;

    first.take(event(42)).await;
    let checkpoint = Checkpoint { shard: watch.shard, epoch: 1, resource_version: "42".to_owned() };
    first.intake.take(Taken::Checkpoint(checkpoint.clone())).await.unwrap();
    aggregator.journal.holds(1).await;
    first.all_acknowledged().await;
    assert_eq!(aggregator.journal.stored(), [checkpoint]);

    first.kill().await;
    let watch = second.assigned().await;
    assert_eq!((watch.epoch, watch.resource_version.as_str()), (2, "42"));
}

#[tokio::test]
async fn a_holder_that_falls_silent_is_noticed_and_replaced() {
    let authority = Authority::new();
    let moment = Duration::from_millis(100);
    let limits = Limits { keep_alive: moment, keep_alive_timeout: moment, ..Limits::default() };
    let aggregator = Aggregator::start_as(authority.server("nodetap-aggregator"), limits).await;
    let proxy = Proxy::start(aggregator.address).await;
    let first = Agent::start(&authority, "node-1", proxy.address);
    first.assigned().await;
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| second.health().connected).await;
    proxy.fall_silent();
    assert_eq!(second.assigned().await.epoch, 2);
    assert!(first.health().connected, "it cannot know yet");
}

#[tokio::test]
async fn no_more_agents_are_admitted_than_there_is_room_for() {
    let authority = Authority::new();
    let limits = Limits { agents: 1, ..Limits::default() };
    let aggregator = Aggregator::start_as(authority.server("nodetap-aggregator"), limits).await;
    let first = Agent::start(&authority, "node-1", aggregator.address);
    first.assigned().await;
    let second = Agent::start(&authority, "node-2", aggregator.address);
    eventually(|| aggregator.refused(ConnectionReason::too_many) > 0).await;
    assert!(!second.health().connected);
    first.kill().await;
    eventually(|| second.health().connected).await;
}

#[test]
fn a_certificate_names_exactly_one_node_or_says_why_not() {
    let authority = Authority::new();
    let named = |uris: &[&str]| {
        let identity = authority.client_of(uris);
        node_of(&CertificateDer::from_pem_file(identity.path("tls.crt")).unwrap())
            .map_err(|error| error.to_string())
    };
    assert_eq!(named(&["nodetap://node/ip-10-0-0-1.eu.internal"]).unwrap(), "ip-10-0-0-1.eu.internal");
    assert_eq!(named(&["spiffe://a/b", "nodetap://node/a", "nodetap://node/a"]).unwrap(), "a");
    let none = "the certificate names no node: it needs a URI SAN nodetap://node/<node name>";
    assert_eq!(named(&["spiffe://a/nodetap://node/a"]).unwrap_err(), none);
    let two = "the certificate names two nodes, `a` and `b`: it must name one";
    assert_eq!(named(&["nodetap://node/a", "nodetap://node/b"]).unwrap_err(), two);
    let bad = "the certificate's URI SAN nodetap://node/ is not followed by the name of a node";
    for uri in ["nodetap://node/", "nodetap://node/a/b", "nodetap://node/a?b"] {
        assert_eq!(named(&[uri]).unwrap_err(), bad);
    }
    assert!(node_of(&CertificateDer::from(b"x".as_slice())).is_err());
}

#[tokio::test]
async fn the_state_of_a_watch_is_reported_again_on_every_stream() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let agent = Agent::start(&authority, "node-1", proxy.address);
    let watch = agent.assigned().await;
    let mut report = WatchReport { shard: watch.shard, epoch: watch.epoch, ..WatchReport::default() };
    report.set_state(WatchState::Watching);
    agent.reports.send(report).await.unwrap();
    eventually(|| aggregator.reports() == 1).await;
    proxy.cut();
    eventually(|| aggregator.reports() == 2).await;
}

#[tokio::test]
async fn a_stream_that_opens_after_an_acknowledgement_says_that_it_may_be_forgotten() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let mut agent = Agent::start(&authority, "node-1", proxy.address);
    agent.assigned().await;
    for times in 1..=2 {
        agent.take(death("node-1", times)).await;
        aggregator.journal.holds(times as u64).await;
        agent.all_acknowledged().await;
        assert_eq!(*agent.forgotten.borrow(), times as u64 - 1);
        proxy.cut();
        agent.forgotten.wait_for(|forgotten| *forgotten == times as u64).await.unwrap();
    }
}

#[tokio::test]
async fn after_a_cut_what_was_not_acknowledged_is_sent_again_and_nothing_is_lost() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let agent = Agent::start(&authority, "node-1", proxy.address);
    let watch = agent.assigned().await;
    for cut in 0..3 {
        for number in 0..700 {
            agent.take(death("node-1", cut * 700 + number)).await;
        }
        aggregator.journal.holds(cut as u64 * 700 + 1).await;
        proxy.cut();
    }
    let all: BTreeSet<_> = (0..2_100).collect();
    eventually(|| numbers(aggregator.journal.records()).into_iter().collect::<BTreeSet<_>>() == all).await;
    agent.all_acknowledged().await;
    assert!(agent.ended(Reason::cut) > 0);
    assert_eq!(agent.assigned().await, watch, "the holder keeps its watch and its epoch");
}

#[tokio::test]
async fn while_the_journal_takes_nothing_nothing_is_acknowledged_and_everything_is_sent_again() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    aggregator.journal.fail(true);
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    for number in 0..10 {
        agent.take(death("node-1", number)).await;
    }
    eventually(|| agent.ended(Reason::unavailable) > 1).await;
    assert_eq!(agent.outbox.records.get(), 10);
    assert_eq!(agent.metrics.acknowledged.get(), 0);
    assert!(aggregator.ended(EndReason::journal) > 0);
    aggregator.journal.fail(false);
    agent.all_acknowledged().await;
    assert_eq!(numbers(aggregator.journal.records()), (0..10).collect::<Vec<_>>());
    assert!(agent.metrics.resent.get() > 0);
}

#[tokio::test]
async fn a_full_outbox_holds_back_whoever_takes_more_and_drops_nothing() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    aggregator.journal.fail(true);
    let bounds = Bounds { memory_bytes: 2_000, ..Bounds::default() };
    let agent = Agent::start_as(&authority.agent("node-1"), "node-1", aggregator.address, bounds);
    agent.assigned().await;
    let intake = agent.intake.clone();
    let taking = tokio::spawn(async move {
        for number in 0..1_000 {
            intake.take(Taken::Record(event(number + 1))).await.unwrap();
        }
    });
    eventually(|| agent.health().full).await;
    assert!(!taking.is_finished());
    aggregator.journal.fail(false);
    taking.await.unwrap();
    let all: BTreeSet<_> = (1..=1_000).map(|number| number.to_string()).collect();
    eventually(|| versions(aggregator.journal.records()) == all).await;
    assert!(agent.outbox.full.get() > 0.0);
}

/// Batches of 6 MiB, which are small on the way.
fn heavy(node: &str) -> Vec<FromAgent> {
    let message = "x".repeat(6 << 10);
    let batches = (1..=4).map(|sequence| {
        let batch = batch(sequence, (0..1024).map(|number| dying(node, number, &message)).collect());
        assert!(batch.raw_bytes > 6 << 20);
        batch
    });
    std::iter::once(raw::hello(node)).chain(batches.map(framed)).collect()
}

/// Until there is no room before the journal, which is held: 32 MiB, more than two agents' batches take only together.
async fn fill(authority: &Authority, aggregator: &Aggregator) -> Vec<JoinHandle<Status>> {
    aggregator.journal.hold(true);
    let streams = ["node-1", "node-2"].map(|node| {
        let (identity, address, frames) = (authority.agent(node), aggregator.address, heavy(node));
        tokio::spawn(async move { raw::stream(&identity, address, frames).await })
    });
    eventually(|| aggregator.journal.begun() >= 5 && aggregator.metrics.waiting.get() > 0).await;
    assert_eq!(aggregator.journal.begun(), 5, "32 MiB hold five");
    streams.into()
}

fn dying(node: &str, number: usize, message: &str) -> Record {
    match death(node, number).kind {
        Some(record::Kind::Death(death)) => {
            let death = ContainerDied { message: message.to_owned(), ..*death };
            Record { kind: Some(record::Kind::Death(death.into())) }
        }
        other => panic!("{other:?}"),
    }
}

fn batch(sequence: u64, records: Vec<Record>) -> Batch {
    frame::encode(sequence, &Records { records, ..Records::default() }).unwrap()
}

fn framed(batch: Batch) -> FromAgent {
    FromAgent { frame: Some(from_agent::Frame::Batch(batch)) }
}

#[tokio::test]
async fn batches_before_the_journal_share_one_bound_and_a_stream_without_room_waits() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let streams = fill(&authority, &aggregator).await;
    aggregator.journal.hold(false);
    aggregator.journal.holds(8 * 1024).await;
    eventually(|| aggregator.metrics.waiting.get() == 0).await;
    assert!(streams.iter().all(|stream| !stream.is_finished()));
}

#[tokio::test]
async fn what_many_agents_have_to_tell_stays_with_them_until_there_is_room() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let mut streams = fill(&authority, &aggregator).await;

    // Each batch is several windows long, and HTTP/2 asks for one more than it can send: who is asked for the third has sent the first.
    let begun = Arc::new(AtomicUsize::new(0));
    let mut seed = 1_u64;
    for number in 3..51 {
        let node = format!("node-{number}");
        let mut frames = vec![raw::hello(&node)];
        for sequence in 1..=3 {
            let mut noise = String::new();
            while noise.len() < 200 << 10 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.push_str(&format!("{seed:016x}"));
            }
            let batch = batch(sequence, vec![dying(&node, 1, &noise)]);
            assert!(batch.payload.len() > 80 << 10);
            frames.push(framed(batch));
        }
        let (identity, address, begun) = (authority.agent(&node), aggregator.address, begun.clone());
        let frames = frames.into_iter().enumerate().map(move |(number, frame)| {
            begun.fetch_add(usize::from(number == 3), Ordering::Relaxed);
            frame
        });
        streams.push(tokio::spawn(async move { raw::stream(&identity, address, frames).await }));
    }
    eventually(|| aggregator.metrics.waiting.get() > 48).await;
    assert!(begun.load(Ordering::Relaxed) <= 32, "{begun:?} have sent all of a batch");
    aggregator.journal.hold(false);
    aggregator.journal.holds(8 * 1024 + 3 * 48).await;
    eventually(|| aggregator.metrics.waiting.get() == 0).await;
    assert!(streams.iter().all(|stream| !stream.is_finished()));
}

#[tokio::test]
async fn a_record_that_speaks_for_another_node_is_left_out_and_the_rest_is_taken() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    agent.take(death("node-1", 1)).await;
    agent.take(death("node-2", 2)).await;
    agent.take(death("node-1", 3)).await;
    aggregator.journal.holds(2).await;
    agent.all_acknowledged().await;
    assert_eq!(numbers(aggregator.journal.records()), [1, 3]);
    let labels = RecordLabels { reason: RecordReason::other_node };
    assert_eq!(aggregator.metrics.refused_records.get_or_create_owned(&labels).get(), 1);
}

#[tokio::test]
async fn a_second_stream_of_one_node_takes_the_place_of_the_first() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let first = Agent::start(&authority, "node-1", aggregator.address);
    first.assigned().await;
    let second = Agent::start(&authority, "node-1", aggregator.address);
    assert!(second.assigned().await.epoch > 1);
    eventually(|| aggregator.ended(EndReason::replaced) > 0 && first.ended(Reason::replaced) > 0).await;
}

#[tokio::test]
async fn an_agent_of_another_ca_is_refused_and_both_sides_say_so() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let identity = Authority::new().agent("node-1");
    identity.write_ca(&authority);
    let agent = Agent::start_as(&identity, "node-1", aggregator.address, Bounds::default());
    eventually(|| agent.ended(Reason::certificate_refused) > 0).await;
    eventually(|| aggregator.refused(ConnectionReason::certificate_unknown_ca) > 0).await;
    assert!(!agent.health().connected);
}

#[tokio::test]
async fn an_aggregator_of_another_ca_or_another_name_is_refused_by_the_agent() {
    let authority = Authority::new();
    let stranger = Aggregator::start(&Authority::new()).await;
    let agent = Agent::start(&authority, "node-1", stranger.address);
    eventually(|| agent.ended(Reason::tls) > 0).await;
    let misnamed = Aggregator::start_as(authority.server("somebody-else"), Limits::default()).await;
    let agent = Agent::start(&authority, "node-1", misnamed.address);
    eventually(|| agent.ended(Reason::tls) > 0).await;
}

#[tokio::test]
async fn an_aggregator_that_is_not_there_is_tried_for_ever() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let agent = Agent::start(&Authority::new(), "node-1", nowhere);
    eventually(|| agent.ended(Reason::unreachable) > 2).await;
}

#[tokio::test]
async fn a_client_is_refused_without_a_certificate_with_an_expired_one_and_with_one_that_names_no_node() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let good = authority.agent("node-1");
    let said = raw::connect(&good, None, aggregator.address).await;
    assert!(said.contains("CertificateRequired"), "{said}");
    eventually(|| aggregator.refused(ConnectionReason::certificate_missing) == 1).await;

    let expired = authority.client(Some("node-1"), Life::Expired);
    let said = raw::connect(&good, Some(&expired), aggregator.address).await;
    assert!(said.contains("CertificateExpired"), "{said}");
    eventually(|| aggregator.refused(ConnectionReason::certificate_expired) == 1).await;

    let nameless = authority.client(None, Life::Valid);
    raw::connect(&good, Some(&nameless), aggregator.address).await;
    eventually(|| aggregator.refused(ConnectionReason::certificate_without_node) == 1).await;
}

#[tokio::test]
async fn hello_for_another_node_than_the_certificates_is_refused_with_both_names() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let hello = raw::hello("node-2");
    let status = raw::stream(&authority.agent("node-1"), aggregator.address, vec![hello]).await;
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "Hello names node `node-2`, but the certificate names node `node-1`: an agent needs the certificate of its own node"
    );
    assert_eq!(aggregator.refused(ConnectionReason::other_node), 1);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let frames = vec![raw::batch(1, b"x", 1)];
    let status = raw::stream(&authority.agent("node-1"), aggregator.address, frames).await;
    assert_eq!(status.message(), "the first frame of a stream must be Hello");
    assert_eq!(aggregator.refused(ConnectionReason::not_hello), 1);
}

#[tokio::test]
async fn a_batch_that_is_garbage_closes_the_stream_and_says_what_is_wrong() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let identity = authority.agent("node-1");
    let frames = vec![raw::hello("node-1"), raw::batch(1, b"this is not zstd", 100)];
    let status = raw::stream(&identity, aggregator.address, frames).await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let message = status.message();
    assert!(message.starts_with("batch 1 is refused: a batch that cannot be decompressed: "), "{message}");
    assert_eq!(aggregator.ended(EndReason::bad_batch), 1);

    let frames = vec![raw::hello("node-1"), raw::batch(0, b"", 0)];
    let status = raw::stream(&identity, aggregator.address, frames).await;
    assert_eq!(status.message(), "batch 0 does not follow batch 0");
    let status =
        raw::stream(&identity, aggregator.address, vec![raw::hello("node-1"), raw::hello("node-1")]).await;
    assert_eq!(status.message(), "a second Hello on one stream");
    assert_eq!(aggregator.ended(EndReason::out_of_turn), 2);
}

#[tokio::test]
async fn a_certificate_that_was_rotated_on_disk_is_used_by_the_next_connection() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let proxy = Proxy::start(aggregator.address).await;
    let identity = authority.agent("node-1");
    let agent = Agent::start_as(&identity, "node-1", proxy.address, Bounds::default());
    agent.assigned().await;

    // From now on the aggregator takes agents of another CA alone.
    let other = Authority::new();
    aggregator.identity.write_ca(&other);
    assert!(aggregator.credentials.refresh());
    proxy.cut();
    eventually(|| agent.ended(Reason::certificate_refused) > 0).await;
    let rotated = other.agent("node-1");
    identity.copy("tls.crt", &rotated);
    identity.copy("tls.key", &rotated);
    assert!(agent.credentials.refresh());
    agent.take(death("node-1", 1)).await;
    aggregator.journal.holds(1).await;
    agent.all_acknowledged().await;

    // A bad one does not take the place of a good one.
    identity.put("tls.crt", "this is not PEM");
    assert!(!agent.credentials.refresh());
    assert_eq!(agent.metrics.certificate_reload_failures.get(), 1);
    aggregator.identity.put("tls.key", "this is not PEM");
    assert!(!aggregator.credentials.refresh());
    assert_eq!(aggregator.metrics.certificate_reload_failures.get(), 1);
    proxy.cut();
    agent.take(death("node-1", 2)).await;
    aggregator.journal.holds(2).await;
    assert_eq!(numbers(aggregator.journal.records()), [1, 2]);
}

#[test]
fn certificate_files_that_cannot_be_used_are_refused_at_start_each_with_its_message() {
    let authority = Authority::new();
    let load = |identity: &Identity| {
        link::tls::Credentials::load(identity.files(), "node-1", "nodetap-aggregator", Default::default())
    };
    let agent = |identity: &Identity| load(identity).unwrap_err().to_string();
    let aggregator = |identity: &Identity| {
        admit::tls::Credentials::load(identity.files(), Default::default()).unwrap_err().to_string()
    };
    let certificate = |identity: &Identity| identity.path("tls.crt").display().to_string();
    load(&authority.agent("node-1")).unwrap();

    let missing = authority.agent("node-1");
    std::fs::remove_file(missing.path("tls.crt")).unwrap();
    let path = certificate(&missing);
    let expected = format!(
        "cannot read certificate {path}: No such file or directory (os error 2); is the Secret mounted there?"
    );
    assert_eq!((agent(&missing), aggregator(&missing)), (expected.clone(), expected));

    for (name, what, wanted) in [
        ("tls.crt", "certificate", "CERTIFICATE"),
        ("ca.crt", "CA file", "CERTIFICATE"),
        ("tls.key", "key", "PRIVATE KEY"),
    ] {
        let garbage = authority.agent("node-1");
        garbage.put(name, "this is not PEM");
        let path = garbage.path(name).display().to_string();
        let expected =
            format!("{what} {path} holds no {wanted} in PEM: expected a line `-----BEGIN {wanted}-----`");
        assert_eq!((agent(&garbage), aggregator(&garbage)), (expected.clone(), expected));
    }

    let expired = authority.client(Some("node-1"), Life::Expired);
    let expected = format!("certificate {} expired at 2001-01-01T00:00:00Z: renew it", certificate(&expired));
    assert_eq!((agent(&expired), aggregator(&expired)), (expected.clone(), expected));

    let early = authority.client(Some("node-1"), Life::Future);
    let path = certificate(&early);
    let expected = format!(
        "certificate {path} is not valid before 2090-01-01T00:00:00Z: is this machine's clock right?"
    );
    assert_eq!((agent(&early), aggregator(&early)), (expected.clone(), expected));

    let other = authority.agent("node-2");
    let path = certificate(&other);
    let expected = format!(
        "certificate {path} names node `node-2`, but this agent runs on node `node-1`: issue one with the URI SAN nodetap://node/node-1"
    );
    assert_eq!(agent(&other), expected);
    let nameless = authority.client(None, Life::Valid);
    assert!(agent(&nameless).contains("names no node, but this agent runs on node `node-1`"));

    let mismatch = authority.agent("node-1");
    mismatch.copy("tls.key", &authority.agent("node-1"));
    let (key, path) = (mismatch.path("tls.key").display().to_string(), certificate(&mismatch));
    let expected =
        format!("key {key} does not match certificate {path}: use the two that were issued together");
    assert_eq!((agent(&mismatch), aggregator(&mismatch)), (expected.clone(), expected));
}

#[tokio::test]
async fn a_stopping_agent_sends_what_it_has() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    agent.assigned().await;
    agent.take(death("node-1", 1)).await;
    agent.stop().await;
    assert_eq!(numbers(aggregator.journal.records()), [1]);
}

#[tokio::test]
async fn a_stopping_aggregator_says_so_and_the_agent_keeps_what_it_watches() {
    let authority = Authority::new();
    let aggregator = Aggregator::start(&authority).await;
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    agent.assigned().await;
    let before = agent.assignment();
    aggregator.stop().await;
    eventually(|| agent.ended(Reason::unavailable) > 0).await;
    assert_eq!(agent.assignment(), before);
}

#[tokio::test]
async fn for_an_agent_that_gave_up_before_its_turn_to_shake_hands_nothing_is_calculated() {
    use tokio::io::AsyncWriteExt;

    let authority = Authority::new();
    let limits = Limits { handshakes: 1, handshake: PATIENCE, turn: PATIENCE, ..Limits::default() };
    let aggregator = Aggregator::start_as(authority.server("nodetap-aggregator"), limits).await;
    // It has begun a handshake, and takes its time.
    let begin = async || {
        let mut tcp = tokio::net::TcpStream::connect(aggregator.address).await.unwrap();
        tcp.write_all(&[0x16, 3]).await.unwrap();
        tcp
    };
    let slow = begin().await;
    eventually(|| aggregator.metrics.shaking.get() == 1).await;
    let gone = [begin().await, begin().await];
    eventually(|| aggregator.metrics.queued.get() == 2).await;
    drop(gone);
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    eventually(|| aggregator.metrics.queued.get() == 3).await;
    drop(slow);
    eventually(|| agent.health().connected).await;
    assert_eq!(aggregator.refused(ConnectionReason::gave_up), 2);
    assert_eq!(aggregator.refused(ConnectionReason::tls), 1);
}

#[tokio::test]
async fn whoever_says_nothing_takes_nobodys_turn_and_whose_turn_does_not_come_is_told_apart() {
    use tokio::io::AsyncWriteExt;

    let authority = Authority::new();
    let moment = Duration::from_millis(50);
    let limits = Limits { handshakes: 1, handshake: PATIENCE, turn: moment, ..Limits::default() };
    let aggregator = Aggregator::start_as(authority.server("nodetap-aggregator"), limits).await;
    let _silent = tokio::net::TcpStream::connect(aggregator.address).await.unwrap();
    let agent = Agent::start(&authority, "node-1", aggregator.address);
    eventually(|| agent.health().connected).await;
    let mut slow = tokio::net::TcpStream::connect(aggregator.address).await.unwrap();
    slow.write_all(&[0x16, 3]).await.unwrap();
    eventually(|| aggregator.metrics.shaking.get() == 1).await;
    let mut late = tokio::net::TcpStream::connect(aggregator.address).await.unwrap();
    late.write_all(&[0x16, 3]).await.unwrap();
    eventually(|| aggregator.refused(ConnectionReason::no_turn) == 1).await;
}
