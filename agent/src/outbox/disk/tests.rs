#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;

use nodetap_wire::{Batch, Checkpoint, EventSeen, LedgerEntry, Record, Records, frame, record};

use super::{ErrorReason, reason, resequenced};

fn batch(checkpoints: Vec<Checkpoint>) -> Batch {
    let event = EventSeen { uid: "u".into(), ..EventSeen::default() };
    let records = vec![Record { kind: Some(record::Kind::Event(event)) }];
    frame::encode(7, &Records { records, checkpoints, ..Records::default() }).unwrap()
}

#[test]
fn a_checkpoint_of_an_earlier_process_is_not_sent_because_what_it_covers_may_never_have_been_written() {
    let checkpoint = Checkpoint { resource_version: "9".to_owned(), ..Checkpoint::default() };
    let written = batch(vec![checkpoint]);
    let sent = resequenced(written.clone(), 2, true).unwrap();
    assert_eq!(sent.sequence, 2);
    let records = frame::decode(&sent).unwrap();
    assert!(records.checkpoints.is_empty());
    assert_eq!(records.records, frame::decode(&written).unwrap().records);
    let same = resequenced(written.clone(), 7, false).unwrap();
    assert_eq!(same, written);
}

#[test]
fn what_the_ledger_of_an_earlier_process_knew_is_not_sent_because_the_next_one_tells_all_of_its_own() {
    let records = frame::decode(&batch(vec![])).unwrap();
    let ledger = vec![LedgerEntry { pod_uid: "p".to_owned(), ..LedgerEntry::default() }];
    let written = frame::encode(7, &Records { ledger, ledger_first: true, ..records.clone() }).unwrap();
    let sent = frame::decode(&resequenced(written, 2, true).unwrap()).unwrap();
    assert_eq!(sent, records);
}

#[test]
fn a_payload_that_cannot_be_unpacked_is_lost_and_no_panic() {
    let garbage = Batch { sequence: 1, records: 1, raw_bytes: 9, payload: vec![1, 2, 3].into() };
    assert_eq!(resequenced(garbage, 1, true), None);
}

#[test]
fn errors_are_counted_by_what_a_person_can_do_about_them() {
    // errno.h
    for (number, expected) in [
        (28, ErrorReason::no_space),
        (122, ErrorReason::no_space),
        (30, ErrorReason::read_only),
        (13, ErrorReason::denied),
        (5, ErrorReason::io),
    ] {
        assert_eq!(reason(&io::Error::from_raw_os_error(number)), expected, "{number}");
    }
}
