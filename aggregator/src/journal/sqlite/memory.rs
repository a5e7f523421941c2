//! What the writer remembers of the files' state, so that it need not ask the disk.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::{HashMap, HashSet};
use nodetap_wire::{Checkpoint, Shard, resource_version};

use super::hash;
use super::index::MOST_UNINDEXED;
use super::ledgers::{Base, Bases};

/// Half of the Events whose last count is remembered: more than there can be among the records that are not indexed yet,
/// because those are remembered nowhere else. About 5 MB when both halves are full.
const HALF: usize = MOST_UNINDEXED as usize + 32_768;

/// State as of the last commit.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Highest decimal resourceVersion by event namespace. Those that were not raised for long go with each new file.
    pub(super) watermarks: HashMap<String, String>,
    /// When each was raised last, in nanoseconds since 1970.
    pub(super) raised: HashMap<String, i64>,
    pub(super) checkpoints: BTreeMap<String, Checkpoint>,
    pub(super) ledgers: Bases,
    pub(super) counts: Counts,
    /// Of the Events that are not indexed yet.
    pub(super) unindexed: Unindexed,
    /// The last position given out.
    pub(super) head: u64,
    /// When the last record was taken that retention has dropped, in nanoseconds since 1970.
    pub(super) dropped_ns: Option<i64>,
}

/// What a group of batches adds, until it is committed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) watermarks: HashMap<String, String>,
    pub(super) checkpoints: BTreeMap<String, Checkpoint>,
    /// Shards whose checkpoints go, unless another is noted since.
    pub(super) gone: BTreeSet<String>,
    /// By node; `None`: nothing is remembered any longer.
    pub(super) ledgers: HashMap<String, Option<Base>>,
    /// By the hash of the Event's uid.
    pub(super) counts: HashMap<u64, u64>,
    pub(super) versions: HashSet<Version>,
    /// The same with their positions.
    pub(super) positions: Vec<(Version, u64)>,
    pub(super) head: u64,
    /// When it was taken, in nanoseconds since 1970.
    pub(super) now_ns: i64,
}

/// One state of one Event: its resourceVersion as a number, and a hash of its uid.
pub(super) type Version = (u64, u64);

/// The states of Events that no segment of the index has yet, by position. Bounded by how far the index may be behind.
#[derive(Debug, Default)]
pub(super) struct Unindexed(HashMap<Version, u64>);

/// The last count of the Events seen lately, by the hash of their uid. Of those with 1, this alone tells that they were seen.
/// Bounded: the least recently counted half goes when one is full.
#[derive(Debug, Default)]
pub(super) struct Counts {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
    /// The highest resourceVersion that was noted so far, when the old half was closed, and of what is forgotten.
    highest: u64,
    highest_old: u64,
    highest_forgotten: u64,
}

// === impl Memory ===

impl Memory {
    /// Takes over what has become durable.
    pub(super) fn apply(&mut self, staged: Staged) {
        self.raised.extend(staged.watermarks.keys().map(|namespace| (namespace.clone(), staged.now_ns)));
        self.watermarks.extend(staged.watermarks);
        for shard in &staged.gone {
            self.checkpoints.remove(shard);
        }
        self.checkpoints.extend(staged.checkpoints);
        for (node, base) in staged.ledgers {
            self.ledgers.set(node, base);
        }
        self.counts.reach(staged.positions.iter().map(|((number, _), _)| *number).max().unwrap_or(0));
        for (uid, count) in staged.counts {
            self.counts.set(uid, count);
        }
        for (version, position) in staged.positions {
            self.unindexed.insert(version, position);
        }
        self.head = staged.head;
    }

    /// Forgets the watermarks that were not raised since a time.
    pub(super) fn forget_watermarks(&mut self, before_ns: i64) {
        let Self { watermarks, raised, .. } = self;
        raised.retain(|_, raised_ns| *raised_ns >= before_ns);
        watermarks.retain(|namespace, _| raised.contains_key(namespace));
    }
}

// === impl Staged ===

impl Staged {
    /// Nothing yet, behind a position, with room for so many records.
    pub(super) fn behind(head: u64, now_ns: i64, records: usize) -> Self {
        let (mut counts, mut versions) = (HashMap::default(), HashSet::default());
        counts.reserve(records);
        versions.reserve(records);
        Self { counts, versions, positions: Vec::with_capacity(records), head, now_ns, ..Self::default() }
    }

    /// Raises a namespace's watermark, if the version compares and is above it.
    pub(super) fn raise(&mut self, memory: &Memory, namespace: &str, version: &str) {
        let before = self.watermarks.get(namespace).or_else(|| memory.watermarks.get(namespace));
        let is_higher = match before {
            Some(before) => resource_version::is_later(version, before),
            None => resource_version::compare(version, version).is_some(),
        };
        if !is_higher {
            return;
        }
        match self.watermarks.get_mut(namespace) {
            Some(watermark) => {
                watermark.clear();
                watermark.push_str(version);
            }
            None => {
                self.watermarks.insert(namespace.to_owned(), version.to_owned());
            }
        }
    }

    /// Notes a checkpoint, unless the shard has since been given to another holder.
    pub(super) fn checkpoint(&mut self, memory: &Memory, checkpoint: &Checkpoint) {
        let Some(shard) = checkpoint.shard.as_ref().map(Shard::name) else { return };
        let stored = memory.checkpoints.get(&shard).filter(|_| !self.gone.contains(&shard));
        let before = self.checkpoints.get(&shard).or(stored);
        if before.is_none_or(|before| checkpoint.epoch >= before.epoch) {
            self.checkpoints.insert(shard, checkpoint.clone());
        }
    }

    /// Forgets the checkpoint of a shard that is no more.
    pub(super) fn forget(&mut self, shard: &Shard) {
        let shard = shard.name();
        self.checkpoints.remove(&shard);
        self.gone.insert(shard);
    }

    /// Notes a state of an Event at the position that it gets.
    pub(super) fn version(&mut self, version: Version, position: u64) {
        self.versions.insert(version);
        self.positions.push((version, position));
    }
}

// === impl Unindexed ===

impl Unindexed {
    pub(super) fn insert(&mut self, version: Version, position: u64) {
        self.0.insert(version, position);
    }

    pub(super) fn contains(&self, version: &Version) -> bool {
        self.0.contains_key(version)
    }

    /// Forgets what a segment of the index has, or what went with its file.
    pub(super) fn forget(&mut self, first: u64, last: u64) {
        self.0.retain(|_, position| !(first..=last).contains(position));
        // After a burst.
        self.0.shrink_to(MOST_UNINDEXED as usize / 2);
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn get(&self, uid: u64) -> Option<u64> {
        self.young.get(&uid).or_else(|| self.old.get(&uid)).copied()
    }

    pub(super) fn set(&mut self, uid: u64, count: u64) {
        if self.young.len() >= HALF && !self.young.contains_key(&uid) {
            self.old = std::mem::take(&mut self.young);
            self.highest_forgotten = self.highest_old;
            self.highest_old = self.highest;
        }
        self.young.insert(uid, count);
    }

    /// Notes how high resourceVersions have come with what is set next.
    pub(super) fn reach(&mut self, number: u64) {
        self.highest = self.highest.max(number);
    }

    /// Begins behind what others have set: of that, nothing is remembered for sure.
    pub(super) fn begin(&mut self, highest: u64) {
        self.reach(highest);
        self.highest_old = self.highest;
        self.highest_forgotten = self.highest;
    }

    /// Whether all states above a resourceVersion are remembered.
    pub(super) fn has_all_after(&self, version: &str) -> bool {
        version_number(version).is_some_and(|number| number >= self.highest_forgotten)
    }

    /// As [`set`](Self::set), but a count never falls.
    pub(super) fn raise(&mut self, uid: u64, count: u64) {
        if self.get(uid).is_none_or(|known| known < count) {
            self.set(uid, count);
        }
    }
}

/// A resourceVersion as a number, where it is a decimal one below 2^63.
pub(super) fn version_number(version: &str) -> Option<u64> {
    let is_decimal = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
    version.parse().ok().filter(|number| is_decimal && *number <= i64::MAX as u64)
}

/// What tells one state of an Event from another; `None` where its resourceVersion is opaque.
pub(super) fn version_of(uid: &str, version: &str) -> Option<Version> {
    Some((version_number(version)?, hash::of(&[uid])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_states_are_remembered_above_the_highest_version_that_was_forgotten() {
        let mut counts = Counts::default();
        counts.begin(1_000);
        assert!(!counts.has_all_after("999") && counts.has_all_after("1000"));
        assert!(!counts.has_all_after("opaque"), "nothing can be said of it");
        let set = |counts: &mut Counts, uids: std::ops::Range<u64>, version| {
            counts.reach(version);
            uids.for_each(|uid| counts.set(uid, 2));
        };
        let half = HALF as u64;
        set(&mut counts, 0..half, 2_000);
        // What came before the first half alone is forgotten when it becomes the old one.
        set(&mut counts, half..2 * half, 3_000);
        assert!(counts.has_all_after("1000") && counts.get(0) == Some(2));
        set(&mut counts, 2 * half..2 * half + 1, 4_000);
        assert_eq!(counts.get(0), None);
        assert!(!counts.has_all_after("2999") && counts.has_all_after("3000"));
        assert_eq!(counts.get(half), Some(2));
    }
}
