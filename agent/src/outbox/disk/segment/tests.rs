#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use nodetap_wire::Batch;
use proptest::prelude::*;

use super::{HEADER, header, read, scan};

const SALT: u64 = 7;

fn batch(number: u64) -> Batch {
    let payload: Vec<u8> = (0..20 + number * 3).map(|at| (at * 7 + number) as u8).collect();
    Batch { sequence: number, records: 2, raw_bytes: 99, payload: payload.into() }
}

/// A segment of so many batches, and where each begins.
fn segment(batches: u64) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut starts = Vec::new();
    for number in 1..=batches {
        let batch = batch(number);
        starts.push(bytes.len());
        bytes.extend(header(SALT, &batch, 5).unwrap());
        bytes.extend(&batch.payload);
    }
    starts.push(bytes.len());
    (bytes, starts)
}

fn sequences(bytes: &[u8]) -> Vec<u64> {
    let scanned = scan(SALT, bytes);
    for (range, _) in &scanned.entries {
        let (found, read) = read(SALT, Bytes::copy_from_slice(&bytes[range.clone()])).unwrap();
        assert_eq!(read, batch(found.sequence));
    }
    scanned.entries.iter().map(|(_, header)| header.sequence).collect()
}

#[test]
fn what_was_written_is_read() {
    let (bytes, starts) = segment(5);
    let scanned = scan(SALT, &bytes);
    assert_eq!(sequences(&bytes), [1, 2, 3, 4, 5]);
    assert!(scanned.damaged.is_empty() && scanned.torn.is_none());
    assert_eq!(scanned.entries[3].0, starts[3]..starts[4]);
    assert_eq!(scanned.entries[0].1.closed_ns, 5);
}

#[test]
fn a_flipped_bit_at_any_place_costs_its_own_batch_and_no_other() {
    let (bytes, starts) = segment(4);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let hit = starts.iter().rposition(|start| *start <= at).unwrap() as u64 + 1;
            let expected: Vec<u64> = (1..=4).filter(|number| *number != hit).collect();
            assert_eq!(sequences(&bytes), expected, "byte {at} bit {bit}");
            let scanned = scan(SALT, &bytes);
            assert_eq!(scanned.damaged.len() + usize::from(scanned.torn.is_some()), 1);
        }
    }
}

#[test]
fn a_segment_that_is_cut_at_any_place_keeps_what_is_whole_before_it() {
    let (bytes, starts) = segment(4);
    for end in 0..bytes.len() {
        let whole = starts[1..].iter().filter(|start| **start <= end).count() as u64;
        assert_eq!(sequences(&bytes[..end]), (1..=whole).collect::<Vec<_>>(), "cut at {end}");
        let scanned = scan(SALT, &bytes[..end]);
        assert!(scanned.damaged.is_empty());
        let torn = (!starts.contains(&end)).then(|| starts[whole as usize]..end);
        assert_eq!(scanned.torn, torn);
    }
}

#[test]
fn a_segment_that_ends_in_zeros_from_any_place_on_keeps_what_is_whole_before_them() {
    let (bytes, starts) = segment(3);
    for from in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[from..].fill(0);
        let whole = starts[1..].iter().filter(|start| **start <= from).count() as u64;
        let found = sequences(&bytes);
        // A last byte that was zero before is no damage.
        assert!(
            found.iter().copied().eq(1..=whole) || found.iter().copied().eq(1..=whole + 1),
            "{from}: {found:?}"
        );
    }
}

#[test]
fn a_payload_that_looks_like_an_entry_is_none() {
    let inner = batch(9);
    let mut forged = header(SALT + 1, &inner, 5).unwrap().to_vec();
    forged.extend(&inner.payload);
    let outer = Batch { sequence: 1, records: 1, raw_bytes: 9, payload: forged.into() };
    let mut bytes = header(SALT, &outer, 5).unwrap().to_vec();
    bytes.extend(&outer.payload);
    bytes[0] ^= 1;
    assert!(scan(SALT, &bytes).entries.is_empty());
    assert_eq!(scan(SALT, &bytes).damaged.first(), Some(&(0..bytes.len())));
}

proptest! {
    #[test]
    fn any_bytes_are_scanned_to_their_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let scanned = scan(SALT, &bytes);
        prop_assert!(scanned.entries.is_empty());
        let covered: usize = scanned.damaged.iter().chain(&scanned.torn).map(|range| range.len()).sum();
        prop_assert_eq!(covered, bytes.len());
    }

    #[test]
    fn damage_anywhere_costs_only_the_batches_that_it_touches(
        from in 0_usize..250, length in 1_usize..120, with in proptest::option::of(any::<u8>()),
    ) {
        let (whole, starts) = segment(5);
        let mut bytes = whole.clone();
        let range = from.min(bytes.len())..(from + length).min(bytes.len());
        bytes[range].iter_mut().for_each(|byte| *byte = with.unwrap_or(!*byte));
        let untouched = (1..=5_u64).filter(|number| {
            let range = starts[*number as usize - 1]..starts[*number as usize];
            bytes[range.clone()] == whole[range]
        });
        prop_assert_eq!(sequences(&bytes), untouched.collect::<Vec<_>>());
        prop_assert!(HEADER == 40);
    }
}
