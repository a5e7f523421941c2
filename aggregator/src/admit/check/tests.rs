#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use nodetap_wire::{
    Change, Checkpoint, ContainerDied, EventSeen, PodFacts, Record, Records, Shard, SharedStr, WholeCluster,
    frame, record, shard,
};

use super::{Sender, batch, check_record};
use crate::admit::metrics::RecordReason;
use crate::assign::plan::{Holdings, Patience, Plan};

const SENDER: Sender<'_> = Sender { node: "node-1", has_held: true };

fn event() -> EventSeen {
    let json =
        r#"{"metadata":{"uid":"u1","resourceVersion":"42","namespace":"shop","name":"e"},"reason":"Pulled"}"#;
    EventSeen::from_json(json, Change::Added).unwrap()
}

fn death() -> ContainerDied {
    ContainerDied {
        namespace: "shop".into(),
        pod: "web-1".into(),
        pod_uid: "p1".into(),
        node: "node-1".into(),
        container: "web".into(),
        ..ContainerDied::default()
    }
}

fn of(kind: record::Kind) -> Record {
    Record { kind: Some(kind) }
}

#[track_caller]
fn refused(kind: record::Kind, reason: RecordReason, message: &str) {
    let refused = check_record(SENDER, &of(kind)).unwrap_err();
    assert_eq!(refused.to_string(), message);
    assert_eq!(RecordReason::from(&refused), reason);
}

#[test]
fn records_that_are_as_they_should_be_are_taken() {
    check_record(SENDER, &of(record::Kind::Event(event()))).unwrap();
    check_record(SENDER, &of(record::Kind::Death(death().into()))).unwrap();
    let facts = PodFacts { uid: "p1".into(), ..PodFacts::default() };
    check_record(SENDER, &of(record::Kind::Pod(facts))).unwrap();
}

#[test]
fn an_event_of_another_node_is_taken_from_whoever_watches() {
    let event = EventSeen { node: "node-2".into(), ..event() };
    check_record(SENDER, &of(record::Kind::Event(event))).unwrap();
}

#[test]
fn an_old_event_is_data() {
    check_record(SENDER, &of(record::Kind::Event(EventSeen { time_ns: 1, ..event() }))).unwrap();
    check_record(SENDER, &of(record::Kind::Event(EventSeen { time_ns: i64::MAX, ..event() }))).unwrap();
}

#[test]
fn a_death_on_another_node_is_refused() {
    refused(
        record::Kind::Death(ContainerDied { node: "node-2".into(), ..death() }.into()),
        RecordReason::other_node,
        "a death on node `node-2` from the agent of node `node-1`: an agent speaks for its own node alone",
    );
}

#[test]
fn an_event_from_an_agent_that_was_given_no_watch_is_refused() {
    let sender = Sender { has_held: false, ..SENDER };
    let refused = check_record(sender, &of(record::Kind::Event(event()))).unwrap_err();
    assert_eq!(refused.to_string(), "an event from the agent of node `node-1`, which was given no watch");
    check_record(sender, &of(record::Kind::Death(death().into()))).unwrap();
}

#[test]
fn a_record_of_an_unknown_kind_is_refused() {
    let refused = check_record(SENDER, &Record::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a record of a kind that this aggregator does not know: is the agent newer than it?"
    );
}

#[test]
fn a_record_without_identity_is_refused() {
    let nobody = RecordReason::no_identity;
    refused(
        record::Kind::Event(EventSeen { uid: SharedStr::default(), ..event() }),
        nobody,
        "an event without uid",
    );
    let unversioned = EventSeen { resource_version: SharedStr::default(), ..event() };
    refused(record::Kind::Event(unversioned), nobody, "an event without resourceVersion");
    refused(
        record::Kind::Death(ContainerDied { pod_uid: String::new(), ..death() }.into()),
        nobody,
        "a death without uid",
    );
    refused(
        record::Kind::Death(ContainerDied { container: String::new(), ..death() }.into()),
        nobody,
        "a death without container",
    );
    refused(record::Kind::Pod(PodFacts::default()), nobody, "facts of a pod without uid");
}

#[test]
fn an_event_whose_json_is_not_an_event_is_refused() {
    refused(
        record::Kind::Event(EventSeen { raw: b"{\"a\":\xff}".as_slice().into(), ..event() }),
        RecordReason::not_utf8,
        "an event whose JSON is not UTF-8 at byte 5",
    );
    refused(
        record::Kind::Event(EventSeen { raw: vec![b' '; frame::MAX_EVENT_BYTES + 1].into(), ..event() }),
        RecordReason::too_long,
        "an event of 2097153 bytes: at most 2097152 are taken",
    );
    let refused =
        check_record(SENDER, &of(record::Kind::Event(EventSeen { raw: b"[".as_slice().into(), ..event() })));
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("an event that cannot be read: "), "{message}");
}

#[test]
fn an_event_whose_json_contradicts_its_fields_is_refused() {
    refused(
        record::Kind::Event(EventSeen { uid: "u2".into(), ..event() }),
        RecordReason::contradicts,
        "an event whose JSON has metadata.uid `u1`, but `u2` stands beside it",
    );
    refused(
        record::Kind::Event(EventSeen { resource_version: "43".into(), ..event() }),
        RecordReason::contradicts,
        "an event whose JSON has metadata.resourceVersion `42`, but `43` stands beside it",
    );
}

#[test]
fn an_event_that_claims_another_namespace_than_its_json_is_refused() {
    refused(
        record::Kind::Event(EventSeen { namespace: "bank".into(), ..event() }),
        RecordReason::contradicts,
        "an event whose JSON has metadata.namespace `shop`, but `bank` stands beside it",
    );
}

#[test]
fn the_rest_of_a_batch_is_taken_and_a_checkpoint_of_an_old_epoch_is_not() {
    let cluster = Shard { share: Some(shard::Share::Cluster(WholeCluster {})) };
    let mut plan = Plan::cluster(Instant::now(), Patience::default());
    plan.joined(Instant::now(), "node-1", 1, &[]);
    plan.settle(Instant::now());
    plan.joined(Instant::now(), "node-1", 2, &[]);
    plan.settle(Instant::now());
    let holdings: Holdings = plan.holdings();
    let checkpoint = |epoch, version: &str| Checkpoint {
        shard: Some(cluster.clone()),
        epoch,
        resource_version: version.to_owned(),
    };
    let sent = Records {
        records: vec![
            of(record::Kind::Death(ContainerDied { node: "node-2".into(), ..death() }.into())),
            of(record::Kind::Death(death().into())),
            Record::default(),
            of(record::Kind::Event(event())),
        ],
        checkpoints: vec![checkpoint(1, "40"), checkpoint(2, "42"), checkpoint(3, "44"), checkpoint(2, "")],
        ..Records::default()
    };
    let checked = batch(SENDER, &holdings, sent);
    assert_eq!(checked.taken.node, "node-1");
    assert_eq!(checked.taken.records.len(), 2);
    assert_eq!(checked.refused.len(), 2);
    assert_eq!(checked.taken.checkpoints, [checkpoint(2, "42")]);
    assert_eq!((checked.old_checkpoints, checked.foreign_checkpoints), (1, 2));
}
