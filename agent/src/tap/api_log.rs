//! The last lines of a dead container from the API server, where the node's log folder does not give them and the admin allows it.
//!
//! `GET pods/NAME/log` names a container, never an instance of it: the kubelet reads what its newest status calls `lastState`
//! (`previous=true`) or `state`, and that moves with every start. So an answer counts only where the pod shows the dead instance in the
//! very place that was read, before and after; and where the times of the lines lie in that instance's life. The API server's
//! state may be behind the kubelet's: where the times alone could also be those of the next instance, it is looked at a second later.
//! What cannot be shown to be the dead instance's is not taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use nodetap_wire::{ContainerDied, LogLine, time};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::answer::{ANSWER_BYTES, AskError, ask, whole};
use super::logs::{self, LINES, Missing};
use super::metrics::{Metrics, Outcome};
use super::pod_watch::SERVER;
use super::pods::{Pod, Terminated};

/// What the agent's role must allow.
const NEEDS: &str = "needs `get` on `pods/log` and on `pods` (manifests/pod-logs)";

/// Asked for at once, of one node: each is a connection from the API server to the kubelet.
const AT_ONCE: usize = 4;

/// Asked for in a row after a calm, and how often after that: a node where everything crashes must not become the API server's trouble.
const BURST: u32 = 10;
const EVERY: Duration = Duration::from_secs(5);

/// For one death, all of its questions together.
const WITHIN: Duration = Duration::from_secs(5);

/// Records asked for: somewhat more than a death carries, so that the cut comes after redaction.
const RECORDS: usize = LINES + 5;

/// A record is at most 16 KiB with containerd and CRI-O, so this is never reached: it cuts the end, which is what is wanted.
const LIMIT: usize = 1 << 20;

/// Until then the API server has heard of what the kubelet knows: it is told at once, unless the kubelet is throttled.
const BEHIND: Duration = Duration::from_secs(1);

/// `finishedAt` is cut to its second, and the runtime may write down a line a moment after the end.
const SECOND_NS: i64 = 1_000_000_000;

/// After a 403: a role may have been put right.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(600);

/// Asks the API server for logs; off for a while where it refuses.
pub struct ApiLog {
    client: Client,
    metrics: Metrics,
    permits: Arc<Semaphore>,
    asked: JoinSet<Result<Vec<LogLine>, NotGiven>>,
    /// The deaths that wait, so that none is lost with its question.
    waiting: HashMap<Id, ContainerDied>,
    allowance: Allowance,
    off_until: Option<Instant>,
}

/// How many questions may be asked now.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When the last one was given back.
    since: Instant,
}

/// The part of a status that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `lastState.terminated`
    Previous,
    /// `state.terminated`
    Current,
}

/// What the times of lines say of whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    /// The first is of before the instance's last second, and so before any next instance.
    Its,
    /// All are of its last second, in which the next instance may have begun.
    PerhapsTheNext,
    /// Some are of before it or after it.
    Another,
}

/// Why an answer does not count.
#[derive(Debug)]
enum NotGiven {
    Missing(Missing),
    Ask(AskError),
}

// === impl ApiLog ===

impl ApiLog {
    /// Asks nothing yet.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        metrics.api_log(true);
        Self {
            client,
            metrics,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            asked: JoinSet::new(),
            waiting: HashMap::new(),
            allowance: Allowance { left: BURST, since: Instant::now() },
            off_until: None,
        }
    }

    /// Asks for the last lines of a death that `pod` has just shown; [`Self::next`] gives it back with them.
    ///
    /// # Errors
    /// Why it is not asked for; `because` the folder had nothing, where the status shows no instance to ask for.
    pub fn ask(&mut self, pod: &Pod, death: &ContainerDied, because: Missing) -> Result<(), Missing> {
        // A name becomes part of a path.
        if ![&death.namespace, &death.pod, &death.container].into_iter().all(|name| logs::is_plain(name)) {
            return Err(Missing::Name);
        }
        let place = place(pod, death).ok_or(because)?;
        let now = Instant::now();
        if self.off_until.is_some_and(|until| now < until) {
            return Err(Missing::Forbidden);
        }
        if !self.allowance.take(now) {
            return Err(Missing::Busy);
        }
        let (client, metrics, permits) =
            (self.client.clone(), self.metrics.clone(), Arc::clone(&self.permits));
        let wanted = death.clone();
        let asked = self.asked.spawn(async move {
            let asking = async {
                let _permit = permits.acquire().await;
                lines(&client, &metrics, &wanted, place).await
            };
            timeout(WITHIN, asking).await.unwrap_or(Err(NotGiven::Missing(Missing::Unanswered)))
        });
        self.waiting.insert(asked.id(), death.clone());
        Ok(())
    }

    /// The next death whose lines have come, or will not; `None` where none is asked for. Can be dropped and called again.
    pub async fn next(&mut self) -> Option<(ContainerDied, Result<Vec<LogLine>, Missing>)> {
        loop {
            let (id, given) = match self.asked.join_next_with_id().await? {
                Ok((id, given)) => (id, given),
                Err(error) => (error.id(), Err(NotGiven::Missing(Missing::Unanswered))),
            };
            let Some(death) = self.waiting.remove(&id) else { continue };
            return Some((death, self.told(given)));
        }
    }

    /// The deaths that wait for their lines.
    pub fn waiting(&self) -> impl Iterator<Item = &ContainerDied> {
        self.waiting.values()
    }

    /// Switches off where it is forbidden, and on again; says each once.
    fn told(&mut self, given: Result<Vec<LogLine>, NotGiven>) -> Result<Vec<LogLine>, Missing> {
        let error = match given {
            Ok(lines) => {
                if self.off_until.take().is_some() {
                    tracing::info!("the API server gives the logs of containers again");
                }
                self.metrics.api_log(true);
                self.metrics.api_log_deaths();
                return Ok(lines);
            }
            Err(NotGiven::Missing(missing)) => return Err(missing),
            Err(NotGiven::Ask(error)) => error,
        };
        if error.outcome() != Outcome::forbidden {
            tracing::debug!(%error, "the log of a container that died is not given");
            return Err(match error.code() {
                // No such pod, or no such instance.
                Some(400 | 404) => Missing::NoFile,
                _ => Missing::Unanswered,
            });
        }
        if self.off_until.replace(Instant::now() + AFTER_A_REFUSAL).is_none() {
            tracing::warn!(
                %error,
                again_in = ?AFTER_A_REFUSAL,
                "the API server does not give the logs of containers: last lines are those of the node's log folder alone"
            );
        }
        self.metrics.api_log(false);
        Err(Missing::Forbidden)
    }
}

impl std::fmt::Debug for ApiLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiLog").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

// === impl Allowance ===

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let back = now.duration_since(self.since).as_nanos() / EVERY.as_nanos();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        if back >= BURST - self.left {
            (self.left, self.since) = (BURST, now);
        } else {
            self.left += back;
            self.since += EVERY * back;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

impl From<AskError> for NotGiven {
    fn from(error: AskError) -> Self {
        Self::Ask(error)
    }
}

impl From<Missing> for NotGiven {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

/// Asks until the place that was read is where the instance stands afterwards: once, and once more where it was started again meanwhile.
async fn lines(
    client: &Client,
    metrics: &Metrics,
    death: &ContainerDied,
    mut at: Place,
) -> Result<Vec<LogLine>, NotGiven> {
    for _ in 0..2 {
        let (lines, refused) = match log(client, metrics, death, at).await {
            Ok(body) => (parse(&body)?, None),
            // No such instance: the place may have been left meanwhile.
            Err(error) if error.code() == Some(400) => (Vec::new(), Some(error)),
            Err(error) => return Err(error.into()),
        };
        let times = times(&lines, death);
        if times == Times::PerhapsTheNext {
            sleep(BEHIND).await;
        }
        let stands = place(&pod(client, metrics, death).await?, death).ok_or(Missing::OtherLife)?;
        if stands != at {
            at = stands;
            continue;
        }
        return match (refused, times) {
            (Some(refused), _) => Err(refused.into()),
            (None, _) if lines.is_empty() => Err(Missing::Empty.into()),
            (None, Times::Its | Times::PerhapsTheNext) => Ok(lines),
            (None, Times::Another) => Err(Missing::OtherLife.into()),
        };
    }
    Err(Missing::OtherLife.into())
}

async fn log(
    client: &Client,
    metrics: &Metrics,
    death: &ContainerDied,
    at: Place,
) -> Result<Vec<u8>, AskError> {
    let ContainerDied { namespace, pod, container, .. } = death;
    let previous = at == Place::Previous;
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&previous={previous}&tailLines={RECORDS}&limitBytes={LIMIT}&timestamps=true"
    );
    let answer = counted(client, metrics, "pods/log", path).await?;
    whole(SERVER, answer.into_body(), 2 * LIMIT).await
}

/// As it is now, and not as some cache has it.
async fn pod(client: &Client, metrics: &Metrics, death: &ContainerDied) -> Result<Pod, NotGiven> {
    let path = format!("/api/v1/namespaces/{}/pods/{}", death.namespace, death.pod);
    let answer = counted(client, metrics, "pods", path).await?;
    let body = whole(SERVER, answer.into_body(), ANSWER_BYTES).await?;
    serde_json::from_slice(&body).map_err(|_| Missing::Unanswered.into())
}

async fn counted(
    client: &Client,
    metrics: &Metrics,
    resource: &'static str,
    path: String,
) -> Result<http::Response<kube::client::Body>, AskError> {
    let answer = ask(client, SERVER, path, NEEDS).await;
    let code = answer.as_ref().map_or_else(AskError::code, |_| Some(200));
    metrics.requests.count("get", resource, code);
    answer
}

/// Where a pod shows the instance that died; `None`: nowhere, or it is another pod of that name.
fn place(pod: &Pod, death: &ContainerDied) -> Option<Place> {
    if pod.uid() != death.pod_uid || death.container_id.is_empty() {
        return None;
    }
    let status = pod.statuses().find(|status| status.name == death.container)?;
    let is_it = |ended: &Option<Terminated>| {
        ended.as_ref().is_some_and(|ended| ended.container_id == death.container_id)
    };
    if is_it(&status.last_state.terminated) {
        Some(Place::Previous)
    } else {
        is_it(&status.state.terminated).then_some(Place::Current)
    }
}

/// The lines of an answer. Each begins with its time: what does not is no line but a kubelet that says under a 200 what went wrong.
fn parse(body: &[u8]) -> Result<Vec<LogLine>, Missing> {
    if body.len() >= LIMIT {
        return Err(Missing::TooLong);
    }
    let mut words = false;
    let lines: Vec<LogLine> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| {
            let at = memchr::memchr(b' ', line).unwrap_or(line.len());
            let (stamp, text) = line.split_at(at);
            let time_ns = std::str::from_utf8(stamp).ok().and_then(time::parse_ns);
            words |= time_ns.is_none();
            let text = String::from_utf8_lossy(text.get(1..).unwrap_or_default()).into_owned();
            Some(LogLine { time_ns: time_ns?, stderr: false, text })
        })
        .collect();
    if lines.is_empty() && words { Err(Missing::NoFile) } else { Ok(lines) }
}

/// Whose lines they may be, by their times.
fn times(lines: &[LogLine], death: &ContainerDied) -> Times {
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return Times::Its };
    let (began, ended) = (death.started_ns, death.finished_ns);
    let before = began > 0 && first.time_ns < began;
    let after = ended > 0 && last.time_ns >= ended.saturating_add(2 * SECOND_NS);
    if before || after {
        Times::Another
    } else if ended > 0 && first.time_ns < ended {
        Times::Its
    } else {
        Times::PerhapsTheNext
    }
}

#[cfg(test)]
mod tests;
