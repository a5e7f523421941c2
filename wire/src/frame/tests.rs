#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::event::Event;
use crate::{
    Change, Checkpoint, ContainerDied, EventSeen, Owner, PodFacts, Record, Shard, record, shard::Share,
};

fn record_of(kind: record::Kind) -> Record {
    Record { kind: Some(kind) }
}

fn any_record() -> impl Strategy<Value = Record> {
    let text = || "\\PC{0,12}";
    let map = || prop::collection::btree_map("[a-z]{1,5}", "\\PC{0,5}", 0..4);
    prop_oneof![
        (text(), text(), any::<(u64, i64)>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(uid, namespace, (count, time_ns), raw)| {
                record_of(record::Kind::Event(EventSeen {
                    uid: uid.into(),
                    namespace: namespace.into(),
                    count,
                    time_ns,
                    raw: raw.into(),
                    ..EventSeen::default()
                }))
            }
        ),
        (text(), text(), any::<(u32, Option<i32>)>(), map()).prop_map(
            |(pod_uid, container, (ordinal, exit_code), labels)| {
                record_of(record::Kind::Death(Box::new(ContainerDied {
                    pod_uid,
                    container,
                    ordinal,
                    exit_code,
                    labels,
                    owners: vec![Owner::default()],
                    ..ContainerDied::default()
                })))
            }
        ),
        (text(), map()).prop_map(|(uid, labels)| {
            record_of(record::Kind::Pod(PodFacts { uid, labels, ..PodFacts::default() }))
        }),
    ]
}

fn any_records() -> impl Strategy<Value = Records> {
    let checkpoint =
        ("[a-z]{0,5}", any::<u64>(), "[0-9]{0,9}").prop_map(|(namespace, epoch, resource_version)| {
            let shard = Some(Shard { share: Some(Share::Namespace(namespace)) });
            Checkpoint { shard, epoch, resource_version }
        });
    (prop::collection::vec(any_record(), 0..20), prop::collection::vec(checkpoint, 0..4))
        .prop_map(|(records, checkpoints)| Records { records, checkpoints, ..Records::default() })
}

/// A batch of any bytes, with a frame that tells the truth of them.
fn packed(raw: &[u8], records: u32) -> Batch {
    let payload = zstd::bulk::compress(raw, 1).unwrap().into();
    Batch { sequence: 1, records, raw_bytes: raw.len() as u32, payload }
}

/// A field of protobuf: a key, a length, the bytes.
fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::bytes::encode(tag, &bytes.to_vec(), &mut field);
    field
}

/// A run of these records.
fn run_of(records: &[Record]) -> Run {
    let mut run = Run::default();
    for record in records {
        run.put(record).unwrap();
    }
    run
}

#[test]
fn an_event_is_put_as_the_record_of_what_is_seen_of_it() {
    let rest = r#""involvedObject":{"kind":"Pod","namespace":"n","name":"web","uid":"p"},"type":"Normal","count":3,
        "reason":"Said \"no\"","message":"größer","source":{"host":"n1"},"lastTimestamp":"2026-07-01T12:05:00Z""#;
    for metadata in [
        r#""uid":"u","resourceVersion":"7","namespace":"n""#.to_owned(),
        r#""managedFields":[{"a":[]}],"uid":"u","resourceVersion":"7""#.to_owned(),
        r#""uid":"u","managedFields":[{"a":[]}],"resourceVersion":"7","namespace":"\u00fc""#.to_owned(),
        r#""uid":"u" , "resourceVersion":"7", "managedFields" : {}"#.to_owned(),
        r#""uid":"u","managed\u0046ields":[1],"resourceVersion":"7""#.to_owned(),
        format!(
            r#""uid":"{}","resourceVersion":"7","labels":{{"x":"{}"}}"#,
            "u".repeat(127),
            "x".repeat(20_000)
        ),
        format!(r#""uid":"{}","resourceVersion":"7""#, "u".repeat(128)),
    ] {
        for json in
            [format!("{{\"metadata\":{{{metadata}}},{rest}}}"), format!("{{\"metadata\":{{{metadata}}}}}")]
        {
            let seen = EventSeen::from_json(&json, Change::Modified).unwrap();
            let event = Event::parse(&json).unwrap();
            let mut run = Run::default();
            run.put_event(&Sighting::of(&event, &json, Change::Modified)).unwrap();
            let record = record_of(record::Kind::Event(seen));
            assert_eq!(run.records().unwrap(), std::slice::from_ref(&record));
            assert!(run == run_of(&[record]), "{json}");
        }
    }
}

#[test]
fn what_is_too_long_is_not_put_and_the_records_before_it_stay() {
    let longest = "x".repeat(MAX_EVENT_BYTES - 100);
    let json =
        |reason: &str| format!(r#"{{"metadata":{{"uid":"u","resourceVersion":"7"}},"reason":"{reason}"}}"#);
    let mut run = Run::default();
    let mut put =
        |json: &str| run.put_event(&Sighting::of(&Event::parse(json).unwrap(), json, Change::Added));
    put(&json("short")).unwrap();
    // What is read of it stands beside it.
    assert!(matches!(put(&json(&longest)), Err(RecordTooLong(length)) if length > MAX_RECORD_BYTES));
    let facts = PodFacts { name: "x".repeat(MAX_SMALL_RECORD_BYTES), ..PodFacts::default() };
    assert!(run.put(&record_of(record::Kind::Pod(facts))).is_err());
    let batch = Encoder::default().encode(1, &mut run, &Records::default()).unwrap();
    assert_eq!(decode(&batch).unwrap().records.len(), 1);
}

#[test]
fn a_run_is_empty_once_it_was_packed_whatever_came_of_it() {
    let mut encoder = Encoder::default();
    let mut run = run_of(&[record_of(record::Kind::Pod(PodFacts::default()))]);
    let event = EventSeen { raw: vec![0; MAX_EVENT_BYTES].into(), ..EventSeen::default() };
    let beside = Records { records: vec![record_of(record::Kind::Event(event)); 4], ..Records::default() };
    assert!(matches!(encoder.encode(1, &mut run, &beside), Err(FrameError::TooLong(_))));
    assert_eq!((run.len(), run.bytes()), (0, 0));
    let batch = encoder.encode(1, &mut run, &Records::default()).unwrap();
    assert_eq!((batch.records, batch.raw_bytes), (0, 0));
}

#[test]
fn a_payload_that_unpacks_to_more_than_it_says_is_refused() {
    let bomb: Bytes = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap().into();
    assert!(bomb.len() < 64 << 10);
    for raw_bytes in [0, 1, 1 << 20, MAX_RAW_BYTES as u32] {
        let batch = Batch { sequence: 1, records: 1, raw_bytes, payload: bomb.clone() };
        assert!(matches!(decode(&batch), Err(FrameError::Compression(_))), "{raw_bytes}");
    }
    let batch = Batch { sequence: 1, records: 1, raw_bytes: u32::MAX, payload: bomb };
    assert!(matches!(decode(&batch), Err(FrameError::TooLong(_))));
}

#[test]
fn a_frame_that_lies_is_refused() {
    let records =
        Records { records: vec![record_of(record::Kind::Pod(PodFacts::default())); 3], ..Records::default() };
    let batch = encode(1, &records).unwrap();
    for records in [0, 2, 4] {
        let lie = Batch { records, ..batch.clone() };
        assert!(matches!(decode(&lie), Err(FrameError::Contradicts { what: "records", .. })), "{records}");
    }
    let lie = Batch { raw_bytes: batch.raw_bytes + 1, ..batch.clone() };
    assert!(matches!(decode(&lie), Err(FrameError::Contradicts { what: "bytes", .. })));
    let lie = Batch { records: MAX_RECORDS as u32 + 1, ..batch };
    assert!(matches!(decode(&lie), Err(FrameError::TooManyRecords(_))));
}

#[test]
fn many_tiny_records_are_refused_before_they_are_unpacked() {
    // Two bytes each: four million of them are a batch of eight megabytes.
    let raw = [0x0a, 0x00].repeat(MAX_RAW_BYTES / 2);
    for records in [0, 1, MAX_RECORDS as u32] {
        assert!(matches!(decode(&packed(&raw, records)), Err(FrameError::TooManyRecords(_))), "{records}");
    }
    // As checkpoints, and as a field that nobody knows.
    for key in [0x12, 0x1a] {
        let raw = [key, 0x00].repeat(MAX_RAW_BYTES / 2);
        assert!(matches!(decode(&packed(&raw, 0)), Err(FrameError::TooManyRecords(_))), "{key:#x}");
    }
}

#[test]
fn the_longest_event_fits_and_a_longer_one_does_not() {
    let of = |bytes: usize| {
        let event = EventSeen { raw: vec![b' '; bytes].into(), ..EventSeen::default() };
        Records { records: vec![record_of(record::Kind::Event(event))], ..Records::default() }
    };
    let longest = of(MAX_EVENT_BYTES);
    assert_eq!(decode(&encode(1, &longest).unwrap()).unwrap(), longest);
    let longer = encode(1, &of(MAX_RECORD_BYTES)).unwrap();
    assert!(matches!(decode(&longer), Err(FrameError::RecordTooLong(_))));
}

#[test]
fn a_large_record_that_is_not_an_event_is_refused_however_it_is_dressed() {
    let death = field(2, &field(8, &vec![b'x'; MAX_SMALL_RECORD_BYTES]));
    let plain = field(1, &death);
    assert!(matches!(decode(&packed(&plain, 1)), Err(FrameError::RecordTooLong(_))));
    // Behind an empty event, the last of a oneof counts.
    let dressed = field(1, &[field(1, &[]), death].concat());
    assert!(matches!(decode(&packed(&dressed, 1)), Err(FrameError::RecordTooLong(_))));
}

#[test]
fn a_large_record_is_refused_when_a_small_field_stands_behind_it() {
    let death = field(2, &field(8, &vec![b'x'; MAX_SMALL_RECORD_BYTES]));
    let followed = field(1, &[death, field(2, &[])].concat());
    assert!(matches!(decode(&packed(&followed, 1)), Err(FrameError::RecordTooLong(_))));
}

#[test]
fn more_than_fits_is_not_packed() {
    let records = vec![Record::default(); MAX_RECORDS + 1];
    assert!(matches!(
        encode(1, &Records { records, ..Records::default() }),
        Err(FrameError::TooManyRecords(_))
    ));
    let event = EventSeen { raw: vec![0; MAX_EVENT_BYTES].into(), ..EventSeen::default() };
    let records = vec![record_of(record::Kind::Event(event)); 5];
    assert!(matches!(encode(1, &Records { records, ..Records::default() }), Err(FrameError::TooLong(_))));
}

#[test]
fn fields_of_a_newer_agent_are_ignored() {
    let known =
        Records { records: vec![record_of(record::Kind::Pod(PodFacts::default()))], ..Records::default() };
    let raw = [known.encode_to_vec(), field(99, b"news"), vec![0x90, 0x06, 0x05]].concat();
    assert_eq!(decode(&packed(&raw, 1)).unwrap(), known);
}

proptest! {
    #[test]
    fn a_batch_is_what_prost_makes_of_its_records_in_however_many_runs_they_come(
        records in any_records(),
        steps in prop::collection::vec((1..6_usize, 0..600_usize), 40),
    ) {
        let run = run_of(&records.records);
        prop_assert_eq!(run.records().unwrap(), &*records.records);
        let mut again = Run::default();
        for (most, bytes) in steps {
            let (before, length) = (again.len(), again.bytes());
            let some = again.put_some(&run, before, most, bytes);
            prop_assert_eq!(again.len(), before + some);
            prop_assert!(some > 0 || before == run.len());
            prop_assert!(some <= most);
            let last = again.start(again.len() - usize::from(some > 0)) - length;
            prop_assert!(some <= 1 || last < bytes, "without the last one it is not full");
            prop_assert!(some == most || again.len() == run.len() || again.bytes() - length >= bytes);
        }
        again.put_some(&run, again.len(), MAX_RECORDS, usize::MAX);
        prop_assert!(again == run);
        let beside = Records { records: Vec::new(), ..records.clone() };
        let batch = Encoder::default().encode(1, &mut again, &beside).unwrap();
        prop_assert_eq!(batch.records as usize, records.records.len());
        let raw = zstd::bulk::decompress(&batch.payload, batch.raw_bytes as usize).unwrap();
        prop_assert_eq!(raw, records.encode_to_vec());
    }

    #[test]
    fn what_was_packed_is_unpacked(records in any_records(), sequence in any::<u64>()) {
        let batch = encode(sequence, &records).unwrap();
        prop_assert_eq!((batch.sequence, batch.records as usize), (sequence, records.records.len()));
        prop_assert_eq!(decode(&batch).unwrap(), records);
    }

    #[test]
    fn any_payload_is_an_answer_not_a_panic(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        records in any::<u32>(),
        raw_bytes in 0..100_000_u32,
    ) {
        let _ = decode(&Batch { sequence: 1, records, raw_bytes, payload: payload.into() });
    }

    #[test]
    fn any_protobuf_is_an_answer_not_a_panic(raw in prop::collection::vec(any::<u8>(), 0..300), records in 0..4_u32) {
        if let Ok(records) = decode(&packed(&raw, records)) {
            prop_assert!(records.records.len() <= MAX_RECORDS);
        }
    }

    #[test]
    fn a_flipped_bit_is_an_answer_not_a_panic(
        records in any_records(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        is_inside in any::<bool>(),
    ) {
        let batch = encode(1, &records).unwrap();
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            bytes
        };
        let _ = match is_inside {
            true => decode(&packed(&flipped(&records.encode_to_vec()), batch.records)),
            false => decode(&Batch { payload: flipped(&batch.payload).into(), ..batch }),
        };
    }
}
