//! kill -9 of a process at random moments of its writing: what its outbox had said is kept, is there afterwards.
//!
//! `NODETAP_KILLS` says how often; 30 times without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nodetap_agent::outbox::Taken;
use nodetap_agent::outbox::metrics::{DamageKind, DamageLabels, Metrics};
use nodetap_agent::outbox::queue::Bounds;
use nodetap_agent::outbox::spool::{Settings, Spool};
use nodetap_bench::Random;
use nodetap_wire::{ContainerDied, Record, frame, record};

const CHILD: &str = "NODETAP_OUTBOX_OF_CHILD";

async fn open(folder: &Path) -> (Spool, Metrics) {
    let metrics = Metrics::default();
    let bounds = Bounds { records: 3, ..Bounds::default() };
    let spool = Spool::open(Settings { folder: Some(folder.to_owned()), bounds }, metrics.clone()).await;
    assert_eq!(metrics.in_memory.get(), 0);
    (spool, metrics)
}

/// Not a test: what is killed. Takes deaths for ever, and says how many of them are on the disk.
#[tokio::test]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let (mut spool, metrics) = open(Path::new(&folder)).await;
    let mut out = std::io::stdout();
    let random = Random::new(u64::from(std::process::id()));
    for number in 0_u64.. {
        let died = ContainerDied {
            container: number.to_string(),
            message: "x".repeat(random.below(30_000)),
            ..ContainerDied::default()
        };
        spool.take(Taken::Record(Record { kind: Some(record::Kind::Death(died.into())) }));
        spool.drive();
        if number % 3 == 2 && random.chance(40) {
            spool.happened().await;
            writeln!(out, "kept {}", metrics.spilled_records.get()).unwrap();
        }
    }
}

async fn take_all(spool: &mut Spool) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    spool.opened();
    while !spool.is_empty() {
        spool.drive();
        let Some(sent) = spool.send(8) else {
            spool.happened().await;
            continue;
        };
        for record in frame::decode(&sent.batch).unwrap().records {
            let Some(record::Kind::Death(death)) = record.kind else { panic!("{record:?}") };
            found.insert(death.container.parse().unwrap());
        }
        spool.acknowledge(sent.batch.sequence).unwrap();
    }
    found
}

#[tokio::test]
async fn what_is_on_the_disk_survives_a_kill_at_any_moment() {
    let kills = std::env::var("NODETAP_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let random = Random::new(11);
    let (mut kept_in_all, mut torn) = (0, 0);
    for kill in 0..kills {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("outbox");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, &folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut kept = 0_u64;
        let mut take = |line: String| {
            // The first one stands behind what the test's runner says.
            if let Some((_, number)) = line.split_once("kept ") {
                kept = number.parse().unwrap_or(kept);
            }
        };
        for _ in 0..2 + random.below(12) {
            take(lines.next().unwrap());
        }
        // Somewhere within the next writes.
        std::thread::sleep(Duration::from_micros(random.below(3_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        // A last line may have been cut in the middle of its number: what is whole ends in a line feed, and so is every line but it.
        let rest: Vec<String> = lines.collect();
        rest.into_iter().rev().skip(1).rev().for_each(&mut take);

        let (mut spool, metrics) = open(&folder).await;
        let damaged = DamageLabels { kind: DamageKind::damaged };
        assert_eq!(metrics.damaged.get_or_create_owned(&damaged).get(), 0, "kill {kill}");
        torn += metrics.damaged.get_or_create_owned(&DamageLabels { kind: DamageKind::torn }).get();
        let found = take_all(&mut spool).await;
        // In the order of their taking, and all deaths alike: the first so many are those that were kept.
        let missing: Vec<u64> = (0..kept).filter(|number| !found.contains(number)).collect();
        assert!(missing.is_empty(), "kill {kill}: of {kept} kept, {missing:?} are gone");
        kept_in_all += kept;
        spool.end().await;
    }
    eprintln!("{kills} kills: {kept_in_all} records kept, none gone; {torn} writes cut short");
    assert!(kept_in_all > 0);
}
