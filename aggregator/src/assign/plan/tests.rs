#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nodetap_wire::{AssignedWatch, Checkpoint, HeldWatch, Reached, Shard, WatchReport, WatchState};
use proptest::prelude::*;

use super::super::choose::Partition;
use super::{Cause, Patience, Plan, Verdict};

fn cluster() -> Shard {
    Shard::cluster()
}

fn held(epoch: u64) -> Vec<HeldWatch> {
    vec![HeldWatch { shard: Some(cluster()), epoch }]
}

fn checkpoint(epoch: u64, resource_version: &str) -> Checkpoint {
    Checkpoint { shard: Some(cluster()), epoch, resource_version: resource_version.to_owned() }
}

fn report(epoch: u64, state: WatchState) -> WatchReport {
    WatchReport { shard: Some(cluster()), epoch, state: state.into(), failure: String::new(), answer_ms: 0 }
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
    let watch = AssignedWatch { shard: Some(cluster()), epoch: 1, ..AssignedWatch::default() };
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
    assert!(plan.settle(now + seconds(11)).is_empty());
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
    let elsewhere = Shard::namespace("elsewhere");
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
fn a_holder_that_backs_off_for_10_s_is_replaced_while_another_is_there() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    plan.reported(now + seconds(5), &holder, &report(1, WatchState::BackingOff));
    assert!(plan.settle(now + seconds(9)).is_empty());
    let changes = plan.settle(now + seconds(10));
    assert_eq!(changes[0].cause, Cause::Failing);
    assert_ne!(changes[0].node, holder);
}

#[test]
fn a_holder_that_recovers_in_time_keeps_the_shard() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    plan.reported(now + seconds(9), &holder, &report(1, WatchState::Watching));
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
    let second = plan.settle(now + seconds(10)).remove(0);
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
    assert!(plan.settle(now + seconds(3_600)).is_empty());
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

/// A plan by namespaces, in which each of `nodes` is connected, all is given out and everybody watches.
fn shared_out(now: Instant, nodes: &[&str], namespaces: &[&str]) -> (Plan, Instant) {
    let (mut plan, _) = settled(now, nodes);
    plan.change(now, Partition::Namespaces);
    plan.settle(now);
    plan.namespaces(now, names(namespaces));
    plan.settle(now);
    let now = now + seconds(20);
    plan.settle(now);
    all_watch(&mut plan, now);
    plan.expire(now);
    (plan, now)
}

fn names(namespaces: &[&str]) -> BTreeSet<String> {
    namespaces.iter().map(|name| (*name).to_owned()).collect()
}

fn all_watch(plan: &mut Plan, now: Instant) {
    for (shard, holding) in plan.holdings().iter() {
        let mut report = report(holding.epoch, WatchState::Watching);
        report.shard = Some(shard.clone());
        if let Some(node) = &holding.node {
            plan.reported(now, node, &report);
        }
    }
}

fn holder(plan: &Plan, shard: &Shard) -> Option<String> {
    plan.holdings().get(shard).and_then(|holding| holding.node.clone())
}

fn watches(plan: &Plan, node: &str) -> Vec<(String, u64, String)> {
    let watch = |watch: AssignedWatch| (watch.shard.unwrap().name(), watch.epoch, watch.resource_version);
    plan.assignment(node).watches.into_iter().map(watch).collect()
}

#[test]
fn namespaces_go_on_from_the_checkpoint_of_the_cluster_and_its_watch_ends_when_they_watch() {
    let now = Instant::now();
    let (mut plan, before) = settled(now, &NODES);
    plan.known(&[checkpoint(1, "4711")]);
    plan.change(now, Partition::Namespaces);
    plan.settle(now);
    assert!(watches(&plan, &before).contains(&("cluster".to_owned(), 1, "4711".to_owned())));
    plan.expire(now + seconds(1_000));
    assert!(plan.awaits_changeover(), "it is not known yet what there is to watch");
    plan.namespaces(now, names(&["a", "b", "c", "d"]));
    assert_eq!(plan.settle(now).len(), 4);
    let all: Vec<_> = NODES.iter().flat_map(|node| watches(&plan, node)).collect();
    for name in ["a", "b", "c", "d"] {
        assert!(all.contains(&(format!("namespace/{name}"), 1, "4711".to_owned())), "{all:?}");
    }
    plan.expire(now);
    assert_eq!(plan.holdings().judge(&before, &checkpoint(1, "4712")), Verdict::Accepted, "it still counts");
    all_watch(&mut plan, now);
    plan.expire(now);
    assert!(!plan.awaits_changeover());
    assert!(NODES.iter().all(|node| watches(&plan, node).iter().all(|watch| watch.0 != "cluster")));
    assert_eq!(plan.holdings().judge(&before, &checkpoint(1, "4713")), Verdict::NotHolder);
    assert!(plan.has_held(&before), "its last records are data");
}

#[test]
fn the_cluster_does_not_go_on_from_namespaces_as_one_may_have_been_unknown() {
    let now = Instant::now();
    let (mut plan, now) = shared_out(now, &NODES, &["a", "b"]);
    let known = |name: &str, at: &str| Checkpoint {
        shard: Some(Shard::namespace(name)),
        epoch: 1,
        resource_version: at.to_owned(),
    };
    plan.known(&[checkpoint(1, "100"), known("a", "900"), known("b", "700")]);
    plan.change(now, Partition::Cluster);
    let change = plan.settle(now).remove(0);
    assert_eq!((change.shard, change.epoch), (cluster(), 2));
    assert!(watches(&plan, &change.node).contains(&("cluster".to_owned(), 2, "100".to_owned())));
    // And back before it watches: those that still watch go on as they are.
    let epochs = plan.holdings().get(&Shard::namespace("a")).unwrap().epoch;
    plan.change(now, Partition::Namespaces);
    assert_eq!(plan.holdings().get(&Shard::namespace("a")).unwrap().epoch, epochs);
}

#[test]
fn ranges_of_uids_cover_the_cluster_as_far_as_the_one_that_is_furthest_behind() {
    let now = Instant::now();
    let (mut plan, _) = settled(now, &NODES);
    plan.change(now, Partition::Ranges(2));
    assert_eq!(plan.settle(now).len(), 2);
    all_watch(&mut plan, now);
    plan.expire(now);
    let known = |number, at: &str| Checkpoint {
        shard: Some(Shard::uid_range(number, 2)),
        epoch: 1,
        resource_version: at.to_owned(),
    };
    plan.known(&[checkpoint(1, "100"), known(0, "900"), known(1, "1000")]);
    plan.change(now, Partition::Cluster);
    let change = plan.settle(now).remove(0);
    assert!(watches(&plan, &change.node).contains(&("cluster".to_owned(), 2, "900".to_owned())));
}

#[test]
fn a_namespace_that_comes_or_goes_moves_no_other() {
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &["a", "b", "c", "d", "e"]);
    let before = plan.holdings();
    plan.namespaces(now, names(&["a", "b", "c", "d", "e", "new"]));
    let changes = plan.settle(now);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].shard.name().as_str(), changes[0].epoch), ("namespace/new", 1));
    plan.namespaces(now, names(&["b", "c", "d", "e", "new"]));
    assert!(plan.settle(now).is_empty());
    assert_eq!(holder(&plan, &Shard::namespace("a")), None);
    let after = plan.holdings();
    for (shard, holding) in after.iter().filter(|(shard, _)| shard.name() != "namespace/new") {
        assert_eq!(before.get(shard), Some(holding));
    }
}

#[test]
fn a_namespace_that_was_deleted_is_forgotten_in_the_end_here_and_in_the_journal() {
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &["x", "y"]);
    let stored = |name: &str| Checkpoint {
        shard: Some(Shard::namespace(name)),
        epoch: 9,
        resource_version: "5".into(),
    };
    plan.known(&[stored("x"), stored("y")]);
    assert!(plan.forget_unused(now + seconds(9_000)).is_empty(), "all are there");
    plan.namespaces(now, names(&["x"]));
    let later = now + seconds(10_000);
    assert!(plan.forget_unused(later).is_empty(), "it is just gone, and may be made again");
    let later = later + Patience::default().gone;
    assert_eq!(plan.forget_unused(later), [Shard::namespace("y")]);
    assert!(plan.forget_unused(later).is_empty());
    assert_eq!(plan.known.epoch(&Shard::namespace("y")), 0);
    assert!(plan.known.epoch(&Shard::namespace("x")) > 0);
}

#[test]
fn one_that_is_to_end_goes_on_until_the_next_one_watches() {
    let now = Instant::now();
    let (mut plan, before) = settled(now, &NODES);
    plan.known(&[checkpoint(1, "4711")]);
    plan.draining(&before);
    let change = plan.settle(now).remove(0);
    assert_eq!((change.cause, change.epoch), (Cause::Draining, 2));
    assert_eq!(watches(&plan, &before), [("cluster".to_owned(), 1, "4711".to_owned())]);
    assert_eq!(watches(&plan, &change.node), [("cluster".to_owned(), 2, "4711".to_owned())]);
    plan.reported(now, &change.node, &report(2, WatchState::Listing));
    assert_eq!(watches(&plan, &before).len(), 1);
    plan.reported(now, &change.node, &report(2, WatchState::Watching));
    assert_eq!(watches(&plan, &before), []);
}

#[test]
fn one_that_is_to_end_and_is_alone_is_let_go_at_once_and_is_due_again_for_the_next() {
    let now = Instant::now();
    let (mut plan, alone) = settled(now, &["a"]);
    plan.draining(&alone);
    assert!(plan.is_due(now));
    assert!(plan.settle(now).is_empty());
    assert_eq!(watches(&plan, &alone), []);
    plan.settle(now);
    plan.joined(now, "b", 7, &[]);
    assert_eq!(plan.settle(now).remove(0).node, "b");
}

#[test]
fn the_next_holder_that_never_watches_does_not_hold_up_the_one_before_for_ever() {
    let now = Instant::now();
    let (mut plan, before) = settled(now, &NODES);
    plan.draining(&before);
    plan.settle(now);
    plan.expire(now + seconds(29));
    assert_eq!(watches(&plan, &before).len(), 1);
    plan.expire(now + seconds(30));
    assert_eq!(watches(&plan, &before).len(), 0);
}

#[test]
fn a_node_that_is_cordoned_gives_its_watches_away_and_gets_none() {
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &["a", "b", "c", "d", "e"]);
    plan.cordoned(now, "a", true);
    let changes = plan.settle(now);
    assert!(!changes.is_empty() && changes.iter().all(|change| change.cause == Cause::Draining));
    all_watch(&mut plan, now);
    assert_eq!(watches(&plan, "a"), []);
    plan.settle(now + seconds(60));
    assert_eq!(watches(&plan, "a"), []);
    plan.cordoned(now + seconds(60), "a", false);
    assert!(!plan.settle(now + seconds(120)).is_empty(), "it gets its share again");
}

#[test]
fn a_node_that_was_cordoned_before_its_agent_came_gets_nothing() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.cordoned(now, "a", true);
    plan.joined(now, "a", 1, &[]);
    plan.joined(now, "b", 2, &[]);
    assert_eq!(plan.settle(now).remove(0).node, "b");
    assert_eq!(plan.going().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn one_that_joins_gets_its_share_once_no_other_comes_and_the_others_go_on_until_it_watches() {
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &["a", "b", "c", "d", "e", "f", "g"]);
    plan.joined(now, "new", 9, &[]);
    assert!(plan.settle(now + seconds(9)).is_empty());
    let changes = plan.settle(now + seconds(10));
    assert_eq!(changes.len(), 2, "of eight shares, one of four agents");
    for change in changes {
        assert_eq!((change.node.as_str(), change.cause), ("new", Cause::Balance));
        let old = NODES
            .iter()
            .filter(|node| watches(&plan, node).iter().any(|watch| watch.0 == change.shard.name()));
        assert_eq!(old.count(), 1);
    }
}

#[test]
fn a_journal_that_lost_its_checkpoints_has_every_watch_list_again() {
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &["a", "b"]);
    plan.known(&[checkpoint(1, "100")]);
    let before = plan.holdings();
    plan.reset();
    let changes = plan.settle(now);
    assert_eq!(changes.len(), 3);
    for change in changes {
        let holding = before.get(&change.shard).unwrap();
        assert_eq!((Some(&change.node), change.cause), (holding.node.as_ref(), Cause::Reset));
        assert_eq!(change.epoch, holding.epoch + 1);
        assert!(watches(&plan, &change.node).contains(&(change.shard.name(), change.epoch, String::new())));
    }
    assert!(plan.settle(now).is_empty());
    // A checkpoint from before, should one still be there, does not count.
    plan.known(&[checkpoint(1, "100")]);
    plan.change(now, Partition::Cluster);
    let change = plan.settle(now).remove(0);
    assert!(watches(&plan, &change.node).contains(&("cluster".to_owned(), change.epoch, String::new())));
}

#[test]
fn a_journal_that_lost_its_end_has_every_watch_go_on_from_the_checkpoint_that_is_left() {
    let now = Instant::now();
    let (mut plan, holder) = settled(now, &NODES);
    plan.known(&[checkpoint(1, "100")]);
    plan.rewind();
    assert!(plan.is_due(now));
    let change = plan.settle(now).remove(0);
    assert_eq!((change.node.as_str(), change.epoch, change.cause), (holder.as_str(), 2, Cause::Reset));
    assert_eq!(watches(&plan, &holder), [("cluster".to_owned(), 2, "100".to_owned())]);
    assert!(plan.settle(now).is_empty());
    assert_eq!(plan.assignment(&holder).watches[0].lost_before, 2, "it is beyond that checkpoint");
    // A hand-over after it: one that has not heard of the loss goes back all the same.
    plan.draining(&holder);
    let change = plan.settle(now).remove(0);
    assert_eq!((change.epoch, plan.assignment(&change.node).watches[0].lost_before), (3, 2));
}

#[test]
fn after_a_restart_who_holds_a_watch_under_an_older_epoch_than_the_journal_knows_goes_back() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.known(&[checkpoint(5, "100")]);
    for (node, stream, claim) in [("a", 1, 4), ("b", 2, 5)] {
        plan.joined(now, node, stream, &[HeldWatch { shard: Some(cluster()), epoch: claim }]);
    }
    assert!(plan.settle(now).is_empty(), "who holds it keeps it");
    plan.draining("b");
    plan.settle(now);
    let assignment = plan.assignment("a");
    let [watch] = &assignment.watches[..] else { panic!("{assignment:?}") };
    assert_eq!((watch.epoch, watch.lost_before), (6, 5));
}

#[test]
fn after_a_loss_who_says_that_it_holds_a_watch_from_before_goes_back_too_however_late_it_comes() {
    for shards in [vec![cluster()], vec![Shard::namespaces(), Shard::namespace("a"), Shard::namespace("b")]] {
        let now = Instant::now();
        let mut plan = Plan::cluster(now, Patience::default());
        plan.known(&[checkpoint(1, "100")]);
        plan.rewind();
        let held: Vec<_> =
            shards.iter().map(|shard| HeldWatch { shard: Some(shard.clone()), epoch: 5 }).collect();
        plan.joined(now + seconds(1), "a", 1, &held);
        let given = plan.settle(now + seconds(1));
        assert_eq!(given.len(), shards.len());
        for change in given {
            assert_eq!((change.node.as_str(), change.epoch, change.cause), ("a", 6, Cause::Reset));
        }
        // Its own from now on: a new stream changes nothing.
        let held: Vec<_> =
            shards.iter().map(|shard| HeldWatch { shard: Some(shard.clone()), epoch: 6 }).collect();
        plan.joined(now + seconds(2), "a", 2, &held);
        assert!(plan.settle(now + seconds(2)).is_empty());
    }
}

#[test]
fn after_a_restart_agents_keep_what_they_hold_however_it_was_shared_out() {
    for (held, partition) in [
        (vec![Shard::namespaces(), Shard::namespace("a"), Shard::namespace("b")], Partition::Namespaces),
        (vec![Shard::host("a"), Shard::host("b"), Shard::no_host()], Partition::Host),
        ((0..3).map(|number| Shard::uid_range(number, 3)).collect(), Partition::Ranges(3)),
    ] {
        let now = Instant::now();
        let mut plan = Plan::cluster(now, Patience::default());
        plan.known(&[checkpoint(1, "100")]);
        let claims = |from: usize| -> Vec<_> {
            let held = held.iter().skip(from).step_by(2);
            held.map(|shard| HeldWatch { shard: Some(shard.clone()), epoch: 5 }).collect()
        };
        if partition != Partition::Host {
            plan.joined(now, "x", 1, &[]);
        }
        plan.joined(now, "a", 2, &claims(0));
        plan.joined(now + seconds(2), "b", 3, &claims(1));
        assert_eq!(plan.partition(), partition);
        assert!(plan.settle(now + seconds(2)).is_empty());
        for shard in &held {
            let holding = plan.holdings().get(shard).cloned().unwrap();
            assert!(holding.epoch == 5 && holding.node.is_some(), "{partition:?} {shard}");
        }
        if partition == Partition::Namespaces {
            plan.namespaces(now, names(&["a", "b"]));
        }
        assert!(plan.settle(now + seconds(4)).is_empty(), "{partition:?}");
    }
}

#[test]
fn after_a_restart_the_watch_of_the_names_waits_for_its_holder() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    let checkpoint = |name: &str, epoch| Checkpoint {
        shard: Some(Shard::namespace(name)),
        epoch,
        resource_version: "100".to_owned(),
    };
    plan.known(&[checkpoint("a", 1), checkpoint("b", 2)]);
    plan.joined(now, "x", 1, &[HeldWatch { shard: Some(Shard::namespace("a")), epoch: 1 }]);
    assert!(plan.settle(now + seconds(1)).is_empty());
    let held = [(Shard::namespace("b"), 2), (Shard::namespaces(), 2)];
    let held = held.map(|(shard, epoch)| HeldWatch { shard: Some(shard), epoch });
    plan.joined(now + seconds(2), "y", 2, &held);
    assert!(plan.settle(now + seconds(2)).is_empty());
    assert_eq!(holder(&plan, &Shard::namespaces()).as_deref(), Some("y"));
}

#[test]
fn each_node_watches_what_names_it_and_another_does_while_it_is_away() {
    let now = Instant::now();
    let (mut plan, _) = settled(now, &NODES);
    plan.change(now, Partition::Host);
    plan.settle(now);
    for node in NODES {
        assert_eq!(holder(&plan, &Shard::host(node)).as_deref(), Some(node));
    }
    let of_the_rest = |plan: &Plan| {
        let node = holder(plan, &Shard::no_host()).unwrap();
        let mut watches = plan.assignment(&node).watches.into_iter();
        watches.find(|watch| watch.shard == Some(Shard::no_host())).unwrap().other_hosts
    };
    plan.expire(now);
    assert_eq!(of_the_rest(&plan), NODES);
    let stream = NODES.iter().position(|node| *node == "b").unwrap() as u64 + 1;
    plan.left(now, "b", stream);
    let now = now + seconds(2);
    plan.settle(now);
    assert_ne!(holder(&plan, &Shard::host("b")).unwrap(), "b");
    plan.joined(now, "b", 9, &[]);
    plan.settle(now + seconds(20));
    assert_eq!(holder(&plan, &Shard::host("b")).as_deref(), Some("b"));
    plan.left(now, "b", 9);
    plan.settle(now + seconds(30));
    plan.expire(now + seconds(3_500));
    assert_eq!(of_the_rest(&plan), NODES);
    plan.expire(now + seconds(3_580));
    assert_eq!(of_the_rest(&plan), ["a", "c"], "its events are taken in again before its own share ends");
    assert!(plan.holdings().get(&Shard::host("b")).is_some());
    plan.expire(now + seconds(3_601));
    assert_eq!(plan.holdings().get(&Shard::host("b")), None, "a node that is gone for an hour");
}

/// Asks whom the plan wants to ask, and has each answer.
fn answer(plan: &mut Plan, now: Instant, reached: impl Fn(&str) -> bool) -> Vec<String> {
    let asked = plan.ask(now);
    for (node, number) in &asked {
        let answer =
            Reached { number: *number, reached: reached(node), answer_ms: 100, ..Reached::default() };
        plan.reached(now, node, &answer);
    }
    asked.into_iter().map(|(node, _)| node).collect()
}

/// As [`settled`], after everybody was asked how near it is.
fn measured(now: Instant, nodes: &[&str]) -> (Plan, String) {
    let (mut plan, holder) = settled(now, nodes);
    assert_eq!(answer(&mut plan, now, |_| true).len(), nodes.len());
    (plan, holder)
}

#[test]
fn a_holder_that_does_not_reach_the_api_server_while_another_does_is_replaced_at_once_and_goes_on_trying() {
    let now = Instant::now();
    let (mut plan, holder) = measured(now, &NODES);
    let now = now + seconds(100);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    let asked = plan.ask(now);
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (node, number) in asked.iter().filter(|(node, _)| *node != holder) {
        assert!(plan.reached(now, node, &Reached { number: *number, reached: true, ..Reached::default() }));
    }
    assert!(plan.settle(now + seconds(1)).is_empty(), "it may be about to come back");
    let (_, number) = asked.iter().find(|(node, _)| *node == holder).unwrap();
    let now = now + seconds(1);
    let stale = Reached { number: number - 1, ..Reached::default() };
    assert!(!plan.reached(now, &holder, &stale), "the answer to another question");
    assert!(plan.settle(now).is_empty());
    plan.reached(now, &holder, &Reached { number: *number, reached: false, ..Reached::default() });
    assert!(plan.is_due(now));
    let change = plan.settle(now).remove(0);
    assert_eq!((change.cause, change.epoch), (Cause::Failing, 2));
    assert_ne!(change.node, holder);
    assert_eq!(plan.assignment(&holder).watches[0].epoch, 1);
    plan.reported(now, &change.node, &report(2, WatchState::Watching));
    assert_eq!(plan.assignment(&holder).watches, []);
    assert!(plan.ask(now + seconds(3_600)).is_empty(), "all is well");
}

#[test]
fn nothing_is_moved_and_little_is_asked_while_nobody_reaches_the_api_server() {
    let now = Instant::now();
    let nodes: Vec<String> = (0..500).map(|number| format!("n{number}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let (mut plan, holder) = settled(now, &nodes);
    answer(&mut plan, now, |_| true);
    let now = now + seconds(1);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    let mut asked = 0;
    for quarter in 0..4 * 600 {
        let now = now + Duration::from_millis(250 * quarter);
        asked += answer(&mut plan, now, |_| false).len();
        assert!(plan.settle(now).is_empty(), "nobody does better");
    }
    assert!(asked < 4 * 60, "{asked} in ten minutes");
    // It is back, and the holder has it first.
    let now = now + seconds(600);
    plan.reported(now, &holder, &report(1, WatchState::Watching));
    assert!(plan.ask(now).is_empty() && plan.settle(now).is_empty());
}

#[test]
fn a_watch_that_fails_though_the_api_server_is_reached_goes_round_slowly() {
    let start = Instant::now();
    let (mut plan, mut holder) = measured(start, &NODES);
    let mut moved = Vec::new();
    for half in 0..2 * 250 {
        let now = start + Duration::from_millis(500 * half);
        let epoch = plan.holdings().get(&cluster()).unwrap().epoch;
        plan.reported(now, &holder, &report(epoch, WatchState::BackingOff));
        answer(&mut plan, now, |_| true);
        for change in plan.settle(now) {
            moved.push((now - start).as_secs());
            holder = change.node;
        }
    }
    assert_eq!(moved, [10, 70], "as after an API server that starts up: not one after the other");
}

#[test]
fn the_next_holder_that_is_cut_off_as_well_does_not_keep_the_share_for_long() {
    let now = Instant::now();
    let (mut plan, first) = measured(now, &NODES);
    let now = now + seconds(1);
    plan.reported(now, &first, &report(1, WatchState::BackingOff));
    let asked = plan.ask(now);
    let say = |plan: &mut Plan, now, asked: &[(String, u64)], node: &str, reached| {
        let (_, number) = asked.iter().find(|(asked, _)| asked == node).unwrap();
        plan.reached(now, node, &Reached { number: *number, reached, ..Reached::default() });
    };
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != first).collect();
    say(&mut plan, now, &asked, others[0], true);
    say(&mut plan, now, &asked, &first, false);
    assert_eq!(plan.settle(now).remove(0).node, others[0], "who has just reached it");
    // Its answer was the last that came through: it never says anything of the watch.
    let now = now + seconds(2);
    let asked = plan.ask(now);
    assert!(asked.iter().any(|(node, _)| node == others[0]), "{asked:?}");
    say(&mut plan, now, &asked, others[1], true);
    say(&mut plan, now, &asked, others[0], false);
    let change = plan.settle(now).remove(0);
    assert_eq!((change.node.as_str(), change.epoch), (others[1], 3));
}

#[test]
fn all_that_one_held_who_is_cut_off_finds_a_place_and_so_does_what_comes_later() {
    let namespaces: Vec<String> = (0..20).map(|number| format!("ns{number}")).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &namespaces);
    answer(&mut plan, now, |_| true);
    let lost = plan.assignment("a").watches;
    assert_eq!(lost.len(), 7);
    for watch in &lost {
        let mut report = report(watch.epoch, WatchState::BackingOff);
        report.shard = watch.shard.clone();
        plan.reported(now, "a", &report);
    }
    answer(&mut plan, now, |node| node != "a");
    let changes = plan.settle(now);
    assert_eq!(changes.len(), 7);
    assert!(changes.iter().all(|change| change.node != "a" && change.cause == Cause::Failing));
    all_watch(&mut plan, now);
    assert_eq!(watches(&plan, "a"), []);
    let held = ["b", "c"].map(|node| watches(&plan, node).len());
    assert!(held[0].abs_diff(held[1]) <= 1, "{held:?}");
    let mut more = namespaces.clone();
    more.extend(["new1", "new2", "new3"]);
    plan.namespaces(now, names(&more));
    assert_eq!(plan.settle(now).len(), 3);
    assert_eq!(plan.counts(), (24, 0));
}

#[test]
fn what_an_agent_that_is_cut_off_finds_out_one_after_the_other_all_goes_with_its_first_answer() {
    let namespaces: Vec<String> = (0..20).map(|number| format!("ns{number}")).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let (mut plan, now) = shared_out(Instant::now(), &NODES, &namespaces);
    answer(&mut plan, now, |_| true);
    let start = now + seconds(60);
    let mut awaited = Vec::new();
    let mut moved = Vec::new();
    for (quarter, watch) in plan.assignment("a").watches.into_iter().enumerate() {
        let now = start + Duration::from_millis(250) * quarter as u32;
        let mut report = report(watch.epoch, WatchState::BackingOff);
        report.shard = watch.shard;
        plan.reported(now, "a", &report);
        for (node, number) in plan.ask(now) {
            match node.as_str() {
                "a" => awaited.push((now + seconds(1), number)),
                other => {
                    plan.reached(now, other, &Reached { number, reached: true, ..Reached::default() });
                }
            }
        }
        awaited.retain(|(at, number)| {
            if *at <= now {
                plan.reached(now, "a", &Reached { number: *number, ..Reached::default() });
            }
            *at > now
        });
        moved.extend(plan.settle(now).iter().map(|_| quarter));
    }
    assert_eq!(moved, [4, 4, 4, 4, 4, 5, 6]);
}

#[test]
fn who_was_cut_off_and_is_back_is_as_good_as_any_other() {
    let now = Instant::now();
    let (mut plan, holder) = measured(now, &["a", "b"]);
    plan.reported(now, &holder, &report(1, WatchState::BackingOff));
    answer(&mut plan, now, |node| node != holder);
    let next = plan.settle(now).remove(0).node;
    assert!(!plan.is_well(&plan.agents[&holder], now));
    // The other way round.
    plan.reported(now, &next, &report(2, WatchState::BackingOff));
    answer(&mut plan, now + seconds(1), |node| node == holder);
    assert_eq!(plan.settle(now + seconds(1)).remove(0).node, holder);
}

#[test]
fn an_agent_is_asked_once_how_near_it_is_and_not_where_it_says_so_and_32_at_most() {
    let now = Instant::now();
    let mut plan = Plan::cluster(now, Patience::default());
    plan.joined(now, "says", 1, &[]);
    plan.measured(now, "says", 3);
    plan.joined(now, "says", 2, &[]);
    for stream in 0..40 {
        plan.joined(now, &format!("n{stream}"), 10 + stream, &[]);
    }
    let mut asked = answer(&mut plan, now, |_| true);
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 32);
    plan.joined(now, "late", 99, &[]);
    assert!(plan.ask(now).is_empty());
    assert_eq!(plan.nearness(), (1, 0, 9));
}

#[test]
fn the_only_share_goes_to_one_that_is_near_and_stays_with_whom_it_is() {
    for near in NODES {
        let now = Instant::now();
        let mut plan = Plan::cluster(now, Patience::default());
        for (stream, node) in NODES.into_iter().enumerate() {
            plan.joined(now, node, stream as u64 + 1, &[]);
            plan.measured(now, node, if node == near { 2 } else { 400 });
        }
        assert_eq!(plan.settle(now).remove(0).node, near);
        plan.reported(now, near, &report(1, WatchState::Watching));
        let far = other(&NODES, near);
        plan.measured(now, near, 400);
        plan.measured(now, far, 2);
        assert!(plan.settle(now + seconds(60)).is_empty(), "a watch that does well is not moved for that");
    }
}

proptest! {
    #[test]
    fn an_api_server_that_comes_and_goes_for_all_alike_moves_nothing(
        phases in proptest::collection::vec((1_u64..240, any::<bool>()), 1..12),
    ) {
        let mut now = Instant::now();
        let (mut plan, holder) = measured(now, &NODES);
        for (quarters, is_up) in phases {
            for _ in 0..quarters {
                now += Duration::from_millis(250);
                let state = if is_up { WatchState::Watching } else { WatchState::BackingOff };
                plan.reported(now, &holder, &report(1, state));
                answer(&mut plan, now, |_| is_up);
                prop_assert!(plan.settle(now).is_empty());
                plan.expire(now);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, bool),
    Leave(usize),
    Report(usize, i32),
    Wait(u64),
    /// Those of these bits reach the API server.
    Answer(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..4, any::<bool>()).prop_map(|(node, claims)| Step::Join(node, claims)),
        (0_usize..4).prop_map(Step::Leave),
        (0_usize..4, 0..5).prop_map(|(node, state)| Step::Report(node, state)),
        (0_u64..40).prop_map(Step::Wait),
        (0_u8..16).prop_map(Step::Answer),
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
                Step::Answer(bits) => {
                    let at = |node: &str| nodes.iter().position(|known| *known == node).unwrap();
                    answer(&mut plan, now, |node| bits & (1 << at(node)) != 0);
                }
            }
            for change in plan.settle(now) {
                prop_assert!(change.epoch > epoch, "an epoch was given twice");
                epoch = change.epoch;
                let at = nodes.iter().position(|node| *node == change.node).unwrap();
                prop_assert!(connected[at], "a shard was given to nobody");
            }
            let holds = |plan: &Plan, at: &usize| {
                plan.assignment(nodes[*at]).watches.iter().any(|watch| watch.epoch == epoch)
            };
            let holders: Vec<_> = (0..4).filter(|at| holds(&plan, at)).collect();
            prop_assert!(holders.len() <= 1);
            for node in nodes {
                let watches = plan.assignment(node).watches;
                prop_assert!(watches.len() <= 1 && watches.iter().all(|watch| watch.epoch <= epoch));
            }
            for at in holders {
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
                let holds = |at: &usize| {
                    plan.assignment(nodes[*at]).watches.iter().any(|watch| watch.epoch == epoch)
                };
                let of_connected = (0..4).filter(|at| connected[*at] && holds(at));
                prop_assert_eq!(of_connected.clone().count(), 1, "nobody holds it 5 s later");
                of_connected.for_each(|at| last_seen[at] = epoch);
            }
        }
    }
}
