//! What the writer remembers of the newest file's state, so that it need not ask the disk.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use nodetap_wire::{Checkpoint, Shard, resource_version};

/// Half of the Events whose last count is remembered. About 9 MB when both halves are full.
const HALF: usize = 100_000;

/// State as of the last commit.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Highest decimal resourceVersion by event namespace. Those that were not raised for long go with each new file.
    pub(super) watermarks: HashMap<String, String>,
    /// When each was raised last, in nanoseconds since 1970.
    pub(super) raised: HashMap<String, i64>,
    pub(super) checkpoints: BTreeMap<String, Checkpoint>,
    pub(super) counts: Counts,
    /// The last position given out.
    pub(super) head: u64,
}

/// What a group of batches adds, until it is committed.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) watermarks: HashMap<String, String>,
    pub(super) checkpoints: BTreeMap<String, Checkpoint>,
    pub(super) counts: HashMap<String, u64>,
    pub(super) head: u64,
    /// When it was taken, in nanoseconds since 1970.
    pub(super) now_ns: i64,
}

/// The last count of the Events seen lately, by a hash of their uid. Those with a count above 1 are on disk as well; of those
/// with 1, this alone tells at a glance that they were seen. Bounded: the least recently counted half goes when one is full.
#[derive(Debug, Default)]
pub(super) struct Counts {
    hashers: [RandomState; 2],
    young: HashMap<u128, u64>,
    old: HashMap<u128, u64>,
}

// === impl Memory ===

impl Memory {
    /// Takes over what has become durable.
    pub(super) fn apply(&mut self, staged: Staged) {
        self.raised.extend(staged.watermarks.keys().map(|namespace| (namespace.clone(), staged.now_ns)));
        self.watermarks.extend(staged.watermarks);
        self.checkpoints.extend(staged.checkpoints);
        for (uid, count) in staged.counts {
            self.counts.set(&uid, count);
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
        let before = self.checkpoints.get(&shard).or_else(|| memory.checkpoints.get(&shard));
        if before.is_none_or(|before| checkpoint.epoch >= before.epoch) {
            self.checkpoints.insert(shard, checkpoint.clone());
        }
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn get(&self, uid: &str) -> Option<u64> {
        let key = self.key(uid);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(super) fn set(&mut self, uid: &str, count: u64) {
        let key = self.key(uid);
        if self.young.len() >= HALF && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, count);
    }

    /// A uid is any text: 128 bits of it are enough.
    fn key(&self, uid: &str) -> u128 {
        let [high, low] = &self.hashers;
        (u128::from(high.hash_one(uid)) << 64) | u128::from(low.hash_one(uid))
    }
}
