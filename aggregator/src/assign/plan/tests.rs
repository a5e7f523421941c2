#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use nodetap_wire::shard::Share;
use nodetap_wire::{AssignedWatch, Checkpoint, HeldWatch, Shard, WatchReport, WatchState, WholeCluster};
use proptest::prelude::*;

use super::{Cause, Patience, Plan, Verdict, weight};

fn cluster() -> Shard {
    Shard { share: Some(Share::Cluster(WholeCluster {})) }
}

fn held(epoch: u64) -> Vec<HeldWatch> {
    vec![HeldWatch { shard: Some(cluster()), epoch }]
}

fn checkpoint(epoch: u64, resource_version: &str) -> Checkpoint {
    Checkpoint { shard: Some(cluster()), epoch, resource_version: resource_version.to_owned() }
}

fn report(epoch: u64, state: WatchState) -> WatchReport {
    WatchReport { shard: Some(cluster()), epoch, state: state.into(), failure: String::new() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A plan in which every agent of `nodes` is connected and one holds the shard.
fn settled(now: Instant, nodes: &[&str]) -> (Plan, String) {
    let mut plan = Plan::cluster(now, Patience::default());
    for (stream, node) in nodes.iter().enumerate() {
        plan.joined(now, node, stream as u64 + 1, &[]);
    }
    let changes = plan.settle(now);
    assert_eq!(changes.len(), 1);
    let holder = changes[0].node.clone();
    plan.reported(now, &holder, &report(1, WatchState::Watching));
    (plan, holder)
}

fn other<'a>(nodes: &[&'a str], than: &str) -> &'a str {
    nodes.iter().find(|node| **node != than).unwrap()
}

const NODES: [&str; 3] = ["a", "b", "c"];

#[test]
fn the_first_agent_of_a_new_cluster_gets_the_shard_at_once() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    assert!(!plan.is_due(now));
    plan.joined(now, "a", 1, &[]);
    assert!(plan.is_due(now));
    let changes = plan.settle(now);
    assert_eq!((changes[0].node.as_str(), changes[0].epoch, changes[0].cause), ("a", 1, Cause::Vacant));
    let watch = AssignedWatch { shard: Some(cluster()), epoch: 1, resource_version: String::new() };
    assert_eq!(plan.assignment("a").watches, [watch]);
    assert!(!plan.is_due(now));
}

#[test]
fn one_that_joins_later_takes_nothing_away() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &["a"]);
    for (stream, node) in ["b", "c", "d", "e"].iter().enumerate() {
        plan.joined(now, node, stream as u64 + 10, &[]);
        assert!(plan.settle(now + seconds(100)).is_empty());
        assert!(plan.assignment(node).watches.is_empty());
    }
    assert_eq!(plan.assignment(&holder).watches.len(), 1);
}

#[test]
fn a_holder_that_leaves_is_replaced_within_5_s_and_the_new_one_goes_on_from_the_checkpoint() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    let stream = NODES.iter().position(|node| *node == holder).unwrap() as u64 + 1;
    plan.left(now, &holder, stream);
    assert!(!plan.is_due(now));
    let later = now + seconds(5);
    plan.known(&[checkpoint(1, "4711")]);
    let changes = plan.settle(later);
    assert_eq!((changes[0].epoch, changes[0].cause), (2, Cause::Left));
    assert_ne!(changes[0].node, holder);
    assert_eq!(plan.assignment(&changes[0].node).watches[0].resource_version, "4711");
    assert!(plan.assignment(&holder).watches.is_empty());
    assert!(plan.has_held(&holder));
}

#[test]
fn a_holder_whose_stream_was_cut_for_a_moment_keeps_the_shard_and_its_epoch() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    let stream = NODES.iter().position(|node| *node == holder).unwrap() as u64 + 1;
    plan.left(now, &holder, stream);
    plan.joined(now + Duration::from_millis(300), &holder, 9, &held(1));
    assert!(plan.settle(now + seconds(20)).is_empty());
    assert_eq!(plan.assignment(&holder).watches[0].epoch, 1);
}

#[test]
fn the_end_of_a_stream_that_was_replaced_takes_nothing_away() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.joined(now, &holder, 9, &held(1));
    plan.left(now, &holder, 1);
    assert!(plan.settle(now + seconds(20)).is_empty());
    assert_eq!(plan.agents(), 3);
}

#[test]
fn a_holder_that_started_again_gets_a_new_epoch() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &["a"]);
    plan.joined(now, &holder, 9, &[]);
    let changes = plan.settle(now);
    assert_eq!((changes[0].node.as_str(), changes[0].epoch), ("a", 2));
}

#[test]
fn after_a_restart_of_the_aggregator_the_holder_keeps_the_shard() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.known(&[checkpoint(7, "100")]);
    plan.joined(now, "a", 1, &[]);
    assert!(!plan.is_due(now + seconds(2)));
    plan.joined(now + seconds(2), "b", 2, &held(7));
    assert!(plan.settle(now + seconds(20)).is_empty());
    assert_eq!(plan.assignment("b").watches[0].epoch, 7);
}

#[test]
fn after_a_restart_a_holder_that_does_not_come_back_is_replaced_with_a_later_epoch() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.known(&[checkpoint(7, "100")]);
    plan.joined(now, "a", 1, &[]);
    let changes = plan.settle(now + seconds(3));
    assert_eq!((changes[0].node.as_str(), changes[0].epoch), ("a", 8));
    // The one from before comes back too late.
    plan.joined(now + seconds(4), "b", 2, &held(7));
    assert!(plan.settle(now + seconds(5)).is_empty());
    assert!(plan.assignment("b").watches.is_empty());
    assert!(plan.has_held("b"));
}

#[test]
fn an_epoch_that_an_agent_holds_and_the_journal_does_not_know_is_never_given_again() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.joined(now, "a", 1, &held(12));
    assert!(plan.settle(now).is_empty());
    assert_eq!(plan.assignment("a").watches[0].epoch, 12);
    plan.joined(now, "b", 2, &[]);
    plan.left(now, "a", 1);
    assert_eq!(plan.settle(now + seconds(2))[0].epoch, 13);
}

#[test]
fn an_agent_that_claims_an_impossible_epoch_is_not_believed() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.joined(now, "a", 1, &held(u64::MAX));
    assert_eq!(plan.settle(now)[0].epoch, 1);
}

#[test]
fn an_agent_that_claims_what_was_never_given_has_no_events_to_send() {
    let now = Instant::now();
    let (mut plan, _) = settled(now, &["a"]);
    let elsewhere = Shard { share: Some(Share::Namespace("elsewhere".to_owned())) };
    let unknown = |shard| vec![HeldWatch { shard, epoch: 1 }];
    for claim in [held(0), held(u64::MAX), unknown(Some(elsewhere)), unknown(None), held(2)] {
        plan.joined(now, "b", 2, &claim);
        assert!(!plan.has_held("b"), "{claim:?}");
    }
    plan.joined(now, "b", 2, &held(1));
    assert!(plan.has_held("b"));
}

#[test]
fn a_watch_of_an_earlier_process_counts_where_its_epoch_was_given_whatever_the_shards_are_now() {
    let now = Instant::now();
    let (plan, _) = settled(now, &["a"]);
    let watch = |epoch| HeldWatch { shard: None, epoch };
    for (epoch, given) in [(0, false), (1, true), (2, false), (u64::MAX, false)] {
        assert_eq!(plan.holdings().were_given(&[watch(epoch)]), given, "{epoch}");
    }
    assert!(!plan.holdings().were_given(&[]));
}

#[test]
fn a_holder_that_backs_off_for_30_s_is_replaced_while_another_is_there() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    plan.reported(now + seconds(20), &holder, &report(1, WatchState::BackingOff));
    assert!(!plan.is_due(now + seconds(29)));
    let changes = plan.settle(now + seconds(30));
    assert_eq!(changes[0].cause, Cause::Failing);
    assert_ne!(changes[0].node, holder);
}

#[test]
fn a_holder_that_recovers_in_time_keeps_the_shard() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    plan.reported(now + seconds(29), &holder, &report(1, WatchState::Watching));
    assert!(plan.settle(now + seconds(300)).is_empty());
}

#[test]
fn a_report_of_an_old_epoch_or_from_another_node_says_nothing_of_the_holder() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.reported(now, &holder, &report(0, WatchState::BackingOff));
    plan.reported(now, other(&NODES, &holder), &report(1, WatchState::BackingOff));
    assert!(plan.settle(now + seconds(300)).is_empty());
}

#[test]
fn a_holder_that_never_reports_is_replaced() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.joined(now, "a", 1, &[]);
    plan.joined(now, "b", 2, &[]);
    let first = plan.settle(now).remove(0).node;
    let second = plan.settle(now + seconds(30)).remove(0);
    assert_eq!((second.cause, second.epoch), (Cause::Failing, 2));
    assert_ne!(second.node, first);
}

#[test]
fn where_everybody_fails_the_shard_does_not_go_round_in_circles() {
    let now = Instant::now();
    let (mut plan, mut holder) = settled(now, &NODES);
    let mut changes = 0;
    for second in 0..280 {
        let now = now + seconds(second);
        let epoch = plan.assignment(&holder).watches[0].epoch;
        plan.reported(now, &holder, &report(epoch, WatchState::BackingOff));
        for change in plan.settle(now) {
            holder = change.node;
            changes += 1;
        }
    }
    assert_eq!(changes, 2, "each of the three has had its turn once");
}

#[test]
fn a_lone_holder_that_fails_is_left_alone() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &["a"]);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    assert!(!plan.is_due(now + seconds(3_600)));
}

#[test]
fn the_checkpoint_of_an_old_epoch_does_not_count_and_that_of_the_holder_does() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.joined(now, &holder, 9, &[]);
    let holder = plan.settle(now).remove(0).node;
    let holdings = plan.holdings();
    assert_eq!(holdings.judge(&holder, &checkpoint(1, "5")), Verdict::OldEpoch);
    assert_eq!(holdings.judge(&holder, &checkpoint(2, "5")), Verdict::Accepted);
    assert_eq!(holdings.judge(&holder, &checkpoint(3, "5")), Verdict::NotHolder);
    assert_eq!(holdings.judge(other(&NODES, &holder), &checkpoint(2, "5")), Verdict::NotHolder);
    let elsewhere = Checkpoint { shard: None, ..checkpoint(2, "5") };
    assert_eq!(holdings.judge(&holder, &elsewhere), Verdict::NotHolder);
}

#[test]
fn rendezvous_hashing_spreads_shards_and_moves_only_those_of_the_node_that_goes() {
    let nodes: Vec<String> = (0..10).map(|node| format!("node-{node}")).collect();
    let shards: Vec<Shard> =
        (0..1_000).map(|n| Shard { share: Some(Share::Namespace(format!("ns-{n}"))) }).collect();
    let best = |nodes: &[String], shard: &Shard| {
        nodes.iter().max_by_key(|node| weight(node, shard)).unwrap().clone()
    };
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for shard in &shards {
        let before = best(&nodes, shard);
        let after = best(&nodes[1..], shard);
        assert!(before == nodes[0] || before == after);
        *counts.entry(before).or_default() += 1;
    }
    assert!(counts.len() == 10 && counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, bool),
    Leave(usize),
    Report(usize, i32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..4, any::<bool>()).prop_map(|(node, claims)| Step::Join(node, claims)),
        (0_usize..4).prop_map(Step::Leave),
        (0_usize..4, 0..5).prop_map(|(node, state)| Step::Report(node, state)),
        (0_u64..40).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_there_is_one_holder_at_most_and_epochs_only_grow(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let nodes = ["a", "b", "c", "d"];
        let mut now = Instant::now();
        let mut plan = Plan::cluster(now, Patience::default());
        let mut streams = [0_u64; 4];
        let mut connected = [false; 4];
        let mut last_seen = [0_u64; 4];
        let (mut stream, mut epoch) = (0, 0);
        for step in steps {
            match step {
                Step::Join(node, claims) => {
                    stream += 1;
                    streams[node] = stream;
                    connected[node] = true;
                    let claim = if claims && last_seen[node] > 0 { held(last_seen[node]) } else { Vec::new() };
                    plan.joined(now, nodes[node], stream, &claim);
                }
                Step::Leave(node) => {
                    plan.left(now, nodes[node], streams[node]);
                    connected[node] = false;
                }
                Step::Report(node, state) => {
                    let state = WatchState::try_from(state).unwrap();
                    plan.reported(now, nodes[node], &report(epoch, state));
                }
                Step::Wait(wait) => now += seconds(wait),
            }
            for change in plan.settle(now) {
                prop_assert!(change.epoch > epoch, "an epoch was given twice");
                epoch = change.epoch;
                let at = nodes.iter().position(|node| *node == change.node).unwrap();
                prop_assert!(connected[at], "a shard was given to nobody");
            }
            let holders: Vec<_> = (0..4).filter(|at| !plan.assignment(nodes[*at]).watches.is_empty()).collect();
            prop_assert!(holders.len() <= 1);
            for at in holders {
                prop_assert_eq!(plan.assignment(nodes[at]).watches[0].epoch, epoch);
                if connected[at] {
                    last_seen[at] = epoch;
                }
            }
            now += seconds(5);
            if connected.iter().any(|connected| *connected) {
                for change in plan.settle(now) {
                    prop_assert!(change.epoch > epoch);
                    epoch = change.epoch;
                }
                let of_connected = (0..4).filter(|at| connected[*at] && !plan.assignment(nodes[*at]).watches.is_empty());
                prop_assert_eq!(of_connected.clone().count(), 1, "nobody holds it 5 s later");
                of_connected.for_each(|at| last_seen[at] = epoch);
            }
        }
    }
}
