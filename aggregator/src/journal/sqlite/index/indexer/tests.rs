#![allow(clippy::unwrap_used)]

use std::path::Path;

use crossbeam_channel::bounded;

use super::*;
use crate::journal::sqlite::block::Stored;
use crate::journal::sqlite::folder::Piece;
use crate::journal::sqlite::index::stored::Segments;
use crate::journal::sqlite::memory::Memory;
use crate::journal::sqlite::{Synchronous, day};

const GENERATION: u64 = 1;

const BODY: &[u8] = br#"{"metadata":{"uid":"u","resourceVersion":"7"},"reason":"Pulled"}"#;

/// An indexer of one file with the records 1 to 5, of which it has the first, and the writer's ends.
fn indexer(folder: &Path) -> (Indexer, WriterEnds) {
    let piece = Piece::first_of("2026-07-01".to_owned());
    let path = folder::day_path(folder, &piece);
    let mut connection = day::open_to_write(&path, Synchronous::Normal, 1 << 20).unwrap();
    day::initialise(&mut connection, &Memory::default(), None, 1).unwrap();
    let mut packer = Packer::new().unwrap();
    (1..=5).for_each(|position| packer.push(&record(position)));
    log::insert(&connection, &packer.pack().unwrap()).unwrap();
    let files = Files::default();
    files.set(vec![DayFile { path, piece, first: 1, last: u64::MAX, generation: GENERATION }]);
    let directory = Directory::default();
    directory.add(GENERATION, 1, &Segments::default());
    let ((to_store, stores), (to_indexer, answers)) = (bounded(1), bounded(1));
    // Nobody moves the head, or is told of anything, or wakes it.
    let ((_, head), (writer, _), (wakes, _)) = (watch::channel(Position(5)), bounded(1), bounded(1));
    let (ends, metrics) = ((to_store, answers), JournalMetrics::default());
    let indexer = Indexer::new(files, directory, Recent::default(), head, ends, writer, metrics).unwrap();
    (indexer, WriterEnds { stores, answers: to_indexer, wakes })
}

fn record(position: u64) -> Stored<'static> {
    Stored { position, taken_ns: 1, occurrences: 1, is_death: false, body: BODY, facts: None }
}

/// Makes a position a full segment.
fn seal(indexer: &Indexer, position: u64) {
    let mut sealed = Builder::new(GENERATION, position);
    sealed.add(&record(position)).unwrap();
    indexer.directory.write(|state| state.sealed.push(Arc::new(sealed)));
}

fn sealed_and_stored(indexer: &Indexer) -> (usize, usize) {
    indexer.directory.read(|state| (state.sealed.len(), state.stored.len()))
}

fn failed() -> Result<(), JournalError> {
    Err(JournalError::Storage("full".to_owned()))
}

#[test]
fn while_a_segment_is_written_what_follows_is_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    writer.stores.try_recv().unwrap();
    let grown = |indexer: &Indexer| {
        indexer.directory.read(|state| state.growing.as_ref().map(|growing| (growing.first, growing.next())))
    };
    assert_eq!(grown(&indexer), None);
    assert!(indexer.step().unwrap());
    assert_eq!(grown(&indexer), Some((2, 6)), "without an answer of the writer");
    assert_eq!(sealed_and_stored(&indexer), (1, 0), "it is found in memory still");
    writer.answers.send(Ok(())).unwrap();
    assert!(!indexer.step().unwrap(), "there is nothing to do");
    assert_eq!(sealed_and_stored(&indexer), (0, 1));
}

#[test]
fn a_segment_that_could_not_be_written_is_given_again_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    let given = || writer.stores.try_recv().unwrap().meta.first;
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    assert_eq!(given(), 1);
    seal(&indexer, 2);
    writer.answers.send(failed()).unwrap();
    assert!(indexer.step().is_err());
    assert_eq!(sealed_and_stored(&indexer), (2, 0));
    assert!(indexer.step().unwrap());
    assert_eq!(given(), 1);
    writer.answers.send(Ok(())).unwrap();
    assert!(indexer.step().unwrap());
    assert_eq!((given(), sealed_and_stored(&indexer)), (2, (1, 1)));
}

#[test]
fn no_more_than_two_segments_wait_for_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    seal(&indexer, 2);
    let writer = std::thread::spawn(move || {
        writer.stores.recv().unwrap();
        writer.answers.send(Ok(())).unwrap();
        writer.stores.recv().unwrap()
    });
    assert!(indexer.step().unwrap());
    assert_eq!(indexer.directory.covered(GENERATION), Some(1), "nothing is indexed while two are full");
    assert_eq!(sealed_and_stored(&indexer), (1, 1), "the second is given when the first is written");
    assert_eq!(writer.join().unwrap().meta.first, 2);
}

#[test]
fn a_segment_found_damaged_before_it_is_known_to_be_written_is_made_anew_and_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    writer.stores.try_recv().unwrap();
    let span = Span { generation: GENERATION, first: 1, last: 1 };
    indexer.directory.damage(span);
    assert_eq!(indexer.directory.read(|state| state.unindexed()), [], "it is in memory");
    assert!(indexer.step().unwrap());
    writer.answers.send(Ok(())).unwrap();
    assert!(indexer.step().unwrap());
    assert!(indexer.directory.read(|state| state.sealed.iter().all(|sealed| sealed.is_anew)));
    assert!(indexer.step().unwrap());
    assert_eq!(writer.stores.try_recv().unwrap().meta.first, 1, "anew");
    writer.answers.send(Ok(())).unwrap();
    assert!(!indexer.step().unwrap(), "there is nothing to do");
    assert_eq!(sealed_and_stored(&indexer), (0, 1));
    assert_eq!(indexer.directory.read(|state| state.unindexed()), []);
}

#[test]
fn a_segment_whose_file_goes_while_it_is_written_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    seal(&indexer, 2);
    indexer.files.set(Vec::new());
    indexer.directory.keep(&[]);
    writer.answers.send(Ok(())).unwrap();
    assert!(!indexer.step().unwrap(), "there is nothing to do");
    assert_eq!(sealed_and_stored(&indexer), (0, 0));
}

#[test]
fn the_indexer_ends_with_the_writer_also_where_that_left_a_segment_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path());
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    seal(&indexer, 2);
    drop(writer);
    assert!(matches!(indexer.step(), Err(Stuck::Stopped)));
}
