//! What is known of each share's past: its last epoch, and how far it is durable.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nodetap_wire::{Shard, resource_version};

/// By share, of this partition and those before. Bounded: what no plan has for long is forgotten, here and in the journal.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Shard, Past>);

#[derive(Debug, Default)]
struct Past {
    epoch: u64,
    /// The first epoch whose checkpoints count.
    counts_from: u64,
    resource_version: String,
    /// Since when no share of the plan is it.
    unused_since: Option<Instant>,
}

// === impl Known ===

impl Known {
    /// A checkpoint of the journal's.
    pub(super) fn store(&mut self, shard: &Shard, epoch: u64, resource_version: &str) {
        let past = self.0.entry(shard.clone()).or_default();
        past.epoch = past.epoch.max(epoch);
        if epoch >= past.counts_from {
            resource_version.clone_into(&mut past.resource_version);
        }
    }

    /// An epoch that was given or is held.
    pub(super) fn raise(&mut self, shard: &Shard, epoch: u64) {
        match self.0.get_mut(shard) {
            Some(past) => past.epoch = past.epoch.max(epoch),
            None if epoch > 0 => {
                self.0.insert(shard.clone(), Past { epoch, ..Past::default() });
            }
            None => {}
        }
    }

    /// The highest epoch that was ever given; 0: none.
    pub(super) fn epoch(&self, shard: &Shard) -> u64 {
        self.0.get(shard).map_or(0, |past| past.epoch)
    }

    /// How far a share is durable by its own checkpoint.
    pub(super) fn resource_version(&self, shard: &Shard) -> &str {
        self.0.get(shard).map_or("", |past| &past.resource_version)
    }

    /// Forgets the shares that have not been used for so long, and answers which: by then nobody holds them from before, and the
    /// API server goes on from no version that old. That of the whole cluster stays, it is one.
    pub(super) fn forget_unused(
        &mut self,
        now: Instant,
        after: Duration,
        is_used: impl Fn(&Shard) -> bool,
    ) -> Vec<Shard> {
        let gone = self.0.extract_if(.., |shard, past| {
            if is_used(shard) || *shard == Shard::cluster() {
                past.unused_since = None;
                return false;
            }
            now >= *past.unused_since.get_or_insert(now) + after
        });
        gone.map(|(shard, _)| shard).collect()
    }

    /// What is durable is lost, up to the epochs given so far.
    pub(super) fn forget(&mut self) {
        for past in self.0.values_mut() {
            past.resource_version.clear();
            past.counts_from = past.epoch + 1;
        }
    }

    /// Where a share may go on: the latest point up to which all its events are durable. That may be its own checkpoint, that of
    /// the whole cluster, or the earliest of those of all ranges of uids; empty: nowhere, so that it has to be listed.
    ///
    /// The resourceVersions of all events are one sequence. Namespaces and nodes never cover the rest: there may be one that was
    /// made since, and that nobody had heard of.
    pub(super) fn covers(&self, shard: &Shard, ranges: u32) -> &str {
        if *shard == Shard::namespaces() {
            return "";
        }
        let points = [
            self.resource_version(shard),
            self.resource_version(&Shard::cluster()),
            self.of_all_ranges(ranges).unwrap_or(""),
        ];
        points.into_iter().filter(|point| !point.is_empty()).fold("", |best, point| {
            match resource_version::compare(point, best) {
                Some(Ordering::Greater) => point,
                // What cannot be compared: the share's own comes first.
                None if best.is_empty() => point,
                _ => best,
            }
        })
    }

    fn of_all_ranges(&self, ranges: u32) -> Option<&str> {
        let mut earliest: Option<&str> = None;
        for number in 0..ranges {
            let point = self.resource_version(&Shard::uid_range(number, ranges));
            // An empty or opaque one compares with nothing.
            let order = resource_version::compare(point, earliest.unwrap_or(point))?;
            if earliest.is_none() || order == Ordering::Less {
                earliest = Some(point);
            }
        }
        earliest
    }
}
