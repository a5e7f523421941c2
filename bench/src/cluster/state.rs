//! What the servers and the lives of one simulated cluster share: the store, the truth, the faults.
//!
//! Every write goes through here, so that the truth is complete.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::{self, Event, ManagedFields, merge};
use super::faults::Faults;
use super::object::{Key, Object, Resource};
use super::status::Status;
use super::store::{Change, Store};
use super::truth::Truth;
use crate::random::Random;

/// The shared state.
#[derive(Debug)]
pub(crate) struct State {
    store: Mutex<Store>,
    /// The store's revision, for those who wait for a write.
    pub(crate) grown: watch::Sender<u64>,
    /// Who wrote what in which second.
    managed: Mutex<(i64, Managed)>,
    /// Events are being made together.
    quiet: AtomicBool,
    pub(crate) truth: Truth,
    pub(crate) faults: Faults,
    pub(crate) random: Random,
    /// User by token.
    pub(crate) tokens: BTreeMap<String, String>,
    pub(crate) watch_timeout: Duration,
    pub(crate) bookmark_interval: Duration,
    started: Instant,
    watches: Mutex<BTreeMap<u64, OpenWatch>>,
    last_watch: AtomicU64,
    pub(crate) watches_changed: watch::Sender<u64>,
    pub(crate) requests: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) accepts: Accepts,
    /// gitVersion.
    pub(crate) version: Mutex<String>,
    pub(crate) api_servers: usize,
}

/// By who wrote, and in which version of the API.
type Managed = HashMap<(Cow<'static, str>, &'static str), ManagedFields>;

/// What this API server selects by beyond what stock ones do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accepts {
    /// `spec.source.host` of events.
    pub(crate) host_selector: bool,
    /// `shardSelector` (KEP-5866).
    pub(crate) shard_selector: bool,
}

/// A watch that is open now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWatch {
    /// Whose token opened it.
    pub user: String,
    /// Of what.
    pub resource: Resource,
    /// Of one namespace, or of all.
    pub namespace: Option<String>,
    /// The fieldSelector as it was asked for.
    pub selector: String,
    /// The shardSelector as it was asked for.
    pub shard: String,
    /// The resourceVersion that it was asked to go on from; empty: from a list of its own.
    pub from: String,
}

/// Takes a watch off the list of open ones when it ends.
#[derive(Debug)]
pub(crate) struct WatchGuard {
    state: Arc<State>,
    id: u64,
}

// === impl State ===

impl State {
    pub(crate) fn new(options: &super::Options, tokens: BTreeMap<String, String>) -> Self {
        Self {
            store: Mutex::new(seeded(Store::new(options.history, options.event_ttl))),
            accepts: Accepts { host_selector: options.host_selector, shard_selector: options.shard_selector },
            version: Mutex::new("v1.36.3".to_owned()),
            api_servers: options.api_servers,
            grown: watch::Sender::new(1),
            managed: Mutex::default(),
            quiet: AtomicBool::new(false),
            truth: Truth::default(),
            faults: Faults::default(),
            random: Random::new(options.seed),
            tokens,
            watch_timeout: options.watch_timeout,
            bookmark_interval: options.bookmark_interval,
            started: Instant::now(),
            watches: Mutex::default(),
            last_watch: AtomicU64::new(0),
            watches_changed: watch::Sender::new(0),
            requests: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Writes a new event. Its name is generated where only `generateName` is given.
    pub(crate) fn create_event(
        &self,
        namespace: &str,
        mut event: Event,
        manager: &str,
    ) -> Result<Arc<Object>, Status> {
        let metadata = &mut event.metadata;
        if metadata.name.is_empty() && !metadata.generate_name.is_empty() {
            metadata.name = format!("{}{}", metadata.generate_name, self.random.suffix(5));
        }
        if metadata.name.is_empty() {
            let why = "Event in version \"v1\" cannot be handled: name or generateName is required";
            return Err(Status::new(422, "Invalid", why));
        }
        if metadata.namespace.is_empty() {
            namespace.clone_into(&mut metadata.namespace);
        }
        if metadata.namespace != namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        event.metadata.managed_fields = self.managed(manager, event.api_version());
        self.create(&mut event)
    }

    /// Writes a new event that has a name, a namespace and managedFields.
    pub(super) fn create(&self, event: &mut Event) -> Result<Arc<Object>, Status> {
        let metadata = &mut event.metadata;
        metadata.uid = self.random.uid();
        metadata.creation_timestamp = Some(events::seconds(Timestamp::now()));
        let key: Key = (Arc::from(metadata.namespace.as_str()), Arc::from(metadata.name.as_str()));
        let mut store = self.store();
        let home = (Arc::default(), Arc::clone(&key.0));
        if store.get(Resource::Namespaces, &home).is_none() {
            let uid = self.random.uid();
            let make = |revision| namespace_object(&home.1, &uid, revision);
            store.put(Resource::Namespaces, self.now(), make);
        }
        if store.has_event(&key) {
            return Err(Status::already_exists("events", &key.1));
        }
        let change = store.put(Resource::Events, self.now(), |revision| event.store(revision));
        self.wrote(&change);
        drop(store);
        if !self.quiet.load(Ordering::Relaxed) {
            self.grown.send_replace(change.revision);
        }
        Ok(change.object)
    }

    /// Runs something that makes events, and wakes the watches once when it is done: a thousand wakes cost more than the
    /// events.
    pub(crate) fn together<T>(&self, run: impl FnOnce() -> T) -> T {
        self.quiet.store(true, Ordering::Relaxed);
        let done = run();
        self.quiet.store(false, Ordering::Relaxed);
        let revision = self.store().revision();
        self.grown.send_replace(revision);
        done
    }

    /// Changes an event in place. What identifies it stays.
    pub(crate) fn update_event(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Event) -> Result<(), Status>,
    ) -> Result<Arc<Object>, Status> {
        let mut store = self.store();
        let before = store.get(Resource::Events, key).ok_or_else(|| Status::not_found("events", &key.1))?;
        let mut event: Event =
            serde_json::from_slice(before.body()).map_err(|error| Status::internal(&error.to_string()))?;
        let metadata = event.metadata.clone();
        change(&mut event)?;
        event.metadata = super::events::Metadata {
            labels: event.metadata.labels,
            annotations: event.metadata.annotations,
            ..metadata
        };
        let change = store.put(Resource::Events, self.now(), |revision| event.store(revision));
        self.wrote(&change);
        drop(store);
        self.grown.send_replace(change.revision);
        Ok(change.object)
    }

    /// Applies a JSON merge patch, or a strategic one, to an event.
    pub(crate) fn patch_event(&self, key: &Key, patch: Value) -> Result<Arc<Object>, Status> {
        self.update_event(key, |event| {
            let mut value =
                serde_json::to_value(&*event).map_err(|error| Status::internal(&error.to_string()))?;
            merge(&mut value, patch);
            *event = serde_json::from_value(value).map_err(|error| Status::bad_request(error.to_string()))?;
            Ok(())
        })
    }

    /// Makes a namespace, if it is not there.
    pub(crate) fn create_namespace(&self, name: &str) {
        let mut store = self.store();
        if store.get(Resource::Namespaces, &namespace_key(name)).is_some() {
            return;
        }
        let uid = self.random.uid();
        let make = |revision| namespace_object(name, &uid, revision);
        let change = store.put(Resource::Namespaces, self.now(), make);
        drop(store);
        self.grown.send_replace(change.revision);
    }

    /// Deletes a namespace and the events in it.
    pub(crate) fn delete_namespace(&self, name: &str) {
        let events: Vec<Key> = {
            let store = self.store();
            store
                .objects(Resource::Events)
                .keys()
                .filter(|(namespace, _)| **namespace == *name)
                .cloned()
                .collect()
        };
        self.delete(Resource::Events, &events);
        self.delete(Resource::Namespaces, &[namespace_key(name)]);
    }

    /// Writes a pod as it is now.
    pub(crate) fn put_pod(&self, make: impl FnOnce(u64) -> Object) -> Arc<Object> {
        let change = self.store().put(Resource::Pods, self.now(), make);
        self.grown.send_replace(change.revision);
        change.object
    }

    /// Deletes objects at one revision; answers how many there were.
    pub(crate) fn delete(&self, resource: Resource, keys: &[Key]) -> Vec<Change> {
        let gone = self.store().delete(resource, keys);
        self.announce(&gone);
        gone
    }

    /// Deletes the events whose time is over.
    pub(crate) fn expire(&self) -> usize {
        let now = self.now();
        let gone = self.store().expire(now);
        self.announce(&gone);
        gone.len()
    }

    /// Forgets the history up to now.
    pub(crate) fn compact(&self) -> u64 {
        let mut store = self.store();
        let revision = store.revision();
        store.compact(revision);
        revision
    }

    /// Notes a watch as open until the guard is dropped.
    pub(crate) fn open_watch(self: &Arc<Self>, watch: OpenWatch) -> WatchGuard {
        let id = self.last_watch.fetch_add(1, Ordering::Relaxed) + 1;
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).insert(id, watch);
        self.watches_changed.send_modify(|changes| *changes += 1);
        WatchGuard { state: Arc::clone(self), id }
    }

    /// The watches that are open now, oldest first.
    pub(crate) fn open_watches(&self) -> Vec<OpenWatch> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Counts a request.
    pub(crate) fn count(&self, what: &'static str) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// The same for all that one manager writes within a second: made once.
    pub(super) fn managed(&self, manager: &str, api_version: &'static str) -> ManagedFields {
        let now = Timestamp::now();
        let mut managed = self.managed.lock().unwrap_or_else(PoisonError::into_inner);
        let (second, known) = &mut *managed;
        if *second != now.as_second() {
            *second = now.as_second();
            known.clear();
        }
        if let Some(fields) = known.get(&(Cow::Borrowed(manager), api_version)) {
            return fields.clone();
        }
        let fields = ManagedFields::of(manager, api_version, now);
        known.insert((Cow::Owned(manager.to_owned()), api_version), fields.clone());
        fields
    }

    fn announce(&self, gone: &[Change]) {
        if let Some(last) = gone.last() {
            self.grown.send_replace(last.revision);
        }
    }

    fn wrote(&self, change: &Change) {
        self.truth.event(change.object.uid(), change.revision);
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.state.watches.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.state.watches_changed.send_modify(|changes| *changes += 1);
    }
}

/// The namespaces that every cluster has.
fn seeded(mut store: Store) -> Store {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let revision = store.revision();
        store.seed(Resource::Namespaces, namespace_object(name, name, revision));
    }
    store
}

fn namespace_key(name: &str) -> Key {
    (Arc::default(), Arc::from(name))
}

fn namespace_object(name: &str, uid: &str, revision: u64) -> Object {
    let body = serde_json::json!({"metadata": {
        "name": name,
        "uid": uid,
        "resourceVersion": revision.to_string(),
        "creationTimestamp": events::seconds(Timestamp::now()),
    }});
    Object::new(("", name), uid, revision, body.to_string().as_bytes(), &[], [])
}
