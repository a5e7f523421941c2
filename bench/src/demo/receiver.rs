//! The webhook that everything is delivered to: it shows what comes, and is the oracle of what was delivered.
//!
//! It reads the JSON that kubernetes-event-exporter's webhook gets, one a request, an array, or one after the other, and goes by
//! the facts in it, not by nodetap's ids.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::show;
use crate::cluster::Death;
use crate::cluster::server::{self, Body, answer};

/// The webhook.
#[derive(Debug)]
pub(super) struct Receiver {
    url: String,
    in_colour: bool,
    inner: Mutex<Inner>,
    came: Notify,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Inner {
    /// How often each came.
    keys: HashMap<String, usize>,
    repeats: usize,
}

/// More than any batch.
const MAX_BODY: usize = 64 << 20;

// === impl Receiver ===

impl Receiver {
    /// Listens on loopback.
    pub(super) async fn start(in_colour: bool) -> anyhow::Result<Arc<Self>> {
        let (listener, address) = server::bind().await?;
        let stop = CancellationToken::new();
        let receiver = Arc::new(Self {
            url: format!("http://{address}/records"),
            in_colour,
            inner: Mutex::default(),
            came: Notify::new(),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&receiver);
        let handle = move |request| {
            let receiver = weak.upgrade();
            async move {
                match receiver {
                    Some(receiver) => receiver.handle(request).await,
                    None => answer(503, "text/plain", "the demo is over\n"),
                }
            }
        };
        let down = tokio::sync::watch::Sender::new(false);
        tokio::spawn(async move {
            server::serve(listener, None, down.subscribe(), stop, handle).await;
        });
        Ok(receiver)
    }

    /// Where records are to be posted.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How many distinct records came, and how many repeats.
    pub(super) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.keys.len(), inner.repeats)
    }

    /// Waits until something more comes.
    pub(super) async fn next(&self) {
        self.came.notified().await;
    }

    /// What happened and did not come.
    pub(super) fn missing(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        let came = self.came(deaths);
        let mut missing: Vec<_> = truth.iter().filter(|key| !came.contains(*key)).cloned().collect();
        missing.sort();
        missing
    }

    /// What came and never happened.
    pub(super) fn strangers(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        let mut strangers: Vec<_> =
            self.came(deaths).into_iter().filter(|key| !truth.contains(key)).collect();
        strangers.sort();
        strangers
    }

    /// What came, with deaths that name no container id looked up by their ordinal.
    fn came(&self, deaths: &[Death]) -> HashSet<String> {
        let by_ordinal: HashMap<String, String> = deaths
            .iter()
            .map(|death| (by_ordinal(&death.pod_uid, &death.container, death.ordinal.into()), death.key()))
            .collect();
        let inner = self.lock();
        inner.keys.keys().map(|key| by_ordinal.get(key).unwrap_or(key).clone()).collect()
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return answer(400, "text/plain", format!("{error}\n")),
        };
        let records: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&body).into_iter().collect();
        let Ok(records) = records else { return answer(400, "text/plain", "this is no JSON\n") };
        let records = records.into_iter().flat_map(|record| match record {
            Value::Array(records) => records,
            record => vec![record],
        });
        for record in records {
            self.take(&record);
        }
        self.came.notify_waiters();
        self.came.notify_one();
        answer(200, "text/plain", "")
    }

    fn take(&self, record: &Value) {
        let mut inner = self.lock();
        let times = inner.keys.entry(key(record)).or_default();
        *times += 1;
        let first = *times == 1;
        if !first {
            inner.repeats += 1;
        }
        drop(inner);
        if first {
            show::record(record, self.in_colour);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record is, as the simulator's truth spells it.
fn key(record: &Value) -> String {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if record.get("container").is_none_or(Value::is_null) {
        return format!("event/{}/{}", text("/metadata/uid"), text("/metadata/resourceVersion"));
    }
    let (pod, container, id) =
        (text("/involvedObject/uid"), text("/container/name"), text("/container/containerId"));
    if id.is_empty() {
        return by_ordinal(pod, container, record["container"]["ordinal"].as_u64().unwrap_or(0));
    }
    let id = id.rsplit_once("://").map_or(id, |(_, id)| id);
    format!("death/{pod}/{container}/{id}")
}

fn by_ordinal(pod: &str, container: &str, ordinal: u64) -> String {
    format!("death/{pod}/{container}/#{ordinal}")
}

#[cfg(test)]
mod tests;
