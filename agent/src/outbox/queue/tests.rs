#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nodetap_wire::shard::Share;
use nodetap_wire::{
    Checkpoint, ContainerDied, EventSeen, LedgerEntry, PodFacts, Record, Shard, WholeCluster, frame, record,
};
use proptest::prelude::*;

use super::{Acknowledged, Bounds, NotSent, Queue, Refused};
use crate::outbox::held::{Disk, OVERHEAD, Place, Recovered};
use crate::outbox::{Mark, Taken, Told};

fn event(number: usize, length: usize) -> Taken {
    let event =
        EventSeen { uid: number.to_string().into(), raw: vec![b'x'; length].into(), ..EventSeen::default() };
    Taken::Record(Record { kind: Some(record::Kind::Event(event)) })
}

fn death(number: usize, length: usize) -> Taken {
    let died = ContainerDied {
        container: number.to_string(),
        message: "x".repeat(length),
        ..ContainerDied::default()
    };
    Taken::Record(Record { kind: Some(record::Kind::Death(died.into())) })
}

fn cluster() -> Shard {
    Shard { share: Some(Share::Cluster(WholeCluster {})) }
}

fn checkpoint(number: usize) -> Taken {
    Taken::Checkpoint(Checkpoint { shard: Some(cluster()), epoch: 1, resource_version: number.to_string() })
}

fn uids(batch: &nodetap_wire::Batch) -> Vec<usize> {
    let records = frame::decode(batch).unwrap().records;
    let uid = |record: Record| match record.kind {
        Some(record::Kind::Event(event)) => event.uid.parse().unwrap(),
        other => panic!("{other:?}"),
    };
    records.into_iter().map(uid).collect()
}

#[test]
fn a_batch_closes_at_512_records() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    for number in 0..511 {
        queue.take(now, event(number, 10)).unwrap();
    }
    assert!(!queue.can_send(1));
    queue.take(now, event(511, 10)).unwrap();
    let outgoing = queue.send(1).unwrap();
    assert_eq!((outgoing.batch.sequence, outgoing.batch.records, outgoing.again), (1, 512, false));
    assert_eq!(queue.closes_at(), None);
}

#[test]
fn a_batch_closes_50_ms_after_its_first_record() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.take(now, event(1, 10)).unwrap();
    queue.take(now + Duration::from_millis(40), event(2, 10)).unwrap();
    assert_eq!(queue.closes_at(), Some(now + Duration::from_millis(50)));
    queue.close_due(now + Duration::from_millis(49)).unwrap();
    assert!(queue.send(1).is_none());
    queue.close_due(now + Duration::from_millis(50)).unwrap();
    assert_eq!(uids(&queue.send(1).unwrap().batch), [1, 2]);
}

#[test]
fn a_batch_closes_by_size_before_it_passes_the_aggregators_bound() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds { memory_bytes: 64 << 20, ..Bounds::default() });
    for number in 0..4 {
        queue.take(now, event(number, frame::MAX_EVENT_BYTES)).unwrap();
    }
    queue.close(now).unwrap();
    let batches: Vec<_> =
        std::iter::from_fn(|| queue.send(9)).map(|outgoing| uids(&outgoing.batch)).collect();
    assert_eq!(batches, [vec![0, 1], vec![2, 3]]);
}

#[test]
fn the_checkpoints_of_one_shard_collapse_to_the_last() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    for number in 1..4 {
        queue.take(now, event(number, 10)).unwrap();
        queue.take(now, checkpoint(number)).unwrap();
    }
    queue.close(now).unwrap();
    let records = frame::decode(&queue.send(1).unwrap().batch).unwrap();
    assert_eq!(records.records.len(), 3);
    let versions: Vec<_> = records.checkpoints.iter().map(|found| found.resource_version.as_str()).collect();
    assert_eq!(versions, ["3"]);
}

#[test]
fn checkpoints_alone_are_sent_but_not_each_in_a_batch_of_its_own() {
    let start = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.take(start, checkpoint(1)).unwrap();
    let closes_at = queue.closes_at().unwrap();
    assert_eq!(closes_at, start + Duration::from_millis(50));
    queue.close_due(closes_at).unwrap();
    assert_eq!(queue.send(9).unwrap().batch.records, 0);

    queue.take(closes_at, checkpoint(2)).unwrap();
    assert_eq!(queue.closes_at(), Some(closes_at + Duration::from_secs(5)));
    // A record does not wait for that, and takes the checkpoint along.
    queue.take(closes_at, event(1, 10)).unwrap();
    assert_eq!(queue.closes_at(), Some(closes_at + Duration::from_millis(50)));
}

fn told(first: bool, deaths: &[(usize, usize)], entries: &[(&str, &'static str)]) -> Taken {
    let record = |(number, length): &(usize, usize)| match death(*number, *length) {
        Taken::Record(record) => record,
        other => panic!("{other:?}"),
    };
    let entry = |(uid, state): &(&str, &'static str)| LedgerEntry {
        pod_uid: (*uid).to_owned(),
        version: 1,
        state: (*state).into(),
    };
    let (records, ledger) = (deaths.iter().map(record).collect(), entries.iter().map(entry).collect());
    Taken::Told(Told { records, ledger, first })
}

fn ledger_of(batch: &nodetap_wire::Batch) -> (usize, bool, Vec<(String, String)>) {
    let records = frame::decode(batch).unwrap();
    let state = |entry: LedgerEntry| (entry.pod_uid, String::from_utf8(entry.state.to_vec()).unwrap());
    (records.records.len(), records.ledger_first, records.ledger.into_iter().map(state).collect())
}

fn states(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(uid, state)| ((*uid).to_owned(), (*state).to_owned())).collect()
}

#[test]
fn deaths_and_what_the_ledger_knows_with_them_are_in_one_batch_however_full_it_is() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    for number in 0..510 {
        queue.take(now, event(number, 10)).unwrap();
    }
    queue.take(now, told(false, &[(1, 10), (2, 10), (3, 10)], &[("p", "died thrice")])).unwrap();
    let batch = queue.send(1).unwrap().batch;
    assert_eq!(ledger_of(&batch), (513, false, states(&[("p", "died thrice")])));
    // Where there is no room for all of them, the batch before goes without them.
    let mut queue = Queue::new(Bounds { raw_bytes: 8 << 20, ..Bounds::default() });
    for number in 0..3 {
        queue.take(now, event(number, 2 << 20)).unwrap();
    }
    queue
        .take(now, told(false, &[(1, 500 << 10), (2, 500 << 10), (3, 500 << 10)], &[("p", "died")]))
        .unwrap();
    assert_eq!(ledger_of(&queue.send(1).unwrap().batch).0, 3);
    queue.close(now).unwrap();
    assert_eq!(ledger_of(&queue.send(2).unwrap().batch), (3, false, states(&[("p", "died")])));
}

#[test]
fn the_last_entry_of_a_pod_stands_for_those_before_it_and_all_entries_for_all_before_them() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.take(now, told(false, &[], &[("p", "a"), ("q", "b")])).unwrap();
    queue.take(now, told(false, &[(1, 10)], &[("p", "c")])).unwrap();
    queue.close(now).unwrap();
    assert_eq!(ledger_of(&queue.send(1).unwrap().batch), (1, false, states(&[("p", "c"), ("q", "b")])));
    queue.take(now, told(false, &[(2, 10)], &[("p", "d")])).unwrap();
    queue.take(now, told(true, &[], &[("q", "e")])).unwrap();
    queue.take(now, told(false, &[], &[("r", "f")])).unwrap();
    queue.close(now).unwrap();
    assert_eq!(ledger_of(&queue.send(2).unwrap().batch), (1, true, states(&[("q", "e"), ("r", "f")])));
}

#[test]
fn the_ledger_alone_is_sent_at_once_and_without_a_stream_waits_in_one_batch() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.take(now, told(false, &[], &[("p", "a")])).unwrap();
    assert_eq!(queue.closes_at(), Some(now + Duration::from_millis(50)));
    queue.set_away(true);
    for _ in 0..100 {
        queue.take(now, told(false, &[], &[("p", "a")])).unwrap();
    }
    assert_eq!((queue.closes_at(), queue.batches().0), (None, 0));
    let bytes = queue.bytes();
    assert!(bytes < 20, "{bytes}");
    queue.set_away(false);
    queue.close_due(now + Duration::from_secs(1)).unwrap();
    assert_eq!(ledger_of(&queue.send(1).unwrap().batch), (0, false, states(&[("p", "a")])));
}

#[test]
fn a_record_that_is_too_large_is_refused_and_the_next_one_taken() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    let refused = queue.take(now, event(1, frame::MAX_RECORD_BYTES + 1)).unwrap_err();
    assert!(matches!(refused, Refused::TooLarge(_)));
    assert!(
        refused.to_string().ends_with("at most 2162688 are taken of an event, 524288 of another"),
        "{refused}"
    );
    let facts = PodFacts { name: "x".repeat(frame::MAX_SMALL_RECORD_BYTES), ..PodFacts::default() };
    let facts = Taken::Record(Record { kind: Some(record::Kind::Pod(facts)) });
    assert!(matches!(queue.take(now, facts).unwrap_err(), Refused::TooLarge(_)));
    assert!(matches!(queue.take(now, Taken::Record(Record::default())).unwrap_err(), Refused::Empty));
    queue.take(now, event(2, 10)).unwrap();
    queue.close(now).unwrap();
    assert_eq!(uids(&queue.send(1).unwrap().batch), [2]);
}

#[test]
fn after_a_cut_what_is_not_acknowledged_is_sent_again_byte_for_byte() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds { records: 1, ..Bounds::default() });
    for number in 1..4 {
        queue.take(now, event(number, 10)).unwrap();
    }
    let first: Vec<_> = std::iter::from_fn(|| queue.send(9)).collect();
    assert_eq!(queue.acknowledge(1).unwrap(), Acknowledged { batches: 1, records: 1 });
    queue.rewind();
    let second: Vec<_> = std::iter::from_fn(|| queue.send(9)).collect();
    assert!(second.iter().all(|outgoing| outgoing.again));
    let batches =
        |sent: &[super::Outgoing]| sent.iter().map(|outgoing| outgoing.batch.clone()).collect::<Vec<_>>();
    assert_eq!(batches(&second), batches(&first)[1..]);
}

#[test]
fn a_mark_is_reached_once_all_before_it_is_acknowledged_and_no_sooner() {
    let (mut queue, now) = (Queue::new(Bounds::default()), Instant::now());
    let (told, reached) = tokio::sync::watch::channel(0);
    let mark = |number| Taken::Mark(Mark { number, reached: told.clone() });
    queue.take(now, mark(1)).unwrap();
    assert_eq!(*reached.borrow(), 1, "nothing is before it");
    queue.take(now, event(0, 10)).unwrap();
    queue.close(now).unwrap();
    queue.take(now, event(1, 10)).unwrap();
    queue.take(now, mark(2)).unwrap();
    queue.take(now, event(2, 10)).unwrap();
    queue.close(now).unwrap();
    queue.take(now, mark(3)).unwrap();
    while queue.send(9).is_some() {}
    queue.acknowledge(1).unwrap();
    assert_eq!(*reached.borrow(), 1);
    queue.acknowledge(2).unwrap();
    assert_eq!(*reached.borrow(), 3);
}

#[test]
fn a_mark_is_reached_too_once_all_before_it_is_on_the_disk() {
    let (mut queue, now) = (Queue::new(Bounds::default()), Instant::now());
    queue.set_disk(Disk::Usable);
    let (told, reached) = tokio::sync::watch::channel(0);
    for number in 1..3 {
        queue.take(now, death(number, 10)).unwrap();
        queue.close(now).unwrap();
    }
    queue.take(now, Taken::Mark(Mark { number: 1, reached: told })).unwrap();
    while queue.spill(now).is_some() {}
    let place = |offset| Place { segment: 1, offset, length: 99 };
    queue.written(2, place(0));
    assert_eq!(*reached.borrow(), 0, "the first one is in memory alone");
    queue.written(1, place(99));
    assert_eq!(*reached.borrow(), 1);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_lets_go_of_nothing() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds { records: 1, ..Bounds::default() });
    queue.take(now, event(1, 10)).unwrap();
    queue.take(now, event(2, 10)).unwrap();
    assert_eq!(queue.acknowledge(1), Err(NotSent { sequence: 1, sent: 0 }));
    queue.send(1).unwrap();
    assert_eq!(queue.acknowledge(2), Err(NotSent { sequence: 2, sent: 1 }));
    assert_eq!(queue.records(), 2);
    assert_eq!(queue.acknowledge(0), Ok(Acknowledged::default()));
    queue.acknowledge(1).unwrap();
    assert_eq!(queue.acknowledge(2), Err(NotSent { sequence: 2, sent: 1 }));
}

#[test]
fn no_more_than_the_window_is_on_its_way() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds { records: 1, ..Bounds::default() });
    for number in 1..4 {
        queue.take(now, event(number, 10)).unwrap();
    }
    assert!(queue.send(2).is_some() && queue.send(2).is_some());
    assert!(queue.send(2).is_none() && !queue.can_send(2));
    queue.acknowledge(1).unwrap();
    assert_eq!(queue.send(2).unwrap().batch.sequence, 3);
}

#[test]
fn events_wait_for_an_acknowledgement_before_they_go_to_the_disk_and_deaths_do_not() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.set_disk(Disk::Usable);
    queue.take(now, event(1, 10)).unwrap();
    queue.close(now).unwrap();
    assert!(queue.spill(now).is_none());
    assert_eq!(queue.next_spill(), Some(now + Duration::from_millis(250)));
    queue.take(now, death(2, 10)).unwrap();
    queue.close(now).unwrap();
    assert_eq!(queue.spill(now).unwrap().batch.sequence, 2);
    assert_eq!(queue.spill(now + Duration::from_millis(250)).unwrap().batch.sequence, 1);
    assert!(queue.spill(now + Duration::from_secs(9)).is_none());
    assert_eq!(queue.next_spill(), None);
}

#[test]
fn what_is_acknowledged_in_time_never_goes_to_the_disk() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.set_disk(Disk::Usable);
    queue.take(now, event(1, 10)).unwrap();
    queue.close(now).unwrap();
    queue.send(9).unwrap();
    queue.acknowledge(1).unwrap();
    assert!(queue.spill(now + Duration::from_secs(9)).is_none());
    assert!(queue.releases().is_empty());
}

#[test]
fn without_a_stream_events_go_to_the_disk_at_once_in_larger_batches_and_checkpoints_wait() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.set_disk(Disk::Usable);
    queue.set_away(true);
    queue.take(now, checkpoint(1)).unwrap();
    assert_eq!(queue.closes_at(), None);
    queue.take(now, event(1, 10)).unwrap();
    assert_eq!(queue.closes_at(), Some(now + Duration::from_secs(2)));
    queue.take(now, death(2, 10)).unwrap();
    assert_eq!(queue.closes_at(), Some(now + Duration::from_millis(50)));
    queue.close_due(now + Duration::from_millis(50)).unwrap();
    assert_eq!(queue.spill(now + Duration::from_millis(50)).unwrap().batch.records, 2);
    queue.set_away(false);
    queue.take(now, checkpoint(3)).unwrap();
    assert!(queue.closes_at().is_some());
}

#[test]
fn deaths_have_a_reserve_that_events_do_not_get() {
    let now = Instant::now();
    let bounds = Bounds { records: 1, disk_bytes: 10_000, disk_reserve: 4_000, ..Bounds::default() };
    let mut queue = Queue::new(bounds);
    queue.set_disk(Disk::Usable);
    let mut taken = 0;
    while queue.has_room() {
        queue.take(now, event(taken, 10)).unwrap();
        taken += 1;
    }
    assert!(queue.bytes() <= 6_000 + OVERHEAD + 200, "{}", queue.bytes());
    let mut deaths = 0;
    while queue.has_room_for_deaths() {
        queue.take(now, death(deaths, 10)).unwrap();
        deaths += 1;
    }
    assert!(deaths >= 4, "{deaths}");
    assert!(!queue.has_room());
    assert!(queue.bytes() <= 10_000 + OVERHEAD + 200, "{}", queue.bytes());
}

#[test]
fn what_is_on_the_disk_leaves_the_memory_and_is_read_back_when_its_turn_comes() {
    let now = Instant::now();
    let bounds = Bounds { records: 1, keep_bytes: 0, ..Bounds::default() };
    let mut queue = Queue::new(bounds);
    queue.set_disk(Disk::Usable);
    queue.set_away(true);
    queue.take(now, event(1, 10)).unwrap();
    let spill = queue.spill(now).unwrap();
    let place = Place { segment: 1, offset: 0, length: 99 };
    queue.written(1, place);
    assert_eq!(queue.memory_bytes(), 0);
    assert!(queue.send(9).is_none() && !queue.can_send(9) && queue.load(9).is_none());
    queue.set_away(false);
    let load = queue.load(9).unwrap();
    assert_eq!((load.sequence, load.place, load.recovered), (1, place, false));
    assert!(queue.load(9).is_none());
    assert_eq!(queue.loaded(1, Some(spill.batch.clone())), 0);
    assert_eq!(queue.send(9).unwrap().batch, spill.batch);
    queue.acknowledge(1).unwrap();
    assert_eq!(queue.releases(), [place]);
    assert_eq!((queue.bytes(), queue.memory_bytes(), queue.records()), (0, 0, 0));
}

#[test]
fn a_batch_that_the_disk_lost_is_sent_empty_and_counted() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.set_disk(Disk::Usable);
    let place = |offset| Place { segment: 1, offset, length: 99 };
    let left = |offset| Recovered { place: place(offset), records: 3, raw_bytes: 9, closed_ns: 0 };
    queue.recover(now, 1, vec![left(0), left(99)]);
    assert_eq!(queue.records(), 6);
    let load = queue.load(9).unwrap();
    assert!(load.recovered);
    assert_eq!(queue.loaded(load.sequence, None), 3);
    let sent = queue.send(9).unwrap().batch;
    assert_eq!((sent.sequence, sent.records), (1, 0));
    assert!(frame::decode(&sent).unwrap().records.is_empty());
    queue.acknowledge(1).unwrap();
    assert_eq!((queue.records(), queue.releases()), (3, vec![place(0)]));
}

#[test]
fn a_batch_that_is_acknowledged_while_it_is_written_is_released_afterwards() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds::default());
    queue.set_disk(Disk::Usable);
    queue.take(now, death(1, 10)).unwrap();
    queue.close(now).unwrap();
    queue.spill(now).unwrap();
    queue.send(9).unwrap();
    queue.acknowledge(1).unwrap();
    assert!(queue.releases().is_empty());
    let place = Place { segment: 1, offset: 0, length: 99 };
    queue.written(1, place);
    assert_eq!(queue.releases(), [place]);
}

/// Events of these lengths, in one run.
fn events(lengths: &[usize], first: usize) -> Taken {
    let mut run = frame::Run::default();
    for (number, length) in (first..).zip(lengths) {
        let Taken::Record(record) = event(number, *length) else { panic!() };
        run.put(&record).unwrap();
    }
    Taken::Events(run)
}

#[test]
fn a_run_of_events_that_passes_the_end_of_a_batch_goes_on_in_the_next_one() {
    let now = Instant::now();
    let mut queue = Queue::new(Bounds { records: 4, ..Bounds::default() });
    queue.take(now, event(0, 10)).unwrap();
    queue.take(now + Duration::from_millis(1), events(&[10; 10], 1)).unwrap();
    assert_eq!((queue.records(), queue.batches().0), (11, 2));
    assert_eq!(queue.closes_at(), Some(now + Duration::from_millis(51)), "from its own first event");
    queue.close(now).unwrap();
    let batches: Vec<_> = std::iter::from_fn(|| queue.send(9)).map(|sent| uids(&sent.batch)).collect();
    assert_eq!(batches, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 10]]);
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Checkpoint,
    Wait(u64),
    Send,
    Arrive,
    Acknowledge,
    Cut,
    /// The disk is handed what is due.
    Hand,
    /// It does the first thing that it was handed, or fails at it.
    Do(bool),
    /// It heals.
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..3_000).prop_map(Step::Take),
        1 => Just(Step::Checkpoint),
        2 => (0_u64..100).prop_map(Step::Wait),
        4 => Just(Step::Send),
        4 => Just(Step::Arrive),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Cut),
        4 => Just(Step::Hand),
        4 => prop_oneof![9 => Just(true), 1 => Just(false)].prop_map(Step::Do),
        1 => Just(Step::Heal),
    ]
}

/// The other side: takes batches in order, acknowledges the last.
#[derive(Default)]
struct Aggregator {
    on_the_way: VecDeque<nodetap_wire::Batch>,
    taken: Vec<usize>,
    checkpoint: usize,
    last: u64,
}

impl Aggregator {
    fn arrive(&mut self) {
        let Some(batch) = self.on_the_way.pop_front() else { return };
        assert!(batch.sequence <= self.last + 1, "a batch is missing before {}", batch.sequence);
        if batch.sequence <= self.last {
            return;
        }
        self.last = batch.sequence;
        self.taken.extend(uids(&batch));
        for checkpoint in frame::decode(&batch).unwrap().checkpoints {
            let covers: usize = checkpoint.resource_version.parse().unwrap();
            assert!(covers >= self.checkpoint, "a checkpoint went back");
            assert!(self.taken.len() >= covers, "a checkpoint came before what it covers");
            self.checkpoint = covers;
        }
    }
}

/// A disk as the queue sees it.
#[derive(Default)]
struct Model {
    handed: VecDeque<Handed>,
    entries: std::collections::HashMap<Place, nodetap_wire::Batch>,
    offset: u32,
}

enum Handed {
    Write(nodetap_wire::Batch),
    Read(crate::outbox::held::Load),
}

impl Model {
    fn hand(&mut self, queue: &mut Queue, now: Instant) {
        while let Some(spill) = queue.spill(now) {
            self.handed.push_back(Handed::Write(spill.batch));
        }
        while let Some(load) = queue.load(3) {
            self.handed.push_back(Handed::Read(load));
        }
        for place in queue.releases() {
            assert!(self.entries.remove(&place).is_some(), "released twice: {place:?}");
        }
    }

    fn act(&mut self, queue: &mut Queue, well: bool) {
        match self.handed.pop_front() {
            Some(Handed::Write(batch)) if well => {
                let place = Place { segment: 1, offset: self.offset, length: batch.payload.len() as u32 };
                self.offset += place.length;
                queue.written(batch.sequence, place);
                self.entries.insert(place, batch);
            }
            Some(Handed::Write(batch)) => {
                queue.set_disk(Disk::Unusable);
                queue.not_written(batch.sequence);
            }
            Some(Handed::Read(load)) => {
                let batch = self.entries.get(&load.place).cloned();
                assert!(batch.is_some() || load.sequence <= queue.before_first());
                assert_eq!(queue.loaded(load.sequence, batch), 0);
            }
            None => {}
        }
    }
}

proptest! {
    #[test]
    fn events_that_come_in_runs_are_in_the_same_batches_as_those_that_come_alone(
        runs in proptest::collection::vec(proptest::collection::vec(0_usize..1_500, 0..12), 0..12),
    ) {
        let bounds = Bounds { records: 7, raw_bytes: 4_000, memory_bytes: 1 << 20, ..Bounds::default() };
        let now = Instant::now();
        let (mut alone, mut in_runs) = (Queue::new(bounds), Queue::new(bounds));
        let mut number = 0;
        for run in runs {
            in_runs.take(now, events(&run, number)).unwrap();
            for length in run {
                alone.take(now, event(number, length)).unwrap();
                number += 1;
            }
            in_runs.take(now, checkpoint(number)).unwrap();
            alone.take(now, checkpoint(number)).unwrap();
            prop_assert_eq!((in_runs.bytes(), in_runs.records()), (alone.bytes(), alone.records()));
        }
        for queue in [&mut alone, &mut in_runs] {
            queue.close(now).unwrap();
        }
        let sent = |queue: &mut Queue| std::iter::from_fn(|| queue.send(usize::MAX)).collect::<Vec<_>>();
        prop_assert_eq!(sent(&mut in_runs), sent(&mut alone));
    }

    #[test]
    fn whatever_happens_on_the_way_order_is_kept_nothing_is_lost_and_the_bound_holds(
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let bounds = Bounds { records: 4, raw_bytes: 4_000, memory_bytes: 9_000, ..Bounds::default() };
        let bounds = Bounds { keep_bytes: 2_000, disk_bytes: 30_000, disk_reserve: 10_000, ..bounds };
        let mut queue = Queue::new(bounds);
        queue.set_disk(Disk::Usable);
        let mut disk = Model::default();
        let mut now = Instant::now();
        let mut aggregator = Aggregator::default();
        let mut taken = 0;
        for step in steps {
            match step {
                Step::Take(length) if queue.has_room() => {
                    queue.take(now, event(taken, length)).unwrap();
                    taken += 1;
                }
                Step::Checkpoint if queue.has_room() => queue.take(now, checkpoint(taken)).unwrap(),
                Step::Take(_) | Step::Checkpoint => {}
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    queue.close_due(now).unwrap();
                }
                Step::Send => aggregator.on_the_way.extend(queue.send(3).map(|outgoing| outgoing.batch)),
                Step::Arrive => aggregator.arrive(),
                Step::Acknowledge => {
                    // Of an earlier stream it never comes: the stream is gone.
                    let sent = aggregator.last.min(queue.before_first() + queue.in_flight() as u64);
                    queue.acknowledge(sent).unwrap();
                }
                Step::Cut => {
                    aggregator.on_the_way.clear();
                    queue.rewind();
                }
                Step::Hand => disk.hand(&mut queue, now),
                Step::Do(well) => disk.act(&mut queue, well),
                Step::Heal => queue.set_disk(Disk::Usable),
            }
            prop_assert!(queue.memory_bytes() <= bounds.memory_bytes + 3_800 + 3 * 3_600);
            prop_assert!(queue.disk() == Disk::Unusable || queue.bytes() <= 20_000 + 3_800 + bounds.memory_bytes);
            prop_assert!(queue.in_flight() <= 3);
        }
        queue.close(now).unwrap();
        aggregator.on_the_way.clear();
        queue.rewind();
        while !queue.is_empty() {
            disk.hand(&mut queue, now);
            disk.act(&mut queue, true);
            aggregator.on_the_way.extend(queue.send(3).map(|outgoing| outgoing.batch));
            aggregator.arrive();
            queue.acknowledge(aggregator.last.min(queue.before_first() + queue.in_flight() as u64)).unwrap();
        }
        prop_assert_eq!(aggregator.taken, (0..taken).collect::<Vec<_>>());
        prop_assert_eq!((queue.bytes(), queue.memory_bytes(), queue.records()), (0, 0, 0));
        while !disk.handed.is_empty() {
            disk.act(&mut queue, true);
        }
        disk.hand(&mut queue, now);
        prop_assert!(disk.entries.is_empty(), "room that is not given back");
    }
}
