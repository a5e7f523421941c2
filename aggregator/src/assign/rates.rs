//! How much happens in each share, over about the last minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nodetap_wire::{Shard, ShardProgress};

/// What agents say of the shares that they hold. Bounded by the shares there are.
#[derive(Debug)]
pub struct Rates {
    since: Instant,
    all: Rate,
    shards: BTreeMap<Shard, Took>,
    hot: BTreeSet<Shard>,
}

/// What one share took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    rate: Rate,
    /// How long after it happened the last event was taken.
    pub behind: Duration,
    /// When the last event was taken, in nanoseconds since 1970.
    pub last_ns: i64,
}

/// Events a second, each counting for less as it ages.
#[derive(Clone, Copy, Debug)]
struct Rate {
    value: f64,
    at: Instant,
}

/// After so long, an event counts for a third.
const FADES: Duration = Duration::from_secs(60);

/// Less than this is no work for anybody.
const HOT: f64 = 50.0;

/// A share that is hot stays so until it falls to this part of what made it hot.
const COOL: f64 = 0.5;

// === impl Rates ===

impl Rates {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, all: Rate { value: 0.0, at: now }, shards: BTreeMap::new(), hot: BTreeSet::new() }
    }

    /// What a share took since it was last said.
    pub fn took(&mut self, now: Instant, shard: &Shard, progress: &ShardProgress) {
        self.all.add(now, progress.events);
        let took = self.shards.entry(shard.clone()).or_insert(Took {
            rate: Rate { value: 0.0, at: now },
            behind: Duration::ZERO,
            last_ns: 0,
        });
        took.rate.add(now, progress.events);
        took.behind = Duration::from_millis(progress.behind_ms);
        took.last_ns = took.last_ns.max(progress.last_ns);
    }

    /// Events a second of all shares; `None`: not long enough since the start.
    pub fn all(&self, now: Instant) -> Option<f64> {
        (now >= self.since + FADES).then(|| self.all.get(now))
    }

    /// One share's.
    pub fn of(&self, shard: &Shard) -> Option<&Took> {
        self.shards.get(shard)
    }

    /// The shares that make more work than one of so many agents is to have. Forgets those that are no more.
    pub fn hot(&mut self, now: Instant, agents: usize, is_there: impl Fn(&Shard) -> bool) -> BTreeSet<Shard> {
        self.shards.retain(|shard, _| is_there(shard));
        let limit = (self.all.get(now) / agents.max(1) as f64).max(HOT);
        let is_hot = |shard: &Shard, took: &Took| {
            let limit = if self.hot.contains(shard) { limit * COOL } else { limit };
            took.rate.get(now) > limit
        };
        let hot = self.shards.iter().filter(|(shard, took)| is_hot(shard, took));
        self.hot = hot.map(|(shard, _)| shard.clone()).collect();
        self.hot.clone()
    }
}

// === impl Took ===

impl Took {
    /// Events a second.
    pub fn rate(&self, now: Instant) -> f64 {
        self.rate.get(now)
    }
}

// === impl Rate ===

impl Rate {
    fn add(&mut self, now: Instant, events: u64) {
        self.value = self.get(now) + events as f64 / FADES.as_secs_f64();
        self.at = now;
    }

    fn get(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.value * (-age / FADES.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(events: u64) -> ShardProgress {
        ShardProgress { events, ..ShardProgress::default() }
    }

    #[test]
    fn a_steady_rate_is_read_as_it_is_and_fades_when_nothing_comes() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let shard = Shard::namespace("a");
        for second in 0..60 {
            rates.took(start + Duration::from_secs(10 * second), &shard, &progress(1_000));
        }
        let now = start + Duration::from_secs(590);
        let rate = rates.all(now).unwrap_or_default();
        assert!((90.0..120.0).contains(&rate), "{rate}");
        assert!(rates.all(now + Duration::from_secs(600)).is_some_and(|rate| rate < 1.0));
        assert!(rates.all(start + Duration::from_secs(59)).is_none(), "too early to say");
    }

    #[test]
    fn a_share_is_hot_above_what_one_agent_is_to_have_and_stays_so_for_a_while() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let (busy, quiet) = (Shard::namespace("busy"), Shard::namespace("quiet"));
        rates.took(start, &busy, &progress(60 * 200));
        rates.took(start, &quiet, &progress(60 * 10));
        assert_eq!(rates.hot(start, 10, |_| true), BTreeSet::from([busy.clone()]));
        let later = start + Duration::from_secs(80);
        assert_eq!(rates.hot(later, 10, |_| true), BTreeSet::from([busy]), "53 a second, and no longer 200");
        assert!(rates.hot(start + Duration::from_secs(200), 10, |_| true).is_empty());
    }
}
