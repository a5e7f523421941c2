use std::cell::RefCell;

use bytes::Bytes;

use super::*;

const ROTATION: Rotation = Rotation { max_bytes: 100, max_age: None, max_backups: None };

thread_local! {
    /// Files that were synced, by their numbers; and how many of the next syncs fail.
    static SYNCED: RefCell<(Vec<u64>, usize)> = RefCell::default();
}

fn sync(file: &File) -> io::Result<()> {
    SYNCED.with_borrow_mut(|(synced, failing)| {
        if *failing > 0 {
            *failing -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        synced.push(file.metadata()?.ino());
        file.sync_data()
    })
}

fn writer(path: &Path) -> FileWriter {
    FileWriter { sync, ..FileWriter::new("f", path, ROTATION) }
}

fn lines(ids: std::ops::Range<u32>) -> Vec<Line> {
    let line = |id| Line { id: format!("{id}").into(), body: Bytes::from(format!(r#"{{"id":"{id}"}}"#)) };
    ids.map(line).collect()
}

#[test]
fn lines_that_are_found_in_a_file_are_synced_before_they_count_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.log");
    let (first, second) = (lines(10..20), lines(20..23));
    let text = |lines: &[Line]| {
        lines.iter().map(|line| format!("{}\n", String::from_utf8_lossy(&line.body))).collect::<String>()
    };
    // As a process that was killed between write and sync leaves them, behind a rotation.
    let rotated = backup_name(&path, Timestamp::now());
    fs::write(&rotated, text(&first)).unwrap();
    fs::write(&path, text(&second)).unwrap();
    writer(&path).write(&lines(12..23)).unwrap();
    let numbers = [&path, &rotated].map(|path| fs::metadata(path).unwrap().ino());
    let synced = SYNCED.take().0;
    assert!(numbers.iter().all(|number| synced.contains(number)), "{numbers:?} of {synced:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&second), "none is there twice");
}

#[test]
fn lines_whose_sync_failed_are_written_again_although_they_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.log");
    let mut writer = writer(&path);
    writer.write(&lines(10..12)).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    // As where it cannot be cut either.
    writer.open.as_mut().unwrap().file = File::open(&path).unwrap();
    let text = "{\"id\":\"12\"}\n";
    OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    writer.open.as_mut().unwrap().regular.as_mut().unwrap().unsynced = text.len() as u64;
    SYNCED.with_borrow_mut(|(_, failing)| *failing = 1);
    writer.put(&mut Vec::new()).unwrap_err();
    writer.give_up();
    assert!(fs::metadata(&path).unwrap().len() > length, "it is as it was");
    writer.open = Some(writer.open().unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), length);
    writer.write(&lines(12..13)).unwrap();
    let found = fs::read_to_string(&path).unwrap();
    assert_eq!(found.lines().count(), 3, "{found}");
}
