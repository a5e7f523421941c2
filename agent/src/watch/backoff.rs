//! How long to wait before asking again: exponential, with full jitter, for ever.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The most that the first wait can be.
pub const FIRST: Duration = Duration::from_millis(500);

/// The most that any wait can be, unless the server asks for longer.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Full jitter may draw nothing at all; this keeps a failing shard from spinning.
pub const SHORTEST: Duration = Duration::from_millis(50);

/// A server that asks for more than this is not believed.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The waits of one thing that fails.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

// === impl Backoff ===

impl Backoff {
    /// `seed` makes the draws; see [`seed`].
    pub fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    /// After progress the next wait is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure, and not less than what the server asked for.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let drawn = Duration::from_millis(self.draw(most.as_millis() as u64 + 1)).max(SHORTEST);
        // Those who were told the same time do not all come back in the same instant.
        let asked = asked.map(|asked| asked.min(LONGEST_ASKED) + Duration::from_millis(self.draw(500)));
        drawn.max(asked.unwrap_or_default())
    }

    /// A number below `bound`, which is not 0.
    pub fn draw(&mut self, bound: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.random;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)) % bound.max(1)
    }
}

/// A seed that differs between processes and calls, from what the standard library seeds its maps with.
pub fn seed() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests;
