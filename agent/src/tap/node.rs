//! This node's pods as they are known: what is new of them goes to the outbox, with the last lines of what died.
//!
//! A pod that is as it was is not parsed: a kubelet lists its pods in any order, so each is told by a hash of its JSON.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodetap_wire::{ContainerDied, LinesFrom, LogLine, PodFacts, Record, Source, record, time};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::outbox::{Closed, Intake, Taken};

use super::api_log::ApiLog;
use super::held::Held;
use super::ledger::{Ledger, LogSeen, Seen};
use super::logs::{self, Log, Missing};
use super::metrics::{BackOffLabels, Metrics, SourceName};
use super::pods::Pod;
use super::redact::named::Named;
use super::redact::{Counts, Redactor};
use super::saver::Saver;

/// What the kubelet says about a pod or a container in back-off: a sentence or two.
const WORDS_BYTES: usize = 1024;

/// The annotation of a pod by which its last log lines are taken (`true`) or not (`false`).
const LOG_LINES: &str = "nodetap.io/log-lines";

/// Whose last log lines are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLines {
    /// Those of all pods but of those that are annotated `nodetap.io/log-lines: "false"`.
    #[default]
    OptOut,
    /// Those of pods that are annotated `nodetap.io/log-lines: "true"`.
    OptIn,
}

/// What the node needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// Such as /var/log/pods.
    pub pod_logs: PathBuf,
    /// Namespaces whose logs are not read.
    pub skip_namespaces: BTreeSet<String>,
    /// Whose logs are read.
    pub log_lines: LogLines,
    /// What the configuration adds to redaction.
    pub redact: Named,
}

/// This node's pods.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    intake: Intake,
    metrics: Metrics,
    redactor: Arc<Redactor>,
    ledger: Ledger,
    saver: Option<Saver>,
    held: Held,
    /// `None`: the API server is not asked for logs.
    api_log: Option<ApiLog>,
    /// To be handed over once the ledger that calls them reported is on the disk.
    outgoing: Vec<ContainerDied>,
    /// Something was counted as missed since the ledger was written: it is not to be counted again.
    counted: bool,
    known: HashMap<String, Known>,
    /// Containers that wait in back-off.
    back_off: BTreeSet<BackOffLabels>,
    hasher: RandomState,
    /// 0: not known.
    booted_ns: i64,
    /// The last snapshot: the hash of each pod's JSON, and its uid.
    hashes: HashMap<u64, String>,
    /// Until the end of the next snapshot, deaths that it shows are told though they were told before.
    tells_again: bool,
}

#[derive(Debug)]
struct Known {
    facts: PodFacts,
    /// Being deleted, and some container of it is still running.
    terminating: Option<Instant>,
    /// Some container of it waits in back-off.
    backs_off: bool,
}

// === impl LogLines ===

impl LogLines {
    /// Whether the lines of a pod are taken, by what its annotation says.
    fn takes(self, says: Option<&str>) -> bool {
        match self {
            Self::OptOut => says != Some("false"),
            Self::OptIn => says == Some("true"),
        }
    }
}

// === impl Node ===

impl Node {
    /// Nothing is known yet but what the ledger remembers.
    ///
    /// # Errors
    /// Where redaction cannot be set up.
    pub fn new(
        settings: Settings,
        ledger: Ledger,
        saver: Option<Saver>,
        intake: Intake,
        metrics: Metrics,
        api_log: Option<ApiLog>,
    ) -> Result<Self, regex::Error> {
        let mut ledger = ledger;
        Ok(Self {
            // What an agent before this one may have told.
            outgoing: ledger.take_untold(),
            counted: false,
            ledger,
            saver,
            held: Held::default(),
            api_log,
            intake,
            metrics,
            redactor: Arc::new(Redactor::with(settings.redact.clone())?),
            known: HashMap::new(),
            back_off: BTreeSet::new(),
            hasher: RandomState::new(),
            settings,
            booted_ns: booted_ns().unwrap_or_default(),
            hashes: HashMap::new(),
            tells_again: false,
        })
    }

    /// Where the logs of containers that end are to be put.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Takes all pods of the node: what is not among them is gone.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn snapshot(&mut self, pods: &[&RawValue], source: Source) -> Result<(), Closed> {
        let mut hashes = HashMap::with_capacity(pods.len());
        let mut present = HashSet::with_capacity(pods.len());
        let mut whole = true;
        for pod in pods {
            let hash = self.hasher.hash_one(pod.get());
            let uid = match self.hashes.remove(&hash) {
                Some(uid) => Some(uid),
                None => self.take(pod, source).await?,
            };
            match uid {
                Some(uid) => {
                    present.insert(uid.clone());
                    hashes.insert(hash, uid);
                }
                None => whole = false,
            }
        }
        self.flush().await?;
        self.hashes = hashes;
        self.tells_again = false;
        self.metrics.pods(pods.len());
        // A pod that could not be read may be any of those that seem to be gone.
        if whole {
            self.ledger.end_snapshot(&present, time::now_ns());
            let gone: Vec<String> =
                self.known.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
            for uid in gone {
                self.forget(&uid).await?;
            }
        }
        Ok(())
    }

    /// The journal lost deaths, of this node perhaps: those that the next snapshot shows are told again.
    pub fn tell_again(&mut self) {
        self.tells_again = true;
        // All pods are to be read, those that are as they were too.
        self.hashes.clear();
    }

    /// Takes one state of one pod, and gives its uid; `None` where it cannot be read, which is counted.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn pod(&mut self, raw: &RawValue, source: Source) -> Result<Option<String>, Closed> {
        let uid = self.take(raw, source).await?;
        self.flush().await?;
        Ok(uid)
    }

    /// The same, but for its deaths, which wait for [`Self::flush`].
    async fn take(&mut self, raw: &RawValue, source: Source) -> Result<Option<String>, Closed> {
        let pod: Pod = match serde_json::from_str(raw.get()) {
            Ok(pod) => pod,
            Err(error) => {
                self.metrics.bad_pod();
                tracing::debug!(%error, "a pod cannot be read");
                return Ok(None);
            }
        };
        let uid = pod.uid().to_owned();
        if uid.is_empty() {
            self.metrics.bad_pod();
            return Ok(None);
        }
        let seen = Seen { at_ns: time::now_ns(), source };
        let again = if self.tells_again { self.ledger.told_before(&pod, seen) } else { Vec::new() };
        let told = self.ledger.observe(&pod, seen);
        for tally in &told.tallies {
            self.metrics.tally(&pod.metadata.namespace, tally);
        }
        self.counted |= told.missed > 0;
        // The lines first: a log can be gone while the outbox is full.
        for death in again.into_iter().chain(told.deaths) {
            let death = self.complete(death);
            self.with_lines(&pod, death).await;
        }
        self.announce(&pod, &uid).await?;
        Ok(Some(uid))
    }

    /// Hands over the deaths that wait, once the ledger that calls them reported is on the disk.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        if self.outgoing.is_empty() && !self.counted {
            return Ok(());
        }
        let deaths = std::mem::take(&mut self.outgoing);
        self.counted = false;
        if let Some(saver) = &mut self.saver {
            let waiting = self.api_log.iter().flat_map(ApiLog::waiting);
            saver.keep(&self.ledger, &deaths, waiting).await;
        }
        for death in deaths {
            self.metrics.death(match death.source() {
                Source::LogOrdinal => SourceName::log_ordinal,
                Source::PodWatch => SourceName::pod_watch,
                _ => SourceName::kubelet,
            });
            self.hand_over(record::Kind::Death(death.into())).await?;
        }
        match &mut self.saver {
            Some(saver) => saver.mark(&self.intake).await,
            None => Ok(()),
        }
    }

    /// The next death for whose last lines the API server was asked; waits for ever where it was asked for none. Can be dropped and
    /// called again.
    pub async fn asked(&mut self) -> (ContainerDied, Result<Vec<LogLine>, Missing>) {
        if let Some(api_log) = &mut self.api_log
            && let Some(answered) = api_log.next().await
        {
            return answered;
        }
        std::future::pending().await
    }

    /// Takes what [`Self::asked`] gave.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn answered(
        &mut self,
        mut death: ContainerDied,
        lines: Result<Vec<LogLine>, Missing>,
    ) -> Result<(), Closed> {
        match lines {
            Ok(lines) => self.put_lines(&mut death, lines, LinesFrom::ApiServer),
            Err(missing) => self.metrics.lines_missing(missing),
        }
        self.outgoing.push(death);
        self.flush().await
    }

    /// Takes it that a pod is gone, by its last state.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn gone(&mut self, raw: &RawValue) -> Result<(), Closed> {
        let Ok(pod) = serde_json::from_str::<Pod>(raw.get()) else { return Ok(()) };
        // A mirror pod is made anew while the static pod behind it runs on.
        if pod.uid() != pod.metadata.uid {
            return Ok(());
        }
        self.ledger.gone(pod.uid(), time::now_ns());
        self.forget(pod.uid()).await
    }

    /// Takes it that a log file is there, or was.
    pub fn log_seen(&mut self, seen: LogSeen) {
        self.ledger.log_seen(seen);
    }

    /// Judges what has been gone for long enough.
    pub fn settle(&mut self, now_ns: i64) {
        for unseen in self.ledger.settle(now_ns) {
            self.counted = true;
            self.metrics.unseen(unseen);
        }
    }

    /// When the ledger is to be saved.
    pub fn save_due(&self) -> Option<Instant> {
        self.saver.as_ref()?.due(&self.ledger)
    }

    /// Saves the ledger.
    pub fn save(&mut self) {
        if let Some(saver) = &mut self.saver {
            let waiting = self.api_log.iter().flat_map(ApiLog::waiting);
            saver.save(&self.ledger, waiting.chain(&self.outgoing));
        }
    }

    /// Everything up to a mark of the saver is safe.
    pub fn reached(&mut self, mark: u64) {
        if let Some(saver) = &mut self.saver {
            saver.reach(mark);
        }
    }

    /// Whether some pod is being deleted whose containers have not all ended.
    pub fn is_terminating(&self) -> bool {
        self.known.values().any(|known| known.terminating.is_some())
    }

    /// The same, of those for which it began at most so long ago.
    pub fn is_terminating_since(&self, within: Duration) -> bool {
        self.known.values().filter_map(|known| known.terminating).any(|since| since.elapsed() < within)
    }

    /// Sends what enrichment needs to know of every pod, as it was sent last.
    ///
    /// # Errors
    /// Where the outbox has ended.
    pub async fn announce_again(&self) -> Result<(), Closed> {
        for known in self.known.values() {
            self.hand_over(record::Kind::Pod(known.facts.clone())).await?;
        }
        Ok(())
    }

    /// Sends what enrichment needs to know of a pod, when it is new or has changed.
    async fn announce(&mut self, pod: &Pod, uid: &str) -> Result<(), Closed> {
        let mut counts = Counts::new();
        let metadata = &pod.metadata;
        let mut facts = PodFacts {
            uid: uid.to_owned(),
            resource_version: metadata.resource_version.clone(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            labels: metadata.labels.clone(),
            annotations: pod.annotations(),
            owners: pod.owners(),
            deleted: pod.is_terminating(),
        };
        self.redactor.values(&mut facts.annotations, &mut counts);
        let known = self.known.get(uid);
        let was = known.and_then(|known| known.terminating);
        let terminating =
            (pod.is_terminating() && pod.has_running()).then(|| was.unwrap_or_else(Instant::now));
        let changed = known.is_none_or(|known| known.facts != facts);
        let backed_off = known.is_some_and(|known| known.backs_off);
        let backs_off = self.follow_back_off(pod, uid, backed_off);
        self.known.insert(uid.to_owned(), Known { facts: facts.clone(), terminating, backs_off });
        if changed {
            self.count(&counts);
            self.hand_over(record::Kind::Pod(facts)).await?;
        }
        Ok(())
    }

    /// Which containers of a pod wait in back-off; whether any does.
    fn follow_back_off(&mut self, pod: &Pod, uid: &str, before: bool) -> bool {
        let waiting: BTreeSet<BackOffLabels> = pod
            .waiting()
            .filter(|(_, reason)| reason.ends_with("BackOff"))
            .map(|(container, reason)| BackOffLabels {
                namespace: pod.metadata.namespace.clone(),
                pod: pod.metadata.name.clone(),
                uid: uid.to_owned(),
                container: container.to_owned(),
                reason: reason.to_owned(),
            })
            .collect();
        let backs_off = !waiting.is_empty();
        if before || backs_off {
            self.back_off.retain(|labels| labels.uid != uid);
            self.back_off.extend(waiting);
            self.metrics.back_off(&self.back_off);
        }
        backs_off
    }

    async fn forget(&mut self, uid: &str) -> Result<(), Closed> {
        if let Some(Known { mut facts, backs_off, .. }) = self.known.remove(uid) {
            if backs_off {
                self.back_off.retain(|labels| labels.uid != uid);
                self.metrics.back_off(&self.back_off);
            }
            facts.deleted = true;
            self.hand_over(record::Kind::Pod(facts)).await?;
        }
        Ok(())
    }

    /// Adds the last lines, as the log folder has them; where the API server is asked for them, the death comes by [`Self::asked`].
    async fn with_lines(&mut self, pod: &Pod, mut death: ContainerDied) {
        if death.exit_code != Some(0) {
            match self.last_lines(&death).await {
                Ok(lines) => self.put_lines(&mut death, lines, LinesFrom::LogFile),
                Err(missing) => {
                    let missing = match &mut self.api_log {
                        Some(api_log) if missing.may_be_elsewhere() => {
                            match api_log.ask(pod, &death, missing) {
                                Ok(()) => return,
                                Err(missing) => missing,
                            }
                        }
                        _ => missing,
                    };
                    self.metrics.lines_missing(missing);
                }
            }
        }
        self.outgoing.push(death);
    }

    /// The last lines of a death, less their secrets.
    fn put_lines(&self, death: &mut ContainerDied, mut lines: Vec<LogLine>, from: LinesFrom) {
        let mut counts = Counts::new();
        self.redactor.lines(&mut lines, &mut counts);
        logs::fit(&mut lines);
        self.metrics.lines(lines.len());
        self.count(&counts);
        death.last_lines = lines;
        death.set_lines_from(from);
    }

    /// Takes out secrets, and adds what is known of the node.
    fn complete(&self, mut death: ContainerDied) -> ContainerDied {
        let mut counts = Counts::new();
        for words in [&mut death.message, &mut death.pod_message, &mut death.waiting_message] {
            if let std::borrow::Cow::Owned(message) = self.redactor.text(words, &mut counts) {
                *words = message;
            }
        }
        // After redaction, so that no secret is cut into what no pattern knows.
        for words in [&mut death.pod_message, &mut death.waiting_message] {
            words.truncate(words.floor_char_boundary(WORDS_BYTES));
        }
        death.node_booted_ns = self.booted_ns;
        self.redactor.values(&mut death.annotations, &mut counts);
        self.count(&counts);
        death
    }

    async fn last_lines(&self, death: &ContainerDied) -> Result<Vec<LogLine>, Missing> {
        let says = death.annotations.get(LOG_LINES).map(String::as_str);
        let wanted =
            self.settings.log_lines.takes(says) && !self.settings.skip_namespaces.contains(&death.namespace);
        if !wanted {
            return Err(Missing::OptedOut);
        }
        let root = self.settings.pod_logs.clone();
        let ContainerDied { namespace, pod, pod_uid, container, ordinal, .. } = death;
        let (namespace, pod, pod_uid, container, ordinal) =
            (namespace.clone(), pod.clone(), pod_uid.clone(), container.clone(), *ordinal);
        let held = self.held.clone();
        let read = tokio::task::spawn_blocking(move || {
            let log =
                Log { namespace: &namespace, pod: &pod, pod_uid: &pod_uid, container: &container, ordinal };
            let lines = log.last_lines(&root);
            let seen = LogSeen { pod_uid: pod_uid.clone(), container: container.clone(), ordinal };
            match lines {
                Ok(lines) => {
                    held.release(&seen);
                    Ok(lines)
                }
                Err(missing) => held.last_lines(&seen).ok_or(missing),
            }
        });
        read.await.unwrap_or(Err(Missing::Unreadable))
    }

    fn count(&self, counts: &Counts) {
        for (kind, times) in counts {
            self.metrics.redacted(self.redactor.name(*kind), *times);
        }
    }

    async fn hand_over(&self, kind: record::Kind) -> Result<(), Closed> {
        self.intake.take(Taken::Record(Record { kind: Some(kind) })).await
    }
}

/// `btime` of `/proc/stat`, which a container sees as its node does; in nanoseconds since 1970.
fn booted_ns() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    seconds.checked_mul(1_000_000_000)
}
