//! Full-jitter back-off: a random time between nothing and a bound that doubles with every failure.

use std::time::Duration;

/// The least the first bound is.
const FIRST: Duration = Duration::from_millis(200);

/// The most a bound is: after an aggregator's restart every agent is back within this.
const LAST: Duration = Duration::from_secs(10);

/// How often it has failed in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// How long to wait after one more failure, with a random number.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        let nanoseconds = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random % nanoseconds.saturating_add(1))
    }

    /// It cannot be expected to go well soon.
    pub fn longest(&mut self) {
        self.failures = u32::MAX;
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_from_200_ms_to_10_s_and_starts_again_after_a_success() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u64> = (0..8)
            .map(|_| {
                let bound = FIRST.saturating_mul(1 << backoff.failures.min(16)).min(LAST).as_nanos() as u64;
                backoff.next(bound).as_millis() as u64
            })
            .collect();
        assert_eq!(bounds, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.next(200_000_000), Duration::from_millis(200));
    }

    #[test]
    fn any_random_number_gives_a_time_within_the_bound() {
        for random in [0, 1, u64::MAX, u64::MAX / 3] {
            let mut backoff = Backoff { failures: u32::MAX };
            assert!(backoff.next(random) <= LAST);
        }
    }
}
