//! How long to leave a sink alone after a failure: full jitter over a bound that doubles.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The bound after a first failure.
pub const FIRST: Duration = Duration::from_millis(500);
/// The bound that it never passes.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Starts over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// After one more failure: how long to wait, at least as long as the sink asked for (up to an hour), and by `jitter` of
    /// 0..1 a part of the bound, so that sinks that failed together do not come back together. Never less than a tenth
    /// of the bound: a dice that shows 0 would make a loop of it.
    pub fn next(&mut self, asked: Option<Duration>, jitter: f64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(7)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let wait = bound.mul_f64(jitter.clamp(0.1, 1.0));
        asked.map_or(wait, |asked| asked.min(Duration::from_secs(3600)).max(wait))
    }
}

/// A number of 0..1, a new one each time; good enough to spread load, and for nothing else.
pub fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
