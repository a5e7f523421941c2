//! What the tap counts, and whether it is well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use nodetap_runtime::bounded::{BoundedCounter, ContainerLabels, Overflow};
use nodetap_wire::time;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ledger::{Tally, Unseen};
use super::logs::Missing;
use crate::kubernetes::requests::Requests;

/// Containers in back-off that are named: a node where more wait has another trouble.
const BACK_OFFS: usize = 256;

/// Label sets of each family by namespace and container: a node of 110 pods has fewer, and one of short-lived pods of many namespaces
/// counts those that come late under one.
const CONTAINERS: usize = 256;

/// The tap's metrics; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// What is asked of the API server; registered with what the watches ask.
    pub(super) requests: Requests,
    snapshots: Family<SnapshotLabels, Counter>,
    deaths: Family<DeathLabels, Counter>,
    containers: Arc<Containers>,
    last_snapshot: Gauge<f64, AtomicU64>,
    lines: Counter,
    lines_missing: Family<MissingLabels, Counter>,
    api_log: Gauge<i64, AtomicI64>,
    api_log_deaths: Counter,
    redactions: Family<RedactionLabels, Counter>,
    source: Family<SourceLabels, Gauge<i64, AtomicI64>>,
    bad_pods: Counter,
    pods: Gauge<i64, AtomicI64>,
    stirs: Counter,
    rescans: Counter,
    folders: Gauge<i64, AtomicI64>,
    folders_unwatched: Gauge<i64, AtomicI64>,
    pod_log_folder: Gauge<i64, AtomicI64>,
    back_off: Family<BackOffLabels, Gauge<i64, AtomicI64>>,
    back_off_containers: Gauge<i64, AtomicI64>,
    blind: Counter<f64, AtomicU64>,
    /// Milliseconds without a word of the source in use, up to which nothing is amiss.
    patience_ms: Arc<AtomicU64>,
    ledger_saves: Counter,
    ledger_save_failures: Counter,
    ledger_set_aside: Family<MissingLabels, Counter>,
    ledger_bytes: Gauge<i64, AtomicI64>,
    ledger_seeds: Family<SeedLabels, Counter>,
    ledger_told: Counter,
}

/// Where the tap takes the state of pods from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum SourceName {
    /// `GET /pods` of the kubelet.
    kubelet,
    /// The pod watch with `spec.nodeName`.
    pod_watch,
    /// The ordinals of log files.
    log_ordinal,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum Outcome {
    /// Taken.
    ok,
    /// No connection, or it broke.
    unreachable,
    /// The server's certificate is not trusted.
    certificate,
    /// 401.
    unauthorized,
    /// 403.
    forbidden,
    /// 404.
    not_found,
    /// Another status.
    status,
    /// No answer in time.
    timeout,
    /// A longer answer than is taken.
    too_large,
    /// Not a list of pods.
    garbage,
}

/// Where the ledger of a process comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum Seed {
    /// This node's disk.
    disk,
    /// What the aggregator remembers.
    aggregator,
    /// The same, of which some is lost.
    partial,
    /// Nowhere: the aggregator remembers nothing of this node.
    nothing,
    /// Nowhere: the aggregator did not answer in time.
    unanswered,
    /// Nowhere: the aggregator is of an older version.
    unsupported,
}

/// A container that waits in back-off, by the labels of kube-state-metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct BackOffLabels {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// The container.
    pub container: String,
    /// Such as CrashLoopBackOff.
    pub reason: String,
}

/// What is counted by container, and outlives its pod.
#[derive(Debug)]
struct Containers {
    missed: BoundedCounter<ContainerLabels>,
    unseen: BoundedCounter<ContainerLabels>,
    restarting: BoundedCounter<ContainerLabels>,
    overflow: Overflow,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SnapshotLabels {
    source: SourceName,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeathLabels {
    source: SourceName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MissingLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeedLabels {
    origin: Seed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RedactionLabels {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: SourceName,
}

// === impl Containers ===

impl Default for Containers {
    fn default() -> Self {
        let overflow = Overflow::default();
        let counter =
            |family| BoundedCounter::new(CONTAINERS, ContainerLabels::overflow(), overflow.of(family));
        Self {
            missed: counter("nodetap_agent_tap_missed_deaths"),
            unseen: counter("nodetap_agent_tap_unseen_ends"),
            restarting: counter("nodetap_agent_tap_restarting_seconds"),
            overflow,
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Counts what is asked of the API server in with others.
    pub fn with(requests: Requests) -> Self {
        Self { requests, ..Self::default() }
    }

    /// Names the families in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            snapshots,
            deaths,
            containers,
            last_snapshot,
            lines,
            lines_missing,
            api_log,
            api_log_deaths,
            redactions,
            source,
            bad_pods,
            pods,
            stirs,
            rescans,
            folders,
            folders_unwatched,
            pod_log_folder,
            back_off,
            back_off_containers,
            blind,
            patience_ms: _,
            ledger_saves,
            ledger_save_failures,
            ledger_set_aside,
            ledger_bytes,
            ledger_seeds,
            ledger_told,
            // Registered with what the watches ask.
            requests: _,
        } = self.clone();
        let registry = registry.sub_registry_with_prefix("nodetap_agent_tap");
        registry.register("snapshots", "Snapshots of this node's pods, by source and outcome", snapshots);
        registry.register("deaths", "Container deaths reported, by how they were seen", deaths);
        containers.missed.register(
            registry,
            "missed_deaths",
            "Container deaths that nobody could see, known by restart counts",
        );
        containers.unseen.register(
            registry,
            "unseen_ends",
            "Instances that had begun when their pod was last seen, as its state or a log file tells, and whose end was not seen",
        );
        containers.restarting.register(
            registry,
            "restarting_seconds",
            "Seconds from the end of a container to its next beginning, back-off included, counted when it begins",
        );
        containers.overflow.register(registry, "label_overflow");
        registry.register(
            "last_snapshot_timestamp_seconds",
            "When pods were last seen, in seconds since 1970",
            last_snapshot,
        );
        registry.register("log_lines", "Last log lines taken", lines);
        registry.register(
            "log_lines_missing",
            "Deaths with a non-zero exit that go without log lines, by reason",
            lines_missing,
        );
        registry.register(
            "api_log",
            "1 where the API server is asked for logs that the log folder does not give; 0: that is not set, or refused",
            api_log,
        );
        registry.register(
            "api_log_deaths",
            "Deaths whose last log lines came from the API server",
            api_log_deaths,
        );
        registry.register("redactions", "Secrets taken out of log lines and messages, by kind", redactions);
        registry.register("source", "1 for the source in use", source);
        registry.register("bad_pods", "Pods of a snapshot or watch that could not be read", bad_pods);
        registry.register("pods", "Pods in the last snapshot", pods);
        registry.register("log_folder_stirs", "Times the pod log folder stirred", stirs);
        registry.register("log_folder_rescans", "Times the pod log folder was read anew", rescans);
        registry.register("log_folders_watched", "Folders watched below the pod log folder", folders);
        registry.register(
            "log_folders_unwatched",
            "Folders that are not watched because there are too many",
            folders_unwatched,
        );
        registry.register("pod_log_folder", "1 where the pod log folder is there", pod_log_folder);
        registry.register(
            "back_off",
            "1 for a container that waits in back-off now, at most 256 of them",
            back_off,
        );
        registry.register("back_off_containers", "Containers that wait in back-off now", back_off_containers);
        registry.register(
            "blind_seconds",
            "Seconds during which no source told of this node's pods, beyond what is usual of it; counted when one does again",
            blind,
        );
        registry.register("ledger_saves", "Times the ledger was saved on this node's disk", ledger_saves);
        registry.register("ledger_save_failures", "Times it could not be saved", ledger_save_failures);
        registry.register(
            "ledger_set_aside",
            "Ledgers found on disk, and entries that the aggregator remembered, that could not be gone on from, by reason",
            ledger_set_aside,
        );
        registry.register(
            "ledger_origins",
            "Starts of the ledger, by where it went on from: disk, aggregator, partial, nothing, unanswered, unsupported",
            ledger_seeds,
        );
        registry.register(
            "ledger_entries_told",
            "Entries of the ledger told to the aggregator, one for each pod that changed",
            ledger_told,
        );
        registry.register("ledger_bytes", "Size of the ledger on disk; 0: not saved yet", ledger_bytes);
        for name in [SourceName::kubelet, SourceName::pod_watch] {
            self.source.get_or_create(&SourceLabels { source: name }).set(0);
        }
    }

    /// When pods were last seen, in seconds since 1970; 0: never. What readiness asks.
    pub fn last_snapshot_seconds(&self) -> f64 {
        self.last_snapshot.get()
    }

    pub(super) fn snapshot(&self, source: SourceName, outcome: Outcome) {
        self.snapshots.get_or_create(&SnapshotLabels { source, outcome }).inc();
        if outcome == Outcome::ok {
            self.heard();
        }
    }

    /// Pods have been seen now, or a watch has told that nothing changed.
    pub(super) fn heard(&self) {
        #[allow(clippy::cast_precision_loss)]
        self.heard_at(time::now_ns() as f64 / 1e9);
    }

    fn heard_at(&self, now: f64) {
        let last = self.last_snapshot.set(now);
        let patience = Duration::from_millis(self.patience_ms.load(Ordering::Relaxed)).as_secs_f64();
        if last > 0.0 && now - last > patience {
            self.blind.inc_by(now - last - patience);
        }
    }

    /// How long the source in use may be silent.
    pub(super) fn patience(&self, patience: Duration) {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience_ms.store(millis, Ordering::Relaxed);
    }

    /// The containers that wait in back-off now, in place of those that did.
    pub(super) fn back_off(&self, waiting: &BTreeSet<BackOffLabels>) {
        self.back_off.clear();
        for labels in waiting.iter().take(BACK_OFFS) {
            self.back_off.get_or_create(labels).set(1);
        }
        self.back_off_containers.set(waiting.len() as i64);
    }

    pub(super) fn death(&self, source: SourceName) {
        self.deaths.get_or_create(&DeathLabels { source }).inc();
    }

    /// What is counted of a container of a namespace.
    pub(super) fn tally(&self, namespace: &str, tally: &Tally) {
        let labels = ContainerLabels { namespace: namespace.to_owned(), container: tally.container.clone() };
        // The kubelet's times are whole seconds.
        let seconds = u64::try_from(tally.restarting_ns / 1_000_000_000).unwrap_or_default();
        if seconds > 0 {
            self.containers.restarting.inc_by(labels.clone(), seconds);
        }
        if tally.missed > 0 {
            self.containers.missed.inc_by(labels, tally.missed);
        }
    }

    pub(super) fn unseen(&self, Unseen { namespace, container, ends }: Unseen) {
        self.containers.unseen.inc_by(ContainerLabels { namespace, container }, ends);
    }

    pub(super) fn lines(&self, lines: usize) {
        self.lines.inc_by(lines as u64);
    }

    pub(super) fn lines_missing(&self, reason: Missing) {
        self.lines_missing.get_or_create(&MissingLabels { reason: reason.name() }).inc();
    }

    /// Whether the API server is asked for logs.
    pub(super) fn api_log(&self, asks: bool) {
        self.api_log.set(i64::from(asks));
    }

    pub(super) fn api_log_deaths(&self) {
        self.api_log_deaths.inc();
    }

    pub(super) fn redacted(&self, kind: &str, times: u64) {
        self.redactions.get_or_create(&RedactionLabels { kind: kind.to_owned() }).inc_by(times);
    }

    pub(super) fn in_use(&self, source: SourceName) {
        for name in [SourceName::kubelet, SourceName::pod_watch] {
            self.source.get_or_create(&SourceLabels { source: name }).set(i64::from(name == source));
        }
    }

    pub(super) fn bad_pod(&self) {
        self.bad_pods.inc();
    }

    pub(super) fn pods(&self, pods: usize) {
        self.pods.set(pods as i64);
    }

    pub(super) fn stirred(&self) {
        self.stirs.inc();
    }

    pub(super) fn rescanned(&self) {
        self.rescans.inc();
    }

    pub(super) fn watched(&self, folders: usize, unwatched: usize) {
        self.folders.set(folders as i64);
        self.folders_unwatched.set(unwatched as i64);
    }

    pub(super) fn ledger_saved(&self, bytes: usize) {
        self.ledger_saves.inc();
        self.ledger_bytes.set(bytes as i64);
    }

    pub(super) fn ledger_not_saved(&self) {
        self.ledger_save_failures.inc();
    }

    pub(super) fn ledger_set_aside(&self, reason: &'static str) {
        self.ledger_set_aside.get_or_create(&MissingLabels { reason }).inc();
    }

    pub(super) fn seeded(&self, origin: Seed) {
        self.ledger_seeds.get_or_create(&SeedLabels { origin }).inc();
    }

    pub(super) fn ledger_told(&self, entries: usize) {
        self.ledger_told.inc_by(entries as u64);
    }

    pub(super) fn pod_log_folder(&self, there: bool) {
        self.pod_log_folder.set(i64::from(there));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_of_a_container_stays_and_is_bounded() {
        let metrics = Metrics::default();
        let tally = |container: &str, missed, seconds: i64| {
            let restarting_ns = seconds * 1_000_000_000;
            metrics.tally("shop", &Tally { container: container.into(), missed, restarting_ns });
        };
        tally("app", 2, 40);
        tally("app", 0, 20);
        for number in 0..CONTAINERS {
            tally(&format!("job-{number}"), 1, 0);
        }
        metrics.unseen(Unseen { namespace: "shop".into(), container: "app".into(), ends: 2 });
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let text = nodetap_runtime::exposition::prometheus(&registry);
        for line in [
            r#"nodetap_agent_tap_restarting_seconds_total{namespace="shop",container="app"} 60"#,
            r#"nodetap_agent_tap_missed_deaths_total{namespace="shop",container="app"} 2"#,
            r#"nodetap_agent_tap_missed_deaths_total{namespace="_other",container="_other"} 1"#,
            r#"nodetap_agent_tap_unseen_ends_total{namespace="shop",container="app"} 2"#,
            r#"nodetap_agent_tap_label_overflow_total{family="nodetap_agent_tap_missed_deaths"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn silence_beyond_what_is_usual_is_blindness() {
        let metrics = Metrics::default();
        metrics.patience(Duration::from_secs(25));
        metrics.heard_at(1000.0);
        metrics.heard_at(1020.0);
        assert!(metrics.blind.get() == 0.0, "before the first word and within patience nobody is blind");
        metrics.heard_at(1105.0);
        assert!((metrics.blind.get() - 60.0).abs() < 1e-6, "{}", metrics.blind.get());
    }
}
