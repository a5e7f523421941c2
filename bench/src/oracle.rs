//! A plain watch of all events, kept apart from nodetap's code: what had to arrive, and when anybody could have had it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::{Client, Lines};

/// Follows all events from now on.
#[derive(Debug)]
pub(crate) struct Oracle {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// One state of an event: its uid and resourceVersion.
pub(crate) type State = (String, u64);

#[derive(Debug, Default)]
struct Seen {
    /// When each state came, in nanoseconds since 1970.
    states: HashMap<State, i64>,
    version: u64,
    /// What it can no longer know.
    failure: Option<String>,
}

const RETRY: Duration = Duration::from_millis(200);

// === impl Oracle ===

impl Oracle {
    /// # Errors
    /// The API server does not list.
    pub(crate) async fn start(client: Client) -> anyhow::Result<Self> {
        let listed = client.get("/api/v1/events?limit=1").await?.json();
        let version = number(&listed).context("a list without a resourceVersion")?;
        let seen = Arc::new(Mutex::new(Seen { version, ..Seen::default() }));
        let task = tokio::spawn(follow(client, Arc::clone(&seen)));
        Ok(Self { seen, task })
    }

    /// The highest resourceVersion so far.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.seen).version
    }

    /// The states above one version and up to another, and when they came.
    ///
    /// # Errors
    /// It missed some itself.
    pub(crate) fn between(&self, above: u64, last: u64) -> anyhow::Result<HashMap<State, i64>> {
        let seen = lock(&self.seen);
        anyhow::ensure!(
            seen.failure.is_none(),
            "the plain watch broke: {}",
            seen.failure.as_deref().unwrap_or_default()
        );
        let within = |state: &State| above < state.1 && state.1 <= last;
        Ok(seen
            .states
            .iter()
            .filter(|(state, _)| within(state))
            .map(|(state, at)| (state.clone(), *at))
            .collect())
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, seen: Arc<Mutex<Seen>>) {
    loop {
        let version = lock(&seen).version;
        let path = format!("/api/v1/events?watch=1&resourceVersion={version}&timeoutSeconds=3600");
        if let Ok(lines) = client.watch(&path).await {
            read(lines, &seen).await;
        }
        if lock(&seen).failure.is_some() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Until the watch ends; what came is kept.
async fn read(mut lines: Lines, seen: &Mutex<Seen>) {
    while let Ok(Some(frame)) = lines.next().await {
        let mut seen = lock(seen);
        let object = &frame["object"];
        match frame["type"].as_str() {
            Some("ERROR") => {
                seen.failure = Some(object["message"].as_str().unwrap_or("an ERROR frame").to_owned());
                return;
            }
            Some(kind) => {
                let Some(version) = number(object) else { continue };
                seen.version = seen.version.max(version);
                if let (Some(uid), "ADDED" | "MODIFIED") = (object["metadata"]["uid"].as_str(), kind) {
                    let at = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
                    seen.states.insert((uid.to_owned(), version), at);
                }
            }
            None => {}
        }
    }
}

fn number(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
