//! The outbox on a disk that answers EIO to writes, syncs and reads, and on which the power goes: what it has said is safe is
//! sent, by this process or the next, and it goes on by itself when the disk does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use disk::{Contents, Disk, Faults};
use nodetap_agent::outbox::metrics::{DropLabels, DropReason, ErrorLabels, ErrorReason, Metrics};
use nodetap_agent::outbox::queue::Bounds;
use nodetap_agent::outbox::spool::{Settings, Spool};
use nodetap_agent::outbox::{Mark, Taken};
use nodetap_wire::{ContainerDied, Record, frame, record};
use tokio::sync::watch;

const HEALTHY: Faults = Faults { read: false, write: false, sync: false };

/// Longer than it waits between two attempts on a disk that failed.
const RETRY: Duration = Duration::from_secs(6);

struct Outbox {
    spool: Spool,
    metrics: Metrics,
    /// The number of the last death that it has said is safe.
    safe: watch::Sender<u64>,
    next: u64,
}

// === impl Outbox ===

impl Outbox {
    async fn open(folder: &Path, next: u64) -> Self {
        let metrics = Metrics::default();
        let bounds = Bounds { records: 3, ..Bounds::default() };
        let settings = Settings { folder: Some(folder.to_owned()), bounds };
        let spool = Spool::open(settings, metrics.clone()).await;
        let mut outbox = Self { spool, metrics, safe: watch::Sender::new(0), next };
        // Until it has what an earlier process left.
        outbox.until(|outbox| outbox.metrics.in_memory.get() == 0).await;
        outbox
    }

    /// Three deaths are a batch, which is written at once.
    fn take_three(&mut self) {
        for _ in 0..3 {
            let died = ContainerDied {
                container: self.next.to_string(),
                message: "x".repeat(700 + (self.next % 977) as usize * 9),
                ..ContainerDied::default()
            };
            self.spool.take(Taken::Record(Record { kind: Some(record::Kind::Death(died.into())) }));
            let mark = Mark { number: self.next, reached: self.safe.clone() };
            self.spool.take(Taken::Mark(mark));
            self.next += 1;
        }
        self.spool.drive();
    }

    async fn until(&mut self, mut is_so: impl FnMut(&Self) -> bool) {
        while !is_so(self) {
            self.spool.happened().await;
            self.spool.drive();
        }
    }

    /// The same, while the time passes that it waits between two attempts.
    async fn until_retried(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            self.happened_or_due().await;
            self.spool.drive();
        }
    }

    /// What the disk says of one request may come in two parts, so that what is due is known only after both.
    async fn happened_or_due(&mut self) {
        let _ = tokio::time::timeout(RETRY, self.spool.happened()).await;
    }

    async fn keep(&mut self, batches: usize) {
        for _ in 0..batches {
            self.take_three();
            let last = self.next - 1;
            self.until(|outbox| *outbox.safe.borrow() == last).await;
        }
    }

    /// Sends and acknowledges all that it has.
    async fn sent(&mut self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        self.spool.opened();
        while !self.spool.is_empty() {
            self.spool.drive();
            let Some(sent) = self.spool.send(8) else {
                self.happened_or_due().await;
                continue;
            };
            for record in frame::decode(&sent.batch).unwrap().records {
                let Some(record::Kind::Death(death)) = record.kind else { panic!("{record:?}") };
                found.insert(death.container.parse().unwrap());
            }
            self.spool.acknowledge(sent.batch.sequence).unwrap();
        }
        found
    }
}

async fn judge(contents: Contents, safe: u64, case: &str) {
    let disk = Disk::mount(contents).unwrap();
    let mut outbox = Outbox::open(disk.path(), 1_000_000).await;
    let found = outbox.sent().await;
    let gone: Vec<u64> = (1..=safe).filter(|number| !found.contains(number)).collect();
    assert!(gone.is_empty(), "{case}: of {safe} that were safe, gone: {gone:?}");
    outbox.spool.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_safe_outlives_a_disk_that_answers_eio_and_a_loss_of_power_and_it_goes_on_by_itself() {
    for faults in [Faults { sync: true, ..HEALTHY }, Faults { write: true, ..HEALTHY }] {
        let Some(disk) = Disk::mount(Contents::default()) else { return };
        let mut outbox = Outbox::open(disk.path(), 1).await;
        for round in 0..4 {
            let case = format!("{faults:?}, round {round}");
            outbox.keep(3).await;
            let safe = *outbox.safe.borrow();
            disk.set(faults);
            outbox.take_three();
            outbox.until(|outbox| outbox.metrics.in_memory.get() == 1).await;
            assert_eq!(*outbox.safe.borrow(), safe, "{case}: nothing that was not synced is safe");
            judge(disk.contents().after_power_loss(), safe, &case).await;
            // In vain, and then not.
            let failed = disk.failed();
            outbox.until_retried(|_| disk.failed() > failed).await;
            assert_eq!(outbox.metrics.in_memory.get(), 1, "{case}");
            disk.set(HEALTHY);
            let last = outbox.next - 1;
            outbox.until_retried(|outbox| *outbox.safe.borrow() == last).await;
            assert_eq!(outbox.metrics.in_memory.get(), 0, "{case}");
            outbox.keep(2).await;
            let safe = *outbox.safe.borrow();
            assert_eq!(safe, outbox.next - 1);
            judge(disk.contents().after_power_loss(), safe, &format!("{case}, healed")).await;
            judge(disk.contents().after_kill(), safe, &format!("{case}, healed and killed")).await;
        }
        let all: BTreeSet<u64> = (1..outbox.next).collect();
        assert_eq!(outbox.sent().await, all, "{faults:?}");
        outbox.spool.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_a_failing_disk_does_not_give_is_read_again_when_it_does_and_is_not_lost() {
    let Some(disk) = Disk::mount(Contents::default()) else { return };
    let mut outbox = Outbox::open(disk.path(), 1).await;
    outbox.keep(5).await;
    outbox.spool.end().await;
    let disk = Disk::mount(disk.contents().after_kill()).unwrap();
    let mut next = Outbox::open(disk.path(), 100).await;
    disk.set(Faults { read: true, ..HEALTHY });
    next.spool.opened();
    next.spool.drive();
    let errors = |outbox: &Outbox| {
        outbox.metrics.errors.get_or_create_owned(&ErrorLabels { reason: ErrorReason::io }).get()
    };
    next.until(|outbox| errors(outbox) > 0).await;
    for _ in 0..3 {
        let before = errors(&next);
        next.until_retried(|outbox| errors(outbox) > before).await;
    }
    disk.set(HEALTHY);
    assert_eq!(next.sent().await, (1..=15).collect());
    let lost = next.metrics.dropped.get_or_create_owned(&DropLabels { reason: DropReason::unreadable });
    assert_eq!(lost.get(), 0);
    next.spool.end().await;
}
