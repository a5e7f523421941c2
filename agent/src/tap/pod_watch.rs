//! The pods of this node from the API server, by a list and a watch with `spec.nodeName`: what is left where the kubelet does not
//! answer, and what sees the last state of a pod that is deleted.
//!
//! Served from the API server's watch cache by an index: an update is dispatched to this node's watch alone.

use std::time::Duration;

use kube::Client;
use kube::client::Body;
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::answer::{ANSWER_BYTES, AskError, ask, next_part, whole};
use super::metrics::Metrics;
use super::pods::PodList;

/// What the agent's role must allow.
const NEEDS: &str = "needs `list` and `watch` on `pods`";

/// A page of a list; a node runs 110 pods.
const PAGE: usize = 250;

/// The API server ends a watch after so many seconds, so that a dead one is not kept.
const WATCH_SECONDS: u64 = 290;

/// Between two parts of a watch: bookmarks come once a minute, and the end after [`WATCH_SECONDS`].
const IDLE: Duration = Duration::from_secs(WATCH_SECONDS + 30);

/// A pod is at most 1.5 MiB in etcd, and its JSON may be longer.
const LINE_BYTES: usize = 4 * 1024 * 1024;

/// After a failure: doubled each time up to the largest.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LARGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// Changes waiting for the runner, which holds the watch back while it is busy.
const CHANGES: usize = 16;

/// What the watch tells.
#[derive(Debug)]
pub enum Change {
    /// A whole list: what is not in it is gone.
    Listed(Vec<Box<RawValue>>),
    /// A state of one pod.
    Pod(Box<RawValue>),
    /// The last state of a pod that is gone.
    Deleted(Box<RawValue>),
    /// Nothing has changed up to now.
    Quiet,
    /// It cannot be had now; it is being tried again.
    Failed(AskError),
}

/// A running watch; dropped, it ends.
#[derive(Debug)]
pub struct PodWatch {
    changes: mpsc::Receiver<Change>,
    task: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Option<ObjectMeta>,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMeta {
    resource_version: Option<String>,
}

/// The runner is gone.
struct Ended;

enum Stopped {
    Ended,
    Failed(AskError),
}

// === impl PodWatch ===

impl PodWatch {
    /// Begins to list and watch the pods of `node`.
    pub fn spawn(client: Client, node: String, metrics: Metrics) -> Self {
        let (sender, changes) = mpsc::channel(CHANGES);
        let task = tokio::spawn(async move {
            let mut watch = Watch {
                client,
                node,
                changes: sender,
                metrics,
                resource_version: None,
                exact: false,
                heard: false,
            };
            watch.run().await;
        });
        Self { changes, task }
    }

    /// The next change; `None` where the watch has ended. Can be dropped and asked again.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watch {
    client: Client,
    node: String,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    resource_version: Option<String>,
    /// The list must be of now: the watch cache was behind.
    exact: bool,
    /// The last step delivered a line of a watch: a list alone shows nothing of how the watch on it fares.
    heard: bool,
}

// === impl Watch ===

impl Watch {
    async fn run(&mut self) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            self.heard = false;
            let done = self.step().await;
            if self.heard {
                back_off = FIRST_BACK_OFF;
            }
            match done {
                Ok(()) => {}
                Err(Stopped::Ended) => return,
                Err(Stopped::Failed(error)) => {
                    if error.is_gone() {
                        self.resource_version = None;
                        self.exact = true;
                        if self.heard {
                            continue;
                        }
                    }
                    if self.changes.send(Change::Failed(error)).await.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = sleep(super::jittered(back_off)) => {}
                        () = self.changes.closed() => return,
                    }
                    back_off = (back_off * 2).min(LARGEST_BACK_OFF);
                }
            }
        }
    }

    /// Lists where it must, else watches until the watch ends.
    async fn step(&mut self) -> Result<(), Stopped> {
        match self.resource_version.clone() {
            None => self.list().await,
            Some(from) => self.watch(&from).await,
        }
    }

    async fn list(&mut self) -> Result<(), Stopped> {
        let mut pods = Vec::new();
        let mut next = String::new();
        let mut bytes = 0;
        loop {
            let mut path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={PAGE}", self.node);
            if !next.is_empty() {
                path.push_str("&continue=");
                path.push_str(
                    &next.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
                );
            } else if !self.exact {
                path.push_str("&resourceVersion=0");
            }
            let answer = self.ask("list", path).await?;
            let body = whole(SERVER, answer.into_body(), ANSWER_BYTES).await?;
            bytes += body.len();
            if bytes > 2 * ANSWER_BYTES {
                return Err(AskError::TooLarge { server: SERVER.into() }.into());
            }
            let body = String::from_utf8_lossy(&body);
            let list =
                PodList::parse(&body).map_err(|error| AskError::Garbage { server: SERVER.into(), error })?;
            pods.extend(list.items.into_iter().map(ToOwned::to_owned));
            next = list.next;
            if next.is_empty() {
                self.resource_version = Some(list.resource_version);
                self.exact = false;
                break;
            }
        }
        self.tell(Change::Listed(pods)).await
    }

    async fn watch(&mut self, from: &str) -> Result<(), Stopped> {
        let path = format!(
            "/api/v1/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&fieldSelector=spec.nodeName%3D{}&resourceVersion={from}",
            self.node
        );
        let mut body = self.ask("watch", path).await?.into_body();
        let mut held: Vec<u8> = Vec::new();
        let mut skipping = false;
        while let Some(part) = next_part(SERVER, &mut body, IDLE).await? {
            let mut rest = part.as_ref();
            while let Some(end) = memchr(b'\n', rest) {
                let (line, after) = rest.split_at(end);
                rest = after.get(1..).unwrap_or_default();
                if std::mem::take(&mut skipping) {
                    continue;
                }
                if held.is_empty() {
                    self.line(line).await?;
                } else {
                    held.extend_from_slice(line);
                    let line = std::mem::take(&mut held);
                    self.line(&line).await?;
                }
            }
            if !skipping && held.len() + rest.len() > LINE_BYTES {
                skipping = true;
                held = Vec::new();
                self.metrics.bad_pod();
                tracing::warn!(node = %self.node, "a line of the pod watch is too long and is left out");
            }
            if !skipping {
                held.extend_from_slice(rest);
            }
        }
        if !self.heard {
            // An API server that ends each watch at once would be asked without end.
            sleep(super::jittered(FIRST_BACK_OFF)).await;
        }
        Ok(())
    }

    async fn ask(&self, verb: &'static str, path: String) -> Result<http::Response<Body>, AskError> {
        let answer = ask(&self.client, SERVER, path, NEEDS).await;
        let code = answer.as_ref().map_or_else(AskError::code, |_| Some(200));
        self.metrics.requests.count(verb, "pods", code);
        answer
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Stopped> {
        let text = String::from_utf8_lossy(line);
        let parsed: Option<(Line, Object)> = serde_json::from_str::<Line>(&text).ok().and_then(|line| {
            let object = serde_json::from_str(line.object.as_ref()?.get()).ok()?;
            Some((line, object))
        });
        let Some((Line { r#type, object: Some(raw) }, object)) = parsed else {
            self.metrics.bad_pod();
            return Ok(());
        };
        if r#type == "ERROR" {
            let status = object.code.and_then(|code| http::StatusCode::from_u16(code).ok());
            return Err(AskError::Status {
                server: SERVER.into(),
                status: status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR),
                message: object.message.unwrap_or_default().chars().take(200).collect(),
            }
            .into());
        }
        let change = match r#type.as_str() {
            "ADDED" | "MODIFIED" => Change::Pod(raw),
            "DELETED" => Change::Deleted(raw),
            "BOOKMARK" => Change::Quiet,
            _ => return Ok(()),
        };
        self.heard = true;
        self.tell(change).await?;
        if let Some(version) = object.metadata.and_then(|metadata| metadata.resource_version) {
            self.resource_version = Some(version);
        }
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), Stopped> {
        Ok(self.changes.send(change).await.map_err(|_| Ended)?)
    }
}

/// Who is asked, for messages.
pub(super) const SERVER: &str = "API server";

impl From<AskError> for Stopped {
    fn from(error: AskError) -> Self {
        Self::Failed(error)
    }
}

impl From<Ended> for Stopped {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

#[cfg(test)]
mod tests;
