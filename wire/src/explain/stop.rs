//! What asked a container to stop, and how it took it.

use crate::ContainerDied;

use super::words::{clip, duration, first_line};
use super::{PodEvent, QUOTED, Related, SECOND};

/// The kubelet's reason for a container that it kills. Source: `pkg/kubelet/events/event.go`.
const KILLING: &str = "Killing";

/// It was asked to stop.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) why: String,
    /// When, in nanoseconds since 1970, by a clock of whole seconds; `None`: not known.
    at_ns: Option<i64>,
    /// What it had to stop; `None`: not known.
    grace_seconds: Option<i64>,
}

/// A probe of the container that failed while it ran.
#[derive(Debug)]
pub(super) struct ProbeFailure<'a> {
    /// `liveness` or `startup`.
    pub(super) probe: &'static str,
    said: &'a str,
}

// === impl Stop ===

impl Stop {
    /// `None` where nothing known says that it was asked.
    pub(super) fn of(death: &ContainerDied, related: Related<'_>) -> Option<Self> {
        let killing = related
            .pod
            .iter()
            .filter(|event| {
                event.reason == KILLING && event.container == death.container && is_of(death, event)
            })
            .max_by_key(|event| event.time_ns);
        let message = killing.map_or("", |killing| killing.message.as_str());
        let own = |why: String| Self {
            why,
            at_ns: killing.map(|killing| killing.time_ns),
            grace_seconds: death.termination_grace_seconds,
        };
        for probe in ["liveness", "startup"] {
            if message.contains(&format!("failed {probe} probe")) {
                let said =
                    failure_of(death, related, probe).map(|failure| failure.said()).unwrap_or_default();
                return Some(own(format!("its {probe} probe failed{said}")));
            }
        }
        if message.contains("FailedPostStartHook") {
            return Some(own("its postStart hook failed".to_owned()));
        }
        if message.contains("definition changed") {
            return Some(own("its definition in the pod was changed".to_owned()));
        }
        let deletion = Deletion::of(death);
        let pod = pods(death, related, killing.is_some() || deletion.is_some());
        let why = match (pod, killing, &deletion) {
            (Some(why), ..) => why,
            (None, _, Some(deletion)) if deletion.grace_seconds == 0 => {
                "its pod was deleted without grace".to_owned()
            }
            (None, _, Some(_)) => "its pod was deleted".to_owned(),
            // What the kubelet says where the pod ends with the container: not why, but a probe that failed before is a fact.
            (None, Some(_), None) if message.starts_with("Stopping container") => {
                let failure =
                    ["liveness", "startup"].into_iter().find_map(|probe| failure_of(death, related, probe));
                failure.map_or_else(
                    || "the kubelet stopped it".to_owned(),
                    |failure| {
                        format!(
                            "the kubelet stopped it after its {} probe failed{}",
                            failure.probe,
                            failure.said()
                        )
                    },
                )
            }
            (None, Some(_), None) => {
                format!("the kubelet stopped it with \"{}\"", clip(first_line(message), QUOTED))
            }
            (None, None, None) => return None,
        };
        let at_ns = killing.map(|killing| killing.time_ns);
        let Some(Deletion { at_ns: asked_ns, grace_seconds }) = deletion else {
            // How long one has that is evicted is not said.
            return Some(Self { why, at_ns, grace_seconds: None });
        };
        Some(Self { why, at_ns: at_ns.or(Some(asked_ns)), grace_seconds: Some(grace_seconds) })
    }

    /// What follows the container's name.
    pub(super) fn told(&self, death: &ContainerDied, code: i32) -> String {
        let Self { why, at_ns, grace_seconds } = self;
        let took = at_ns
            .filter(|_| death.finished_ns > 0)
            .map(|at| (death.finished_ns.saturating_sub(at)).max(0) / SECOND);
        let is_killed = code == 137 || death.signal == 9;
        match (code, took, *grace_seconds) {
            // Of times cut to the second, one that is a second short may be whole.
            (_, Some(took), Some(grace)) if is_killed && grace > 1 && took.saturating_add(1) >= grace => {
                let grace = duration(grace.unsigned_abs());
                format!("was killed: {why}, and it had not stopped when its grace period of {grace} was over")
            }
            _ if is_killed => format!("was killed: {why}"),
            (0 | 143, ..) => format!("stopped when it was told to: {why}"),
            _ => format!("ended when it was told to stop: {why}"),
        }
    }
}

/// The pod's deletion, begun before the container ended.
#[derive(Clone, Copy, Debug)]
struct Deletion {
    at_ns: i64,
    grace_seconds: i64,
}

impl Deletion {
    fn of(death: &ContainerDied) -> Option<Self> {
        let grace_seconds = death.delete_grace_seconds.unwrap_or_default().max(0);
        if death.delete_by_ns <= 0 {
            return None;
        }
        let at_ns = death.delete_by_ns.saturating_sub(grace_seconds.saturating_mul(SECOND));
        let until = if death.finished_ns > 0 { death.finished_ns } else { death.seen_ns };
        (at_ns <= until).then_some(Self { at_ns, grace_seconds })
    }
}

// === impl ProbeFailure ===

impl ProbeFailure<'_> {
    /// What the probe said, where it said something.
    pub(super) fn said(&self) -> String {
        match first_line(self.said) {
            "" => String::new(),
            said => format!(" with \"{}\"", clip(said, QUOTED)),
        }
    }
}

/// A probe that kills and that failed while the container ran.
pub(super) fn probe_failure<'a>(death: &ContainerDied, related: Related<'a>) -> Option<ProbeFailure<'a>> {
    ["liveness", "startup"].into_iter().find_map(|probe| failure_of(death, related, probe))
}

fn failure_of<'a>(
    death: &ContainerDied,
    related: Related<'a>,
    probe: &'static str,
) -> Option<ProbeFailure<'a>> {
    let of = |event: &'a PodEvent| {
        // "Liveness probe failed: ..."; "Liveness probe errored: ..." does not kill.
        let (name, said) = event.message.split_once(" probe failed: ")?;
        let is_it = event.reason == "Unhealthy"
            && event.container == death.container
            && name.eq_ignore_ascii_case(probe);
        (is_it && is_of(death, event)).then_some((event.time_ns, said))
    };
    let (_, said) = related.pod.iter().filter_map(of).max_by_key(|(time_ns, _)| *time_ns)?;
    Some(ProbeFailure { probe, said })
}

/// Why the pod as a whole was stopped; `None`: not known. `is_stopped`: something else says that it was.
fn pods(death: &ContainerDied, related: Related<'_>, is_stopped: bool) -> Option<String> {
    let is_killed = matches!(death.exit_code, Some(137 | 143)) || matches!(death.signal, 9 | 15);
    let event = |reason: &str| {
        let mut events =
            related.pod.iter().filter(|event| event.reason == reason && event.container.is_empty());
        events
            .find(|event| death.finished_ns == 0 || event.time_ns <= death.finished_ns.saturating_add(SECOND))
    };
    let evicted = event("Evicted");
    let with = |what: &str, message: &str| match first_line(message).trim_end_matches('.') {
        "" => what.to_owned(),
        said => format!("{what}: {}", clip(said, QUOTED)),
    };
    // A pod that has failed for a reason of its own keeps it, so that an end that was none's doing may carry it, too.
    let reason = if is_stopped || is_killed { death.pod_reason.as_str() } else { "" };
    match reason {
        "Evicted" => return Some(with("its pod was evicted", &death.pod_message)),
        "Preempting" => return Some("its pod had to make room for a critical one".to_owned()),
        "DeadlineExceeded" => return Some("its pod had been active for longer than its deadline".to_owned()),
        "Terminated" | "NodeShutdown" | "Shutdown" => return Some("its node was shut down".to_owned()),
        _ => {}
    }
    if !(is_stopped || is_killed) {
        return None;
    }
    if let Some(event) = evicted {
        return Some(with("its pod was evicted", &event.message));
    }
    let disruption = if is_stopped || death.delete_by_ns > 0 { death.disruption_reason.as_str() } else { "" };
    Some(match disruption {
        "PreemptionByScheduler" => "its pod was preempted by one of higher priority".to_owned(),
        "DeletionByTaintManager" => "its pod does not tolerate a taint of its node".to_owned(),
        "EvictionByEvictionAPI" => "its pod was evicted through the API, as by a drain".to_owned(),
        "DeletionByPodGC" => "its pod was deleted as garbage".to_owned(),
        _ if event("Preempted").is_some() => "its pod was preempted by one of higher priority".to_owned(),
        _ if event("TaintManagerEviction").is_some() => {
            "its pod does not tolerate a taint of its node".to_owned()
        }
        _ if event("DeadlineExceeded").is_some() => {
            "its pod had been active for longer than its deadline".to_owned()
        }
        _ => return None,
    })
}

/// Whether an event came while this instance ran: the same event may be of the one before, which ended in the second in which
/// this one began.
fn is_of(death: &ContainerDied, event: &PodEvent) -> bool {
    let ended = if death.finished_ns > 0 { death.finished_ns } else { death.seen_ns };
    let is_first = death.ordinal == 0;
    let after = if is_first { death.started_ns.saturating_sub(SECOND) } else { death.started_ns };
    event.time_ns > after && event.time_ns <= ended.saturating_add(SECOND)
}
