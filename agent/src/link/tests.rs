#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nodetap_wire::shard::Share;
use nodetap_wire::{
    AssignedWatch, Assignment, Checkpoint, LedgerEntry, LedgerOrigin, Remembered, Shard, WatchReport,
    WatchState, ledger,
};
use tokio::sync::{oneshot, watch};

use super::{Answer, Memory, Recall, Reports, Spool, Taken, WINDOW, instance, spool, waits_for_room};
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

fn part(uids: &[&str], complete: bool) -> Remembered {
    let entry = |uid: &&str| LedgerEntry { pod_uid: (*uid).to_owned(), ..LedgerEntry::default() };
    Remembered { ledger: uids.iter().map(entry).collect(), partial: false, complete }
}

fn recall() -> (Recall, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Recall::new(Some(Memory { answer, again: watch::Sender::new(0) })), answered)
}

#[test]
fn what_is_remembered_is_asked_for_until_it_has_come_whole() {
    let (mut recall, mut answered) = recall();
    assert_eq!(recall.origin(), LedgerOrigin::AskedFor);
    recall.take(part(&["", "a"], false));
    // The stream breaks: what comes on the next one is all of it.
    recall.opened();
    recall.take(part(&["", "a"], false));
    assert!(answered.try_recv().is_err());
    recall.take(part(&["b"], true));
    let Ok(Answer::Remembered { entries, partial: false }) = answered.try_recv() else { panic!() };
    assert_eq!(entries.iter().map(|entry| entry.pod_uid.as_str()).collect::<Vec<_>>(), ["", "a", "b"]);
    assert_eq!(recall.origin(), LedgerOrigin::Own);
    recall.assigned();
    recall.take(part(&["c"], true));
}

#[test]
fn an_aggregator_that_assigns_before_it_remembers_is_an_older_one() {
    let (mut recall, mut answered) = recall();
    recall.opened();
    recall.assigned();
    assert_eq!(answered.try_recv(), Ok(Answer::Unsupported));
    assert_eq!(recall.origin(), LedgerOrigin::Own);
}

#[test]
fn where_nobody_waits_for_it_any_longer_nothing_is_asked_for() {
    let (recall, answered) = recall();
    drop(answered);
    assert_eq!(recall.origin(), LedgerOrigin::Own);
    assert_eq!(Recall::new(None).origin(), LedgerOrigin::Unspecified);
}

#[test]
fn more_than_is_remembered_of_any_node_is_not_taken() {
    let (mut recall, mut answered) = recall();
    for _ in 0..20 {
        let state = vec![0; ledger::MAX_ENTRY_BYTES].into();
        let entries = vec![LedgerEntry { state, ..LedgerEntry::default() }];
        recall.take(Remembered { ledger: entries, ..Remembered::default() });
    }
    recall.take(part(&[], true));
    let Ok(Answer::Remembered { entries, partial: true }) = answered.try_recv() else { panic!() };
    assert!(entries.len() < 20);
}
