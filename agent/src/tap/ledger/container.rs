//! One container's instances, and which of their deaths are accounted for.

use std::collections::{BTreeSet, VecDeque};

use nodetap_wire::{ContainerDied, ContainerKind, Source, time};
use serde::{Deserialize, Serialize};

use super::Seen;
use crate::tap::pods::{ContainerStatus, Pod, Terminated};

/// Ids remembered: a status names at most two, and a source that lags by a few restarts is still recognised.
const IDS: usize = 8;

/// Deaths of the same container up to this long before one are told with it.
const WINDOW_NS: i64 = 3600 * 1_000_000_000;

/// Of so many of them the times are kept: 512 bytes for a container that crashes as fast as it can.
const WINDOW: usize = 64;

/// What the kubelet reports for a container that its runtime has lost. Source: `pkg/kubelet/container/runtime.go`.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// What is known of one container.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    current: Option<Instance>,
    /// Deaths of this count's ordinals below it are accounted for: reported, counted as missed, or before our time.
    accounted: u32,
    /// Deaths counted as missed and not yet said by a death that was reported.
    missed: u32,
    /// Ids seen, with their ordinals, and whether their death is accounted for; newest last.
    ids: VecDeque<Id>,
    /// Whether a death without an id was reported.
    reported_unknown: bool,
    /// When the deaths of the last hour ended, as far as is known, oldest first.
    recent: VecDeque<i64>,
    /// When the first instance started after the count fell last.
    anew_ns: Option<i64>,
    /// When the instance that died last ended, while the next one has not begun; `None`: it has, or nobody saw when.
    down_ns: Option<i64>,
    /// As it was saved, and not compared with a status since.
    #[serde(skip)]
    restored: bool,
}

/// The latest instance: what the next status is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Instance {
    ordinal: u32,
    /// Empty: not created as far as is known.
    id: String,
    started_ns: Option<i64>,
    running: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Id {
    id: String,
    ordinal: u32,
    accounted: bool,
}

/// What a status told.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) ends: Vec<End>,
    pub(super) missed: u64,
    /// Nanoseconds from the ends of its instances to the beginnings of the next ones.
    pub(super) restarting_ns: i64,
    /// The container is not as it was: to be saved.
    pub(super) remember: bool,
}

/// One end of one instance.
#[derive(Debug)]
pub(super) struct End {
    ordinal: u32,
    container_id: String,
    /// `None`: seen by its log file alone.
    terminated: Option<Terminated>,
    missed_before: u32,
    /// How often it died lately, and since when.
    window: (u32, i64),
}

/// A terminated state that a status shows.
struct Shown<'a> {
    /// `None`: of a time before the count fell.
    ordinal: Option<u32>,
    id: &'a str,
    terminated: &'a Terminated,
}

// === impl Container ===

impl Container {
    /// What follows was saved by an agent that may have told more than that before it ended.
    pub(super) fn restored(self, restored: bool) -> Self {
        Self { restored, ..self }
    }

    /// The same, of one that is known.
    pub(super) fn restore(&mut self) {
        self.restored = true;
    }

    /// Compares a status with what is known. `from_birth`: the container began in our time, so all its ordinals count.
    pub(super) fn observe(
        &mut self,
        status: &ContainerStatus,
        from_birth: bool,
        terminating: bool,
        logs: &mut BTreeSet<u32>,
        at_ns: i64,
    ) -> Changed {
        let mut changed = Changed::default();
        let count = status.restart_count;
        let id = status.container_id.as_str();
        let started_ns = status.started_ns();
        let mut shown = self.shown(status, terminating);
        let was = self.current.clone();
        let is_current = was.as_ref().is_some_and(|was| was.id == id);
        if !is_current && matches!((started_ns, self.anew_ns), (Some(this), Some(anew)) if this < anew) {
            // A source that lags shows what was before the count fell, and has been accounted for then.
            return changed;
        }

        match &self.current {
            None if !from_birth => {
                self.accounted = shown.iter().filter_map(|shown| shown.ordinal).min().unwrap_or(count);
            }
            None => {}
            Some(current) => {
                let other = !id.is_empty() && !current.id.is_empty() && id != current.id;
                let fell = count < current.ordinal || (count == current.ordinal && other);
                // A count that fell is of a source that lags, unless it is of an instance that came later.
                let known = id.is_empty() || self.ids.iter().any(|known| known.id == id);
                let earlier =
                    matches!((started_ns, current.started_ns), (Some(this), Some(that)) if this <= that);
                if fell && (known || earlier) {
                    return changed;
                }
                if fell {
                    self.begin_anew(&mut shown, &mut changed);
                    self.anew_ns = started_ns;
                    logs.clear();
                }
            }
        }

        if std::mem::take(&mut self.restored) {
            // A death that was told by its id since the ledger was saved would be told by its log file once more: what nobody shows any
            // longer counts as missed.
            logs.retain(|ordinal| *ordinal >= count);
        }
        for Shown { ordinal, id, terminated } in shown {
            let Some(ordinal) = ordinal else {
                self.report_older(id, terminated, &mut changed);
                continue;
            };
            if self.is_accounted(id) {
                continue;
            }
            if ordinal < self.accounted {
                // Another instance had this ordinal: the count fell, and rose again before it was seen.
                let other = |known: &&Id| known.ordinal == ordinal && known.accounted && known.id != id;
                if !id.is_empty() && self.ids.iter().rev().any(|known| other(&known)) {
                    self.report_older(id, terminated, &mut changed);
                }
                continue;
            }
            self.pass_over(ordinal, logs, &mut changed);
            self.report(ordinal, id, terminated, &mut changed);
            self.accounted = ordinal.saturating_add(1);
        }
        // Whatever the count says, each instance before this one has ended.
        self.pass_over(count, logs, &mut changed);
        self.remember(id, count);
        let running = status.state.running.is_some();
        if running {
            self.begun(started_ns, &mut changed);
        }
        if was.is_none() && !from_birth {
            // It was waited for before our time, too: an agent before this one may have counted it.
            changed.restarting_ns = 0;
        }
        // A source that lags shows an instance that has begun as one that is not created yet.
        let lags = |was: &Instance| was.ordinal == count && !was.id.is_empty() && id.is_empty();
        let current = match self.current.take() {
            Some(was) if lags(&was) => Some(was),
            _ => Some(Instance { ordinal: count, id: id.to_owned(), started_ns, running }),
        };
        changed.remember = current != was || changed.missed > 0 || !changed.ends.is_empty();
        self.current = current;
        while logs.first().is_some_and(|ordinal| *ordinal < self.accounted) {
            logs.pop_first();
        }
        for end in &mut changed.ends {
            end.window = self.window(end, at_ns);
        }
        changed
    }

    /// Adds an end to those of the last hour, and tells how many they are and when the first one was.
    fn window(&mut self, end: &End, at_ns: i64) -> (u32, i64) {
        let finished = end.terminated.as_ref().and_then(|terminated| time::parse_ns(&terminated.finished_at));
        let ended_ns = finished.filter(|finished| *finished > 0).unwrap_or(at_ns);
        self.recent.retain(|before| *before > ended_ns.saturating_sub(WINDOW_NS));
        // Those that were missed ended some time before this one.
        for _ in 0..=end.missed_before.min(WINDOW as u32) {
            if self.recent.len() >= WINDOW {
                self.recent.pop_front();
            }
            self.recent.push_back(ended_ns);
        }
        let first = self.recent.iter().copied().min().unwrap_or(ended_ns);
        (u32::try_from(self.recent.len()).unwrap_or(u32::MAX), first)
    }

    /// The ends that a status shows and that are accounted for.
    pub(super) fn told_before(&self, status: &ContainerStatus, terminating: bool) -> Vec<End> {
        let shown = self.shown(status, terminating).into_iter();
        let told = shown.filter(|shown| match (shown.id, shown.ordinal) {
            ("", ordinal) => ordinal.map_or(self.reported_unknown, |ordinal| ordinal < self.accounted),
            (id, _) => self.is_accounted(id),
        });
        let ends = told.map(|Shown { ordinal, id, terminated }| {
            let ended_ns = time::parse_ns(&terminated.finished_at).unwrap_or(i64::MAX);
            let within = |at: &&i64| (ended_ns.saturating_sub(WINDOW_NS)..=ended_ns).contains(*at);
            let first = self.recent.iter().filter(within).min().copied().unwrap_or(ended_ns);
            let recent = self.recent.iter().filter(within).count().max(1);
            End {
                ordinal: ordinal.unwrap_or(0),
                container_id: id.to_owned(),
                terminated: Some(terminated.clone()),
                missed_before: 0,
                window: (u32::try_from(recent).unwrap_or(u32::MAX), first),
            }
        });
        ends.collect()
    }

    /// The pod is gone: how many instances had begun, as far as a status or a log file tells, and nobody has seen their end. What has an
    /// instance after it has begun, too.
    pub(super) fn given_up(&self, logs: Option<&BTreeSet<u32>>) -> u64 {
        let has_begun = |current: &&Instance| current.running || !current.id.is_empty();
        let current = self.current.as_ref().filter(has_begun).map(|current| current.ordinal);
        let newest = current.max(logs.and_then(|logs| logs.last().copied()));
        newest.map_or(0, |newest| (u64::from(newest) + 1).saturating_sub(self.accounted.into()))
    }

    /// The terminated states of a status, with the ordinals of the instances that they tell of, oldest first.
    fn shown<'a>(&self, status: &'a ContainerStatus, terminating: bool) -> Vec<Shown<'a>> {
        let count = status.restart_count;
        let mut shown = Vec::with_capacity(2);
        if let Some(terminated) = &status.last_state.terminated {
            let id = terminated.container_id.as_str();
            let created = !status.container_id.is_empty() && status.container_id != id;
            let ordinal = if let Some(known) = self.ids.iter().find(|known| !id.is_empty() && known.id == id)
            {
                Some(known.ordinal)
            } else if created && count == 0 {
                None
            } else if created {
                Some(count - 1)
            } else if !id.is_empty() {
                // In back-off the status is still that of the dead instance: its id, its count. Source:
                // `convertToAPIContainerStatuses` in `pkg/kubelet/kubelet_pods.go`.
                Some(count)
            } else if terminating && terminated.reason == STATUS_UNKNOWN {
                // The kubelet does not raise the count of a pod that is being deleted.
                Some(count)
            } else {
                Some(count.saturating_sub(1))
            };
            shown.push(Shown { ordinal, id, terminated });
        }
        if let Some(terminated) = &status.state.terminated {
            let id = match terminated.container_id.as_str() {
                "" => status.container_id.as_str(),
                id => id,
            };
            if !self.is_of_none(status, id, terminated) {
                shown.push(Shown { ordinal: Some(count), id, terminated });
            }
        }
        shown
    }

    /// Whether a terminated state tells of no instance: when the kubelet ends a pod, it says of what was not created, and of what it
    /// has called lost already, that it could not be located. Source: `TerminatePod` in `pkg/kubelet/status/status_manager.go`.
    fn is_of_none(&self, status: &ContainerStatus, id: &str, terminated: &Terminated) -> bool {
        let is_lost =
            |terminated: &Terminated, id: &str| id.is_empty() && terminated.reason == STATUS_UNKNOWN;
        let last = status.last_state.terminated.as_ref();
        let was_lost = last.is_some_and(|last| is_lost(last, &last.container_id));
        let not_created = self
            .current
            .as_ref()
            .is_some_and(|current| current.ordinal == status.restart_count && current.id.is_empty());
        is_lost(terminated, id) && (was_lost || not_created)
    }

    /// The count fell, or another instance has the same one: the kubelet lost its state and counts from 0 again.
    fn begin_anew(&mut self, shown: &mut Vec<Shown<'_>>, changed: &mut Changed) {
        if let Some(current) = self.current.take() {
            let end = if current.id.is_empty() { current.ordinal } else { current.ordinal.saturating_add(1) };
            let ended = shown.iter().position(|shown| !shown.id.is_empty() && shown.id == current.id);
            if let Some(ended) = ended
                && current.ordinal >= self.accounted
            {
                let Shown { id, terminated, .. } = shown.remove(ended);
                self.miss(u64::from(current.ordinal - self.accounted), changed);
                self.report(current.ordinal, id, terminated, changed);
            } else {
                self.miss(u64::from(end.saturating_sub(self.accounted)), changed);
            }
        }
        self.accounted = 0;
        // Of the old count: each of them has been reported or counted by now.
        for known in &mut self.ids {
            known.accounted = true;
        }
    }

    fn report_older(&mut self, id: &str, terminated: &Terminated, changed: &mut Changed) {
        let accounted = if id.is_empty() { self.reported_unknown } else { self.is_accounted(id) };
        if !accounted {
            self.report(0, id, terminated, changed);
        }
    }

    fn report(&mut self, ordinal: u32, id: &str, terminated: &Terminated, changed: &mut Changed) {
        if id.is_empty() {
            self.reported_unknown = true;
        } else {
            self.remember(id, ordinal);
            if let Some(known) = self.ids.iter_mut().find(|known| known.id == id) {
                known.accounted = true;
            }
        }
        self.begun(time::parse_ns(&terminated.started_at), changed);
        let ended_ns = time::parse_ns(&terminated.finished_at).filter(|ended| *ended > 0);
        // What could not be started has waited since the end before it.
        self.down_ns = self.down_ns.or(ended_ns);
        changed.ends.push(End {
            ordinal,
            container_id: id.to_owned(),
            terminated: Some(terminated.clone()),
            missed_before: std::mem::take(&mut self.missed),
            window: (0, 0),
        });
    }

    /// Accounts for the instances below `ordinal`, none of which a status showed: by their log files, else as missed.
    fn pass_over(&mut self, ordinal: u32, logs: &BTreeSet<u32>, changed: &mut Changed) {
        if self.accounted >= ordinal {
            return;
        }
        let mut next = self.accounted;
        for &logged in logs.range(self.accounted..ordinal) {
            self.miss(u64::from(logged - next), changed);
            self.down_ns = None;
            changed.ends.push(End {
                ordinal: logged,
                container_id: String::new(),
                terminated: None,
                missed_before: std::mem::take(&mut self.missed),
                window: (0, 0),
            });
            next = logged + 1;
        }
        self.miss(u64::from(ordinal - next), changed);
        self.accounted = ordinal;
    }

    fn is_accounted(&self, id: &str) -> bool {
        !id.is_empty() && self.ids.iter().any(|known| known.id == id && known.accounted)
    }

    /// An instance began: what was between it and the end before it is over.
    fn begun(&mut self, started_ns: Option<i64>, changed: &mut Changed) {
        if let (Some(down), Some(started)) = (self.down_ns, started_ns)
            && started >= down
        {
            changed.restarting_ns = changed.restarting_ns.saturating_add(started - down);
            self.down_ns = None;
        }
    }

    fn miss(&mut self, deaths: u64, changed: &mut Changed) {
        if deaths > 0 {
            self.down_ns = None;
        }
        self.missed = self.missed.saturating_add(u32::try_from(deaths).unwrap_or(u32::MAX));
        changed.missed += deaths;
    }

    fn remember(&mut self, id: &str, ordinal: u32) {
        if id.is_empty() || self.ids.iter().any(|known| known.id == id) {
            return;
        }
        if self.ids.len() >= IDS {
            self.ids.pop_front();
        }
        self.ids.push_back(Id { id: id.to_owned(), ordinal, accounted: false });
    }
}

// === impl End ===

impl End {
    /// The record of it, without log lines.
    pub(super) fn into_death(
        self,
        pod: &Pod,
        status: &ContainerStatus,
        kind: ContainerKind,
        node: &str,
        seen: Seen,
    ) -> ContainerDied {
        let source = if self.terminated.is_some() { seen.source } else { Source::LogOrdinal };
        let exit_code = self.terminated.as_ref().map(|terminated| terminated.exit_code);
        let Terminated { signal, reason, message, started_at, finished_at, .. } =
            self.terminated.unwrap_or_default();
        // ContainerCreating and its like are no back-off.
        let waiting = status.state.waiting.clone().unwrap_or_default();
        let back_off =
            if waiting.reason.ends_with("BackOff") { waiting.reason.clone() } else { String::new() };
        let spec = pod.container(&status.name);
        let own_policy = spec.map(|spec| &spec.restart_policy).filter(|policy| !policy.is_empty());
        ContainerDied {
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
            pod_uid: pod.uid().to_owned(),
            node: node.to_owned(),
            container: status.name.clone(),
            container_kind: kind.into(),
            ordinal: self.ordinal,
            container_id: self.container_id,
            image: status.image.clone(),
            image_id: status.image_id.clone(),
            exit_code,
            signal,
            reason,
            message,
            started_ns: time::parse_ns(&started_at).unwrap_or_default(),
            finished_ns: time::parse_ns(&finished_at).unwrap_or_default(),
            back_off,
            owners: pod.owners(),
            last_lines: Vec::new(),
            seen_ns: seen.at_ns,
            source: source.into(),
            missed_before: self.missed_before,
            labels: pod.metadata.labels.clone(),
            annotations: pod.annotations(),
            pod_resource_version: pod.metadata.resource_version.clone(),
            memory_limit_bytes: status.memory_limit(spec),
            restart_policy: own_policy.unwrap_or(&pod.spec.restart_policy).clone(),
            delete_by_ns: time::parse_ns(&pod.metadata.deletion_timestamp).unwrap_or_default(),
            delete_grace_seconds: pod.metadata.deletion_grace_period_seconds,
            termination_grace_seconds: pod.spec.termination_grace_period_seconds,
            pod_phase: pod.status.phase.clone(),
            pod_reason: pod.status.reason.clone(),
            pod_message: pod.status.message.clone(),
            waiting_reason: waiting.reason,
            waiting_message: waiting.message,
            deaths_in_window: self.window.0,
            window_first_ns: self.window.1,
            disruption_reason: pod.disruption().to_owned(),
            node_booted_ns: 0,
            // The aggregator knows the events as well.
            explanation: String::new(),
            lines_from: 0,
        }
    }
}
