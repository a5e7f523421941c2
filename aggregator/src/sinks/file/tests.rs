use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::rotate::{backup_name, backups};
use super::*;
use crate::sinks::encode::Encoder;
use crate::sinks::lines::{Line, WriteLines};
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::looping;

const ROTATION: Rotation = Rotation { max_bytes: 1 << 20, max_age: None, max_backups: None };

fn writer(path: &Path, rotation: Rotation) -> FileWriter {
    FileWriter::new("f", path, rotation)
}

fn line(id: u32) -> Line {
    Line {
        id: format!("event/c/u/{id}").into(),
        body: Bytes::from(format!(r#"{{"n":{id},"id":"event/c/u/{id}"}}"#)),
    }
}

fn lines(ids: std::ops::Range<u32>) -> Vec<Line> {
    ids.map(line).collect()
}

/// The numbers of the lines of a file, each of which must be whole.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap())
        .collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/events.log");
    (folder, path)
}

#[test]
fn lines_are_appended_to_what_is_there_and_folders_are_made() {
    let (_folder, path) = folder();
    writer(&path, ROTATION).write(&lines(0..3)).unwrap();
    let mut again = writer(&path, ROTATION);
    again.write(&lines(3..4)).unwrap();
    again.write(&lines(4..6)).unwrap();
    assert_eq!(numbers(&path), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_line_that_a_crash_tore_is_cut_off_and_written_whole() {
    let (_folder, path) = folder();
    writer(&path, ROTATION).write(&lines(0..3)).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"n":3,"id":"event/c/u/3"}"#).unwrap();
    writer(&path, ROTATION).write(&lines(3..5)).unwrap();
    assert_eq!(numbers(&path), [0, 1, 2, 3, 4]);
}

#[test]
fn a_file_that_is_nothing_but_a_torn_line_starts_over() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![b'x'; 200_000]).unwrap();
    writer(&path, ROTATION).write(&lines(0..1)).unwrap();
    assert_eq!(numbers(&path), [0]);
}

#[test]
fn what_was_written_before_a_crash_and_not_committed_is_not_written_again() {
    let (_folder, path) = folder();
    writer(&path, ROTATION).write(&lines(0..100)).unwrap();
    let mut again = writer(&path, ROTATION);
    again.write(&lines(60..80)).unwrap();
    again.write(&lines(80..120)).unwrap();
    assert_eq!(numbers(&path), (0..120).collect::<Vec<_>>());
}

#[test]
fn a_record_that_routes_send_twice_is_written_twice_also_over_a_crash() {
    let (_folder, path) = folder();
    writer(&path, ROTATION).write(&[line(1), line(1), line(2)]).unwrap();
    writer(&path, ROTATION).write(&[line(1), line(1), line(2), line(2)]).unwrap();
    assert_eq!(numbers(&path), [1, 1, 2, 2]);
}

#[test]
fn a_repeat_is_known_even_if_a_rotation_came_between() {
    let (_folder, path) = folder();
    let rotation = Rotation { max_bytes: 100, ..ROTATION };
    writer(&path, rotation).write(&lines(0..4)).unwrap();
    assert_eq!(backups(&path).unwrap().len(), 1);
    writer(&path, rotation).write(&lines(1..5)).unwrap();
    let mut all: Vec<u64> =
        backups(&path).unwrap().iter().rev().flat_map(|(_, path)| numbers(path)).collect();
    all.extend(numbers(&path));
    assert_eq!(all, [0, 1, 2, 3, 4]);
}

#[test]
fn without_an_id_in_its_lines_nothing_is_taken_for_a_repeat() {
    let (_folder, path) = folder();
    let bare = |id: u32| Line { body: Bytes::from_static(br#"{"n":1}"#), ..line(id) };
    writer(&path, ROTATION).write(&[bare(1), bare(2)]).unwrap();
    writer(&path, ROTATION).write(&[bare(3)]).unwrap();
    assert_eq!(numbers(&path), [1, 1, 1]);
}

#[test]
fn a_file_that_would_grow_too_large_is_set_aside_under_lumberjacks_name() {
    let (_folder, path) = folder();
    let rotation = Rotation { max_bytes: 200, max_backups: Some(2), ..ROTATION };
    let mut writer = writer(&path, rotation);
    for id in 0..40 {
        writer.write(&lines(id..id + 1)).unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= 200);
    }
    let backups = backups(&path).unwrap();
    assert_eq!(backups.len(), 2, "{backups:?}");
    let name = backups[0].1.file_name().unwrap().to_str().unwrap();
    let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "events-9999-99-99T99-99-99.999.log");
    let newest = numbers(&path);
    let before = numbers(&backups[0].1);
    assert_eq!(newest.first().copied(), before.last().map(|last| last + 1));
    assert_eq!(newest.last(), Some(&39));
}

#[test]
fn rotated_files_that_are_too_old_are_removed_and_others_are_left_alone() {
    let (_folder, path) = folder();
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    for name in [
        "events-2026-11-01T00-00-00.000.log",
        "events-2026-11-21T12-00-00.000.log",
        "events-notes.log",
        "other-2026-01-01T00-00-00.000.log",
    ] {
        fs::write(folder.join(name), "").unwrap();
    }
    let rotation = Rotation { max_age: Some(Duration::from_secs(86_400)), ..ROTATION };
    rotation.clean(&path, now).unwrap();
    let mut left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(
        left,
        ["events-2026-11-21T12-00-00.000.log", "events-notes.log", "other-2026-01-01T00-00-00.000.log"]
    );
    let name = backup_name(&path, "2026-11-21T12:00:00Z".parse().unwrap());
    assert_eq!(
        name.file_name().unwrap(),
        "events-2026-11-21T12-00-00.001.log",
        "no rotated file is overwritten"
    );
}

#[test]
fn a_path_that_is_no_regular_file_is_written_and_never_rotated() {
    let mut writer = writer(Path::new("/dev/null"), Rotation { max_bytes: 10, ..ROTATION });
    writer.write(&lines(0..10)).unwrap();
    writer.write(&lines(10..20)).unwrap();
    assert!(backups(Path::new("/dev/null")).unwrap().is_empty());
}

#[test]
fn a_full_disk_is_an_error_with_the_path_and_not_the_end() {
    let mut writer = writer(Path::new("/dev/full"), ROTATION);
    for _ in 0..2 {
        let error = writer.write(&lines(0..1)).unwrap_err();
        assert!(error.to_string().starts_with("/dev/full: No space left on device"), "{error}");
    }
}

#[test]
fn a_file_that_somebody_moved_away_is_made_anew() {
    let (_folder, path) = folder();
    let mut writer = writer(&path, ROTATION);
    writer.write(&lines(0..2)).unwrap();
    fs::rename(&path, path.with_extension("moved")).unwrap();
    writer.write(&lines(2..4)).unwrap();
    assert_eq!(numbers(&path), [2, 3]);
}

#[test]
fn a_folder_that_cannot_be_used_is_tried_again_with_the_next_batch() {
    let (folder, path) = folder();
    fs::write(folder.path().join("deep"), "a file where the folder should be").unwrap();
    let mut writer = writer(&path, ROTATION);
    assert!(writer.write(&lines(0..1)).is_err());
    fs::remove_file(folder.path().join("deep")).unwrap();
    writer.write(&lines(0..1)).unwrap();
    assert_eq!(numbers(&path), [0]);
}

#[tokio::test]
async fn killed_before_its_cursor_was_committed_the_file_still_has_every_record_once() {
    let (_folder, path) = folder();
    let journal = Memory::new();
    for _ in 0..300 {
        journal.event("a", "x");
    }
    journal.set_cursor("f", 0);
    for commits_that_fail in [1000, 0] {
        journal.fail_commits(commits_that_fail);
        let sink = LineSink::new("f", LIMITS, writer(&path, ROTATION)).unwrap();
        let (delivering, metrics) = looping("f", &journal, Encoder::default(), sink);
        let task = tokio::spawn(delivering.run(CancellationToken::new()));
        while metrics.delivered.get() < 300 {
            tokio::task::yield_now().await;
        }
        if commits_that_fail == 0 {
            journal.reached("f", 300).await;
        }
        task.abort();
    }
    let text = fs::read_to_string(&path).unwrap();
    let mut ids: Vec<String> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 300);
    ids.dedup();
    assert_eq!(ids.len(), 300);
}
