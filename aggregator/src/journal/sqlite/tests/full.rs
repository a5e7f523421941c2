//! A disk without room: a small filesystem of the test's own, where the test may mount one.

use std::fs;
use std::path::PathBuf;
use std::process::Command as Process;

use super::*;

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
        eprintln!("NOT RUN: a full disk, because this user may not mount a tmpfs");
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

#[tokio::test]
async fn a_journal_on_a_full_disk_serves_what_it_has_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let settings = TestClock::new().settings(&disk.0);
    let journal = open(&settings);
    journal.append(taken(vec![event("a", 1, 1)])).await.unwrap();
    journal.commit("file", Position(1), vec![]).await.unwrap();
    journal.close().await;
    drop(journal);

    disk.fill();
    let journal = open(&settings);
    assert_eq!(all(&journal).await.len(), 1);
    let big = |from: u64| taken((from..from + 100).map(|n| event(&noisy(&format!("u{n}")), n, 1)).collect());
    let error = journal.append(big(10)).await.unwrap_err();
    is_helpful(&error, &disk);

    disk.free();
    assert_eq!(journal.append(big(10)).await.unwrap().new, 100);
    assert_eq!(all(&journal).await.len(), 101);
    assert_eq!(journal.cursor("file").await.unwrap(), Some(Position(1)));
    journal.commit("file", Position(9), vec![]).await.unwrap();
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
    assert_eq!(journal.head().borrow().0, kept as u64);
    // More room comes by itself.
    let grown = Process::new("mount").args(["-o", "remount,size=16m"]).arg(&disk.0).status();
    assert!(grown.is_ok_and(|status| status.success()));
    assert_eq!(journal.append(taken(refused)).await.unwrap().new, 100);
    let positions: Vec<_> = all(&journal).await.iter().map(|entry| entry.position.0).collect();
    assert_eq!(positions, (1..=kept as u64 + 100).collect::<Vec<_>>());
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
    let positions: Vec<_> = all(&journal).await.iter().map(|entry| entry.position.0).collect();
    assert_eq!(positions, (full() + 1..=kept).collect::<Vec<_>>());
    journal.commit("file", Position(kept), vec![]).await.unwrap();
}
