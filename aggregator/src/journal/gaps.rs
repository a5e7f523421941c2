//! Positions that were never given: after a loss they go on above all that may have been, so that none stands for two records.
//!
//! Nothing is missing there, though nothing is there. How far records had been given is what the journal had noted of it itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Position;

/// Rows of them. Clones share what they know; one for each loss that was found at a start, and is not dropped yet.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Arc<RwLock<BTreeMap<u64, u64>>>);

// === impl Gaps ===

impl Gaps {
    /// None after one position and up to another was given.
    pub fn add(&self, after: Position, last: Position) {
        if last > after {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(after.0, last.0);
        }
    }

    /// How many of the positions after one and up to another are among them.
    pub fn within(&self, after: Position, last: Position) -> u64 {
        let gaps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let overlap = |(from, to): (&u64, &u64)| last.0.min(*to).saturating_sub(after.0.max(*from));
        gaps.range(..=last.0).map(overlap).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_given_is_counted_wherever_a_row_of_positions_begins_and_ends() {
        let gaps = Gaps::default();
        let within = |after, last| gaps.within(Position(after), Position(last));
        assert_eq!(within(0, u64::MAX), 0);
        gaps.add(Position(10), Position(20));
        gaps.add(Position(30), Position(30));
        gaps.add(Position(25), Position(40));
        assert_eq!([within(0, 10), within(0, 11), within(0, 22), within(12, 15)], [0, 1, 10, 3]);
        assert_eq!([within(15, 30), within(20, 25), within(0, 100), within(40, 100)], [10, 0, 25, 0]);
        // Seen again at another start, and longer.
        gaps.add(Position(25), Position(50));
        assert_eq!(within(20, 100), 25);
    }
}
