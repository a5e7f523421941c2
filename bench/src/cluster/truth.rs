//! The oracle: every state of an event that was ever written, and every death of a container.
//!
//! Complete and written down where the thing is done, so it depends on no counter of nodetap's.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// What truly happened.
#[derive(Debug, Default)]
pub struct Truth {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// (uid, resourceVersion). 24 bytes a state, so that a long run fits.
    events: Vec<(u128, u64)>,
    deaths: Vec<Death>,
}

/// One state of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventState {
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion
    pub resource_version: String,
}

/// One termination of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Death {
    /// The node it ran on.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// Such as `containerd://4f1...`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The restartCount that it had.
    pub ordinal: u32,
    /// What it exited with.
    pub exit_code: i32,
    /// 0: none.
    pub signal: i32,
    /// terminated.reason
    pub reason: String,
    /// The last line of its log; empty where it wrote none.
    pub last_line: String,
    /// The pod was being deleted.
    pub of_deleted_pod: bool,
}

// === impl Truth ===

impl Truth {
    pub(super) fn event(&self, uid: &str, revision: u64) {
        self.lock().events.push((pack(uid), revision));
    }

    pub(super) fn death(&self, death: Death) {
        self.lock().deaths.push(death);
    }

    /// How many states of events were written.
    pub fn event_count(&self) -> usize {
        self.lock().events.len()
    }

    /// How many containers died.
    pub fn death_count(&self) -> usize {
        self.lock().deaths.len()
    }

    /// Every state of an event, in the order they were written.
    pub fn events(&self) -> Vec<EventState> {
        self.lock().events.iter().map(|(uid, revision)| EventState::unpack(*uid, *revision)).collect()
    }

    /// Every death, in the order they happened.
    pub fn deaths(&self) -> Vec<Death> {
        self.lock().deaths.clone()
    }

    /// Every record by its identity: `event/<uid>/<resourceVersion>` and `death/<pod uid>/<container>/<container id>`.
    pub fn keys(&self) -> HashSet<String> {
        let inner = self.lock();
        let events = inner.events.iter().map(|(uid, revision)| EventState::unpack(*uid, *revision).key());
        events.chain(inner.deaths.iter().map(Death::key)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl EventState ===

impl EventState {
    /// `event/<uid>/<resourceVersion>`
    pub fn key(&self) -> String {
        format!("event/{}/{}", self.uid, self.resource_version)
    }

    fn unpack(uid: u128, revision: u64) -> Self {
        let hex = format!("{uid:032x}");
        let uid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        Self { uid, resource_version: revision.to_string() }
    }
}

// === impl Death ===

impl Death {
    /// `death/<pod uid>/<container>/<container id>`, the id without the runtime's name.
    pub fn key(&self) -> String {
        let id = self.container_id.rsplit_once("://").map_or(self.container_id.as_str(), |(_, id)| id);
        format!("death/{}/{}/{id}", self.pod_uid, self.container)
    }
}

/// A UUID as a number. Every uid is given by the simulator, so it is one.
fn pack(uid: &str) -> u128 {
    uid.bytes()
        .filter_map(|byte| char::from(byte).to_digit(16))
        .fold(0, |sum, digit| (sum << 4) | u128::from(digit))
}
