use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn whatever_is_noted_passed_and_written_it_is_a_set_of_what_lies_beyond_the_cursor(
        steps in prop::collection::vec((0..3_u8, 1..20_000_u64), 1..200),
    ) {
        let (mut had, mut truth) = (Had::default(), BTreeSet::new());
        let (mut kept, mut cursor) = (BTreeMap::new(), 0);
        for (step, number) in steps {
            match step {
                0 | 1 if number > cursor => {
                    had.insert(Position(number));
                    truth.insert(number);
                }
                2 => {
                    cursor = cursor.max(number / 2);
                    had.pass(Position(cursor));
                    truth.retain(|position| *position > cursor);
                }
                _ => {}
            }
            prop_assert_eq!(had.count(), truth.len() as u64);
            prop_assert_eq!(had.contains(Position(number)), truth.contains(&number));
            prop_assert_eq!(had.last(), truth.last().map(|last| Position(*last)));
            let within = truth.range(number / 3 + 1..=number).count() as u64;
            prop_assert_eq!(had.within(Position(number / 3), Position(number)), within);
            // As the journal keeps it: what changed, and nothing before the cursor's chunk.
            kept.extend(had.changed().into_iter().map(|Ahead { chunk, bits }| (chunk, bits)));
            had.written();
            kept.retain(|chunk, _| *chunk >= cursor / Ahead::POSITIONS);
            let all = kept.iter().map(|(chunk, bits)| Ahead { chunk: *chunk, bits: bits.clone() }).collect();
            let again = Had::load(all, Position(cursor));
            prop_assert_eq!(again.count(), truth.len() as u64);
            prop_assert!(truth.iter().all(|position| again.contains(Position(*position))));
        }
    }
}
