#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodetap_wire::shard::Share;
use nodetap_wire::{Batch, HeldWatch, Shard, WholeCluster};

use super::{DAMAGED_SUFFIX, Folder, Found, OpenError, SUFFIX};

fn batch(sequence: u64, length: usize) -> Batch {
    Batch { sequence, records: 1, raw_bytes: 9, payload: vec![sequence as u8; length].into() }
}

fn write(folder: &mut Folder, batches: &[Batch]) -> Vec<super::Place> {
    let batches: Vec<(&Batch, i64)> = batches.iter().map(|batch| (batch, 1)).collect();
    folder.write(&batches).unwrap()
}

/// Opens it again, as a process that starts after a kill does.
fn reopen(path: &Path) -> (Folder, Found) {
    loop {
        match Folder::open(path) {
            // A program that another test starts has this test's files, and its locks, until it has begun.
            Err(OpenError::Locked(_)) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn read(folder: &Folder, found: &Found) -> Vec<u64> {
    found.batches.iter().map(|batch| folder.read(batch.place).unwrap().sequence).collect()
}

fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == suffix));
    files.sort();
    files
}

#[test]
fn what_was_written_is_there_after_a_restart_in_the_order_of_its_sequences() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut folder, _) = reopen(temporary.path());
    write(&mut folder, &[batch(3, 10)]);
    write(&mut folder, &[batch(1, 10), batch(2, 10)]);
    drop(folder);
    let (mut folder, found) = reopen(temporary.path());
    assert_eq!(read(&folder, &found), [1, 2, 3]);
    // The next process counts from one again, and comes after.
    write(&mut folder, &[batch(1, 20)]);
    drop(folder);
    let (folder, found) = reopen(temporary.path());
    assert_eq!(read(&folder, &found), [1, 2, 3, 1]);
    assert_eq!(found.batches[3].place.length, 60);
}

#[test]
fn segments_end_by_size_and_go_when_the_last_of_their_batches_is_acknowledged() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut folder, _) = reopen(temporary.path());
    let places = write(&mut folder, &(1..=5).map(|number| batch(number, 2 << 20)).collect::<Vec<_>>());
    assert_eq!(files(temporary.path(), SUFFIX).len(), 3);
    assert_eq!(folder.bytes(), 5 * ((2 << 20) + 40));
    folder.release(&places[..1]).unwrap();
    assert_eq!(files(temporary.path(), SUFFIX).len(), 3);
    folder.release(&places[1..4]).unwrap();
    assert_eq!(files(temporary.path(), SUFFIX).len(), 1);
    // The one that is written to is emptied.
    folder.release(&places[4..]).unwrap();
    assert_eq!(folder.bytes(), 0);
    assert_eq!(fs::metadata(&files(temporary.path(), SUFFIX)[0]).unwrap().len(), 0);
    drop(folder);
    let (_, found) = reopen(temporary.path());
    assert!(found.batches.is_empty() && found.damaged == 0 && found.torn == 0);
    assert!(files(temporary.path(), SUFFIX).is_empty());
}

#[test]
fn a_torn_end_is_cut_off_and_counted_and_the_rest_is_there() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut folder, _) = reopen(temporary.path());
    write(&mut folder, &[batch(1, 100), batch(2, 100)]);
    drop(folder);
    let file = &files(temporary.path(), SUFFIX)[0];
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(200).unwrap();
    let (folder, found) = reopen(temporary.path());
    assert_eq!((read(&folder, &found), found.torn, found.damaged), (vec![1], 1, 0));
    assert_eq!(fs::metadata(file).unwrap().len(), 140);
}

#[test]
fn a_damaged_segment_is_set_aside_once_the_rest_of_it_is_acknowledged() {
    let temporary = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let (mut folder, _) = reopen(temporary.path());
        write(&mut folder, &[batch(1, 100), batch(2, 100), batch(3, 100)]);
        drop(folder);
        let file = &files(temporary.path(), SUFFIX)[0];
        let mut bytes = fs::read(file).unwrap();
        bytes[150] ^= 1;
        fs::write(file, bytes).unwrap();
        let (mut folder, found) = reopen(temporary.path());
        assert_eq!((read(&folder, &found), found.damaged), (vec![1, 3], 1));
        let places: Vec<_> = found.batches.iter().map(|batch| batch.place).collect();
        folder.release(&places).unwrap();
        assert!(files(temporary.path(), SUFFIX).is_empty());
    }
    assert_eq!(files(temporary.path(), DAMAGED_SUFFIX).len(), 2);
}

#[test]
fn bytes_that_change_while_the_process_runs_are_found_when_they_are_read() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut folder, _) = reopen(temporary.path());
    let places = write(&mut folder, &[batch(1, 100), batch(2, 100)]);
    let file = &files(temporary.path(), SUFFIX)[0];
    let whole = fs::read(file).unwrap();
    for at in 0..140 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(file, &bytes).unwrap();
        assert!(folder.read(places[0]).is_err(), "byte {at}");
        assert_eq!(folder.read(places[1]).unwrap(), batch(2, 100));
    }
    fs::write(file, &whole[..100]).unwrap();
    assert!(folder.read(places[0]).is_err());
    fs::remove_file(file).unwrap();
}

#[test]
fn a_folder_has_one_process() {
    let temporary = tempfile::tempdir().unwrap();
    let (_folder, _) = reopen(temporary.path());
    assert!(matches!(Folder::open(temporary.path()), Err(OpenError::Locked(_))));
}

#[test]
fn the_watches_are_kept_and_a_damaged_note_of_them_is_none() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, found) = reopen(temporary.path());
    assert!(found.watches.is_empty());
    let shard = Some(Shard { share: Some(Share::Cluster(WholeCluster {})) });
    let watches = vec![HeldWatch { shard, epoch: 4 }];
    folder.keep_watches(&watches).unwrap();
    drop(folder);
    assert_eq!(reopen(temporary.path()).1.watches, watches);
    let note = temporary.path().join(super::WATCHES);
    let whole = fs::read(&note).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&note, bytes).unwrap();
        assert!(reopen(temporary.path()).1.watches.is_empty(), "byte {at}");
    }
}

/// A filesystem of one megabyte.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let disk = Self(folder);
        if disk.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
            return Some(disk);
        }
        let what = "a disk that fails: this user may not mount a tmpfs";
        eprintln!("NOT RUN: {what}");
        // `ci/test` counts it.
        if let Some(list) = std::env::var_os("NODETAP_NOT_RUN") {
            let mut list = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
            std::io::Write::write_all(&mut list, format!("the outbox on {what}\n").as_bytes()).unwrap();
        }
        std::mem::forget(disk);
        None
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let output = Command::new(program).args(arguments).arg(self.0.path()).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

#[test]
fn a_full_disk_keeps_what_was_written_and_takes_more_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (mut folder, _) = reopen(disk.0.path());
    let first = write(&mut folder, &[batch(1, 600 << 10)]);
    let error = folder.write(&[(&batch(2, 100), 1), (&batch(3, 600 << 10), 1)]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(folder.read(first[0]).unwrap(), batch(1, 600 << 10));
    drop(folder);
    let (mut folder, found) = reopen(disk.0.path());
    assert_eq!((read(&folder, &found), found.damaged, found.torn), (vec![1], 0, 0));
    folder.release(&[found.batches[0].place]).unwrap();
    folder.probe().unwrap();
    write(&mut folder, &[batch(2, 100), batch(3, 600 << 10)]);
    drop(folder);
    let (folder, found) = reopen(disk.0.path());
    assert_eq!(read(&folder, &found), [2, 3]);
}

#[test]
fn a_disk_that_becomes_read_only_says_so_and_is_read() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (mut folder, _) = reopen(disk.0.path());
    let places = write(&mut folder, &[batch(1, 100)]);
    // The open segment is written to: the remount has to be forced on it.
    let file = folder
        .segments
        .values_mut()
        .next()
        .map(|segment| std::mem::replace(&mut segment.file, fs::File::open(&segment.path).unwrap()));
    drop(file);
    folder._lock = fs::File::open(disk.0.path()).unwrap();
    assert!(disk.run("mount", &["-o", "remount,ro"]));
    folder.active = None;
    let error = folder.write(&[(&batch(2, 100), 1)]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(folder.probe().unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(folder.read(places[0]).unwrap(), batch(1, 100));
    assert!(disk.run("mount", &["-o", "remount,rw"]));
    folder.probe().unwrap();
}
