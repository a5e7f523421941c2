#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nodetap_wire::shard::Share;
use nodetap_wire::{AssignedWatch, Assignment, Checkpoint, Shard, WatchReport, WatchState};

use super::{Reports, Spool, Taken, WINDOW, instance, spool, waits_for_room};
use crate::outbox::metrics::Metrics;

fn shard(namespace: &str) -> Shard {
    Shard { share: Some(Share::Namespace(namespace.to_owned())) }
}

fn report(namespace: &str, state: WatchState) -> WatchReport {
    WatchReport {
        shard: Some(shard(namespace)),
        epoch: 1,
        state: state.into(),
        failure: String::new(),
        answer_ms: 0,
    }
}

#[test]
fn only_the_last_report_of_each_watch_is_sent() {
    let mut reports = Reports::default();
    reports.put(report("a", WatchState::Listing));
    reports.put(report("b", WatchState::Listing));
    reports.put(report("a", WatchState::Watching));
    assert_eq!(reports.take(), Some(report("a", WatchState::Watching)));
    assert_eq!(reports.take(), Some(report("b", WatchState::Listing)));
    assert_eq!(reports.take(), None);
}

#[test]
fn another_stream_gets_all_reports_again_but_those_of_watches_let_go() {
    let mut reports = Reports::default();
    for (namespace, state) in
        [("a", WatchState::Watching), ("b", WatchState::Released), ("c", WatchState::Watching)]
    {
        reports.put(report(namespace, state));
        assert!(reports.take().is_some());
    }
    let watch = AssignedWatch { shard: Some(shard("a")), ..AssignedWatch::default() };
    reports.keep(&Assignment { watches: vec![watch] });
    assert!(!reports.wait());
    reports.again();
    assert_eq!(reports.take(), Some(report("a", WatchState::Watching)));
    assert_eq!(reports.take(), None);
}

#[test]
fn a_report_that_is_not_sent_yet_outlives_its_assignment() {
    let mut reports = Reports::default();
    reports.put(report("a", WatchState::Released));
    reports.keep(&Assignment::default());
    assert_eq!(reports.take(), Some(report("a", WatchState::Released)));
}

#[tokio::test]
async fn a_batch_that_found_no_room_is_waited_for_as_a_report_is() {
    let mut reports = Reports::default();
    let mut spool = Spool::open(spool::Settings::default(), Metrics::default()).await;
    assert!(!waits_for_room(&reports, &spool));
    spool.take(Taken::Checkpoint(Checkpoint::default()));
    spool.close();
    assert!(waits_for_room(&reports, &spool));
    assert!(spool.send(WINDOW).is_some());
    assert!(!waits_for_room(&reports, &spool));
    reports.put(report("a", WatchState::Listing));
    assert!(waits_for_room(&reports, &spool));
}

#[test]
fn no_two_instances_are_the_same() {
    assert_eq!(instance().len(), 32);
    assert_ne!(instance(), instance());
}
