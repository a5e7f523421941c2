//! Finds out what the API server accepts, when the aggregator asks for it.
//!
//! A handful of requests, each with a bound, on one namespace where they reach the storage at all. Nothing is asked unless asked
//! for.

use std::time::Duration;

use kube::Client;
use nodetap_wire::{Finding, Findings};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::exchange::{Answer, Failure};
use super::frame::{Frame, MAX_LINE_BYTES, Page};
use super::lines::{Line, Lines};
use super::metrics::Metrics;
use super::request::{Target, field};

/// For one request with its answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A name that no event has: what selects it reads nothing.
const NOBODY: &str = "nodetap-asks-what-is-accepted";

const EVENTS: &str = "/api/v1/namespaces/default/events";

const JSON: &str = "application/json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
}

/// One round of questions.
struct Asking<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    findings: Findings,
    failures: Vec<String>,
}

/// Asks each time that `asked` grows.
pub async fn run(
    client: Client,
    mut asked: watch::Receiver<u64>,
    findings: watch::Sender<Option<Findings>>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let serve = async {
        while asked.changed().await.is_ok() {
            let found = ask(&client, &metrics).await;
            // The same again is an answer as well.
            findings.send_replace(Some(found));
        }
        // The link has ended: so does the agent.
        std::future::pending::<()>().await;
    };
    cancel.run_until_cancelled(serve).await;
}

/// Asks everything once.
pub async fn ask(client: &Client, metrics: &Metrics) -> Findings {
    let mut asking = Asking {
        client,
        metrics,
        findings: Findings { answer_ms: u32::MAX, ..Findings::default() },
        failures: Vec::new(),
    };
    asking.version().await;
    asking.host_selector().await;
    asking.shard_selector().await;
    asking.streamed_list().await;
    asking.servers().await;
    let Asking { mut findings, failures, .. } = asking;
    findings.failure = failures.join("; ");
    findings
}

// === impl Asking ===

impl Asking<'_> {
    async fn version(&mut self) {
        match self.get("get", "version", "/version").await {
            Ok(body) => match serde_json::from_slice::<Version>(&body) {
                Ok(version) => self.findings.version = version.git_version.chars().take(60).collect(),
                Err(error) => self.failed("version", &error),
            },
            Err(failure) => self.refused("version", &failure),
        }
    }

    async fn host_selector(&mut self) {
        let uri = format!("{EVENTS}?limit=1&{}", field("spec.source.host", NOBODY));
        let finding = match self.get("list", "events", &uri).await {
            Ok(_) => Finding::Accepted,
            Err(Failure::Refused { code: 400 | 422, .. }) => Finding::Refused,
            Err(failure) => return self.refused("selector by host", &failure),
        };
        self.findings.set_host_selector(finding);
    }

    async fn shard_selector(&mut self) {
        // The only range of one.
        let all = Target::of(&nodetap_wire::Shard::uid_range(0, 1)).map(|target| target.selector);
        let uri = format!("{EVENTS}?limit=1&{}", all.unwrap_or_default());
        let finding = match self.get("list", "events", &uri).await {
            Ok(body) => match serde_json::from_slice::<Page<'_>>(&body) {
                Ok(page) if page.metadata.shard_info.is_some() => Finding::Accepted,
                Ok(_) => Finding::Refused,
                Err(error) => return self.failed("selector of shards", &error),
            },
            Err(Failure::Refused { code: 400 | 422, .. }) => Finding::Refused,
            Err(failure) => return self.refused("selector of shards", &failure),
        };
        self.findings.set_shard_selector(finding);
    }

    async fn streamed_list(&mut self) {
        let uri = format!(
            "{EVENTS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
             &timeoutSeconds=5&{}",
            field("metadata.name", NOBODY)
        );
        let finding = match timeout(TIMEOUT, self.ends_list(&uri)).await {
            Ok(Ok(true)) => Finding::Accepted,
            Ok(Ok(false) | Err(Failure::Refused { code: 400 | 422, .. })) => Finding::Refused,
            Ok(Err(failure)) => return self.refused("streamed list", &failure),
            Err(late) => return self.failed("streamed list", &late),
        };
        self.findings.set_send_initial_events(finding);
    }

    /// Whether a watch says where the list that it begins with ends.
    async fn ends_list(&mut self, uri: &str) -> Result<bool, Failure> {
        let mut answer = self.answer("watch", "events", uri).await?;
        let mut lines = Lines::new(MAX_LINE_BYTES);
        while let Some(chunk) = answer.chunk(TIMEOUT).await? {
            lines.push(chunk);
            while let Some(line) = lines.next_line() {
                if let Line::Whole(line) = line
                    && let Ok(Frame::Bookmark(mark)) = Frame::parse(line)
                    && mark.ends_initial_events()
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn servers(&mut self) {
        let uri = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        match self.get("get", "endpointslices", uri).await {
            Ok(body) => match serde_json::from_slice::<Slice>(&body) {
                Ok(slice) => {
                    let addresses =
                        slice.endpoints.unwrap_or_default().into_iter().map(|one| one.addresses.len());
                    self.findings.api_servers = u32::try_from(addresses.sum::<usize>()).unwrap_or(u32::MAX);
                }
                Err(error) => self.failed("API servers", &error),
            },
            Err(failure) => self.refused("API servers", &failure),
        }
    }

    async fn get(
        &mut self,
        verb: &'static str,
        resource: &'static str,
        uri: &str,
    ) -> Result<Vec<u8>, Failure> {
        match timeout(TIMEOUT, async { self.answer(verb, resource, uri).await?.page().await }).await {
            Ok(body) => body,
            Err(late) => Err(Failure::late(&late)),
        }
    }

    async fn answer(
        &mut self,
        verb: &'static str,
        resource: &'static str,
        uri: &str,
    ) -> Result<Answer, Failure> {
        let started = Instant::now();
        let answer = Answer::to(self.client, uri, JSON).await;
        let code = answer.as_ref().map_or_else(Failure::code, |_| Some(200));
        self.metrics.requests.count(verb, resource, code);
        if code.is_some() {
            let took = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
            self.findings.answer_ms = self.findings.answer_ms.min(took);
        }
        answer
    }

    fn refused(&mut self, what: &str, failure: &Failure) {
        self.failures.push(format!("{what}: {}", failure.words()));
    }

    fn failed(&mut self, what: &str, error: &dyn std::fmt::Display) {
        self.failures.push(format!("{what}: {error}"));
    }
}
