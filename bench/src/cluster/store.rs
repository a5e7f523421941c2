//! What etcd is to an API server: one revision over everything, a history up to a compaction point, leases that expire.
//!
//! Pure: no clock, no runtime. Memory is bounded by what lives and by `history` changes; older ones are compacted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::object::{Key, Object, Resource};

/// The objects and how they came to be.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    compacted: u64,
    history: usize,
    ttl: Duration,
    keeps_events: bool,
    events: BTreeMap<Key, Arc<Object>>,
    pods: BTreeMap<Key, Arc<Object>>,
    namespaces: BTreeMap<Key, Arc<Object>>,
    changes: VecDeque<Change>,
    leases: VecDeque<Lease>,
    lease_of: HashMap<Key, u64>,
    last_lease: u64,
    snapshots: VecDeque<(Resource, u64, Snapshot)>,
}

/// Everything of one resource at one revision, by namespace and name.
pub(super) type Snapshot = Arc<Vec<Arc<Object>>>;

/// One write to one object. A burst of expiries shares one revision.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// When.
    pub revision: u64,
    /// What was done.
    pub verb: Verb,
    /// To what.
    pub resource: Resource,
    /// How it is now; for a deletion how it was last, with the deletion's resourceVersion.
    pub object: Arc<Object>,
    /// How it was before.
    pub previous: Option<Arc<Object>>,
}

/// As a watch's frame has it in `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Made.
    Added,
    /// Changed in place.
    Modified,
    /// Deleted, or expired.
    Deleted,
}

/// The history does not go back that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compacted: the oldest revision kept is {oldest}")]
pub(crate) struct Compacted {
    /// The oldest revision that can be asked for.
    pub oldest: u64,
}

#[derive(Debug)]
struct Lease {
    id: u64,
    granted: Duration,
    expires: Duration,
    keys: Vec<Key>,
}

/// etcd3/lease_manager.go: a lease is shared by at most so many objects.
const LEASE_OBJECTS: usize = 1000;
/// Snapshots kept for lists that are still being paged through.
const SNAPSHOTS: usize = 8;

// === impl Store ===

impl Store {
    /// An empty one that keeps so many changes, and events for so long.
    pub(crate) fn new(history: usize, ttl: Duration) -> Self {
        Self {
            revision: 1,
            compacted: 0,
            history: history.max(1),
            ttl,
            keeps_events: true,
            events: BTreeMap::new(),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            changes: VecDeque::new(),
            leases: VecDeque::new(),
            lease_of: HashMap::new(),
            last_lease: 0,
            snapshots: VecDeque::new(),
        }
    }

    /// From now on new events can neither be got nor listed: watches alone tell of them, for as long as the history goes back.
    pub(crate) fn keep_no_events(&mut self) {
        self.keeps_events = false;
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The object as it is.
    pub(crate) fn get(&self, resource: Resource, key: &Key) -> Option<&Arc<Object>> {
        self.objects(resource).get(key)
    }

    /// Whether there is an event of that name. Each has a lease, and a look among those is one, where a tree takes many.
    pub(crate) fn has_event(&self, key: &Key) -> bool {
        self.lease_of.contains_key(key)
    }

    /// Everything of a resource as it is.
    pub(crate) fn objects(&self, resource: Resource) -> &BTreeMap<Key, Arc<Object>> {
        match resource {
            Resource::Events => &self.events,
            Resource::Pods => &self.pods,
            Resource::Namespaces => &self.namespaces,
        }
    }

    /// An object that was there before the first revision.
    pub(crate) fn seed(&mut self, resource: Resource, object: Object) {
        self.objects_mut(resource).insert(object.key(), Arc::new(object));
    }

    /// Creates or changes an object. `make` is told the revision that the write will have. `now` counts from any fixed point.
    pub(crate) fn put(
        &mut self,
        resource: Resource,
        now: Duration,
        make: impl FnOnce(u64) -> Object,
    ) -> Change {
        let revision = self.revision + 1;
        let object = Arc::new(make(revision));
        self.revision = revision;
        let mut previous = None;
        if self.keeps_events || resource != Resource::Events {
            let key = object.key();
            if resource == Resource::Events {
                self.grant(key.clone(), now);
            }
            previous = self.objects_mut(resource).insert(key, Arc::clone(&object));
        }
        let verb = if previous.is_some() { Verb::Modified } else { Verb::Added };
        let change = Change { revision, verb, resource, object, previous };
        self.record(change.clone());
        change
    }

    /// Deletes objects, all at one revision. Those that are not there are left out.
    pub(crate) fn delete(&mut self, resource: Resource, keys: &[Key]) -> Vec<Change> {
        let revision = self.revision + 1;
        let mut gone = Vec::new();
        for key in keys {
            let Some(previous) = self.objects_mut(resource).remove(key) else { continue };
            self.lease_of.remove(key);
            let object = Arc::new(previous.at(revision));
            gone.push(Change { revision, verb: Verb::Deleted, resource, object, previous: Some(previous) });
        }
        if !gone.is_empty() {
            self.revision = revision;
        }
        for change in &gone {
            self.record(change.clone());
        }
        gone
    }

    /// Deletes the events whose lease is over, a lease at a time as etcd does it.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Change> {
        let mut gone = Vec::new();
        while self.leases.front().is_some_and(|lease| lease.expires <= now) {
            let Some(lease) = self.leases.pop_front() else { break };
            let keys: Vec<Key> =
                lease.keys.into_iter().filter(|key| self.lease_of.get(key) == Some(&lease.id)).collect();
            gone.extend(self.delete(Resource::Events, &keys));
        }
        gone
    }

    /// The changes after a revision, oldest first, at most `limit` and then to the end of the last one's revision.
    ///
    /// # Errors
    /// The revision is older than the last compaction.
    pub(crate) fn changes_after(
        &self,
        revision: u64,
        limit: usize,
    ) -> Result<impl Iterator<Item = &Change>, Compacted> {
        // etcd: a watch starts one after; it is refused where that lies before the compaction.
        if revision + 1 < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        let last =
            self.changes.get((start + limit).saturating_sub(1)).map_or(u64::MAX, |change| change.revision);
        Ok(self.changes.range(start..).take_while(move |change| change.revision <= last))
    }

    /// Everything of a resource as it was at a revision.
    ///
    /// # Errors
    /// The revision is older than the last compaction.
    pub(crate) fn snapshot(&mut self, resource: Resource, revision: u64) -> Result<Snapshot, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let kept = self.snapshots.iter().find(|(of, at, _)| *of == resource && *at == revision);
        if let Some((_, _, snapshot)) = kept {
            return Ok(Arc::clone(snapshot));
        }
        let mut objects = self.objects(resource).clone();
        let undone = self.changes.iter().rev().take_while(|change| change.revision > revision);
        for change in undone.filter(|change| change.resource == resource) {
            match &change.previous {
                Some(previous) => objects.insert(change.object.key(), Arc::clone(previous)),
                None => objects.remove(&change.object.key()),
            };
        }
        let snapshot: Snapshot = Arc::new(objects.into_values().collect());
        self.snapshots.push_back((resource, revision, Arc::clone(&snapshot)));
        if self.snapshots.len() > SNAPSHOTS {
            self.snapshots.pop_front();
        }
        Ok(snapshot)
    }

    /// Forgets what was before a revision: lists and watches from there are refused.
    pub(crate) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        let keep = self.compacted;
        while self.changes.front().is_some_and(|change| change.revision < keep) {
            self.changes.pop_front();
        }
        self.snapshots.retain(|(_, at, _)| *at >= keep);
    }

    fn record(&mut self, change: Change) {
        self.changes.push_back(change);
        if self.changes.len() > self.history {
            // A tenth at a time, so that the cost is spread.
            let keep = self.changes.get(self.history / 10).map(|change| change.revision);
            if let Some(revision) = keep {
                self.compact(revision);
            }
        }
    }

    fn grant(&mut self, key: Key, now: Duration) {
        let shared_for = (self.ttl / 20).min(Duration::from_secs(60));
        let usable = self
            .leases
            .back()
            .is_some_and(|lease| lease.keys.len() < LEASE_OBJECTS && now < lease.granted + shared_for);
        if !usable {
            self.last_lease += 1;
            // etcd3/lease_manager.go: the lease lives longer than asked by what it is shared for.
            let expires = now + self.ttl + shared_for;
            self.leases.push_back(Lease { id: self.last_lease, granted: now, expires, keys: Vec::new() });
        }
        if let Some(lease) = self.leases.back_mut() {
            lease.keys.push(key.clone());
            self.lease_of.insert(key, lease.id);
        }
    }

    fn objects_mut(&mut self, resource: Resource) -> &mut BTreeMap<Key, Arc<Object>> {
        match resource {
            Resource::Events => &mut self.events,
            Resource::Pods => &mut self.pods,
            Resource::Namespaces => &mut self.namespaces,
        }
    }
}

// === impl Verb ===

impl Verb {
    /// As in a frame.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

#[cfg(test)]
mod tests;
