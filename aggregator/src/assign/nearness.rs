//! How near an agent is to its API server, in classes so coarse that noise moves no watch.

/// From near to far. Ordered by how gladly a watch is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nearness {
    /// It answers at once, as within a zone.
    Near,
    /// Neither; or not measured, which counts for nothing and against nothing.
    #[default]
    Between,
    /// A person would notice.
    Far,
}

/// Answers sooner than this are of one that is near, in milliseconds: with a new connection, that is four round trips.
const NEAR_BELOW: u32 = 25;

/// Answers later than this are of one that is far.
const FAR_ABOVE: u32 = 250;

/// Who was near or far stays so until its answers are so many times beyond the bound.
const HYSTERESIS: u32 = 2;

// === impl Nearness ===

impl Nearness {
    /// After another measurement, in milliseconds; 0: there was none.
    pub fn after(self, answer_ms: u32) -> Self {
        let (near_below, far_above) = match self {
            Self::Near => (NEAR_BELOW * HYSTERESIS, FAR_ABOVE),
            Self::Between => (NEAR_BELOW, FAR_ABOVE),
            Self::Far => (NEAR_BELOW, FAR_ABOVE / HYSTERESIS),
        };
        match answer_ms {
            0 => self,
            answer_ms if answer_ms < near_below => Self::Near,
            answer_ms if answer_ms > far_above => Self::Far,
            _ => Self::Between,
        }
    }

    /// How much such an agent is to hold, in proportion to the others.
    pub fn weight(self) -> u32 {
        match self {
            Self::Near => 4,
            Self::Between => 2,
            Self::Far => 1,
        }
    }

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Between => "",
            Self::Far => "far",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Nearness::{Between, Far, Near};

    #[test]
    fn who_answers_soon_is_near_and_who_answers_late_is_far_and_who_was_never_measured_is_neither() {
        assert_eq!(
            [0, 1, 24, 25, 250, 251].map(|ms| Between.after(ms)),
            [Between, Near, Near, Between, Between, Far]
        );
    }

    #[test]
    fn a_measurement_by_the_bound_changes_nothing_twice() {
        assert_eq!([24, 26, 49].map(|ms| Near.after(ms)), [Near; 3]);
        assert_eq!(Near.after(50), Between);
        assert_eq!([251, 249, 126].map(|ms| Far.after(ms)), [Far; 3]);
        assert_eq!(Far.after(125), Between);
        assert_eq!((Near.after(0), Far.after(0)), (Near, Far), "nothing was measured");
    }

    proptest! {
        #[test]
        fn measurements_that_stay_within_a_factor_of_two_change_the_class_at_most_once(
            first in 1_u32..2_000,
            noise in proptest::collection::vec(0_u32..1_000, 0..50),
        ) {
            let mut class = Between.after(first);
            let mut changes = 0;
            for noise in noise {
                let next = class.after(first + first * noise / 1_000);
                changes += u32::from(next != class);
                class = next;
            }
            prop_assert!(changes <= 1, "{changes}");
        }
    }
}
