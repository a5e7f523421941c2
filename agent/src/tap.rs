//! The kubelet tap: snapshots of this node's pods, the deaths between them, and the last lines of what died.
//!
//! Pods come from the kubelet's `GET /pods`, at an interval and at once when the pod log folder stirs; where the kubelet refuses or
//! cannot be reached, from the pod watch of this node, which it says, and it goes back by itself. While a pod is being deleted the
//! watch runs beside the kubelet: the kubelet drops a pod within moments of its last state, the watch delivers that state.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use nodetap_wire::{Source, time};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::KubernetesAccess;
use crate::outbox::{Closed, Intake};

use answer::AskError;
use api_log::ApiLog;
use inotify::Stir;
use kubelet::{Kubelet, KubeletError};
use ledger::Ledger;
use metrics::{Metrics, Outcome, SourceName};
use node::{Node, Settings};
use pod_watch::{Change, PodWatch};
use pods::PodList;
use saver::Saver;

pub mod answer;
pub mod api_log;
pub mod held;
pub mod inotify;
pub mod kubelet;
pub mod ledger;
pub mod logs;
pub mod metrics;
pub mod node;
pub mod pod_watch;
pub mod pods;
pub mod redact;
pub mod saver;

/// Between two snapshots, however much stirs: a snapshot of 2 MB costs the kubelet some 20 ms.
const GAP: Duration = Duration::from_millis(300);

/// Snapshots after a stir. A death is in `/pods` once the kubelet has relisted (1 s), told the API server and heard it back.
const AFTER_A_STIR: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
    Duration::from_millis(2500),
    Duration::from_millis(4000),
];

/// A pod that is being deleted is looked at this often, for so long; after that the poll and the watch do.
const WHILE_TERMINATING: Duration = Duration::from_secs(1);
const TERMINATING: Duration = Duration::from_secs(120);

/// The watch beside the kubelet goes on for so long after the last deletion, so that a rollout does not open it for each pod.
const WATCH_LINGERS: Duration = Duration::from_secs(30);

/// A watch of a node where nothing happens speaks by bookmarks, about one a minute.
const WATCH_SPEAKS: Duration = Duration::from_secs(120);

/// A kubelet that refused is asked again: a role or a certificate may have been put right.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(60);

/// Failures in a row that are not refusals, before the watch takes over.
const FAILURES: u32 = 2;

/// All pods are announced again within so long, so that the agents of a cluster do not all come at once.
pub const ANNOUNCED_WITHIN: Duration = Duration::from_secs(5);

/// When to announce all pods again, or to tell deaths again.
#[derive(Debug)]
pub struct Again {
    /// Grows where the aggregator may have forgotten what it acknowledged.
    pub forgotten: watch::Receiver<u64>,
    /// Grows where the journal lost what it had acknowledged: deaths that can still be seen are told again.
    pub lost: watch::Receiver<u64>,
    /// How long after that at most.
    pub within: Duration,
}

/// What the tap is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// `None`: pods come from the API server alone.
    pub kubelet: Option<kubelet::Address>,
    /// Such as /var/log/pods; need not be there.
    pub pod_logs: PathBuf,
    /// Between two snapshots at rest; jittered by a fifth.
    pub poll_interval: Duration,
    /// Namespaces whose logs are not read.
    pub skip_namespaces: BTreeSet<String>,
    /// Whose logs are read.
    pub log_lines: node::LogLines,
    /// Whether the API server is asked for logs that the log folder does not give.
    pub api_log: bool,
    /// What is redacted beyond what always is.
    pub redact: redact::named::Named,
    /// Where the ledger is kept; `None`: in memory alone.
    pub state: Option<PathBuf>,
}

/// Why the tap ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The agent is stopping.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A pattern of our own does not compile.
    #[error("redaction cannot be set up: {0}")]
    Redaction(#[from] regex::Error),
}

/// Taps until cancelled.
///
/// # Errors
/// Where the outbox has ended. Nothing that a kubelet, an API server or a log folder does ends it.
pub async fn run(
    config: Config,
    access: KubernetesAccess,
    intake: Intake,
    again: Again,
    metrics: Metrics,
    cancel: CancellationToken,
) -> Result<(), TapError> {
    let settings = Settings {
        node: config.node.clone(),
        pod_logs: config.pod_logs.clone(),
        skip_namespaces: config.skip_namespaces.clone(),
        log_lines: config.log_lines,
        redact: config.redact.clone(),
    };
    let (ledger, saver) = ledger(&config, &metrics).await;
    let reached = saver.as_ref().map(Saver::reached);
    let client = access.client.clone();
    let api_log = config.api_log.then(|| ApiLog::new(client.clone(), metrics.clone()));
    let node = Node::new(settings, ledger, saver, intake, metrics.clone(), api_log)?;
    let stirs = inotify::spawn(config.pod_logs.clone(), node.held(), metrics.clone());
    let kubelet = config.kubelet.clone().map(|address| Kubelet::new(access, address));
    let now = Instant::now();
    let mut tap = Tap {
        config,
        client,
        kubelet_down: kubelet.is_none(),
        kubelet,
        failures: 0,
        node,
        metrics,
        watch: None,
        watch_said: false,
        next_poll: now,
        follow_ups: BTreeSet::new(),
        last_snapshot: None,
        assist_until: None,
        announce_at: None,
        tell_at: None,
    };
    tap.in_use(if tap.kubelet_down { SourceName::pod_watch } else { SourceName::kubelet });
    cancel.run_until_cancelled_owned(tap.run(stirs, again, reached)).await.unwrap_or(Ok(()))
}

/// As it was saved, where there is a disk for it.
async fn ledger(config: &Config, metrics: &Metrics) -> (Ledger, Option<Saver>) {
    let node = config.node.clone();
    if let Some(folder) = config.state.clone() {
        let (node, metrics) = (node.clone(), metrics.clone());
        let opened = tokio::task::spawn_blocking(move || Saver::open(&folder, &node, &metrics)).await;
        if let Ok((ledger, saver)) = opened {
            return (ledger, Some(saver));
        }
    }
    tracing::info!(
        "the ledger is in memory alone: after a start deaths that the kubelet still shows are told again"
    );
    (Ledger::new(node, time::now_ns()), None)
}

struct Tap {
    config: Config,
    client: Client,
    kubelet: Option<Kubelet>,
    /// The watch is the source in use.
    kubelet_down: bool,
    failures: u32,
    node: Node,
    metrics: Metrics,
    watch: Option<PodWatch>,
    /// Whether the watch's failure has been logged.
    watch_said: bool,
    next_poll: Instant,
    follow_ups: BTreeSet<Instant>,
    last_snapshot: Option<Instant>,
    assist_until: Option<Instant>,
    /// All pods are announced again then.
    announce_at: Option<Instant>,
    /// Deaths that can still be seen are told again then.
    tell_at: Option<Instant>,
}

// === impl Tap ===

impl Tap {
    async fn run(
        &mut self,
        mut stirs: mpsc::Receiver<Stir>,
        mut again: Again,
        mut reached: Option<watch::Receiver<u64>>,
    ) -> Result<(), TapError> {
        self.node.flush().await?;
        loop {
            self.open_or_close_watch();
            let (due, save_due) = (self.due(), self.node.save_due());
            tokio::select! {
                biased;
                Some(stir) = stirs.recv() => self.stirred(stir),
                Ok(()) = again.forgotten.changed() => {
                    // One that is due already does for this too.
                    let at = Instant::now() + again.within * random() / 1000;
                    self.announce_at.get_or_insert(at);
                }
                Ok(()) = again.lost.changed() => {
                    // Sooner: what can be seen now may be gone soon.
                    let at = Instant::now() + again.within * random() / 2000;
                    self.tell_at.get_or_insert(at);
                }
                () = until(self.tell_at) => {
                    self.tell_at = None;
                    self.tell_again();
                }
                () = until(self.announce_at) => {
                    self.announce_at = None;
                    self.node.announce_again().await?;
                }
                mark = next_mark(&mut reached) => self.node.reached(mark),
                () = until(save_due) => self.node.save(),
                (death, lines) = self.node.asked() => self.node.answered(death, lines).await?,
                change = next(&mut self.watch) => self.changed(change).await?,
                () = sleep_until(due) => {
                    self.snapshot().await?;
                    self.node.settle(time::now_ns());
                }
            }
        }
    }

    /// Tells which source is in use, and how long it may be silent.
    fn in_use(&self, source: SourceName) {
        self.metrics.in_use(source);
        self.metrics.patience(match source {
            SourceName::pod_watch => WATCH_SPEAKS,
            SourceName::kubelet | SourceName::log_ordinal => 2 * self.config.poll_interval,
        });
    }

    /// Has the next look at all pods tell again the deaths that it shows.
    fn tell_again(&mut self) {
        self.node.tell_again();
        if self.kubelet_down {
            // A new one lists.
            self.watch = None;
        } else {
            self.next_poll = Instant::now();
        }
    }

    /// When to look next. A kubelet that is down is not asked sooner because something stirs.
    fn due(&self) -> Instant {
        let mut due = self.next_poll;
        if !self.kubelet_down
            && let Some(follow_up) = self.follow_ups.first()
        {
            due = due.min(*follow_up);
        }
        self.last_snapshot.map_or(due, |last| due.max(last + GAP))
    }

    fn stirred(&mut self, stir: Stir) {
        for log in stir.logs {
            self.node.log_seen(log);
        }
        if stir.changed {
            let now = Instant::now();
            self.follow_ups.extend(AFTER_A_STIR.iter().map(|after| now + *after));
        }
    }

    fn open_or_close_watch(&mut self) {
        let now = Instant::now();
        if self.node.is_terminating() {
            self.assist_until = Some(now + WATCH_LINGERS);
        }
        let wanted = self.kubelet_down || self.assist_until.is_some_and(|until| until > now);
        if wanted && self.watch.is_none() {
            let watch = PodWatch::spawn(self.client.clone(), self.config.node.clone(), self.metrics.clone());
            self.watch = Some(watch);
            self.watch_said = false;
        } else if !wanted {
            self.watch = None;
        }
    }

    async fn snapshot(&mut self) -> Result<(), Closed> {
        let asked = Instant::now();
        self.last_snapshot = Some(asked);
        self.next_poll = asked + jittered(self.config.poll_interval);
        self.follow_ups = self.follow_ups.split_off(&asked);
        let Some(kubelet) = &mut self.kubelet else { return Ok(()) };
        let taken = match kubelet.pods().await {
            Ok(body) => {
                let body = String::from_utf8(body)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                match PodList::parse(&body) {
                    Ok(list) => {
                        self.node.snapshot(&list.items, Source::Kubelet).await?;
                        Ok(())
                    }
                    Err(error) => {
                        Err(AskError::Garbage { server: kubelet.server().to_owned(), error }.into())
                    }
                }
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => self.kubelet_answered(),
            Err(error) => self.kubelet_failed(&error),
        }
        Ok(())
    }

    fn kubelet_answered(&mut self) {
        self.metrics.snapshot(SourceName::kubelet, Outcome::ok);
        self.failures = 0;
        if self.kubelet_down {
            self.kubelet_down = false;
            self.in_use(SourceName::kubelet);
            tracing::info!("the kubelet gives its pods again: the pod watch is given up");
        }
        if self.node.is_terminating_since(TERMINATING) {
            self.follow_ups.insert(Instant::now() + WHILE_TERMINATING);
        }
    }

    fn kubelet_failed(&mut self, error: &KubeletError) {
        let (outcome, refused) = match error {
            KubeletError::Ask(error) => (error.outcome(), error.is_refusal()),
            KubeletError::Access(_) | KubeletError::Ca { .. } => (Outcome::certificate, true),
        };
        self.metrics.snapshot(SourceName::kubelet, outcome);
        self.failures = self.failures.saturating_add(1);
        if refused {
            self.next_poll = Instant::now() + jittered(AFTER_A_REFUSAL);
        } else if self.failures < FAILURES {
            self.next_poll = Instant::now() + GAP;
            return;
        }
        if !self.kubelet_down {
            self.kubelet_down = true;
            self.in_use(SourceName::pod_watch);
            tracing::warn!(
                %error,
                "the kubelet gives no pods: taking them from the API server's pod watch until it does"
            );
        }
    }

    async fn changed(&mut self, change: Option<Change>) -> Result<(), Closed> {
        // Beside a kubelet that answers, the watch adds states and judges nothing.
        let alone = self.kubelet_down;
        match change {
            Some(Change::Listed(pods)) => {
                self.metrics.snapshot(SourceName::pod_watch, Outcome::ok);
                self.watch_said = false;
                if alone {
                    let pods: Vec<&serde_json::value::RawValue> = pods.iter().map(AsRef::as_ref).collect();
                    self.node.snapshot(&pods, Source::PodWatch).await?;
                } else {
                    for pod in &pods {
                        self.node.pod(pod, Source::PodWatch).await?;
                    }
                }
            }
            Some(Change::Pod(pod)) => {
                self.metrics.heard();
                self.node.pod(&pod, Source::PodWatch).await?;
            }
            Some(Change::Deleted(pod)) => {
                self.metrics.heard();
                self.node.pod(&pod, Source::PodWatch).await?;
                self.node.gone(&pod).await?;
            }
            Some(Change::Quiet) => self.metrics.heard(),
            Some(Change::Failed(error)) => {
                self.metrics.snapshot(SourceName::pod_watch, error.outcome());
                if !self.watch_said {
                    self.watch_said = true;
                    tracing::warn!(%error, alone, "the pod watch gives no pods: it is tried again");
                }
            }
            None => self.watch = None,
        }
        Ok(())
    }
}

/// Waits for ever where there is no watch.
async fn next(watch: &mut Option<PodWatch>) -> Option<Change> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for ever where the ledger is not saved.
async fn next_mark(reached: &mut Option<watch::Receiver<u64>>) -> u64 {
    if let Some(reached) = reached
        && reached.changed().await.is_ok()
    {
        return *reached.borrow_and_update();
    }
    std::future::pending().await
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A fifth more or less, so that the agents of a cluster do not ask in step.
fn jittered(duration: Duration) -> Duration {
    duration * (800 + random() * 2 / 5) / 1000
}

/// From 0 to 1000.
#[allow(clippy::cast_possible_truncation)]
fn random() -> u32 {
    (RandomState::new().hash_one(0_u8) % 1001) as u32
}

#[cfg(test)]
mod tests;
