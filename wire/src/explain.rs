//! One true sentence for a container's death, such as "app was killed: it went over its memory limit of 64Mi (exit 137,
//! OOMKilled) after 3 m 12 s, its 4th end in 20 min; last line: ...".
//!
//! Pure, and built from facts alone: the death as the kubelet told it, and the events about the same pod. Where they do not
//! say why, the sentence does not either: an exit code that stands for a signal by convention is told as such, and a probe
//! that failed is a cause only where the kubelet said that it killed the container for it.

mod stop;
mod words;

use crate::{ContainerDied, ContainerKind};
use stop::Stop;
use words::{Signal, bytes, clip, duration, first_line, ordinal};

/// How much is told of a line or a message, in characters.
const QUOTED: usize = 240;

/// The kubelet gives times in whole seconds: two of them may be this far apart and of one moment.
const SECOND: i64 = 1_000_000_000;

/// A node that is out of memory says so within this of the kill.
const SYSTEM_OOM_NS: i64 = 10 * SECOND;

/// The most deaths that are counted within the hour. Source: `deaths_in_window`.
const COUNTED: u32 = 64;

/// Where the kernel's refusal of a program shows in its log.
const EXEC_FORMAT_ERROR: &str = "exec format error";

/// An event about the pod of a death.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEvent {
    /// Such as Killing or Unhealthy.
    pub reason: String,
    /// The container that it is about; empty: the pod as a whole.
    pub container: String,
    /// Its message.
    pub message: String,
    /// When it last happened, in nanoseconds since 1970.
    pub time_ns: i64,
}

/// What is known beside the death itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Related<'a> {
    /// Events about the same pod.
    pub pod: &'a [PodEvent],
    /// When the node last reported that it was out of memory as a whole (SystemOOM), in nanoseconds since 1970; 0: never.
    pub system_oom_ns: i64,
}

/// What a sentence says before and after the facts that all have.
struct Told {
    /// Follows the container's name.
    what: String,
    /// Whether the time that it ran belongs to it.
    ran: bool,
    /// The termination message has been told.
    message: bool,
    /// What is known beside it and need not be its cause.
    note: String,
}

/// The sentence of a death.
pub fn explain(death: &ContainerDied, related: Related<'_>) -> String {
    let Told { what, ran, message, note } = ending(death, related);
    let mut sentence = subject(death);
    sentence.push(' ');
    sentence += &what;
    sentence += &codes(death);
    if ran && let Some(seconds) = run_time(death) {
        sentence += &if seconds == 0 {
            " within a second".to_owned()
        } else {
            format!(" after {}", duration(seconds))
        };
    }
    sentence += &times(death);
    sentence += &note;
    if !death.back_off.is_empty() {
        sentence += &format!("; its next start waits in {}", clip(&death.back_off, QUOTED));
    }
    match death.missed_before {
        0 => {}
        1 => sentence += "; 1 end before it was not seen",
        missed => sentence += &format!("; {missed} ends before it were not seen"),
    }
    let last = death.last_lines.iter().rev().map(|line| line.text.trim()).find(|line| !line.is_empty());
    let said = first_line(&death.message);
    if !message && !said.is_empty() && last.is_none_or(|last| !death.message.trim_end().ends_with(last)) {
        sentence += &format!("; its message: {}", clip(said, QUOTED));
    }
    if let Some(last) = last {
        sentence += &format!("; last line: {}", clip(last, QUOTED));
    }
    sentence
}

fn subject(death: &ContainerDied) -> String {
    match death.container_kind() {
        ContainerKind::App | ContainerKind::Unspecified => death.container.clone(),
        ContainerKind::Init => format!("init container {}", death.container),
        ContainerKind::Sidecar => format!("sidecar {}", death.container),
        ContainerKind::Ephemeral => format!("ephemeral container {}", death.container),
    }
}

fn ending(death: &ContainerDied, related: Related<'_>) -> Told {
    let told = |what: String| Told { what, ran: true, message: false, note: String::new() };
    let Some(code) = death.exit_code else {
        return Told {
            ran: false,
            ..told("ended, and nobody saw how: only its log file tells of it".to_owned())
        };
    };
    if let Some(what) = lost(death) {
        let note = Stop::of(death, related).map(|stop| format!("; it had been told to stop: {}", stop.why));
        return Told { ran: false, message: true, note: note.unwrap_or_default(), ..told(what) };
    }
    if matches!(death.reason.as_str(), "StartError" | "ContainerCannotRun") {
        return not_started(death);
    }
    if death.is_oom_kill() {
        return told(out_of_memory(death, code, related));
    }
    if let Some(stop) = Stop::of(death, related) {
        return told(stop.told(death, code));
    }
    let failure = stop::probe_failure(death, related);
    let note =
        failure.map(|failure| format!("; its {} probe had failed before{}", failure.probe, failure.said()));
    Told { note: note.unwrap_or_default(), ..told(unprompted(death, code)) }
}

/// The runtime or the kubelet found it gone.
fn lost(death: &ContainerDied) -> Option<String> {
    let is_unknown = death.reason == "ContainerStatusUnknown"
        || (death.reason == "Unknown" && death.exit_code == Some(255));
    let rebooted = death.started_ns > 0 && death.node_booted_ns > death.started_ns.saturating_add(SECOND);
    let ended_after = death.finished_ns == 0 || death.finished_ns >= death.node_booted_ns;
    match (is_unknown, rebooted && ended_after) {
        (_, true) => Some("ended when its node was rebooted".to_owned()),
        (true, false) if death.reason == "Unknown" => {
            Some("ended, and nobody saw how: the runtime had lost it".to_owned())
        }
        (true, false) => Some("ended, and nobody saw how: the kubelet could not find it any more".to_owned()),
        (false, false) => None,
    }
}

fn not_started(death: &ContainerDied) -> Told {
    let message = death.message.trim();
    // The runtime names each of its layers before it says what was wrong.
    let message = ["error during container init: ", "unable to start container process: "]
        .into_iter()
        .find_map(|layer| message.rsplit_once(layer).map(|(_, rest)| rest))
        .unwrap_or(message);
    let message = message.strip_suffix(": unknown").unwrap_or(message);
    let what = match first_line(message) {
        "" => "could not be started".to_owned(),
        said => format!("could not be started: {}", clip(said, QUOTED)),
    };
    Told { what, ran: false, message: true, note: String::new() }
}

fn out_of_memory(death: &ContainerDied, code: i32, related: Related<'_>) -> String {
    let is_systems = related.system_oom_ns > 0
        && death.finished_ns > 0
        && related.system_oom_ns.abs_diff(death.finished_ns) <= SYSTEM_OOM_NS.unsigned_abs();
    let limit =
        death.memory_limit_bytes.filter(|limit| *limit > 0).and_then(|limit| u64::try_from(limit).ok());
    let is_killed = code == 137 || death.signal == 9;
    let who = match code {
        _ if is_killed => "was killed: ",
        0 => "completed, though a process in it was killed: ",
        _ => "failed, and a process in it was killed: ",
    };
    let why = match limit {
        _ if is_systems => "its node was out of memory".to_owned(),
        Some(limit) if is_killed => format!("it went over its memory limit of {}", bytes(limit)),
        Some(limit) => format!("the container went over its memory limit of {}", bytes(limit)),
        None => "memory ran out, and it has no memory limit of its own".to_owned(),
    };
    format!("{who}{why}")
}

/// Of an end that nothing known has asked for.
fn unprompted(death: &ContainerDied, code: i32) -> String {
    let signal = match death.signal {
        0 => Signal::of_exit(code),
        signal => Some(Signal(signal)),
    };
    // A shell passes on how its child ended, as if it had been so ended itself.
    let going_by = if death.signal == 0 { ", going by its exit code" } else { "" };
    match (code, signal) {
        (0, None) => "completed".to_owned(),
        (126, None) => {
            "failed: by the convention of shells, a command was found and could not be run".to_owned()
        }
        (127, None) => "failed: by the convention of shells, a command was not found".to_owned(),
        (_, None) if death.last_lines.iter().any(|line| line.text.contains(EXEC_FORMAT_ERROR)) => {
            "failed: the kernel could not run a program of its image, exec format error".to_owned()
        }
        (_, Some(Signal(9))) => format!("was killed by SIGKILL{going_by}, and nothing known says by whom"),
        (_, Some(signal)) => format!("was ended by {signal}{going_by}"),
        (_, None) => "failed".to_owned(),
    }
}

fn codes(death: &ContainerDied) -> String {
    let mut codes = Vec::new();
    if let Some(code) = death.exit_code {
        codes.push(format!("exit {code}"));
    }
    if death.signal != 0 && death.exit_code != Some(death.signal.saturating_add(128)) {
        codes.push(format!("signal {}", death.signal));
    }
    // What they say the code says as well.
    if !matches!(death.reason.as_str(), "" | "Error" | "Completed") {
        codes.push(clip(&death.reason, QUOTED).into_owned());
    }
    if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) }
}

/// In whole seconds; `None`: not known.
fn run_time(death: &ContainerDied) -> Option<u64> {
    let known = death.started_ns > 0 && death.finished_ns >= death.started_ns;
    known.then(|| (death.finished_ns - death.started_ns).unsigned_abs() / SECOND.unsigned_abs())
}

/// ", its 4th end in 20 min".
fn times(death: &ContainerDied) -> String {
    let until = if death.finished_ns > 0 { death.finished_ns } else { death.seen_ns };
    let seconds = until.saturating_sub(death.window_first_ns).max(0).unsigned_abs() / SECOND.unsigned_abs();
    if death.deaths_in_window < 2 || death.window_first_ns <= 0 {
        return String::new();
    }
    let at_least = if death.deaths_in_window >= COUNTED { " at least" } else { "" };
    let within = if seconds == 0 { "a second".to_owned() } else { duration(seconds) };
    // Of any end, whatever each of them was.
    format!(", its {} end in {within}{at_least}", ordinal(death.deaths_in_window))
}

#[cfg(test)]
mod tests;
