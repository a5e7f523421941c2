#![allow(clippy::unwrap_used)]

use super::*;
use crate::LogLine;

/// 2026-07-01T12:00:00Z, in seconds: when every container of the table ends.
const END: i64 = 1_782_907_200;
const MI: i64 = 1 << 20;

fn died(exit_code: i32) -> ContainerDied {
    ContainerDied {
        pod: "web".into(),
        pod_uid: "p-1".into(),
        container: "app".into(),
        container_kind: ContainerKind::App.into(),
        ordinal: 3,
        exit_code: Some(exit_code),
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        started_ns: (END - 192) * SECOND,
        finished_ns: END * SECOND,
        seen_ns: (END + 1) * SECOND,
        ..ContainerDied::default()
    }
}

fn oom(exit_code: i32, limit: i64) -> ContainerDied {
    let memory_limit_bytes = (limit > 0).then_some(limit);
    ContainerDied { reason: "OOMKilled".into(), memory_limit_bytes, ..died(exit_code) }
}

/// Deleted so many seconds before its end, with so much grace.
fn deleted(exit_code: i32, before: i64, grace: i64) -> ContainerDied {
    ContainerDied {
        delete_by_ns: (END - before + grace) * SECOND,
        delete_grace_seconds: Some(grace),
        ..died(exit_code)
    }
}

fn not_started(message: &str) -> ContainerDied {
    ContainerDied { reason: "StartError".into(), message: message.into(), started_ns: 0, ..died(128) }
}

fn failed_pod(exit_code: i32, reason: &str, message: &str) -> ContainerDied {
    ContainerDied {
        pod_phase: "Failed".into(),
        pod_reason: reason.into(),
        pod_message: message.into(),
        ..died(exit_code)
    }
}

fn disrupted(reason: &str) -> ContainerDied {
    ContainerDied { disruption_reason: reason.into(), ..deleted(143, 1, 30) }
}

fn of_kind(kind: ContainerKind, name: &str, death: ContainerDied) -> ContainerDied {
    ContainerDied { container: name.into(), container_kind: kind.into(), ..death }
}

fn lines(lines: &[&str], death: ContainerDied) -> ContainerDied {
    let line = |text: &&str| LogLine { text: (*text).into(), ..LogLine::default() };
    ContainerDied { last_lines: lines.iter().map(line).collect(), ..death }
}

/// An event so many seconds before the end, about the container or, where its name is empty, about the pod.
fn event(reason: &str, container: &str, before: i64, message: &str) -> PodEvent {
    PodEvent {
        reason: reason.into(),
        container: container.into(),
        message: message.into(),
        time_ns: (END - before) * SECOND,
    }
}

fn liveness(before: i64) -> Vec<PodEvent> {
    vec![
        event(
            "Unhealthy",
            "app",
            before + 1,
            "Liveness probe failed: HTTP probe failed with statuscode: 500",
        ),
        event("Killing", "app", before, "Container app failed liveness probe, will be restarted"),
    ]
}

fn killing(before: i64, message: &str) -> Vec<PodEvent> {
    vec![event("Killing", "app", before, message)]
}

/// Each death, what events tell about its pod, and the sentence.
#[allow(clippy::too_many_lines)]
fn cases() -> Vec<(ContainerDied, Vec<PodEvent>, &'static str)> {
    let grace = |death| ContainerDied { termination_grace_seconds: Some(30), ..death };
    let times = |count, minutes: i64, death| ContainerDied {
        deaths_in_window: count,
        window_first_ns: (END - minutes * 60) * SECOND,
        ..death
    };
    let ran = |seconds: i64, death| ContainerDied { started_ns: (END - seconds) * SECOND, ..death };
    let evicted = "Container app exceeded its local ephemeral storage limit \"10Mi\". ";
    let none = Vec::new;
    vec![
        // What ends by itself.
        (died(0), none(), "app completed (exit 0) after 3 m 12 s"),
        (ran(0, died(0)), none(), "app completed (exit 0) within a second"),
        (died(1), none(), "app failed (exit 1) after 3 m 12 s"),
        (
            lines(&["starting", "the config is missing", " "], died(7)),
            none(),
            "app failed (exit 7) after 3 m 12 s; last line: the config is missing",
        ),
        (died(2), none(), "app failed (exit 2) after 3 m 12 s"),
        (died(-1_073_741_510), none(), "app failed (exit -1073741510) after 3 m 12 s"),
        (died(128), none(), "app failed (exit 128) after 3 m 12 s"),
        (died(255), none(), "app failed (exit 255) after 3 m 12 s"),
        (died(200), none(), "app failed (exit 200) after 3 m 12 s"),
        (ran(5, died(1)), none(), "app failed (exit 1) after 5 s"),
        (ran(60, died(1)), none(), "app failed (exit 1) after 1 min"),
        (ran(7_260, died(1)), none(), "app failed (exit 1) after 2 h 1 m"),
        (ran(3 * 86_400 + 5, died(1)), none(), "app failed (exit 1) after 3 d"),
        (ContainerDied { started_ns: 0, ..died(1) }, none(), "app failed (exit 1)"),
        // How often, and what comes then.
        (times(4, 20, died(1)), none(), "app failed (exit 1) after 3 m 12 s, its 4th end in 20 min"),
        (times(1, 0, died(1)), none(), "app failed (exit 1) after 3 m 12 s"),
        (times(22, 59, died(1)), none(), "app failed (exit 1) after 3 m 12 s, its 22nd end in 59 min"),
        (
            times(64, 13, died(1)),
            none(),
            "app failed (exit 1) after 3 m 12 s, its 64th end in 13 min at least",
        ),
        (
            ContainerDied { back_off: "CrashLoopBackOff".into(), ..died(1) },
            none(),
            "app failed (exit 1) after 3 m 12 s; its next start waits in CrashLoopBackOff",
        ),
        (
            ContainerDied { missed_before: 2, ..died(1) },
            none(),
            "app failed (exit 1) after 3 m 12 s; 2 ends before it were not seen",
        ),
        (
            ContainerDied { message: "panic: no route\ngoroutine 1".into(), ..died(2) },
            none(),
            "app failed (exit 2) after 3 m 12 s; its message: panic: no route",
        ),
        (
            lines(
                &["connecting", "no route"],
                ContainerDied { message: "connecting\nno route\n".into(), ..died(2) },
            ),
            none(),
            "app failed (exit 2) after 3 m 12 s; last line: no route",
        ),
        // What shells and the kernel say of programs.
        (
            died(126),
            none(),
            "app failed: by the convention of shells, a command was found and could not be run (exit 126) after 3 m 12 s",
        ),
        (
            lines(&["sh: serve: not found"], died(127)),
            none(),
            "app failed: by the convention of shells, a command was not found (exit 127) after 3 m 12 s; last line: sh: serve: not found",
        ),
        (
            lines(&["exec /serve: exec format error"], ran(0, died(255))),
            none(),
            "app failed: the kernel could not run a program of its image, exec format error (exit 255) within a second; \
             last line: exec /serve: exec format error",
        ),
        (
            not_started(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                 unable to start container process: error during container init: exec: \"serve\": executable file not found in $PATH",
            ),
            none(),
            "app could not be started: exec: \"serve\": executable file not found in $PATH (exit 128, StartError)",
        ),
        (
            not_started(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                 unable to start container process: exec: \"/etc/passwd\": permission denied: unknown",
            ),
            none(),
            "app could not be started: exec: \"/etc/passwd\": permission denied (exit 128, StartError)",
        ),
        (not_started(""), none(), "app could not be started (exit 128, StartError)"),
        (
            ContainerDied { reason: "ContainerCannotRun".into(), ..not_started("no such image layer") },
            none(),
            "app could not be started: no such image layer (exit 128, ContainerCannotRun)",
        ),
        // Signals that nobody known sent.
        (
            died(139),
            none(),
            "app was ended by SIGSEGV, an invalid access to memory, going by its exit code (exit 139) after 3 m 12 s",
        ),
        (
            died(134),
            none(),
            "app was ended by SIGABRT, abort, going by its exit code (exit 134) after 3 m 12 s",
        ),
        (
            died(143),
            none(),
            "app was ended by SIGTERM, the request to stop, going by its exit code (exit 143) after 3 m 12 s",
        ),
        (
            died(137),
            none(),
            "app was killed by SIGKILL, going by its exit code, and nothing known says by whom (exit 137) after 3 m 12 s",
        ),
        (
            ContainerDied { signal: 9, ..died(137) },
            none(),
            "app was killed by SIGKILL, and nothing known says by whom (exit 137) after 3 m 12 s",
        ),
        (died(165), none(), "app was ended by signal 37, going by its exit code (exit 165) after 3 m 12 s"),
        (
            ContainerDied { signal: 11, ..died(1) },
            none(),
            "app was ended by SIGSEGV, an invalid access to memory (exit 1, signal 11) after 3 m 12 s",
        ),
        // Memory.
        (
            lines(&["about to take too much"], times(4, 20, oom(137, 64 * MI))),
            none(),
            "app was killed: it went over its memory limit of 64Mi (exit 137, OOMKilled) after 3 m 12 s, its 4th end in 20 min; \
             last line: about to take too much",
        ),
        (
            oom(137, 1_500_000_000),
            none(),
            "app was killed: it went over its memory limit of 1500M (exit 137, OOMKilled) after 3 m 12 s",
        ),
        (
            oom(137, 0),
            none(),
            "app was killed: memory ran out, and it has no memory limit of its own (exit 137, OOMKilled) after 3 m 12 s",
        ),
        (
            oom(1, 32 * MI),
            none(),
            "app failed, and a process in it was killed: the container went over its memory limit of 32Mi (exit 1, OOMKilled) after 3 m 12 s",
        ),
        (
            oom(0, 32 * MI),
            none(),
            "app completed, though a process in it was killed: the container went over its memory limit of 32Mi (exit 0, OOMKilled) after 3 m 12 s",
        ),
        // The end of a grace period is no want of memory, and the other way round.
        (
            ContainerDied { delete_by_ns: END * SECOND, delete_grace_seconds: Some(30), ..oom(137, 64 * MI) },
            killing(30, "Stopping container app"),
            "app was killed: it went over its memory limit of 64Mi (exit 137, OOMKilled) after 3 m 12 s",
        ),
        // Deletion.
        (
            deleted(143, 1, 30),
            none(),
            "app stopped when it was told to: its pod was deleted (exit 143) after 3 m 12 s",
        ),
        (
            deleted(0, 1, 30),
            killing(1, "Stopping container app"),
            "app stopped when it was told to: its pod was deleted (exit 0) after 3 m 12 s",
        ),
        (
            deleted(9, 1, 30),
            none(),
            "app ended when it was told to stop: its pod was deleted (exit 9) after 3 m 12 s",
        ),
        (
            deleted(137, 5, 5),
            killing(5, "Stopping container app"),
            "app was killed: its pod was deleted, and it had not stopped when its grace period of 5 s was over (exit 137) after 3 m 12 s",
        ),
        (
            deleted(137, 2, 30),
            killing(2, "Stopping container app"),
            "app was killed: its pod was deleted (exit 137) after 3 m 12 s",
        ),
        (
            deleted(137, 1, 0),
            none(),
            "app was killed: its pod was deleted without grace (exit 137) after 3 m 12 s",
        ),
        // A deletion that came after the end did not cause it.
        (deleted(1, -1, 30), none(), "app failed (exit 1) after 3 m 12 s"),
        // Probes.
        (
            grace(died(143)),
            liveness(2),
            "app stopped when it was told to: its liveness probe failed with \"HTTP probe failed with statuscode: 500\" (exit 143) after 3 m 12 s",
        ),
        (
            grace(died(137)),
            liveness(30),
            "app was killed: its liveness probe failed with \"HTTP probe failed with statuscode: 500\", and it had not stopped when \
             its grace period of 30 s was over (exit 137) after 3 m 12 s",
        ),
        (
            grace(died(137)),
            killing(30, "Container app failed startup probe, will be restarted"),
            "app was killed: its startup probe failed, and it had not stopped when its grace period of 30 s was over (exit 137) after 3 m 12 s",
        ),
        // A probe that failed is no cause as long as the kubelet did not say that it killed for it.
        (
            died(1),
            vec![event("Unhealthy", "app", 2, "Liveness probe failed: timeout")],
            "app failed (exit 1) after 3 m 12 s; its liveness probe had failed before with \"timeout\"",
        ),
        (
            died(1),
            vec![event("Unhealthy", "app", 2, "Readiness probe failed: timeout")],
            "app failed (exit 1) after 3 m 12 s",
        ),
        // What was told of the instance before, or of another container, is not of this one.
        (
            died(137),
            liveness(200),
            "app was killed by SIGKILL, going by its exit code, and nothing known says by whom (exit 137) after 3 m 12 s",
        ),
        (
            died(143),
            liveness(192),
            "app was ended by SIGTERM, the request to stop, going by its exit code (exit 143) after 3 m 12 s",
        ),
        (
            of_kind(ContainerKind::App, "other", died(143)),
            liveness(2),
            "other was ended by SIGTERM, the request to stop, going by its exit code (exit 143) after 3 m 12 s",
        ),
        (
            grace(died(137)),
            killing(1, "FailedPostStartHook"),
            "app was killed: its postStart hook failed (exit 137) after 3 m 12 s",
        ),
        (
            grace(died(143)),
            killing(1, "Container app definition changed, will be restarted"),
            "app stopped when it was told to: its definition in the pod was changed (exit 143) after 3 m 12 s",
        ),
        (
            died(143),
            killing(1, "Stopping container app"),
            "app stopped when it was told to: the kubelet stopped it (exit 143) after 3 m 12 s",
        ),
        (
            died(143),
            vec![
                event("Unhealthy", "app", 2, "Liveness probe failed: timeout"),
                event("Killing", "app", 1, "Stopping container app"),
            ],
            "app stopped when it was told to: the kubelet stopped it after its liveness probe failed with \"timeout\" (exit 143) after 3 m 12 s",
        ),
        (
            died(143),
            killing(1, "Reconciling"),
            "app stopped when it was told to: the kubelet stopped it with \"Reconciling\" (exit 143) after 3 m 12 s",
        ),
        // Evictions and the like.
        (
            failed_pod(137, "Evicted", evicted),
            none(),
            "app was killed: its pod was evicted: Container app exceeded its local ephemeral storage limit \"10Mi\" (exit 137) after 3 m 12 s",
        ),
        (
            died(137),
            vec![event(
                "Evicted",
                "",
                1,
                "The node was low on resource: memory. Threshold quantity: 50Mi, available: 40Mi. ",
            )],
            "app was killed: its pod was evicted: The node was low on resource: memory. Threshold quantity: 50Mi, available: 40Mi \
             (exit 137) after 3 m 12 s",
        ),
        // It had failed by itself, and the eviction came on top of it.
        (failed_pod(1, "Evicted", evicted), none(), "app failed (exit 1) after 3 m 12 s"),
        (
            died(143),
            vec![event("Evicted", "", -60, "later")],
            "app was ended by SIGTERM, the request to stop, going by its exit code (exit 143) after 3 m 12 s",
        ),
        (
            failed_pod(143, "Preempting", "Preempted in order to admit critical pod"),
            none(),
            "app stopped when it was told to: its pod had to make room for a critical one (exit 143) after 3 m 12 s",
        ),
        (
            failed_pod(
                143,
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
            ),
            none(),
            "app stopped when it was told to: its pod had been active for longer than its deadline (exit 143) after 3 m 12 s",
        ),
        (
            failed_pod(143, "Terminated", "Pod was terminated in response to imminent node shutdown."),
            none(),
            "app stopped when it was told to: its node was shut down (exit 143) after 3 m 12 s",
        ),
        (
            disrupted("PreemptionByScheduler"),
            none(),
            "app stopped when it was told to: its pod was preempted by one of higher priority (exit 143) after 3 m 12 s",
        ),
        (
            disrupted("EvictionByEvictionAPI"),
            none(),
            "app stopped when it was told to: its pod was evicted through the API, as by a drain (exit 143) after 3 m 12 s",
        ),
        (
            disrupted("DeletionByTaintManager"),
            none(),
            "app stopped when it was told to: its pod does not tolerate a taint of its node (exit 143) after 3 m 12 s",
        ),
        (
            deleted(143, 1, 30),
            vec![event("Preempted", "", 2, "Preempted by pod 3f on node n1")],
            "app stopped when it was told to: its pod was preempted by one of higher priority (exit 143) after 3 m 12 s",
        ),
        // Kinds of containers.
        (
            lines(&["no database here"], of_kind(ContainerKind::Init, "prepare", died(3))),
            none(),
            "init container prepare failed (exit 3) after 3 m 12 s; last line: no database here",
        ),
        (
            of_kind(ContainerKind::Sidecar, "proxy", died(1)),
            none(),
            "sidecar proxy failed (exit 1) after 3 m 12 s",
        ),
        (
            of_kind(ContainerKind::Ephemeral, "debug", died(0)),
            none(),
            "ephemeral container debug completed (exit 0) after 3 m 12 s",
        ),
        // What nobody saw.
        (
            lines(
                &["gone"],
                ContainerDied {
                    exit_code: None,
                    reason: String::new(),
                    started_ns: 0,
                    finished_ns: 0,
                    ..died(0)
                },
            ),
            none(),
            "app ended, and nobody saw how: only its log file tells of it; last line: gone",
        ),
        (
            ContainerDied {
                reason: "ContainerStatusUnknown".into(),
                message: "The container could not be located".into(),
                ..died(137)
            },
            none(),
            "app ended, and nobody saw how: the kubelet could not find it any more (exit 137, ContainerStatusUnknown)",
        ),
        (
            ContainerDied {
                reason: "ContainerStatusUnknown".into(),
                finished_ns: 0,
                ..failed_pod(
                    137,
                    "Evicted",
                    "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
                )
            },
            none(),
            "app ended, and nobody saw how: the kubelet could not find it any more (exit 137, ContainerStatusUnknown); it had been told \
             to stop: its pod was evicted: Pod ephemeral local storage usage exceeds the total limit of containers 1Mi",
        ),
        (
            ContainerDied { reason: "Unknown".into(), ..died(255) },
            none(),
            "app ended, and nobody saw how: the runtime had lost it (exit 255, Unknown)",
        ),
        (
            ContainerDied { reason: "Unknown".into(), node_booted_ns: (END - 20) * SECOND, ..died(255) },
            none(),
            "app ended when its node was rebooted (exit 255, Unknown)",
        ),
        // It ended before the reboot.
        (
            ContainerDied { node_booted_ns: (END + 20) * SECOND, ..died(1) },
            none(),
            "app failed (exit 1) after 3 m 12 s",
        ),
    ]
}

#[test]
fn each_case_has_its_sentence() {
    let cases = cases();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut wrong = Vec::new();
    for (death, events, expected) in &cases {
        let told = explain(death, Related { pod: events, system_oom_ns: 0 });
        if told != *expected {
            wrong.push(format!("told:     {told}\nexpected: {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_node_that_is_out_of_memory_is_told_from_a_limit() {
    let tell = |at: i64| explain(&oom(137, 64 * MI), Related { pod: &[], system_oom_ns: at * SECOND });
    let node = "app was killed: its node was out of memory (exit 137, OOMKilled) after 3 m 12 s";
    let limit = "app was killed: it went over its memory limit of 64Mi (exit 137, OOMKilled) after 3 m 12 s";
    assert_eq!((tell(END - 1).as_str(), tell(END + 3).as_str()), (node, node));
    assert_eq!((tell(END - 60).as_str(), tell(END + 60).as_str()), (limit, limit));
}

#[test]
fn a_sentence_is_bounded_and_of_one_line() {
    let death = ContainerDied { message: "m".repeat(4096), ..lines(&[&"\u{fc}".repeat(9000)], died(1)) };
    let told = explain(&death, Related::default());
    assert!(told.chars().count() < 700 && !told.contains('\n'), "{told}");
}

#[test]
fn nothing_outside_makes_it_panic() {
    for time in [i64::MIN, -1, 0, 1, i64::MAX] {
        for number in [i32::MIN, -1, 0, 9, 137, i32::MAX] {
            let death = ContainerDied {
                signal: number,
                started_ns: time,
                seen_ns: time,
                window_first_ns: time,
                deaths_in_window: u32::MAX,
                delete_by_ns: time,
                delete_grace_seconds: Some(time),
                termination_grace_seconds: Some(time),
                memory_limit_bytes: Some(time),
                node_booted_ns: time,
                finished_ns: time.wrapping_neg(),
                ..died(number)
            };
            let events = [PodEvent { time_ns: time, ..event("Killing", "app", 0, "Stopping container app") }];
            assert!(!explain(&death, Related { pod: &events, system_oom_ns: time }).is_empty());
            assert!(
                !explain(
                    &ContainerDied { finished_ns: time, ..death },
                    Related { pod: &events, system_oom_ns: time }
                )
                .is_empty()
            );
        }
    }
}
