//! Damage at every page of every file: a bit flipped, a page zeroed, the file cut off there.
//!
//! A choice of pages, in one way each; all of them in all ways with `NODETAP_DAMAGE=all`.

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use rusqlite::Connection;

use super::*;
use crate::journal::metrics::{ErrorLabel, Failed};

const PAGE: usize = 4_096;

#[derive(Clone, Copy, Debug)]
enum How {
    /// One bit of the page's byte at this place: its head, its cells' places, its middle, its end.
    Flipped(usize),
    Zeroed,
    Cut,
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

/// Three days of events and deaths, closed; what was journalled, by position, with its day.
async fn written(folder: &Path) -> (Settings, BTreeMap<u64, (usize, Body)>) {
    let clock = TestClock::new();
    let settings = clock.settings(folder);
    let journal = open(&settings);
    let mut days = Vec::new();
    for day in 0..3_u64 {
        let mut records: Vec<_> =
            (0..300).map(|n| event(&noisy(&format!("{day}-{n}")), 1_000 * (day + 1) + n, 1)).collect();
        records.extend((0..20).map(|n| death(&format!("containerd://{day}-{n}"), n)));
        let checkpoints = vec![checkpoint(1, &(1_000 * (day + 1) + 299).to_string())];
        let appended = journal.append(Taken { checkpoints, ..taken(records) }).await.unwrap();
        days.push(appended.head.0);
        journal.commit("file", appended.head, vec![]).await.unwrap();
        clock.advance(if day < 2 { DAY } else { 0 });
    }
    // The index of the days that have ended is in their files.
    while journal.shared.directory.read(|state| state.stored.len()) < 2 {
        tokio::task::yield_now().await;
    }
    let found = all(&journal).await.into_iter().map(|entry| {
        let day = days.iter().position(|last| entry.position.0 <= *last).unwrap();
        (entry.position.0, (day, entry.body))
    });
    let found = found.collect();
    journal.close().await;
    drop(journal);
    whole(folder).await;
    (settings, found)
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

#[tokio::test]
async fn damage_of_any_page_of_any_file_costs_no_other_file_and_nothing_that_is_wrong_is_served() {
    let everything = std::env::var("NODETAP_DAMAGE").is_ok_and(|wanted| wanted == "all");
    let whole = tempfile::tempdir().unwrap();
    let (settings, written) = written(whole.path()).await;
    let names: Vec<_> = fs::read_dir(whole.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sqlite"))
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let mut trials = 0;
    let mut failures = Vec::new();
    for name in &names {
        let day = (0..3).find(|day| name.contains(&format!("2026-07-0{}", day + 1)));
        let bytes = fs::read(whole.path().join(name)).unwrap();
        let pages = bytes.len() / PAGE;
        for page in 0..pages {
            // The first page is the file's head, the second one often its first table; an odd step meets every way.
            if !everything && page > 1 && page % 5 != 0 {
                continue;
            }
            let ways: &[How] = if everything { &HOW } else { std::slice::from_ref(&HOW[page % HOW.len()]) };
            for how in ways {
                let case = format!("{name}, page {page} of {pages}: {how:?}");
                let folder = tempfile::tempdir().unwrap();
                for other in &names {
                    fs::copy(whole.path().join(other), folder.path().join(other)).unwrap();
                }
                let mut damaged = bytes.clone();
                damage(&mut damaged, page, *how);
                fs::write(folder.path().join(name), damaged).unwrap();
                let settings = Settings { path: folder.path().into(), ..settings.clone() };
                let checked = AssertUnwindSafe(check(&case, day, settings, &written)).catch_unwind().await;
                failures.extend(checked.is_err().then_some(case));
                trials += 1;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {trials}: {failures:#?}", failures.len());
    eprintln!("{trials} files damaged, each in one place: what was in another file was always served");
    assert!(trials >= 20, "{trials}");
}

fn same(left: &Body, right: &Body) -> bool {
    match (left, right) {
        (Body::Event(left), Body::Event(right)) => left == right,
        (Body::Death(left), Body::Death(right)) => left == right,
        _ => false,
    }
}

/// What holds of a journal of which the file of `day`, or that of the cursors, is damaged.
async fn check(case: &str, day: Option<usize>, settings: Settings, written: &BTreeMap<u64, (usize, Body)>) {
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(()))
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let asked = AssertUnwindSafe(found(&journal)).catch_unwind().await;
    let Ok(asked) = asked else { panic!("{case}: questions are not answered") };
    let found = all(&journal).await;
    for entry in found.iter().chain(&asked) {
        let Some((_, body)) = written.get(&entry.position.0) else { panic!("{case}: {entry:?} never was") };
        assert!(same(body, &entry.body), "{case}: {} is {:?}", entry.position.0, entry.body);
    }
    let positions: Vec<u64> = found.iter().map(|entry| entry.position.0).collect();
    assert!(positions.is_sorted_by(|left, right| left < right), "{case}: out of order");
    let lost: Vec<u64> =
        written.keys().copied().filter(|position| positions.binary_search(position).is_err()).collect();
    assert!(
        lost.iter().all(|position| Some(written[position].0) == day),
        "{case}: the rest is not served: {} are lost",
        lost.len()
    );
    // A question may have met damage where reading does not, and the other way about.
    let asked = super::positions(&super::found(&journal).await);
    let read = super::positions(&all(&journal).await);
    assert!(asked.iter().eq(&read), "{case}: {} are read, and questions find {}", read.len(), asked.len());
    // What is new is taken, and a cursor moves.
    let appended = journal.append(taken(vec![event("new", 9_999, 1)])).await;
    let appended = appended.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(appended.new, 1, "{case}");
    assert!(appended.head.0 > 960, "{case}: {appended:?}");
    journal.commit("file", appended.head, vec![]).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(journal.cursor("file").await.unwrap(), Some(appended.head), "{case}");
    if !lost.is_empty() {
        let failed = |reason| metrics.errors.get_or_create(&ErrorLabel { reason }).get();
        let told =
            metrics.set_aside.get() + failed(Failed::Record) + failed(Failed::Corrupt) + metrics.lost.get();
        assert!(told > 0, "{case}: {} are lost, and nothing is counted", lost.len());
    }
    journal.close().await;
}
