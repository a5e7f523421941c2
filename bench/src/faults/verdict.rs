//! What the journal has, compared with what the plain watch had.

use std::collections::HashMap;

use crate::figures::report::count;
use crate::journal::Kept;
use crate::oracle::State;

/// How a fault was gone through.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// States that the plain watch had.
    pub(super) events: usize,
    pub(super) lost: usize,
    pub(super) twice: usize,
    /// What is in the journal that the plain watch had not.
    pub(super) unknown: usize,
    /// The longest that a state was later in the journal than at the plain watch, in seconds.
    pub(super) gap: f64,
    /// From the end of the fault until the last late state, in seconds; 0: none was late after it.
    pub(super) recovered: f64,
}

/// A state that comes so much later than at the plain watch is late: ten batches and a commit.
const LATE_NS: i64 = 1_000_000_000;

// === impl Verdict ===

impl Verdict {
    /// `ended_ns`: when the fault was over.
    pub(super) fn of(truth: &HashMap<State, i64>, journal: &[Kept], ended_ns: i64) -> Self {
        let mut kept: HashMap<State, (usize, i64)> = HashMap::new();
        for state in journal {
            let entry = kept.entry((state.uid.clone(), state.version)).or_insert((0, state.taken_ns));
            entry.0 += 1;
        }
        let (mut gap, mut recovered) = (0, 0);
        for (state, seen) in truth {
            let Some((_, taken)) = kept.get(state) else { continue };
            let late = taken - seen;
            gap = gap.max(late);
            if late > LATE_NS {
                recovered = recovered.max(taken - ended_ns);
            }
        }
        Self {
            events: truth.len(),
            lost: truth.keys().filter(|state| !kept.contains_key(*state)).count(),
            twice: kept.values().map(|(times, _)| times - 1).sum(),
            unknown: kept.keys().filter(|state| !truth.contains_key(*state)).count(),
            gap: seconds(gap),
            recovered: seconds(recovered),
        }
    }

    /// Nothing is lost, and nothing there twice.
    pub(super) fn is_whole(&self) -> bool {
        self.events > 0 && self.lost == 0 && self.twice == 0 && self.unknown == 0
    }

    pub(super) fn describe(&self) -> String {
        let Self { events, lost, twice, unknown, gap, recovered } = self;
        format!(
            "{events} events, {lost} lost, {twice} twice, {unknown} unknown; gap {gap:.1} s, recovered {recovered:.1} s after its end"
        )
    }

    pub(super) fn row(&self) -> String {
        let Self { events, lost, twice, gap, recovered, .. } = self;
        format!("{events:>7} {lost:>5} {twice:>6} {gap:>8.1} {recovered:>12.1}")
    }
}

fn seconds(ns: i64) -> f64 {
    let milliseconds = usize::try_from(ns / 1_000_000).unwrap_or_default();
    count(milliseconds) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_late_or_there_twice_is_told() {
        let state = |uid: &str| (uid.to_owned(), 7);
        let second = 1_000_000_000;
        let truth = HashMap::from([(state("a"), 0), (state("b"), second), (state("c"), second)]);
        let kept = |uid: &str, taken_ns| Kept { uid: uid.to_owned(), version: 7, taken_ns };
        let verdict = Verdict::of(
            &truth,
            &[kept("a", 6 * second), kept("b", 2 * second), kept("b", 2 * second)],
            4 * second,
        );
        let expected = Verdict { events: 3, lost: 1, twice: 1, unknown: 0, gap: 6.0, recovered: 2.0 };
        assert_eq!(verdict, expected);
        assert!(!verdict.is_whole());
        assert_eq!(Verdict::of(&truth, &[kept("d", 0)], 0).unknown, 1);
    }
}
