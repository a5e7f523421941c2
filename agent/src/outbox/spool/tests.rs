#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use nodetap_wire::shard::Share;
use nodetap_wire::{
    ContainerDied, EventSeen, HeldWatch, LedgerEntry, PodFacts, Record, Shard, WholeCluster, frame, record,
};

use super::{Settings, Spool};
use crate::outbox::held::Disk;
use crate::outbox::metrics::{DropLabels, DropReason, ErrorLabels, ErrorReason, Metrics};
use crate::outbox::queue::Bounds;
use crate::outbox::{Taken, Told};

fn event(number: usize) -> Taken {
    let event =
        EventSeen { uid: number.to_string().into(), raw: vec![b'x'; 100].into(), ..EventSeen::default() };
    Taken::Record(Record { kind: Some(record::Kind::Event(event)) })
}

fn death(number: usize) -> Taken {
    let died = ContainerDied { container: number.to_string(), ..ContainerDied::default() };
    Taken::Record(Record { kind: Some(record::Kind::Death(died.into())) })
}

fn facts() -> Taken {
    Taken::Record(Record { kind: Some(record::Kind::Pod(PodFacts::default())) })
}

fn one_a_batch() -> Bounds {
    Bounds { records: 1, ..Bounds::default() }
}

async fn open(folder: &Path, bounds: Bounds) -> (Spool, Metrics) {
    let metrics = Metrics::default();
    let settings = Settings { folder: Some(folder.to_owned()), bounds };
    (Spool::open(settings, metrics.clone()).await, metrics)
}

/// Lets the disk work until something is so.
async fn until(spool: &mut Spool, mut so: impl FnMut(&mut Spool) -> bool) {
    loop {
        spool.drive();
        if so(spool) {
            return;
        }
        spool.happened().await;
    }
}

async fn all_written(spool: &mut Spool) {
    until(spool, |spool| spool.queue.unwritten() == 0).await;
}

fn numbers(batch: &nodetap_wire::Batch) -> Vec<usize> {
    let number = |record: Record| match record.kind {
        Some(record::Kind::Event(event)) => event.uid.parse().unwrap(),
        Some(record::Kind::Death(death)) => death.container.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    frame::decode(batch).unwrap().records.into_iter().map(number).collect()
}

/// Everything that it sends, acknowledged as it comes.
async fn send_all(spool: &mut Spool) -> Vec<usize> {
    spool.opened();
    let mut sent = Vec::new();
    while !spool.is_empty() {
        let mut batch = None;
        until(spool, |spool| {
            batch = spool.send(4);
            batch.is_some()
        })
        .await;
        let batch = batch.unwrap().batch;
        sent.extend(numbers(&batch));
        spool.acknowledge(batch.sequence).unwrap();
    }
    sent
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_by_the_process_that_comes_next() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut spool, metrics) = open(temporary.path(), one_a_batch()).await;
    assert_eq!(metrics.in_memory.get(), 0);
    for number in 0..100 {
        spool.take(if number % 10 == 0 { death(number) } else { event(number) });
    }
    all_written(&mut spool).await;
    assert_eq!(metrics.spilled_records.get(), 100);
    // Groups share a sync.
    assert!(metrics.syncs.get() < 100, "{}", metrics.syncs.get());
    spool.end().await;

    let (mut spool, metrics) = open(temporary.path(), one_a_batch()).await;
    assert_eq!((metrics.recovered.get(), spool.records()), (100, 100));
    spool.take(event(100));
    assert_eq!(send_all(&mut spool).await, (0..=100).collect::<Vec<_>>());
    spool.end().await;

    let (spool, metrics) = open(temporary.path(), one_a_batch()).await;
    assert_eq!((metrics.recovered.get(), spool.is_empty()), (0, true));
}

#[tokio::test]
async fn a_process_that_ends_in_good_order_leaves_nothing_in_memory() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(temporary.path(), Bounds::default()).await;
    spool.opened();
    spool.take(event(1));
    spool.end().await;
    let (mut spool, _) = open(temporary.path(), Bounds::default()).await;
    assert_eq!(send_all(&mut spool).await, [1]);
}

#[tokio::test]
async fn what_is_acknowledged_is_not_sent_again_after_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(temporary.path(), one_a_batch()).await;
    spool.take(death(1));
    all_written(&mut spool).await;
    assert_eq!(send_all(&mut spool).await, [1]);
    spool.end().await;
    let (spool, metrics) = open(temporary.path(), one_a_batch()).await;
    assert_eq!((metrics.recovered.get(), spool.is_empty()), (0, true));
}

#[tokio::test]
async fn the_watches_of_the_process_before_are_told_until_its_records_are_acknowledged() {
    let temporary = tempfile::tempdir().unwrap();
    let shard = Some(Shard { share: Some(Share::Cluster(WholeCluster {})) });
    let watches = vec![HeldWatch { shard, epoch: 3 }];
    let (mut spool, _) = open(temporary.path(), one_a_batch()).await;
    assert!(spool.formerly().is_empty());
    spool.hold(watches.clone());
    spool.take(event(1));
    all_written(&mut spool).await;
    spool.end().await;
    let (mut spool, _) = open(temporary.path(), one_a_batch()).await;
    assert_eq!(spool.formerly(), watches);
    send_all(&mut spool).await;
    assert!(spool.formerly().is_empty());
}

#[tokio::test]
async fn without_a_folder_it_is_in_memory_and_says_so() {
    let metrics = Metrics::default();
    let mut spool = Spool::open(Settings::default(), metrics.clone()).await;
    assert_eq!(metrics.in_memory.get(), 1);
    spool.take(event(1));
    spool.close();
    assert_eq!(send_all(&mut spool).await, [1]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_had_is_tried_again_until_it_can() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("outbox");
    // A file where the folder is to be.
    std::fs::write(&path, "").unwrap();
    let (mut spool, metrics) = open(&path, one_a_batch()).await;
    assert_eq!(metrics.in_memory.get(), 1);
    spool.take(death(1));
    spool.drive();
    assert_eq!(spool.queue.disk(), Disk::Unusable);
    std::fs::remove_file(&path).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    until(&mut spool, |spool| spool.queue.disk() == Disk::Usable).await;
    tokio::time::resume();
    all_written(&mut spool).await;
    assert_eq!(metrics.in_memory.get(), 0);
    spool.end().await;
    let (mut spool, _) = open(&path, one_a_batch()).await;
    assert_eq!(send_all(&mut spool).await, [1]);
}

#[tokio::test]
async fn two_processes_do_not_share_a_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let (first, _) = open(temporary.path(), one_a_batch()).await;
    let (mut second, metrics) = open(temporary.path(), one_a_batch()).await;
    let locked = ErrorLabels { reason: ErrorReason::locked };
    assert_eq!(metrics.errors.get_or_create_owned(&locked).get(), 1);
    assert_eq!(metrics.in_memory.get(), 1);
    first.end().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    until(&mut second, |spool| spool.queue.disk() == Disk::Usable).await;
}

#[tokio::test]
async fn full_it_holds_back_events_keeps_deaths_and_drops_and_counts_only_what_the_reserve_cannot_hold() {
    let temporary = tempfile::tempdir().unwrap();
    let bounds = Bounds { records: 1, disk_bytes: 20_000, disk_reserve: 8_000, ..Bounds::default() };
    let (mut spool, metrics) = open(temporary.path(), bounds).await;
    let mut taken = Vec::new();
    while spool.has_room() {
        spool.take(event(taken.len()));
        taken.push(taken.len());
    }
    assert!(spool.observe());
    let dropped = DropLabels { reason: DropReason::full };
    let dropped = metrics.dropped.get_or_create_owned(&dropped).clone();
    spool.take(facts());
    assert!(!spool.take_facts_dropped());
    while dropped.get() == 0 {
        spool.take(death(taken.len()));
        taken.push(taken.len());
    }
    taken.pop();
    assert!(spool.queue.bytes() < 21_000);
    assert_eq!(send_all(&mut spool).await, taken);
    assert!(spool.take_facts_dropped(), "facts of pods are to be told again");
    assert_eq!(dropped.get(), 1);
}

#[tokio::test]
async fn what_finds_no_room_of_the_ledger_is_told_again_once_there_is_room_and_its_deaths_are_counted() {
    let bounds = Bounds { memory_bytes: 1_000, memory_reserve: 1_000, ..one_a_batch() };
    let metrics = Metrics::default();
    let mut spool = Spool::open(Settings { folder: None, bounds }, metrics.clone()).await;
    let told = |deaths: &[usize]| {
        let record = |number: &usize| match death(*number) {
            Taken::Record(record) => record,
            other => panic!("{other:?}"),
        };
        let records = deaths.iter().map(record).collect();
        Taken::Told(Told { records, ledger: vec![LedgerEntry::default()], first: false })
    };
    spool.take(told(&[1]));
    spool.take(told(&[2]));
    assert!(!spool.has_room());
    // Of the ledger alone there is no need to keep any now; a death has the reserve.
    spool.take(told(&[]));
    spool.take(told(&[3]));
    assert!(!spool.take_ledger_dropped(), "there is no room for all of it either");
    spool.take(told(&[4]));
    spool.take(told(&[5, 6]));
    let labels = DropLabels { reason: DropReason::full };
    assert_eq!(metrics.dropped.get_or_create_owned(&labels).get(), 2);
    assert_eq!(send_all(&mut spool).await, [1, 2, 3, 4]);
    assert!(spool.take_ledger_dropped() && !spool.take_ledger_dropped());
}

#[tokio::test]
async fn far_more_than_the_memory_holds_is_sent_in_order_and_the_memory_stays_in_its_bound() {
    let temporary = tempfile::tempdir().unwrap();
    let bounds = Bounds { records: 1, keep_bytes: 20_000, memory_bytes: 60_000, ..Bounds::default() };
    let (mut spool, metrics) = open(temporary.path(), bounds).await;
    for number in 0..2_000 {
        until(&mut spool, |spool| spool.has_room()).await;
        spool.take(event(number));
        assert!(spool.queue.memory_bytes() <= 61_000);
    }
    all_written(&mut spool).await;
    assert!(spool.queue.memory_bytes() <= 21_000, "{}", spool.queue.memory_bytes());
    assert_eq!(send_all(&mut spool).await, (0..2_000).collect::<Vec<_>>());
    assert!(metrics.read_back.get() > 1_900);
}
