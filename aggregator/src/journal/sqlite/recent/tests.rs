use bytes::Bytes;

use super::*;

fn batch(positions: std::ops::RangeInclusive<u64>) -> Arc<Batch> {
    let entry = |position| Entry {
        position: Position(position),
        taken_ns: 0,
        body: Body::Event(Bytes::new()),
        outline: None,
        object: None,
        occurrences: 1,
    };
    Arc::new(positions.map(|position| (0, entry(position))).collect())
}

#[test]
fn batches_are_had_where_all_of_what_is_asked_for_is_here() {
    let recent = Recent::default();
    let firsts = |first, last| {
        let batches = recent.batches(first, last)?;
        Some(batches.iter().filter_map(|batch| Some(batch.first()?.1.position.0)).collect::<Vec<_>>())
    };
    assert_eq!(firsts(1, 1), None);
    recent.push(batch(4..=6), 10);
    recent.push(batch(7..=7), 10);
    recent.push(batch(8..=9), 10);
    assert_eq!(firsts(4, 9), Some(vec![4, 7, 8]));
    assert_eq!(firsts(5, 6), Some(vec![4]));
    assert_eq!(firsts(6, 7), Some(vec![4, 7]));
    assert_eq!(firsts(3, 5), None, "it is gone");
    assert_eq!(firsts(8, 10), None, "it has not come");
    recent.push(batch(20..=20), 10);
    assert_eq!(firsts(9, 20), None, "there is a gap");
}
