#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod damage;
mod fields;
mod full;
mod history;
mod kill;
mod ledgers;
mod lost;
mod pages;
mod unreadable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use nodetap_wire::shard::Share;
use nodetap_wire::{Change, ContainerDied, EventSeen, Owner, PodFacts, Shard, WholeCluster};

use super::*;
use crate::history::History;
use crate::history::query::{CountBy, Filter, Search};
use crate::journal::Body;
use crate::journal::metrics::{ConsumerLabel, Dropped, DroppedLabel};

/// 2026-07-01T12:00:00Z
const NOON: i64 = 1_782_907_200 * 1_000_000_000;
const DAY: i64 = 86_400 * 1_000_000_000;

/// A clock that tests set.
#[derive(Clone)]
struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOON)))
    }

    fn advance(&self, ns: i64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }

    fn settings(&self, path: &Path) -> Settings {
        let clock = self.0.clone();
        Settings { clock: Arc::new(move || clock.load(Ordering::SeqCst)), ..Settings::new(path) }
    }
}

fn open(settings: &Settings) -> SqliteJournal {
    SqliteJournal::open(settings.clone(), JournalMetrics::default(), Box::new(())).unwrap()
}

/// Opens a journal whose last handle has just been closed: its reader threads let go of the lock's last clone with it.
async fn reopen(journal: SqliteJournal, settings: &Settings) -> SqliteJournal {
    journal.close().await;
    drop(journal);
    open(settings)
}

fn event(uid: &str, version: u64, count: u64) -> Record {
    let change = if count > 1 { Change::Modified } else { Change::Added };
    event_as(uid, version, count, change)
}

fn event_as(uid: &str, version: u64, count: u64, change: Change) -> Record {
    let json = format!(
        r#"{{"metadata":{{"name":"web.{uid}","namespace":"shop","uid":"{uid}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web","uid":"pod-1"}},"reason":"BackOff","message":"again","count":{count},"type":"Warning"}}"#
    );
    Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, change).unwrap())) }
}

fn death(container_id: &str, ordinal: u32) -> Record {
    Record {
        kind: Some(record::Kind::Death(Box::new(ContainerDied {
            namespace: "shop".into(),
            pod: "web".into(),
            pod_uid: "pod-1".into(),
            node: "n1".into(),
            container: "app".into(),
            container_kind: nodetap_wire::ContainerKind::App.into(),
            source: nodetap_wire::Source::PodWatch.into(),
            container_id: container_id.into(),
            ordinal,
            exit_code: Some(7),
            reason: "Error".into(),
            finished_ns: NOON - 5,
            labels: BTreeMap::from([("app".into(), "web".into())]),
            last_lines: vec![nodetap_wire::LogLine { time_ns: 1, stderr: true, text: "ü\"\n".into() }],
            owners: vec![Owner { kind: "ReplicaSet".into(), name: "web-1".into(), ..Owner::default() }],
            explanation: "app failed (exit 7); last line: ü\"".into(),
            ..ContainerDied::default()
        }))),
    }
}

fn taken(records: Vec<Record>) -> Taken {
    Taken { node: "n1".into(), records, ..Taken::default() }
}

fn checkpoint(epoch: u64, resource_version: &str) -> Checkpoint {
    let shard = Some(Shard { share: Some(Share::Cluster(WholeCluster {})) });
    Checkpoint { shard, epoch, resource_version: resource_version.into() }
}

async fn all(journal: &SqliteJournal) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(Position(0), |entry| entry.position);
        // From the disk: what memory says is tested by itself.
        let (answer, answered) = oneshot::channel();
        let place = place(&journal.read_places, 1).await.unwrap();
        send(&journal.readers, Read { after, limit: 100, answer, place }).unwrap();
        let more = answered.await.unwrap().unwrap();
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

/// What a question for everything finds, in the order of the journal. One that meets damage says so, and the next is answered without.
async fn found(journal: &SqliteJournal) -> Vec<Entry> {
    found_by(journal, &Filter::default()).await
}

async fn found_by(journal: &SqliteJournal, filter: &Filter) -> Vec<Entry> {
    found_of(journal, filter).await.0
}

/// The same, and how many the index knows that cannot be read.
async fn found_of(journal: &SqliteJournal, filter: &Filter) -> (Vec<Entry>, u64) {
    let search =
        Search { filter: filter.clone(), after: None, limit: 10_000, deadline: Duration::from_secs(60) };
    let mut failed = None;
    for _ in 0..8 {
        match journal.search(search.clone()).await {
            Ok(page) => {
                assert!(
                    !page.has_more && page.found.is_sorted_by_key(|found| std::cmp::Reverse(found.time_ns))
                );
                let mut entries: Vec<_> = page.found.into_iter().map(|found| found.entry).collect();
                entries.sort_unstable_by_key(|entry| entry.position);
                return (entries, page.unreadable);
            }
            Err(error) => failed = Some(error),
        }
        // Behind what the writer was told of the file.
        let _ = journal.note(Vec::new(), Vec::new()).await;
    }
    panic!("questions are not answered: {failed:?}")
}

/// Waits until each part of the index that could not be read is there again.
async fn mended(journal: &SqliteJournal) {
    let is_mended = async {
        while !journal.shared.directory.read(|state| state.damaged.is_empty() && state.sealed.is_empty()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_mended).await.unwrap();
}

/// How many records a question counts.
async fn counted(journal: &SqliteJournal) -> usize {
    let within = Duration::from_secs(60);
    let counts = journal.count(Filter::default(), CountBy::default(), within).await.unwrap();
    counts.first().map_or(0, |count| count.records as usize)
}

fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.position.0).collect()
}

fn pieces(folder: &Path) -> Vec<String> {
    folder::pieces(folder).unwrap().iter().map(ToString::to_string).collect()
}

/// A name that begins so and does not compress: hexadecimal noise, of which a half is left.
fn noisy(name: &str) -> String {
    let noise = |at: u64| format!("{:016x}", hash::of(&[name, &at.to_string()]));
    format!("{name}-{}", (0..256).map(noise).collect::<String>())
}

/// About 200 KiB on the disk.
fn bulk(from: u64) -> Taken {
    taken((from..from + 100).map(|n| event(&noisy(&n.to_string()), n, 1)).collect())
}

fn versions(entries: &[Entry]) -> Vec<String> {
    let face = |entry: &Entry| entry.face("c").unwrap().metadata.resource_version.to_string();
    entries.iter().map(face).collect()
}

#[tokio::test]
async fn what_was_appended_is_read_in_order_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    let batch = vec![event("a", 10, 1), death("containerd://x", 3), event("b", 11, 1)];
    let appended = journal.append(taken(batch.clone())).await.unwrap();
    assert_eq!(appended, Appended { head: Position(3), new: 3, ..Appended::default() });
    assert_eq!(*journal.head().borrow(), Position(3));

    let journal = reopen(journal, &settings).await;
    assert_eq!(*journal.head().borrow(), Position(3));
    let entries = all(&journal).await;
    assert_eq!(entries.iter().map(|entry| entry.position.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(entries.iter().all(|entry| entry.taken_ns == NOON && entry.occurrences == 1));
    match (&entries[0].body, &batch[0].kind) {
        (Body::Event(json), Some(record::Kind::Event(event))) => assert_eq!(json, &event.raw),
        _ => panic!("{:?}", entries[0]),
    }
    match (&entries[1].body, &batch[1].kind) {
        (Body::Death(found), Some(record::Kind::Death(death))) => {
            assert_eq!(found, death);
            assert_eq!(entries[1].object.as_deref(), Some(&death.object()));
        }
        _ => panic!("{:?}", entries[1]),
    }
}

#[tokio::test]
async fn a_death_is_explained_by_what_was_journalled_of_its_pod() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    let killing = serde_json::json!({
        "metadata": {"uid": "e", "resourceVersion": "10", "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web", "uid": "pod-1", "fieldPath": "spec.containers{app}"},
        "reason": "Killing", "message": "Container app failed liveness probe, will be restarted", "count": 1,
        "lastTimestamp": nodetap_wire::time::format_ns(NOON - 5).unwrap(),
    });
    let killing = EventSeen::from_json(&killing.to_string(), Change::Added).unwrap();
    let killing = Record { kind: Some(record::Kind::Event(killing)) };
    journal.append(taken(vec![killing])).await.unwrap();
    journal.append(taken(vec![death("containerd://x", 3)])).await.unwrap();
    let entries = all(&journal).await;
    let Body::Death(found) = &entries[1].body else { panic!("{:?}", entries[1]) };
    let expected = "app ended when it was told to stop: its liveness probe failed (exit 7); last line: ü\"";
    assert_eq!(found.explanation, expected);
    assert_eq!(&*entries[1].face("prod").unwrap().message, expected);
}

#[tokio::test]
async fn memory_and_disk_tell_the_same_of_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    for version in 1..=20 {
        journal
            .append(taken(vec![event(&format!("u{version}"), version, 1), death("", version as u32)]))
            .await
            .unwrap();
    }
    let from_disk = all(&journal).await;
    for after in [0, 1, 17, 39, 40] {
        let from_memory =
            journal.shared.recent.read(Position(after), 5, READ_BYTES).expect("all of it is recent");
        let shown = |entries: &[Entry]| format!("{entries:?}");
        let expected: Vec<_> = from_disk.iter().filter(|e| e.position.0 > after).take(5).cloned().collect();
        assert_eq!(shown(&from_memory), shown(&expected), "after {after}");
    }
}

#[tokio::test]
async fn a_record_that_comes_again_is_a_duplicate_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    let batch = vec![event("a", 10, 1), event("b", 12, 1), death("containerd://x", 0), death("", 1)];
    journal.append(taken(batch.clone())).await.unwrap();
    for round in 0..3 {
        let appended = journal.append(taken(batch.clone())).await.unwrap();
        assert_eq!((appended.new, appended.duplicates), (0, 4), "round {round}");
    }
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.append(taken(batch.clone())).await.unwrap().duplicates, 4);
    // The next day's file knows what the one before holds.
    clock.advance(DAY);
    let appended = journal.append(taken(batch.clone())).await.unwrap();
    assert_eq!((appended.new, appended.duplicates), (0, 4));
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.append(taken(batch)).await.unwrap().duplicates, 4);
    assert_eq!(all(&journal).await.len(), 4);
}

#[tokio::test]
async fn an_older_state_that_comes_late_is_kept_and_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    let batch = vec![event("a", 10, 1), event("a", 30, 5), event("a", 20, 3), event("a", 20, 3)];
    let appended = journal.append(taken(batch)).await.unwrap();
    assert_eq!((appended.new, appended.duplicates), (3, 1));
    let entries = all(&journal).await;
    assert_eq!(versions(&entries), ["10", "30", "20"]);
    assert_eq!(entries.iter().map(|entry| entry.occurrences).collect::<Vec<_>>(), [1, 4, 0]);
}

#[tokio::test]
async fn a_recurrence_is_counted_since_the_last_state_over_restarts_and_days() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let mut journal = open(&settings);
    for (version, count) in [(1, 1), (2, 2), (3, 10), (4, 11), (5, 50)] {
        journal.append(taken(vec![event("a", version, count)])).await.unwrap();
        if version == 4 {
            clock.advance(DAY);
        }
        journal = reopen(journal, &settings).await;
    }
    let occurrences: Vec<_> = all(&journal).await.iter().map(|entry| entry.occurrences).collect();
    assert_eq!(occurrences, [1, 1, 8, 1, 39]);
}

#[tokio::test]
async fn checkpoints_are_kept_and_an_old_epoch_does_not_move_them() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    let with = |checkpoint| Taken { checkpoints: vec![checkpoint], ..taken(vec![]) };
    journal.append(with(checkpoint(2, "100"))).await.unwrap();
    journal.append(with(checkpoint(1, "200"))).await.unwrap();
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(2, "100")]);
    clock.advance(DAY);
    journal.append(taken(vec![event("a", 101, 1)])).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(2, "100")]);
}

#[tokio::test]
async fn what_was_given_is_known_after_a_restart_and_what_is_gone_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    let of = |name: &str, epoch| Checkpoint { shard: Some(Shard::namespace(name)), ..checkpoint(epoch, "") };
    journal.note(vec![of("a", 3), of("b", 1)], vec![]).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.checkpoints().await.unwrap(), [of("a", 3), of("b", 1)]);
    journal.note(vec![], vec![Shard::namespace("a")]).await.unwrap();
    journal.note(vec![of("b", 2)], vec![Shard::namespace("b")]).await.unwrap();
    assert_eq!(journal.checkpoints().await.unwrap(), [of("b", 2)]);
    // One that was made again begins anew.
    journal.note(vec![of("a", 1)], vec![]).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.checkpoints().await.unwrap(), [of("a", 1), of("b", 2)]);
}

#[tokio::test]
async fn cursors_and_dead_letters_survive_and_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    assert_eq!(journal.cursor("loki").await.unwrap(), None);
    let dead = vec![DeadLetter { position: Position(4), reason: "400: too old".into() }];
    journal.commit("loki", Position(5), dead).await.unwrap();
    journal.commit("file", Position(9), vec![]).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(journal.cursor("loki").await.unwrap(), Some(Position(5)));
    assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(9)));
    let database = rusqlite::Connection::open(folder.path().join("cursors.sqlite")).unwrap();
    let letter: (String, i64, String) = database
        .query_row("SELECT consumer, position, reason FROM dead_letter", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(letter, ("loki".into(), 4, "400: too old".into()));
}

#[tokio::test]
async fn a_day_has_a_file_and_reading_goes_over_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    for day in 0..4 {
        let records = (0..3).map(|n| event(&format!("{day}-{n}"), 100 + day * 10 + n, 1)).collect();
        journal.append(taken(records)).await.unwrap();
        clock.advance(DAY);
    }
    assert_eq!(pieces(folder.path()), ["2026-07-01", "2026-07-02", "2026-07-03", "2026-07-04"]);
    let journal = reopen(journal, &settings).await;
    let entries = all(&journal).await;
    assert_eq!(
        entries.iter().map(|entry| entry.position.0).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    assert_eq!(journal.read_from(Position(5), 4).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_clock_that_goes_back_keeps_to_the_newest_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let journal = open(&settings);
    clock.advance(-3 * DAY);
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    let journal = reopen(journal, &settings).await;
    journal.append(taken(vec![event("b", 2, 1)])).await.unwrap();
    assert_eq!(pieces(folder.path()), ["2026-07-01"]);
    assert_eq!(all(&journal).await.len(), 2);
}

#[tokio::test]
async fn retention_drops_whole_files_and_counts_what_nobody_had() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings { max_age: Duration::from_secs(2 * 86_400), ..clock.settings(folder.path()) };
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
    journal.append(taken((1..=10).map(|n| event(&format!("u{n}"), n, 1)).collect())).await.unwrap();
    journal.commit("slow", Position(4), vec![]).await.unwrap();
    journal.commit("quick", Position(10), vec![]).await.unwrap();
    clock.advance(4 * DAY);
    journal.append(taken(vec![event("later", 11, 1)])).await.unwrap();

    assert_eq!(pieces(folder.path()), ["2026-07-05"]);
    assert_eq!(metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Age }).get(), 10);
    let undelivered = |consumer: &str| {
        let label = ConsumerLabel { consumer: consumer.into(), reason: "retention" };
        metrics.undelivered.get_or_create(&label).get()
    };
    assert_eq!((undelivered("slow"), undelivered("quick")), (6, 0));
    // A cursor into what is gone goes on with what is there, and positions do too.
    let entries = all(&journal).await;
    assert_eq!(entries.iter().map(|entry| entry.position.0).collect::<Vec<_>>(), [11]);
}

#[tokio::test]
async fn positions_that_were_left_out_after_a_loss_are_not_counted_as_dropped_records() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings { max_age: Duration::from_secs(2 * 86_400), ..clock.settings(folder.path()) };
    let journal = open(&settings);
    for day in 1..=2 {
        journal
            .append(taken((1..=10).map(|n| event(&format!("u{n}"), 10 * day + n, 1)).collect()))
            .await
            .unwrap();
        clock.advance(DAY * i64::from(day < 2));
    }
    journal.close().await;
    drop(journal);
    std::fs::remove_file(folder::day_path(folder.path(), "2026-07-02")).unwrap();
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    journal.append(taken((1..=5).map(|n| event(&format!("u{n}"), 30 + n, 1)).collect())).await.unwrap();
    let gap = all(&journal).await[10].position.0;
    assert!(gap > 1_000, "positions go on far above: {gap}");
    journal.commit("slow", Position(4), vec![]).await.unwrap();
    journal.commit("quick", Position(gap + 1), vec![]).await.unwrap();
    clock.advance(6 * DAY);
    journal.append(taken(vec![event("later", 50, 1)])).await.unwrap();
    assert_eq!(metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Age }).get(), 15);
    let undelivered = |consumer: &str| {
        let label = ConsumerLabel { consumer: consumer.into(), reason: "retention" };
        metrics.undelivered.get_or_create(&label).get()
    };
    assert_eq!((undelivered("slow"), undelivered("quick")), (11, 3));
}

#[tokio::test]
async fn age_does_not_drop_what_a_sink_that_must_deliver_has_yet_to_get() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings {
        max_age: Duration::from_secs(86_400),
        required: vec!["sink/slow".to_owned()],
        ..clock.settings(folder.path())
    };
    let journal = open(&settings);
    for version in 1..=4 {
        journal.append(taken(vec![event(&format!("u{version}"), version, 1)])).await.unwrap();
        clock.advance(3 * DAY);
    }
    assert_eq!(pieces(folder.path()), ["2026-07-01", "2026-07-04", "2026-07-07", "2026-07-10"]);
    journal.commit("sink/slow", Position(2), vec![]).await.unwrap();
    let journal = reopen(journal, &settings).await;
    assert_eq!(pieces(folder.path()), ["2026-07-07", "2026-07-10", "2026-07-13"]);
    journal.close().await;
    drop(journal);
    // Bytes count all the same.
    let journal = open(&Settings { max_bytes: 1, ..settings });
    assert_eq!(all(&journal).await.len(), 0);
}

#[tokio::test]
async fn a_death_from_before_what_was_dropped_is_not_new_after_a_restart_either() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings { max_age: Duration::from_secs(86_400), ..clock.settings(folder.path()) };
    let journal = open(&settings);
    clock.advance(DAY / 6);
    let old = death("containerd://x", 0);
    journal.append(taken(vec![old.clone(), event("a", 1, 1)])).await.unwrap();
    clock.advance(3 * DAY);
    journal.append(taken(vec![event("b", 2, 1)])).await.unwrap();
    assert_eq!(pieces(folder.path()), ["2026-07-04"]);
    assert_eq!(journal.append(taken(vec![old.clone()])).await.unwrap().duplicates, 1);
    journal.close().await;
    drop(journal);
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    assert_eq!(journal.append(taken(vec![old])).await.unwrap().duplicates, 1);
    journal.close().await;
    let label = crate::journal::metrics::DuplicateLabel {
        kind: crate::journal::metrics::Kind::Death,
        reason: crate::journal::metrics::Known::Retention,
    };
    assert_eq!(metrics.duplicates.get_or_create(&label).get(), 1);
}

#[tokio::test]
async fn a_day_that_grows_large_goes_on_in_another_file_and_its_oldest_is_dropped_for_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { max_bytes: 4 << 20, ..TestClock::new().settings(folder.path()) };
    let metrics = JournalMetrics::default();
    let mut journal = open(&settings);
    let mut kept = 0;
    while !pieces(folder.path()).contains(&"2026-07-01.11".to_owned()) {
        kept += journal.append(bulk(1 + kept)).await.unwrap().new as u64;
        assert!(kept < 100_000);
        // Files are measured when they are opened.
        journal.close().await;
        drop(journal);
        journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
    }
    let found = pieces(folder.path());
    assert_eq!(found.last().unwrap(), "2026-07-01.11", "in the order of their numbers");
    assert!(found.len() < 8, "{found:?}");
    let dropped = metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Bytes }).get();
    assert!(dropped > 0);
    let positions: Vec<_> = all(&journal).await.iter().map(|entry| entry.position.0).collect();
    assert_eq!(positions, (dropped + 1..=kept).collect::<Vec<_>>());
}

#[tokio::test]
async fn retention_by_bytes_never_drops_the_newest_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings { max_bytes: 1, ..clock.settings(folder.path()) };
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    for version in 1..=3 {
        journal.append(taken(vec![event(&format!("u{version}"), version, 1)])).await.unwrap();
        clock.advance(DAY);
    }
    assert_eq!(pieces(folder.path()), ["2026-07-03"]);
    assert_eq!(metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Bytes }).get(), 2);
    assert_eq!(all(&journal).await.len(), 1);
}

#[tokio::test]
async fn an_event_carries_what_was_known_of_its_pod_and_replays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    let facts = PodFacts {
        uid: "pod-1".into(),
        resource_version: "5".into(),
        labels: BTreeMap::from([("app".into(), "web".into())]),
        owners: vec![Owner { kind: "ReplicaSet".into(), controller: true, ..Owner::default() }],
        ..PodFacts::default()
    };
    let facts = Record { kind: Some(record::Kind::Pod(facts)) };
    let appended = journal.append(taken(vec![facts, event("a", 1, 1)])).await.unwrap();
    assert_eq!((appended.new, appended.duplicates, appended.head), (1, 0, Position(1)));
    let live = journal.read_from(Position(0), 10).await.unwrap();
    let journal = reopen(journal, &settings).await;
    let replayed = all(&journal).await;
    assert_eq!(live[0].object, replayed[0].object);
    let object = replayed[0].object.as_ref().unwrap();
    assert_eq!((object.labels["app"].as_str(), object.owners[0].controller), ("web", true));
}

#[tokio::test]
async fn a_checkpoint_behind_a_batch_that_failed_is_not_kept_before_it_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    let path = folder::day_path(folder.path(), "2026-07-01");
    let database = rusqlite::Connection::open(path).unwrap();
    database
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON watermark WHEN new.resource_version = '20000'
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    // Large enough to close its group, so that what follows is in the next one.
    let mut lost: Vec<_> = (10..5_000).map(|n| event(&format!("u{n}"), n, 1)).collect();
    lost.push(event("lost", 20_000, 1));
    let later = Taken { checkpoints: vec![checkpoint(1, "30000")], ..taken(vec![event("later", 30_000, 1)]) };
    let (first, second) =
        tokio::join!(biased; journal.append(taken(lost.clone())), journal.append(later.clone()));
    first.unwrap_err();
    second.unwrap_err();
    assert_eq!(journal.checkpoints().await.unwrap(), []);
    assert_eq!(all(&journal).await.len(), 1);

    database.execute_batch("DROP TRIGGER refuse").unwrap();
    assert_eq!(journal.append(taken(lost)).await.unwrap().new, 4_991);
    assert_eq!(journal.append(later).await.unwrap().new, 1);
    assert_eq!(journal.checkpoints().await.unwrap(), [checkpoint(1, "30000")]);
}

#[tokio::test]
async fn a_commit_that_hangs_can_be_seen_with_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    assert_eq!(journal.commit_since(), None);
    let path = folder::day_path(folder.path(), "2026-07-01");
    let database = rusqlite::Connection::open(path).unwrap();
    // The writer waits for its turn, as it would for a disk.
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let append = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(taken(vec![event("a", 1, 1)])).await }
    });
    while journal.commit_since().is_none() {
        assert!(!append.is_finished());
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.commit_since(), Some(NOON));
    database.execute_batch("ROLLBACK").unwrap();
    append.await.unwrap().unwrap();
    // Closing waits for the writer, which has left the commit by then.
    journal.close().await;
    assert_eq!(journal.commit_since(), None);
}

#[tokio::test]
async fn a_namespace_of_which_nothing_came_for_two_days_has_no_watermark_in_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = clock.settings(folder.path());
    let mut journal = open(&settings);
    let elsewhere = |version: u64| {
        let json = format!(
            r#"{{"metadata":{{"name":"e","namespace":"other","uid":"o{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod"}},"reason":"A","count":1}}"#
        );
        Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
    };
    let of = |date: &str| {
        let database = rusqlite::Connection::open(folder::day_path(folder.path(), date)).unwrap();
        let mut statement = database.prepare("SELECT namespace FROM watermark ORDER BY namespace").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap()
    };
    journal.append(taken(vec![event("a", 1, 1), elsewhere(2)])).await.unwrap();
    for version in 3..6 {
        clock.advance(DAY);
        journal.append(taken(vec![event("a", version, version)])).await.unwrap();
        journal = reopen(journal, &settings).await;
    }
    assert_eq!(of("2026-07-03"), ["other", "shop"]);
    assert_eq!(of("2026-07-04"), ["shop"]);
}

#[tokio::test]
async fn a_file_from_before_the_first_release_is_put_aside_and_the_journal_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let journal = open(&settings);
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.close().await;
    drop(journal);
    let path = folder::day_path(folder.path(), "2026-07-01");
    let database = rusqlite::Connection::open(path).unwrap();
    database.execute_batch("UPDATE meta SET value = 2 WHERE key = 'schema'").unwrap();
    drop(database);
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    assert_eq!(metrics.set_aside.get(), 1);
    let appended = journal.append(taken(vec![event("a", 1, 1), event("b", 2, 1)])).await.unwrap();
    assert_eq!((appended.new, appended.duplicates), (2, 0));
    assert!(appended.head.0 > 2, "{appended:?}");
}

#[tokio::test]
async fn two_processes_cannot_write_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(folder.path());
    let _journal = open(&settings);
    let error =
        SqliteJournal::open(settings, JournalMetrics::default(), Box::new(())).unwrap_err().to_string();
    assert!(error.contains("in use by another process") && error.contains("journal.path"), "{error}");
}

#[tokio::test]
async fn after_closing_appends_say_that_it_has_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    journal.close().await;
    let error = journal.append(taken(vec![event("a", 1, 1)])).await.unwrap_err();
    assert!(matches!(error, JournalError::Stopped), "{error}");
}

#[tokio::test]
async fn every_record_is_told_to_the_observer_once() {
    #[derive(Clone, Default)]
    struct Counting(Arc<Mutex<(Vec<u64>, usize)>>);

    impl Observer for Counting {
        fn appended(&mut self, entry: &Entry, record: &Record) {
            assert!(record.kind.is_some());
            self.0.lock().unwrap().0.push(entry.position.0);
        }

        fn duplicate(&mut self, _: &Record) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let observer = Counting::default();
    let settings = TestClock::new().settings(folder.path());
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(observer.clone())).unwrap();
    let facts = Record { kind: Some(record::Kind::Pod(PodFacts::default())) };
    journal.append(taken(vec![event("a", 1, 1), facts, event("a", 1, 1), death("", 0)])).await.unwrap();
    journal.close().await;
    assert_eq!(*observer.0.lock().unwrap(), (vec![1, 2], 1));
    assert_eq!(metrics.pod_facts.get(), 1);
}

#[tokio::test]
async fn an_append_waits_for_room_and_all_of_them_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    let appends = (0..200_u64).map(|batch| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let records = (0..20).map(|n| event(&format!("{batch}-{n}"), 1 + batch * 20 + n, 1)).collect();
            journal.append(taken(records)).await.unwrap().new
        })
    });
    let mut new = 0;
    for append in appends.collect::<Vec<_>>() {
        new += append.await.unwrap();
    }
    assert_eq!(new, 4_000);
    let entries = all(&journal).await;
    assert_eq!(entries.iter().map(|e| e.position.0).collect::<Vec<_>>(), (1..=4_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn dead_letters_are_found_and_forgotten_by_whose_they_are_which_record_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let journal = open(&clock.settings(folder.path()));
    let letter =
        |position, reason: &str| DeadLetter { position: Position(position), reason: reason.to_owned() };
    journal
        .commit("sink/a", Position(2), vec![letter(1, "answered 400: no"), letter(2, "layout")])
        .await
        .unwrap();
    clock.advance(DAY);
    journal.commit("sink/b", Position(1), vec![letter(1, "answered 413")]).await.unwrap();
    let found = async |letters: Letters, limit| {
        let found = journal.dead_letters(letters, limit).await.unwrap();
        found.into_iter().map(|kept| (kept.consumer, kept.letter.position.0)).collect::<Vec<_>>()
    };
    let [a1, a2, b1] = [("sink/a", 1), ("sink/a", 2), ("sink/b", 1)].map(|(sink, at)| (sink.to_owned(), at));
    assert_eq!(found(Letters::default(), 9).await, [a1.clone(), a2.clone(), b1.clone()]);
    assert_eq!(found(Letters::default(), 1).await, std::slice::from_ref(&a1));
    let after = Some(("sink/a".to_owned(), Position(1)));
    assert_eq!(found(Letters { after, ..Letters::default() }, 9).await, [a2.clone(), b1.clone()]);
    let answered = Letters { reason: Some("answered 4".to_owned()), ..Letters::default() };
    assert_eq!(found(answered.clone(), 9).await, [a1.clone(), b1.clone()]);
    let before = Letters { before_ns: Some(NOON + 1), ..answered };
    assert_eq!(found(before.clone(), 9).await, [a1]);
    assert_eq!(journal.forget_dead_letters(before).await.unwrap(), 1);
    let of_b =
        Letters { consumer: Some("sink/b".to_owned()), position: Some(Position(1)), ..Letters::default() };
    assert_eq!(journal.forget_dead_letters(of_b).await.unwrap(), 1);
    assert_eq!(found(Letters::default(), 9).await, [a2]);
    let cursors = journal.cursors().await.unwrap();
    assert_eq!(cursors, [("sink/a".to_owned(), Position(2)), ("sink/b".to_owned(), Position(1))]);
}

#[tokio::test]
async fn dead_letters_whose_records_retention_dropped_are_forgotten_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let settings = Settings { max_age: Duration::from_secs(86_400), ..clock.settings(folder.path()) };
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
    let records = (1..=600).map(|version| event(&format!("u{version}"), version, 1)).collect();
    let last = journal.append(taken(records)).await.unwrap().head;
    let letter = |position| DeadLetter { position: Position(position), reason: "no".to_owned() };
    journal.commit("sink/a", last, (1..=last.0).map(letter).collect()).await.unwrap();
    clock.advance(3 * DAY);
    let kept = journal.append(taken(vec![event("later", 700, 1)])).await.unwrap().head;
    journal.commit("sink/a", kept, vec![letter(kept.0)]).await.unwrap();
    journal.commit("sink/b", kept, vec![letter(last.0), letter(kept.0)]).await.unwrap();
    // Retention looks at what is there when a journal is opened.
    journal.close().await;
    drop(journal);
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    let found = async || journal.dead_letters(Letters::default(), 1_000).await.unwrap();
    while found().await.len() > 2 {
        tokio::task::yield_now().await;
    }
    let positions: Vec<_> = found().await.iter().map(|kept| kept.letter.position).collect();
    assert_eq!(positions, [kept, kept]);
    let forgotten = |consumer: &str| {
        let label = ConsumerLabel { consumer: consumer.into(), reason: "retention" };
        metrics.letters_forgotten.get_or_create(&label).get()
    };
    assert_eq!((forgotten("sink/a"), forgotten("sink/b")), (last.0, 1));
}

#[tokio::test]
async fn more_dead_letters_than_a_step_looks_at_are_found_and_forgotten_whole() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    let step = dead_letters::STEP as u64;
    let letter = |position| DeadLetter {
        position: Position(position),
        reason: if position % step == 0 { "rare" } else { "common" }.to_owned(),
    };
    for consumer in ["sink/a", "sink/b", "sink/c"] {
        journal.commit(consumer, Position(0), (1..=3 * step).map(letter).collect()).await.unwrap();
    }
    let of_b = Letters { consumer: Some("sink/b".to_owned()), ..Letters::default() };
    let rare = Letters { reason: Some("rare".to_owned()), ..of_b.clone() };
    let found = journal.dead_letters(rare.clone(), 2).await.unwrap();
    let positions: Vec<_> = found.iter().map(|kept| kept.letter.position.0).collect();
    assert_eq!(positions, [step, 2 * step]);
    assert_eq!(journal.forget_dead_letters(rare).await.unwrap(), 3);
    assert_eq!(journal.forget_dead_letters(of_b.clone()).await.unwrap(), 3 * dead_letters::STEP - 3);
    assert_eq!(journal.dead_letters(of_b, 9).await.unwrap(), []);
    assert_eq!(journal.forget_dead_letters(Letters::default()).await.unwrap(), 6 * dead_letters::STEP);
}
