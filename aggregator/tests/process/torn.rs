//! A log that is torn while nobody runs: what was acknowledged and stood behind the tear is taken again, at once.

use std::fs;

use nodetap_aggregator::journal::{Body, Journal, Position};
use nodetap_wire::event::Event;

use crate::running::Home;
use crate::sender::Sender;
use crate::{event, within};

/// Enough for a log of some 100 KiB, which is not moved into its file before.
const EVENTS: u64 = 400;

async fn send(sender: &mut Sender, events: std::ops::RangeInclusive<u64>) {
    for version in events {
        assert!(sender.send(vec![event(version)], version).await, "the stream ended");
    }
    assert!(within(sender.settled()).await, "the stream ended");
}

async fn versions(home: &Home) -> Vec<u64> {
    let journal = home.open_journal();
    let entries = journal.read_from(Position(0), 10_000).await.unwrap();
    journal.close().await;
    let version = |body: &Body| {
        let Body::Event(json) = body else { panic!("{body:?}") };
        let event = Event::parse(std::str::from_utf8(json).unwrap()).unwrap();
        event.metadata.resource_version.parse::<u64>().unwrap()
    };
    entries.iter().map(|entry| version(&entry.body)).collect()
}

#[tokio::test]
async fn what_stood_behind_a_tear_is_watched_again_from_the_last_checkpoint_before_it() {
    // Nothing, a part, and all of the log.
    for (kept, is_torn) in [(100, false), (60, true), (5, true), (0, true)] {
        let home = Home::new(serde_json::json!([]));
        let running = home.start().await;
        let mut sender = Sender::connect(&home.agent, running.agents, None).await;
        send(&mut sender, 1..=EVENTS).await;
        let (held, durable) = (sender.watch.clone(), *sender.durable.borrow());
        assert_eq!(durable.unwrap().position, EVENTS);
        running.kill().await;
        let log = fs::read_dir(home.journal()).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("journal-") && name.ends_with("-wal")
        });
        let log = fs::OpenOptions::new().write(true).open(log.unwrap()).unwrap();
        log.set_len(log.metadata().unwrap().len() * kept / 100).unwrap();

        let running = home.start().await;
        let mut sender = Sender::resume(&home.agent, running.agents, Some(held.clone()), durable).await;
        if !is_torn {
            assert_eq!((sender.watch.epoch, *sender.lost.borrow()), (held.epoch, 0));
            continue;
        }
        // At once, and before anything else is taken under a checkpoint that lies behind the tear.
        assert!(sender.watch.epoch > held.epoch, "{:?}", sender.watch);
        let last = match sender.watch.resource_version.as_str() {
            "" => 0,
            version => version.parse::<u64>().unwrap(),
        };
        assert!(last < EVENTS, "{last}");
        let mut lost = sender.lost.clone();
        within(lost.wait_for(|lost| *lost == 1)).await.unwrap();
        // As the watch has them again.
        send(&mut sender, last + 1..=EVENTS + 1).await;
        running.kill().await;
        assert_eq!(versions(&home).await, (1..=EVENTS + 1).collect::<Vec<_>>(), "{kept} %");
    }
}
