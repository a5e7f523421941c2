//! Events posted through a real API server at a steady rate over many namespaces: new ones, and ones that happened before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;

/// Who posts what.
#[derive(Clone, Debug)]
pub(crate) struct Posting {
    client: Client,
    namespaces: Vec<String>,
    /// Tells the events of one run from those of another.
    run: String,
}

/// What was posted, and what the server did not take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Posted {
    pub(crate) taken: usize,
    pub(crate) refused: usize,
    /// Why it did not take the first of them.
    why: Option<String>,
}

/// Requests on their way: a slow server slows the load down, and is not buried by it.
const IN_FLIGHT: usize = 16;
/// An event recurs so many requests after it was new, when that request has long been answered. Odd, as every other is new.
const RECURS_AFTER: usize = 401;

/// Creates namespaces that are not there yet. Answers their names.
///
/// # Errors
/// The API server refuses one.
pub(crate) async fn namespaces(client: &Client, prefix: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let names: Vec<_> = (1..=count).map(|number| format!("{prefix}-{number:03}")).collect();
    for name in &names {
        create_namespace(client, name).await?;
    }
    Ok(names)
}

/// Creates a namespace that is not there yet.
///
/// # Errors
/// The API server refuses it.
pub(crate) async fn create_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let answer = client.send(Method::POST, "/api/v1/namespaces", JSON, body.to_string()).await?;
    anyhow::ensure!(matches!(answer.status, 201 | 409), "namespace {name}: {}", answer.status);
    Ok(())
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

// === impl Posting ===

impl Posting {
    pub(crate) fn new(client: Client, namespaces: Vec<String>, run: impl Into<String>) -> Self {
        Self { client, namespaces, run: run.into() }
    }

    /// Posts so many new events at a rate a second, over the namespaces in turn.
    ///
    /// # Errors
    /// The API server refuses one, or cannot be reached.
    pub(crate) async fn post(&self, events: usize, rate: f64) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicUsize::new(events));
        self.go(rate, false, &stop).await.all()
    }

    /// Posts at a rate until it were as many as `until` says by then; `recurs`: every other is one that was there, once more.
    pub(crate) async fn go(&self, rate: f64, recurs: bool, until: &AtomicUsize) -> Posted {
        let one = |number: usize| {
            let this = self.clone();
            async move {
                match number.checked_sub(RECURS_AFTER) {
                    Some(known) if recurs && number % 2 == 1 => this.recur(known, number).await,
                    _ => this.create(number).await,
                }
            }
        };
        paced(rate, IN_FLIGHT, until, one).await
    }

    async fn create(&self, number: usize) -> anyhow::Result<()> {
        let namespace = self.namespace(number);
        let body = event(&self.name(number), namespace, number);
        self.send(Method::POST, &format!("/api/v1/namespaces/{namespace}/events"), JSON, &body).await
    }

    async fn recur(&self, number: usize, count: usize) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}/events/{}", self.namespace(number), self.name(number));
        self.send(Method::PATCH, &path, MERGE_PATCH, &json!({"count": count, "lastTimestamp": now()})).await
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: &Value) -> anyhow::Result<()> {
        let answer = self.client.send(method, path, kind, body.to_string()).await?;
        anyhow::ensure!(answer.status < 300, "{path} answered {}", answer.status);
        Ok(())
    }

    fn namespace(&self, number: usize) -> &str {
        self.namespaces.get(number / 2 % self.namespaces.len().max(1)).map_or("default", String::as_str)
    }

    fn name(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }
}

// === impl Posted ===

impl Posted {
    /// # Errors
    /// The server did not take all of them.
    pub(crate) fn all(&self) -> anyhow::Result<()> {
        let Self { taken, refused, .. } = self;
        let why = self.why.as_deref().unwrap_or_default();
        anyhow::ensure!(*refused == 0, "{refused} of {} events were refused: {why}", taken + refused);
        Ok(())
    }

    fn note(&mut self, ended: Result<anyhow::Result<()>, tokio::task::JoinError>) {
        match ended.map_err(anyhow::Error::from).flatten() {
            Ok(()) => self.taken += 1,
            Err(error) => {
                self.refused += 1;
                self.why.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// Sends one after the other at a rate a second, so many at once at most, until it were as many as `until` says by then.
pub(crate) async fn paced<F>(
    rate: f64,
    in_flight: usize,
    until: &AtomicUsize,
    one: impl Fn(usize) -> F,
) -> Posted
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let begun = Instant::now();
    let mut flying = JoinSet::new();
    let (mut posted, mut number) = (Posted::default(), 0_usize);
    while number < until.load(Ordering::Relaxed) {
        #[allow(clippy::cast_precision_loss, reason = "nobody posts 2^53 events")]
        let due = begun + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(due).await;
        while flying.len() >= in_flight
            && let Some(ended) = flying.join_next().await
        {
            posted.note(ended);
        }
        while let Some(ended) = flying.try_join_next() {
            posted.note(ended);
        }
        flying.spawn(one(number));
        number += 1;
    }
    while let Some(ended) = flying.join_next().await {
        posted.note(ended);
    }
    posted
}

/// The resourceVersion of a new event: everything posted before has a lower one.
///
/// # Errors
/// The API server refuses it, or names no version.
pub(crate) async fn marker(client: &Client, namespace: &str) -> anyhow::Result<u64> {
    let body = event(&format!("marker-{}", jiff::Timestamp::now().as_nanosecond()), namespace, 0);
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let answer = client.send(Method::POST, &path, JSON, body.to_string()).await?;
    anyhow::ensure!(answer.status == 201, "a marker was refused: {}", answer.status);
    let posted = answer.json();
    let version = posted["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    version.context("an event without a resourceVersion")
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// As a kubelet writes it, of the mean size.
fn event(name: &str, namespace: &str, number: usize) -> Value {
    let now = now();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": format!("web-6f7c9d5b8-{number:05}"),
            "uid": format!("5f0c7a52-0000-4000-8000-{number:012x}"), "resourceVersion": "4711", "fieldPath": "spec.containers{app}",
        },
        "reason": "Unhealthy",
        "message": format!(
            "Readiness probe failed: Get \"http://10.244.{}.{}:8080/readyz\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            number / 250 % 250, number % 250
        ),
        "type": "Warning",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "kubelet", "host": format!("node-{:05}", number % 200 + 1)},
    })
}
