//! Damage at every page of every file: a bit flipped, a page zeroed, the file cut off there; and single bits anywhere.
//!
//! A choice of pages, in one way each; all of them in all ways with `NODETAP_DAMAGE=all`. Eighty bits, drawn; as many as
//! `NODETAP_DAMAGE` says where it is a number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use rusqlite::Connection;

use super::*;
use crate::journal::facets::{Facets, Test};
use crate::journal::metrics::{ErrorLabel, Failed};

const PAGE: usize = 4_096;

#[derive(Clone, Copy, Debug)]
enum How {
    /// One bit of the page's byte at this place: its head, its cells' places, its middle, its end.
    Flipped(usize),
    Zeroed,
    Cut,
}

/// A day's events, more than one blob holds the versions of, and its deaths.
const EVENTS: u64 = 600;
const DEATHS: u64 = 20;

/// What three days' files hold.
struct Written {
    settings: Settings,
    /// By position, with its day.
    bodies: BTreeMap<u64, (usize, Body)>,
    /// Which filters let it through.
    passes: BTreeMap<u64, [bool; 5]>,
    /// As it was sent, a batch a day.
    batches: Vec<Vec<Record>>,
}

const HOW: [How; 6] = [
    How::Zeroed,
    How::Flipped(0),
    How::Cut,
    How::Flipped(13),
    How::Flipped(PAGE / 2),
    How::Flipped(PAGE - 1),
];

fn damage(bytes: &mut Vec<u8>, page: usize, how: How) {
    match how {
        How::Flipped(at) => bytes[page * PAGE + at] ^= 0x10,
        How::Zeroed => bytes[page * PAGE..(page + 1) * PAGE].fill(0),
        How::Cut => bytes.truncate(page * PAGE),
    }
}

/// Words that nothing else has, and that do not compress.
fn noise(name: &str, words: u64, between: &str) -> String {
    let word = |at: u64| format!("{:016x}", hash::of(&[name, &at.to_string()]));
    (0..words).map(word).collect::<Vec<_>>().join(between)
}

/// An event of which there are many pages, of its records and of its index.
fn large(day: u64, n: u64) -> Record {
    let name = format!("{day}-{n}");
    let (uid, message) = (noise(&name, 40, ""), noise(&name, 12, " "));
    let version = 1_000 * (day + 1) + n;
    let json = format!(
        r#"{{"metadata":{{"name":"web.{name}","namespace":"shop","uid":"{uid}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web-{name}","uid":"pod-1"}},"reason":"BackOff","message":"again {message}","type":"Warning"}}"#
    );
    Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
}

/// Three days of events and deaths, closed.
async fn written(folder: &Path) -> Written {
    let clock = TestClock::new();
    let settings = clock.settings(folder);
    let journal = open(&settings);
    let (mut days, mut batches) = (Vec::new(), Vec::new());
    for day in 0..3_u64 {
        let mut records: Vec<_> = (0..EVENTS).map(|n| large(day, n)).collect();
        records.extend((0..DEATHS).map(|n| death(&format!("containerd://{day}-{n}"), n as u32)));
        batches.push(records.clone());
        let checkpoints = vec![checkpoint(1, &(1_000 * (day + 1) + EVENTS - 1).to_string())];
        let appended = journal.append(Taken { checkpoints, ..taken(records) }).await.unwrap();
        days.push(appended.head.0);
        journal.commit("file", appended.head, vec![]).await.unwrap();
        clock.advance(if day < 2 { DAY } else { 0 });
    }
    // The index of the days that have ended is in their files.
    while journal.shared.directory.read(|state| state.stored.len()) < 2 {
        tokio::task::yield_now().await;
    }
    let entries = all(&journal).await;
    let passes = entries.iter().map(|entry| (entry.position.0, passes(entry))).collect();
    let bodies = entries.into_iter().map(|entry| {
        let day = days.iter().position(|last| entry.position.0 <= *last).unwrap();
        (entry.position.0, (day, entry.body))
    });
    let bodies = bodies.collect();
    journal.close().await;
    drop(journal);
    whole(folder).await;
    Written { settings, bodies, passes, batches }
}

/// Waits for the threads of a journal to let go of its files, so that the logs are in them. Who lets go last moves a log into its file,
/// but of two who let go at one time each may see the other still there: so we let go after them.
async fn whole(folder: &Path) {
    let logs = || {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter_map(|path| {
            let file = path.to_str().unwrap().strip_suffix("-wal")?;
            Some(file.to_owned())
        })
    };
    let moved = async {
        while let Some(file) = logs().next() {
            let connection = Connection::open(file).unwrap();
            connection.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).unwrap();
            drop(connection);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moved).await.unwrap();
}

/// The files that were written, and what each holds.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sqlite"))
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect();
    files.sort();
    assert_eq!(files.len(), 4);
    files
}

/// What is wrong with a journal of which one file holds other bytes.
async fn trial(
    case: String,
    files: &[(String, Vec<u8>)],
    (name, damaged): (&str, &[u8]),
    written: &Written,
) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    for (other, bytes) in files {
        fs::write(folder.path().join(other), if other == name { damaged } else { bytes }).unwrap();
    }
    let day = (0..3).find(|day| name.contains(&format!("2026-07-0{}", day + 1)));
    let settings = Settings { path: folder.path().into(), ..written.settings.clone() };
    let checked = AssertUnwindSafe(check(&case, day, settings, written)).catch_unwind().await;
    checked.is_err().then_some(case)
}

#[tokio::test]
async fn damage_of_any_page_of_any_file_costs_no_other_file_and_nothing_that_is_wrong_is_served() {
    let everything = std::env::var("NODETAP_DAMAGE").is_ok_and(|wanted| wanted == "all");
    let folder = tempfile::tempdir().unwrap();
    let written = written(folder.path()).await;
    let files = files(folder.path());
    let mut trials = 0;
    let mut failures = Vec::new();
    for (name, bytes) in &files {
        let pages = bytes.len() / PAGE;
        for page in 0..pages {
            // The first page is the file's head, the second one often its first table; an odd step meets every way.
            if !everything && page > 1 && page % 5 != 0 {
                continue;
            }
            let ways: &[How] = if everything { &HOW } else { std::slice::from_ref(&HOW[page % HOW.len()]) };
            for how in ways {
                let case = format!("{name}, page {page} of {pages}: {how:?}");
                let mut damaged = bytes.clone();
                damage(&mut damaged, page, *how);
                failures.extend(trial(case, &files, (name, &damaged), &written).await);
                trials += 1;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {trials}: {failures:#?}", failures.len());
    eprintln!("{trials} files damaged, each in one place: what was in another file was always served");
    assert!(trials >= 20, "{trials}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_costs_no_other_file_and_nothing_that_is_wrong_is_served() {
    let wanted = std::env::var("NODETAP_DAMAGE").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(80);
    let folder = tempfile::tempdir().unwrap();
    let written = written(folder.path()).await;
    let files = files(folder.path());
    let mut failures = Vec::new();
    for number in 0..wanted {
        let draw = |what: &str, of: usize| (hash::of(&[what, &number.to_string()]) % of as u64) as usize;
        let (name, bytes) = &files[draw("file", files.len())];
        let (at, bit) = (draw("byte", bytes.len()), draw("bit", 8));
        let case = format!("{name}, number {number}: bit {bit} of byte {} of page {}", at % PAGE, at / PAGE);
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        failures.extend(trial(case, &files, (name, &damaged), &written).await);
    }
    assert!(failures.is_empty(), "{} of {wanted}: {failures:#?}", failures.len());
    eprintln!("{wanted} bits flipped, one at a time: what was in another file was always served");
}

fn same(left: &Body, right: &Body) -> bool {
    match (left, right) {
        (Body::Event(left), Body::Event(right)) => left == right,
        (Body::Death(left), Body::Death(right)) => left == right,
        _ => false,
    }
}

/// What is asked for, each time: everything, what all have, and what few have.
fn filters() -> [Filter; 5] {
    [
        Filter::default(),
        Filter { namespaces: vec!["shop".into()], ..Filter::default() },
        Filter { text: Some("again".into()), ..Filter::default() },
        Filter { objects: vec!["web-0-7".into(), "web-1-7".into(), "web-2-7".into()], ..Filter::default() },
        Filter { text: Some(noise("1-300", 1, "")), ..Filter::default() },
    ]
}

/// Which of the filters let an entry through.
fn passes(entry: &Entry) -> [bool; 5] {
    let facets = Facets::of(entry).unwrap();
    filters().map(|filter| Test::new(filter).unwrap().matches(&facets))
}

/// Waits until questions find what is read. One may meet damage where the other does not, and the index finds some by itself.
async fn agreed(case: &str, journal: &SqliteJournal, written: &Written) -> Vec<Entry> {
    let mut told = String::new();
    let mut known = written.passes.clone();
    let agree = async {
        'again: loop {
            // Behind what the writer was told of.
            let _ = journal.note(Vec::new(), Vec::new()).await;
            let read = all(journal).await;
            for entry in &read {
                known.entry(entry.position.0).or_insert_with(|| passes(entry));
            }
            let (_, unreadable) = found_of(journal, &Filter::default()).await;
            for (index, filter) in filters().iter().enumerate() {
                let asked = positions(&found_by(journal, filter).await);
                let wanted = positions(&read).into_iter().filter(|position| known[position][index]);
                if !wanted.eq(asked.iter().copied()) {
                    told = format!("{} are read, and {filter:?} finds {}", read.len(), asked.len());
                    continue 'again;
                }
            }
            let by = CountBy { field: Some(crate::history::query::Field::Reason), ..CountBy::default() };
            let counts = journal.count(Filter::default(), by, Duration::from_secs(60)).await;
            let counted = counts.map(|counts| counts.iter().map(|count| count.records).sum::<u64>());
            if counted.as_ref().is_ok_and(|counted| *counted == read.len() as u64 + unreadable) {
                return read;
            }
            told = format!("{} are read, {unreadable} unreadable, and {counted:?} counted", read.len());
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), agree).await {
        Ok(read) => read,
        Err(_) => panic!("{case}: {told}"),
    }
}

/// What holds of a journal of which the file of `day`, or that of the cursors, is damaged.
async fn check(case: &str, day: Option<usize>, settings: Settings, written: &Written) {
    let Written { bodies, batches, .. } = written;
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(()))
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let asked = AssertUnwindSafe(found(&journal)).catch_unwind().await;
    let Ok(asked) = asked else { panic!("{case}: questions are not answered") };
    let found = all(&journal).await;
    for entry in found.iter().chain(&asked) {
        let Some((_, body)) = bodies.get(&entry.position.0) else { panic!("{case}: {entry:?} never was") };
        assert!(same(body, &entry.body), "{case}: {} is {:?}", entry.position.0, entry.body);
    }
    let positions: Vec<u64> = found.iter().map(|entry| entry.position.0).collect();
    assert!(positions.is_sorted_by(|left, right| left < right), "{case}: out of order");
    let lost: Vec<u64> =
        bodies.keys().copied().filter(|position| positions.binary_search(position).is_err()).collect();
    assert!(
        lost.iter().all(|position| Some(bodies[position].0) == day),
        "{case}: the rest is not served: {} are lost",
        lost.len()
    );
    agreed(case, &journal, written).await;
    // A cursor is where it was, or before.
    let last = bodies.keys().max().copied();
    let cursor = journal.cursor("file").await.unwrap();
    assert!(cursor.is_none_or(|cursor| Some(cursor.0) <= last), "{case}: {cursor:?} of {last:?}");
    // No watch goes on from behind where it was.
    for checkpoint in journal.checkpoints().await.unwrap() {
        let version = &checkpoint.resource_version;
        assert!(
            ["", "1599", "2599", "3599"].contains(&version.as_str()),
            "{case}: a watch goes on from {version}"
        );
    }
    // What is new is taken, and a cursor moves.
    let appended = journal.append(taken(vec![event("new", 9_999, 1)])).await;
    let appended = appended.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(appended.new, 1, "{case}");
    assert!(Some(appended.head.0) > last, "{case}: {appended:?}");
    journal.commit("file", appended.head, vec![]).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(journal.cursor("file").await.unwrap(), Some(appended.head), "{case}");
    // What was there comes once more, and is there once.
    for records in batches {
        let appended = journal.append(taken(records.clone())).await;
        appended.unwrap_or_else(|error| panic!("{case}: sent again: {error}"));
    }
    let read = agreed(case, &journal, written).await;
    // The row by which a death is known carries no digest.
    let of_events = read.iter().filter_map(|entry| match &entry.body {
        Body::Event(json) => Some(entry.event(json).unwrap().metadata.resource_version.to_string()),
        Body::Death(_) => None,
    });
    let of_events: Vec<_> = of_events.collect();
    let distinct: BTreeSet<_> = of_events.iter().collect();
    assert_eq!(distinct.len(), of_events.len(), "{case}: events are there twice");
    let failed = |reason| metrics.errors.get_or_create(&ErrorLabel { reason }).get();
    if !lost.is_empty() {
        let told =
            metrics.set_aside.get() + failed(Failed::Record) + failed(Failed::Corrupt) + metrics.lost.get();
        assert!(told > 0, "{case}: {} are lost, and nothing is counted", lost.len());
    }
    mended(&journal).await;
    if failed(Failed::Segment) > 0 {
        let journal = reopen(journal, &settings).await;
        assert_eq!(
            super::positions(&agreed(case, &journal, written).await),
            super::positions(&read),
            "{case}"
        );
        assert!(journal.shared.directory.read(|state| state.damaged.is_empty()), "{case}: still damaged");
        journal.close().await;
    } else {
        journal.close().await;
    }
}
