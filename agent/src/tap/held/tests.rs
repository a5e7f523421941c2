#![allow(clippy::unwrap_used)]

use super::*;

fn seen(ordinal: u32) -> LogSeen {
    LogSeen { pod_uid: "8f0c".into(), container: "app".into(), ordinal }
}

#[test]
fn a_log_that_was_unlinked_after_its_end_still_gives_its_last_lines_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    std::fs::write(&path, "2026-11-22T00:00:00Z stdout F famous last words\n").unwrap();
    let held = Held::default();
    held.closed(seen(0), &path);
    std::fs::remove_file(&path).unwrap();
    assert!(held.last_lines(&seen(1)).is_none());
    assert_eq!(held.last_lines(&seen(0)).unwrap().last().unwrap().text, "famous last words");
    assert!(held.last_lines(&seen(0)).is_none());
}

#[test]
fn descriptors_are_bounded_and_let_go_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    std::fs::write(&path, "").unwrap();
    let held = Held::default();
    for ordinal in 0..300 {
        held.closed(seen(ordinal), &path);
    }
    assert_eq!(held.lock().len(), FILES);
    held.release(&seen(299));
    assert_eq!(held.lock().len(), FILES - 1);
}
