#![allow(clippy::unwrap_used)]

use crossbeam_channel::bounded;
use nodetap_wire::event::Event;

use super::*;
use crate::journal::Body;
use crate::journal::sqlite::folder::Piece;
use crate::journal::sqlite::index::stored::Segments;
use crate::journal::sqlite::memory::Memory;
use crate::journal::sqlite::{Synchronous, day};

const GENERATION: u64 = 1;

/// An indexer of one file, which it has up to position 1, and the writer that its segments go to.
fn indexer(folder: &std::path::Path, head: Position) -> (Indexer, Handle) {
    let piece = Piece::first_of("2026-07-01".to_owned());
    let path = folder::day_path(folder, &piece);
    let mut connection = day::open_to_write(&path, Synchronous::Normal, 1 << 20).unwrap();
    day::initialise(&mut connection, &Memory::default(), None, 1).unwrap();
    let files = Files::default();
    files.set(vec![DayFile { path, piece, first: 1, last: u64::MAX, generation: GENERATION }]);
    let directory = Directory::default();
    directory.add(GENERATION, 1, &Segments::default());
    let ((to_store, stores), (to_indexer, stored)) = (bounded(1), bounded(1));
    // Nobody moves the head, or is told of anything.
    let (_, head) = watch::channel(head);
    let (writer, _) = bounded(1);
    let metrics = JournalMetrics::default();
    let indexer =
        Indexer::new(files, directory, Recent::default(), head, (to_store, stored), writer, metrics).unwrap();
    // It is not woken here, but made to take its steps.
    let (wakes, _) = bounded(1);
    (indexer, Handle { stores, stored: to_indexer, wakes })
}

fn seal(indexer: &Indexer, position: u64) {
    let json = r#"{"metadata":{"uid":"u","resourceVersion":"7"},"reason":"Pulled"}"#;
    assert!(Event::parse(json).is_ok());
    let entry = crate::journal::Entry {
        position: Position(position),
        taken_ns: 1,
        body: Body::Event(json.into()),
        outline: None,
        object: None,
        occurrences: 1,
    };
    let mut sealed = Builder::new(GENERATION, position);
    sealed.add_entry(&entry).unwrap();
    indexer.directory.write(|state| state.sealed.push(Arc::new(sealed)));
}

fn sealed_and_stored(indexer: &Indexer) -> (usize, usize) {
    indexer.directory.read(|state| (state.sealed.len(), state.stored.len()))
}

#[test]
fn while_a_segment_is_written_what_follows_is_indexed_and_one_that_could_not_be_is_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path(), Position(5));
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    writer.stores.try_recv().unwrap();
    assert_eq!(indexer.directory.covered(GENERATION), Some(1));
    assert!(indexer.step().unwrap());
    assert_eq!(indexer.directory.covered(GENERATION), Some(5), "without an answer of the writer");
    writer.stored.send(Err(JournalError::Storage("full".to_owned()))).unwrap();
    assert!(indexer.step().is_err());
    assert_eq!(sealed_and_stored(&indexer), (1, 0), "it is found in memory still");
    assert!(indexer.step().unwrap());
    writer.stores.try_recv().unwrap();
    writer.stored.send(Ok(())).unwrap();
    assert!(!indexer.step().unwrap(), "there is nothing to do");
    assert_eq!(sealed_and_stored(&indexer), (0, 1));
}

#[test]
fn no_more_than_two_segments_wait_for_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path(), Position(5));
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    seal(&indexer, 2);
    let writer = std::thread::spawn(move || {
        writer.stores.recv().unwrap();
        assert!(writer.stores.try_recv().is_err(), "the second is not given before the first is written");
        writer.stored.send(Ok(())).unwrap();
        writer.stores.recv().unwrap()
    });
    assert!(indexer.step().unwrap());
    assert_eq!(indexer.directory.covered(GENERATION), Some(1), "nothing is indexed while two are full");
    let second = writer.join().unwrap();
    assert_eq!(sealed_and_stored(&indexer), (1, 1));
    assert_eq!(second.meta.first, 2);
}

#[test]
fn the_indexer_ends_with_the_writer_also_where_that_left_a_segment_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut indexer, writer) = indexer(folder.path(), Position(5));
    seal(&indexer, 1);
    assert!(indexer.step().unwrap());
    seal(&indexer, 2);
    drop(writer);
    assert!(matches!(indexer.step(), Err(Stuck::Stopped)));
}
