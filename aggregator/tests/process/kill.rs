//! kill -9 of the process at random moments of a commit: no acknowledged record is ever gone, and none is there twice.
//!
//! `NODETAP_KILLS` says how often; 10 times without it.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use nodetap_aggregator::journal::{Body, Journal, Position};
use nodetap_wire::event::Event;

use crate::event;
use crate::running::Home;
use crate::sender::Sender;

/// A journal is begun anew after so many, that reading all of it stays cheap.
const IN_ONE_JOURNAL: u64 = 40;

/// What was read of a journal, in the order of its positions.
#[derive(Default)]
struct Found {
    position: Position,
    versions: BTreeSet<u64>,
}

impl Found {
    /// Reads on: positions grow by one, and no version comes twice.
    async fn read_on(&mut self, journal: &impl Journal, kill: u64) {
        loop {
            let entries = journal.read_from(self.position, 1_000).await.unwrap();
            if entries.is_empty() {
                return;
            }
            for entry in entries {
                assert_eq!(entry.position.0, self.position.0 + 1, "kill {kill}: a position is missing");
                self.position = entry.position;
                let Body::Event(json) = &entry.body else { panic!("kill {kill}: {entry:?}") };
                let event = Event::parse(std::str::from_utf8(json).unwrap()).unwrap();
                let version = event.metadata.resource_version.parse().unwrap();
                assert!(self.versions.insert(version), "kill {kill}: {version} is there twice");
            }
        }
    }
}

/// A number below an end, another one each time: the moments of a kill cannot be had again from a seed.
fn below(end: u64) -> u64 {
    RandomState::new().build_hasher().finish() % end
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_of_the_process_at_any_moment() {
    let kills: u64 = std::env::var("NODETAP_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let home = Home::new(serde_json::json!([]));
    let mut acknowledged_in_all = 0;
    let mut unacknowledged_in_all = 0;
    let mut found = Found::default();
    let mut acknowledged = 0;
    let (mut held, mut durable) = (None, None);
    for kill in 0..kills {
        if kill > 0 && kill % IN_ONE_JOURNAL == 0 {
            home.forget();
            acknowledged_in_all += acknowledged;
            (found, acknowledged, held, durable) = (Found::default(), 0, None, None);
        }
        let running = home.start().await;
        let mut sender = Sender::resume(&home.agent, running.agents, held.take(), durable).await;
        held = Some(sender.watch.clone());
        let (promised, lost) = (sender.durable.clone(), sender.lost.clone());
        let mut acknowledgements = sender.acknowledged.clone();
        // As an agent does that does not know what became of the rest.
        let mut next = acknowledged + 1;
        let sending = tokio::spawn(async move {
            let mut last_of_batch = Vec::new();
            loop {
                let records = 1 + below(60);
                let last = next + records - 1;
                last_of_batch.push(last);
                if !sender.send((next..=last).map(event).collect(), last).await {
                    return (sender.ended().await, last_of_batch);
                }
                next = last + 1;
            }
        });
        let least = 1 + below(25);
        // Where nobody is given the time to answer, the stream is given up before: an agent would connect again.
        let killed = acknowledgements.wait_for(|sequence| *sequence >= least).await.is_ok();
        // Somewhere within the next commits: they follow one another as long as batches are under way.
        tokio::time::sleep(Duration::from_micros(below(12_000))).await;
        running.kill().await;
        let ((sequence, said), last_of_batch) = sending.await.unwrap();
        if !killed {
            eprintln!("kill {kill}: the stream had ended before: {said:?}");
        }
        assert_eq!(*lost.borrow(), 0, "kill {kill}: what was promised before is said to be lost");
        durable = *promised.borrow();
        let sent = last_of_batch[last_of_batch.len() - 1];
        if let Some(batch) = (sequence as usize).checked_sub(1) {
            acknowledged = last_of_batch[batch];
        }
        unacknowledged_in_all += sent - acknowledged;

        let journal = home.open_journal();
        found.read_on(&journal, kill).await;
        let missing = (1..=acknowledged).filter(|version| !found.versions.contains(version)).count();
        assert_eq!(missing, 0, "kill {kill}: so many of {acknowledged} acknowledged are gone");
        if let Some(checkpoint) = journal.checkpoints().await.unwrap().first() {
            let checkpoint: u64 = checkpoint.resource_version.parse().unwrap();
            assert!(
                checkpoint >= acknowledged && found.versions.contains(&checkpoint),
                "kill {kill}: the checkpoint {checkpoint} belongs to no record"
            );
        }
        if kill % IN_ONE_JOURNAL == IN_ONE_JOURNAL - 1 || kill == kills - 1 {
            // What was read after an earlier kill is there still.
            let mut again = Found::default();
            again.read_on(&journal, kill).await;
            assert_eq!(again.versions, found.versions, "kill {kill}");
        }
        journal.close().await;
    }
    acknowledged_in_all += acknowledged;
    eprintln!(
        "{kills} kills: {acknowledged_in_all} records acknowledged, none gone, none twice; {unacknowledged_in_all} sent and not \
         acknowledged when the kill came"
    );
    assert!(acknowledged_in_all > 0);
}
