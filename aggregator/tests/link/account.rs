//! What the door counts, against what a real journal does.

use std::sync::{Arc, Condvar, Mutex};

use nodetap_aggregator::admit::Limits;
use nodetap_aggregator::journal::lost::Losses;
use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use nodetap_aggregator::journal::{Journal, Position};
use nodetap_aggregator::reconcile::{Report, Sources};
use nodetap_aggregator::sinks;
use nodetap_wire::{FromAgent, PodFacts, Record, Records, frame, from_agent, record};
use prometheus_client::registry::Registry;

use crate::certificates::Authority;
use crate::proxy::Proxy;
use crate::sides::Aggregator;
use crate::{death, eventually, raw};

fn batch(sequence: u64, records: Vec<Record>) -> FromAgent {
    let records = Records { records, ..Records::default() };
    FromAgent { frame: Some(from_agent::Frame::Batch(frame::encode(sequence, &records).unwrap())) }
}

fn facts(uid: &str) -> Record {
    let facts = PodFacts { uid: uid.into(), ..PodFacts::default() };
    Record { kind: Some(record::Kind::Pod(facts)) }
}

#[tokio::test]
async fn the_intake_adds_up_at_every_look_though_streams_end_with_batches_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    // While it is held, the journal's writer gets no time of day, and comes to no end of what it has in hand.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let asked = Arc::clone(&gate);
    let clock = Arc::new(move || {
        let (held, changed) = &*asked;
        drop(changed.wait_while(held.lock().unwrap(), |held| *held).unwrap());
        nodetap_wire::time::now_ns()
    });
    let hold = |held: bool| {
        *gate.0.lock().unwrap() = held;
        gate.1.notify_all();
    };
    let counts = JournalMetrics::default();
    let settings = Settings { clock, ..Settings::new(folder.path()) };
    let journal = SqliteJournal::open(settings, counts.clone(), Box::new(())).unwrap();
    let authority = Authority::new();
    let identity = authority.server("nodetap-aggregator");
    let aggregator =
        Aggregator::start_on(identity, Limits::default(), journal.clone(), Losses::default()).await;
    let sinks = sinks::Metrics::register(&mut Registry::default());
    let sources = Sources::new(aggregator.metrics.clone(), counts, &journal, sinks);
    let looked = || -> Report {
        let report = sources.report();
        assert!(report.adds_up, "{report:#?}");
        report
    };
    let frames = || {
        let mut frames = vec![raw::hello("node-1")];
        frames.extend((1..=6).map(|sequence| {
            let number = sequence as usize * 10;
            let mut records: Vec<_> = (number..number + 10).map(|number| death("node-1", number)).collect();
            records.push(facts(&format!("pod-{sequence}")));
            records.push(death("node-2", 1));
            batch(sequence, records)
        }));
        frames
    };
    let proxy = Proxy::start(aggregator.address).await;
    const STREAMS: u64 = 3;
    for stream in 1..=STREAMS {
        hold(true);
        let (identity, address, frames) = (authority.agent("node-1"), proxy.address, frames());
        let sending = tokio::spawn(async move { raw::stream(&identity, address, frames).await });
        eventually(|| looked().intake.given == stream * 66).await;
        assert_eq!(looked().intake.in_flight, 66, "all of it is on its way");
        proxy.cut();
        sending.await.unwrap();
        eventually(|| looked().intake.in_flight == 66 && aggregator.metrics.agents.get() == 0).await;
        hold(false);
        eventually(|| looked().intake.in_flight == 0).await;
    }
    let intake = looked().intake;
    assert_eq!((intake.taken, intake.not_kept), (STREAMS * 66, 0));
    assert_eq!((intake.journalled, intake.duplicates), (60, (STREAMS - 1) * 60));
    assert_eq!((intake.pod_facts, intake.refused["other_node"]), (STREAMS * 6, STREAMS * 6));
    assert_eq!(looked().head, 60);
    assert_eq!(journal.read_from(Position(0), 100).await.unwrap().len(), 60);
}
