//! A disk without room, one that is read-only, and one that fails: small filesystems of the test's own, where it may mount them.

use std::fs;
use std::path::PathBuf;
use std::process::Command as Process;

use super::*;
use crate::journal::metrics::{ErrorLabel, Failed};

/// Says so, loudly, and to `ci/test`, which counts it.
fn not_run(what: &str) {
    eprintln!("NOT RUN: {what}");
    if let Some(list) = std::env::var_os("NODETAP_NOT_RUN") {
        let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        std::io::Write::write_all(&mut list, format!("the journal on {what}\n").as_bytes()).unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Process::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A filesystem of two megabytes.
struct SmallDisk(PathBuf, #[expect(dead_code, reason = "keeps the folder")] tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mounted =
            Process::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path, folder));
        }
        not_run("a full disk: this user may not mount a tmpfs");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let chunk = vec![0; 4_096];
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn is_helpful(error: &JournalError, disk: &SmallDisk) {
    let text = error.to_string();
    assert!(text.contains(&*disk.0.to_string_lossy()), "{text}");
    assert!(text.contains("bytes are free") && text.contains("make room"), "{text}");
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_first_start_is_a_refusal_that_says_so() {
    let Some(disk) = SmallDisk::mount() else { return };
    disk.fill();
    let settings = TestClock::new().settings(&disk.0);
    let error = SqliteJournal::open(settings.clone(), JournalMetrics::default(), Box::new(())).unwrap_err();
    is_helpful(&error, &disk);
    disk.free();
    let journal = open(&settings);
    assert_eq!(journal.append(taken(vec![event("a", 1, 1)])).await.unwrap().new, 1);
}

/// A journal on a disk, of one record that was delivered, and closed.
async fn one_record(disk: &SmallDisk) -> Settings {
    let settings = TestClock::new().settings(&disk.0);
    let journal = open(&settings);
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.commit("file", Position(1), vec![]).await.unwrap();
    journal.close().await;
    drop(journal);
    settings
}

/// Every thread that answers questions has so many records, and shows the newest first.
async fn questions_find(journal: &SqliteJournal, records: usize) {
    for _ in 0..8 * ASKERS {
        assert_eq!(positions(&found(journal).await), (1..=records as u64).collect::<Vec<_>>());
        assert_eq!(counted(journal).await, records);
    }
}

#[tokio::test]
async fn a_journal_on_a_full_disk_serves_what_it_has_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let settings = one_record(&disk).await;

    disk.fill();
    let journal = open(&settings);
    assert!(journal.failure().is_some(), "nothing that comes can be kept");
    assert_eq!(all(&journal).await.len(), 1);
    questions_find(&journal, 1).await;
    let big = |from: u64| taken((from..from + 100).map(|n| event(&noisy(&format!("u{n}")), n, 1)).collect());
    let error = journal.append(big(10)).await.unwrap_err();
    is_helpful(&error, &disk);

    disk.free();
    assert_eq!(journal.append(big(10)).await.unwrap().new, 100);
    assert_eq!(all(&journal).await.len(), 101);
    questions_find(&journal, 101).await;
    assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(1)));
    journal.commit("file", Position(9), vec![]).await.unwrap();
}

/// Copies a database with something in its log, as a machine leaves it that loses its power: without the memory that SQLite shares.
fn leave(database: &Path, disk: &SmallDisk) {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.execute_batch("CREATE TABLE power (lost)").unwrap();
    for path in folder::companions(database).iter().filter(|path| !path.to_string_lossy().ends_with("-shm")) {
        fs::copy(path, disk.0.join(path.file_name().unwrap())).unwrap();
    }
    assert!(folder::has_log(&disk.0.join(database.file_name().unwrap())));
}

#[tokio::test]
async fn what_a_loss_of_power_left_on_a_full_disk_is_served_and_known_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (running, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let settings = clock.settings(running.path());
    let journal = open(&settings);
    let day = || -> Vec<_> { (1..=384).map(|n| event(&format!("u{n}"), n, 1)).collect() };
    journal.append(taken(day())).await.unwrap();
    clock.advance(DAY);
    journal.append(taken(vec![event("later", 1_000, 1)])).await.unwrap();
    journal.commit("file", Position(1), vec![]).await.unwrap();
    // What is indexed is not remembered.
    while journal.shared.directory.read(|state| state.stored.is_empty()) {
        tokio::task::yield_now().await;
    }
    journal.close().await;
    drop(journal);
    for date in ["2026-07-01", "2026-07-02"] {
        leave(&folder::day_path(running.path(), date), &disk);
    }
    leave(&running.path().join(folder::CURSORS), &disk);
    fs::copy(running.path().join(told::FILE), disk.0.join(told::FILE)).unwrap();

    disk.fill();
    let settings = Settings { path: disk.0.clone(), ..settings };
    let journal = open(&settings);
    assert_eq!(all(&journal).await.len(), 385);
    questions_find(&journal, 385).await;

    disk.free();
    let again = [day(), vec![event("later", 1_000, 1), event("new", 1_001, 1)]].concat();
    assert_eq!(journal.append(taken(again)).await.unwrap().new, 1);
    assert_eq!(all(&journal).await.len(), 386);
    questions_find(&journal, 386).await;
    assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(1)));
}

#[tokio::test]
async fn a_journal_that_is_closed_leaves_no_log_while_somebody_still_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(&TestClock::new().settings(folder.path()));
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.commit("file", Position(1), vec![]).await.unwrap();
    let cursors = folder.path().join(folder::CURSORS);
    assert!(folder::has_log(&cursors));
    journal.close().await;
    assert!(!folder::has_log(&cursors) && !folder::has_log(&folder::day_path(folder.path(), "2026-07-01")));
    let refused = journal.commit("file", Position(1), vec![]).await;
    assert!(matches!(refused, Err(JournalError::Stopped)), "{refused:?}");
}

#[tokio::test]
async fn an_append_without_room_is_refused_whole_and_kept_when_it_comes_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let settings = TestClock::new().settings(&disk.0);
    let journal = open(&settings);
    let mut kept = 0;
    let mut batch = 0;
    let refused = loop {
        let records = (0..100)
            .map(|n| event(&noisy(&format!("{batch}-{n}")), 1 + batch * 100 + n, 1))
            .collect::<Vec<_>>();
        match journal.append(taken(records.clone())).await {
            Ok(appended) => kept += appended.new,
            Err(error) => {
                is_helpful(&error, &disk);
                break records;
            }
        }
        batch += 1;
        assert!(batch < 1_000, "the disk never fills up");
    };
    assert_eq!(all(&journal).await.len(), kept);
    assert_eq!((found(&journal).await.len(), counted(&journal).await), (kept, kept));
    assert_eq!(journal.head().borrow().0, kept as u64);
    // More room comes by itself.
    let grown = Process::new("mount").args(["-o", "remount,size=16m"]).arg(&disk.0).status();
    assert!(grown.is_ok_and(|status| status.success()));
    assert_eq!(journal.append(taken(refused)).await.unwrap().new, 100);
    assert_eq!(positions(&all(&journal).await), (1..=kept as u64 + 100).collect::<Vec<_>>());
    questions_find(&journal, kept + 100).await;
}

#[tokio::test]
async fn a_full_disk_costs_the_oldest_file_and_not_what_comes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let grown = Process::new("mount").args(["-o", "remount,size=8m"]).arg(&disk.0).status();
    assert!(grown.is_ok_and(|status| status.success()));
    let clock = TestClock::new();
    let settings = clock.settings(&disk.0);
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings, metrics.clone(), Box::new(())).unwrap();
    let full = || metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Full }).get();
    let mut kept = 0;
    while full() < 1_000 {
        // Held open by a reader: its room must be free all the same.
        assert!(!all(&journal).await.is_empty() || kept == 0);
        kept += journal.append(bulk(1 + kept)).await.unwrap().new as u64;
        if kept.is_multiple_of(500) {
            clock.advance(DAY / 10);
        }
        assert!(kept < 100_000, "the disk never fills up");
    }
    assert_eq!(positions(&all(&journal).await), (full() + 1..=kept).collect::<Vec<_>>());
    assert_eq!(positions(&found(&journal).await), (full() + 1..=kept).collect::<Vec<_>>());
    assert_eq!(counted(&journal).await as u64, kept - full());
    journal.commit("file", Position(kept), vec![]).await.unwrap();
}

/// An ext2 of 32 megabytes on a loop device, whose file is sparse and lies where there is room for four of them: what is
/// written beyond is taken, and fails when it is synced: an I/O error to SQLite.
struct FailingDisk {
    folder: tempfile::TempDir,
    device: String,
}

impl FailingDisk {
    /// `None`, loudly, where this user may not mount, or the kernel has no loop devices.
    fn mount() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap(), device: String::new() };
        let disk = disk.build();
        if disk.is_none() {
            not_run("a disk that fails: this user may not mount a loop device, or mke2fs is missing");
        }
        disk
    }

    fn build(mut self) -> Option<Self> {
        let (backing, mounted) = (self.path("backing"), self.path("disk"));
        fs::create_dir(&backing).unwrap();
        fs::create_dir(&mounted).unwrap();
        let image = format!("{backing}/image");
        if !run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", &backing]) {
            return None;
        }
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        if !run("mke2fs", &["-q", "-t", "ext2", "-b", "4096", "-N", "64", "-m", "0", &image]) {
            return None;
        }
        let attached = Process::new("losetup").args(["--find", "--show", &image]).output().ok()?;
        self.device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
        (!self.device.is_empty() && run("mount", &["-t", "ext2", &self.device, &mounted])).then_some(self)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("disk/journal")
    }

    /// From now on it holds what it says.
    fn mend(&self) {
        assert!(run("mount", &["-o", "remount,size=64m", &self.path("backing")]));
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.path("disk")]);
        if !self.device.is_empty() {
            run("losetup", &["--detach", &self.device]);
        }
        run("umount", &["-l", &self.path("backing")]);
    }
}

#[tokio::test]
async fn what_was_acknowledged_on_a_disk_that_then_fails_is_there_and_the_rest_is_refused_until_it_works() {
    let Some(disk) = FailingDisk::mount() else { return };
    let settings = TestClock::new().settings(&disk.journal());
    let metrics = JournalMetrics::default();
    let journal = SqliteJournal::open(settings.clone(), metrics.clone(), Box::new(())).unwrap();
    let records = |batch: u64| -> Vec<_> {
        (0..100).map(|n| event(&noisy(&format!("{batch}-{n}")), 1 + batch * 100 + n, 1)).collect()
    };
    let mut kept = 0;
    let error = loop {
        match journal.append(taken(records(kept))).await {
            Ok(appended) => assert_eq!(appended.new, 100),
            Err(error) => break error.to_string(),
        }
        kept += 1;
        assert!(kept < 1_000, "the disk never fails");
    };
    assert!(kept > 0 && error.contains(&*disk.journal().to_string_lossy()), "{kept}: {error}");
    assert!(journal.failure().is_some());
    assert!(metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Io }).get() > 0, "{error}");
    disk.mend();
    // As an agent does: again, until it is taken.
    let mut again = journal.append(taken(records(kept))).await;
    for _ in 0..20 {
        if again.is_ok() {
            break;
        }
        again = journal.append(taken(records(kept))).await;
    }
    assert_eq!(again.unwrap().new, 100);
    assert!(journal.failure().is_none());
    journal.close().await;
    drop(journal);

    let journal = open(&settings);
    let mut found: Vec<u64> = versions(&all(&journal).await).iter().map(|v| v.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=(kept + 1) * 100).collect::<Vec<_>>());
    questions_find(&journal, found.len()).await;
    journal.close().await;
}

#[tokio::test]
async fn a_journal_on_a_read_only_disk_serves_what_it_has_and_goes_on_when_it_may_write() {
    let Some(disk) = SmallDisk::mount() else { return };
    let at = disk.0.display().to_string();
    let settings = one_record(&disk).await;

    // The threads of the journal that was closed let go of its files by and by.
    while !run("mount", &["-o", "remount,ro", &at]) {
        std::thread::yield_now();
    }
    let journal = open(&settings);
    assert!(journal.failure().is_some(), "nothing that comes can be kept");
    assert_eq!(all(&journal).await.len(), 1);
    questions_find(&journal, 1).await;
    let error = journal.append(taken(vec![event("b", 2, 1)])).await.unwrap_err().to_string();
    assert!(error.contains(&at), "{error}");
    assert!(journal.failure().is_some());
    // A sink waits: what it delivered now could not be noted.
    assert!(journal.commit("file", Position(1), vec![]).await.is_err());

    assert!(run("mount", &["-o", "remount,rw", &at]));
    let mut again = journal.append(taken(vec![event("b", 2, 1)])).await;
    for _ in 0..20 {
        if again.is_ok() {
            break;
        }
        again = journal.append(taken(vec![event("b", 2, 1)])).await;
    }
    assert_eq!(again.unwrap().new, 1);
    assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(1)));
    assert_eq!(all(&journal).await.len(), 2);
    questions_find(&journal, 2).await;
    assert!(journal.failure().is_none());
}

#[tokio::test]
async fn what_a_kill_left_on_a_disk_that_is_read_only_then_is_written_to_again_when_that_ends() {
    let Some(disk) = SmallDisk::mount() else { return };
    let at = disk.0.display().to_string();
    let running = tempfile::tempdir().unwrap();
    let settings = TestClock::new().settings(running.path());
    let journal = open(&settings);
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.commit("file", Position(1), vec![]).await.unwrap();
    // With SQLite's shared memory, which who may only read shares with all others of its process.
    for entry in fs::read_dir(running.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, disk.0.join(path.file_name().unwrap())).unwrap();
    }
    journal.close().await;
    drop(journal);

    assert!(run("mount", &["-o", "remount,ro", &at]));
    let journal = open(&Settings { path: disk.0.clone(), ..settings });
    assert!(journal.failure().is_some());
    questions_find(&journal, 1).await;
    assert_eq!(all(&journal).await.len(), 1);
    assert!(run("mount", &["-o", "remount,rw", &at]));
    let mut again = journal.append(taken(vec![event("b", 2, 1)])).await;
    for _ in 0..20 {
        if again.is_ok() {
            break;
        }
        again = journal.append(taken(vec![event("b", 2, 1)])).await;
    }
    assert_eq!(again.unwrap().new, 1);
    questions_find(&journal, 2).await;
}
