//! The journal on a disk that answers EIO to writes, syncs and reads, on which processes are killed and the power goes: what was
//! acknowledged is there once, and it goes on by itself when the disk does.
//!
//! `NODETAP_DISKS` says how many disks fail at random; 12 without it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "../../../agent/tests/failing_disk/disk.rs"]
mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use disk::{Contents, Disk, Faults};
use nodetap_aggregator::journal::metrics::JournalMetrics;
use nodetap_aggregator::journal::sqlite::{Settings, SqliteJournal};
use nodetap_aggregator::journal::{Body, Journal, JournalError, Position, Taken};
use nodetap_wire::{Change, Checkpoint, EventSeen, Record, Shard, record};

const HEALTHY: Faults = Faults { read: false, write: false, sync: false };

fn open(path: &Path) -> Result<SqliteJournal, JournalError> {
    SqliteJournal::open(Settings::new(path), JournalMetrics::default(), Box::new(()))
}

/// Some that fill pages, so that a commit is more than one.
fn batch(versions: std::ops::Range<u64>) -> Taken {
    let record = |version: u64| {
        let mut noise = version.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let message: String = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + (noise >> 59) as u8 % 26)
        })
        .take(300)
        .collect();
        let json = format!(
            r#"{{"metadata":{{"name":"web.{version}","namespace":"shop","uid":"u{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web"}},"reason":"BackOff","message":"{message}","count":1}}"#
        );
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
    };
    let shard = Some(Shard::cluster());
    let checkpoint =
        Checkpoint { shard, epoch: 1, resource_version: versions.end.saturating_sub(1).to_string() };
    let records = versions.map(record).collect();
    Taken { node: "n1".to_owned(), records, checkpoints: vec![checkpoint], ..Taken::default() }
}

/// How often each version is in a journal, and its checkpoint's.
async fn found(journal: &SqliteJournal) -> (BTreeMap<u64, usize>, u64) {
    let mut found = BTreeMap::new();
    let mut after = Position(0);
    loop {
        let entries = journal.read_from(after, 512).await.unwrap();
        let Some(last) = entries.last() else { break };
        after = last.position;
        for entry in &entries {
            let Body::Event(json) = &entry.body else { panic!("{entry:?}") };
            let json: serde_json::Value = serde_json::from_slice(json).unwrap();
            let version = json["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            *found.entry(version).or_default() += 1;
        }
    }
    let checkpoints = journal.checkpoints().await.unwrap();
    (found, checkpoints.first().map_or(0, |checkpoint| checkpoint.resource_version.parse().unwrap()))
}

/// Opens what a disk holds, and compares it with what was acknowledged.
async fn judge(contents: Contents, acknowledged: &BTreeSet<u64>, case: &str) {
    let disk = Disk::mount(contents).unwrap();
    let journal = open(disk.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let (found, checkpoint) = found(&journal).await;
    let gone: Vec<&u64> = acknowledged.iter().filter(|version| !found.contains_key(version)).collect();
    assert!(gone.is_empty(), "{case}: of {} acknowledged, gone: {gone:?}", acknowledged.len());
    assert!(found.values().all(|times| *times == 1), "{case}: twice: {found:?}");
    assert!(
        checkpoint == 0 || found.contains_key(&checkpoint),
        "{case}: the checkpoint {checkpoint} is ahead of its record"
    );
    journal.close().await;
}

/// As an agent does: the same again until it is taken.
async fn append_until_taken(journal: &SqliteJournal, versions: std::ops::Range<u64>) {
    for _ in 0..50 {
        if journal.append(batch(versions.clone())).await.is_ok() {
            return;
        }
    }
    panic!("nothing is taken although the disk works: {:?}", journal.failure());
}

#[tokio::test]
async fn on_a_disk_that_answers_eio_to_writes_or_syncs_nothing_acknowledged_goes_and_it_goes_on_by_itself() {
    for faults in [Faults { sync: true, ..HEALTHY }, Faults { write: true, ..HEALTHY }] {
        let Some(disk) = Disk::mount(Contents::default()) else { return };
        let case = format!("{faults:?}");
        let journal = open(disk.path()).unwrap();
        let mut acknowledged = BTreeSet::new();
        let mut next = 1;
        for round in 0..4 {
            for _ in 0..3 {
                append_until_taken(&journal, next..next + 20).await;
                acknowledged.extend(next..next + 20);
                next += 20;
            }
            disk.set(faults);
            for _ in 0..=round {
                let error = journal.append(batch(next..next + 20)).await.unwrap_err().to_string();
                assert!(error.contains(&*disk.path().to_string_lossy()), "{case}: {error}");
                assert!(journal.failure().is_some(), "{case}: it says so");
            }
            judge(disk.contents().after_power_loss(), &acknowledged, &format!("{case}, power lost")).await;
            disk.set(HEALTHY);
            append_until_taken(&journal, next..next + 20).await;
            acknowledged.extend(next..next + 20);
            next += 20;
            assert!(journal.failure().is_none(), "{case}");
            judge(disk.contents().after_power_loss(), &acknowledged, &format!("{case}, power lost later"))
                .await;
        }
        assert!(disk.failed() > 0);
        let (found, _) = found(&journal).await;
        assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), acknowledged, "{case}");
        journal.close().await;
        judge(disk.contents().after_kill(), &acknowledged, &format!("{case}, closed")).await;
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_for_a_while_costs_no_record_and_no_file() {
    let Some(disk) = Disk::mount(Contents::default()) else { return };
    let journal = open(disk.path()).unwrap();
    for first in (1..2_000).step_by(100) {
        journal.append(batch(first..first + 100)).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    let disk = Disk::mount(disk.contents().after_kill()).unwrap();
    disk.set(Faults { read: true, ..HEALTHY });
    let error = open(disk.path()).unwrap_err().to_string();
    assert!(error.contains(&*disk.path().to_string_lossy()), "{error}");
    disk.set(HEALTHY);
    let journal = open(disk.path()).unwrap();
    assert_eq!(found(&journal).await.0.len(), 2_000);
    disk.set(Faults { read: true, ..HEALTHY });
    // Whether it is answered from memory or not, what comes is whole or an error.
    let _ = journal.read_from(Position(0), 512).await;
    disk.set(HEALTHY);
    assert_eq!(found(&journal).await.0.len(), 2_000);
    append_until_taken(&journal, 2_001..2_101).await;
    journal.close().await;
    judge(disk.contents().after_power_loss(), &(1..2_101).collect(), "read").await;
}

#[tokio::test]
async fn whatever_a_disk_does_at_random_what_was_acknowledged_is_there_once_after_kills_and_losses_of_power()
{
    let disks: u64 = std::env::var("NODETAP_DISKS").map_or(12, |disks| disks.parse().unwrap());
    let (mut in_all, mut failures) = (0, 0);
    for seed in 0..disks {
        let random = numbers(seed);
        let Some(mut disk) = Disk::mount(Contents::default()) else { return };
        let mut journal = open(disk.path()).unwrap();
        let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
        let mut next = 1;
        for step in 0..50 {
            let case = format!("disk {seed}, step {step}");
            match random(100) {
                0..60 => {
                    // What was not taken comes again, whatever came of it.
                    let versions = next..next + 1 + random(40);
                    if journal.append(batch(versions.clone())).await.is_ok() {
                        next = versions.end;
                        acknowledged.extend(versions);
                    }
                }
                60..80 => {
                    disk.set(Faults { sync: random(3) > 0, write: random(4) == 0, read: random(6) == 0 })
                }
                80..90 => disk.set(HEALTHY),
                chance => {
                    let kill = chance < 96;
                    failures += disk.failed();
                    let contents = disk.contents();
                    let left = if kill { contents.after_kill() } else { contents.after_power_loss() };
                    judge(contents.after_power_loss(), &acknowledged, &case).await;
                    drop(journal);
                    disk = Disk::mount(left).unwrap();
                    journal = match open(disk.path()) {
                        Ok(journal) => journal,
                        Err(_) => {
                            disk.set(HEALTHY);
                            open(disk.path()).unwrap_or_else(|error| panic!("{case}: {error}"))
                        }
                    };
                }
            }
        }
        disk.set(HEALTHY);
        append_until_taken(&journal, next..next + 1).await;
        acknowledged.insert(next);
        failures += disk.failed();
        let (found, _) = found(&journal).await;
        assert!(acknowledged.iter().all(|version| found.get(version) == Some(&1)), "disk {seed}: {found:?}");
        judge(disk.contents().after_power_loss(), &acknowledged, &format!("disk {seed}, at its end")).await;
        in_all += acknowledged.len();
        journal.close().await;
    }
    eprintln!("{disks} disks, {failures} requests answered EIO: {in_all} records acknowledged, none gone");
    assert!(failures > 0 && in_all > 0);
}

/// Numbers below a bound; the same for a seed.
fn numbers(seed: u64) -> impl Fn(u64) -> u64 {
    let state = std::cell::Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    move |bound| {
        // xorshift64*
        let mut next = state.get();
        next ^= next >> 12;
        next ^= next << 25;
        next ^= next >> 27;
        state.set(next);
        (next.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
