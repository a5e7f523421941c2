#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BEGAN: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const UID: &str = "8f0c8b1e-5d4b-4f6e-9d2e-0a1b2c3d4e5f";

fn seen() -> Seen {
    Seen { at_ns: BEGAN + SECOND, source: Source::Kubelet }
}

/// A pod as the kubelet gives it, created after the ledger began.
fn pod_with(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": UID, "resourceVersion": "4711",
            "creationTimestamp": "2024-01-01T00:00:00Z",
            "labels": {"app": "web"},
            "annotations": {"team": "a"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o-1", "controller": true,
                "blockOwnerDeletion": true}]
        },
        "spec": {"nodeName": "node-1", "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "setup"}],
            "containers": [{"name": "app"}]},
        "status": status
    }))
    .unwrap()
}

fn pod(container: Value) -> Pod {
    pod_with(json!({"phase": "Running", "containerStatuses": [container]}))
}

fn terminated(id: &str, code: i32) -> Value {
    json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": "2024-01-01T00:00:01Z",
        "finishedAt": "2024-01-01T00:00:02Z", "containerID": id}})
}

fn later() -> Value {
    json!({"running": {"startedAt": "2024-01-01T00:10:00Z"}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2024-01-01T00:00:03Z"}})
}

fn status(count: u32, id: &str, state: &Value, last: &Value) -> Value {
    json!({"name": "app", "restartCount": count, "containerID": id, "image": "shop/web:1", "imageID": "sha256:1", "ready": false,
        "state": state, "lastState": last})
}

/// A ledger that has taken a whole snapshot, of nothing.
fn primed() -> Ledger {
    let mut ledger = Ledger::new("node-1", BEGAN);
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    ledger
}

fn ordinals(told: &Told) -> Vec<(u32, &str)> {
    told.deaths.iter().map(|death| (death.ordinal, death.container_id.as_str())).collect()
}

fn log(ordinal: u32) -> LogSeen {
    LogSeen { pod_uid: UID.into(), container: "app".into(), ordinal }
}

#[test]
fn what_was_told_and_is_still_shown_can_be_told_again_and_what_is_new_is_not_among_it() {
    let mut ledger = primed();
    let crashed = pod(status(1, "containerd://b", &running(), &terminated("containerd://a", 7)));
    assert!(ledger.told_before(&crashed, seen()).is_empty());
    let told = ledger.observe(&crashed, seen());
    assert_eq!(ordinals(&told), [(0, "containerd://a")]);
    assert_eq!(ledger.told_before(&crashed, seen()), told.deaths);
    let both =
        pod(status(1, "containerd://b", &terminated("containerd://b", 8), &terminated("containerd://a", 7)));
    assert_eq!(ledger.told_before(&both, seen()), told.deaths);
    assert_eq!(ordinals(&ledger.observe(&both, seen())), [(1, "containerd://b")]);
    let again: Vec<_> =
        ledger.told_before(&both, seen()).iter().map(|death| death.deaths_in_window).collect();
    assert_eq!(again.len(), 2);
    // Not what nobody shows any longer.
    let next = pod(status(2, "containerd://c", &running(), &terminated("containerd://b", 8)));
    ledger.observe(&next, seen());
    let again = ledger.told_before(&next, seen());
    assert_eq!(again.iter().map(|death| death.ordinal).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_crash_carries_what_the_kubelet_tells_of_it() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "containerd://a", &running(), &json!({}))), seen());
    let state = json!({"terminated": {"exitCode": 137, "signal": 9, "reason": "OOMKilled", "message": "bye",
        "startedAt": "2024-01-01T00:00:01Z", "finishedAt": "2024-01-01T00:00:02Z", "containerID": "containerd://a"}});
    let told = ledger.observe(&pod(status(0, "containerd://a", &state, &json!({}))), seen());
    let [death] = &told.deaths[..] else { panic!("one death, not {:?}", told.deaths) };
    assert_eq!(
        (death.namespace.as_str(), death.pod.as_str(), death.pod_uid.as_str()),
        ("shop", "web-0", UID)
    );
    assert_eq!((death.node.as_str(), death.container.as_str(), death.ordinal), ("node-1", "app", 0));
    assert_eq!((death.exit_code, death.signal, death.reason.as_str()), (Some(137), 9, "OOMKilled"));
    assert_eq!((death.message.as_str(), death.container_id.as_str()), ("bye", "containerd://a"));
    assert_eq!(death.finished_ns - death.started_ns, SECOND);
    assert_eq!(death.source(), Source::Kubelet);
    assert_eq!(death.container_kind(), ContainerKind::App);
    assert_eq!((death.image.as_str(), death.image_id.as_str()), ("shop/web:1", "sha256:1"));
    assert_eq!(death.owners[0].kind, "StatefulSet");
    assert!(death.owners[0].controller);
    assert_eq!(death.labels["app"], "web");
    assert_eq!(death.annotations["team"], "a");
    assert_eq!((death.pod_resource_version.as_str(), death.seen_ns), ("4711", BEGAN + SECOND));
    assert_eq!((death.missed_before, death.back_off.as_str(), told.missed), (0, "", 0));
}

#[test]
fn a_death_carries_the_facts_that_explain_it() {
    let mut ledger = primed();
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}});
    let mut container = status(0, "a", &waiting, &terminated("a", 137));
    container["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "1"}});
    let mut evicted: Value = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"},
            {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]});
    evicted["containerStatuses"] = json!([container]);
    let mut pod = pod_with(evicted);
    pod.spec = serde_json::from_value(json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "app", "restartPolicy": "Never", "resources": {"limits": {"memory": "32Mi"}}}]}))
    .unwrap();
    pod.metadata.deletion_timestamp = "2024-01-01T00:00:32Z".into();
    pod.metadata.deletion_grace_period_seconds = Some(30);
    let told = ledger.observe(&pod, seen());
    let [death] = &told.deaths[..] else { panic!("one death, not {:?}", told.deaths) };
    assert_eq!((death.memory_limit_bytes, death.restart_policy.as_str()), (Some(64 << 20), "Never"));
    assert_eq!((death.pod_phase.as_str(), death.pod_reason.as_str()), ("Failed", "Evicted"));
    assert_eq!(death.pod_message, "The node was low on resource: memory.");
    assert_eq!(death.disruption_reason, "TerminationByKubelet");
    assert_eq!(
        (death.waiting_reason.as_str(), death.waiting_message.as_str()),
        ("CrashLoopBackOff", "back-off 10s restarting")
    );
    assert_eq!((death.delete_grace_seconds, death.termination_grace_seconds), (Some(30), Some(30)));
    assert_eq!(death.delete_by_ns - death.finished_ns, 30 * SECOND);
    // What was applied is not said: what was asked for is.
    pod.metadata.uid = "another".into();
    pod.status.container_statuses[0].resources.limits.memory.clear();
    assert_eq!(ledger.observe(&pod, seen()).deaths[0].memory_limit_bytes, Some(32 << 20));
}

#[test]
fn the_deaths_of_the_last_hour_are_counted_with_those_that_were_missed() {
    let mut ledger = primed();
    let end =
        |id: &str, at: &str| json!({"terminated": {"exitCode": 1, "finishedAt": at, "containerID": id}});
    let mut window = |count: u32, id: &str, at: &str| {
        let told = ledger.observe(&pod(status(count, id, &end(id, at), &json!({}))), seen());
        let death = told.deaths.last().unwrap();
        (death.deaths_in_window, nodetap_wire::time::format_ns(death.window_first_ns).unwrap())
    };
    assert_eq!(window(0, "a", "2024-01-01T00:00:00Z"), (1, "2024-01-01T00:00:00Z".into()));
    assert_eq!(window(1, "b", "2024-01-01T00:20:00Z"), (2, "2024-01-01T00:00:00Z".into()));
    assert_eq!(window(4, "e", "2024-01-01T00:40:00Z"), (5, "2024-01-01T00:00:00Z".into()), "two were missed");
    assert_eq!(window(5, "f", "2024-01-01T01:10:00Z"), (5, "2024-01-01T00:20:00Z".into()));
    assert_eq!(window(600, "g", "2024-01-01T01:11:00Z"), (64, "2024-01-01T01:11:00Z".into()));
}

#[test]
fn a_death_in_back_off_keeps_the_ordinal_of_the_instance_that_died() {
    // As the kubelet writes it: in back-off, count and id are still those of the dead instance, which stands in lastState.
    let mut ledger = primed();
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
    let told =
        ledger.observe(&pod(status(0, "containerd://a", &waiting, &terminated("containerd://a", 7))), seen());
    assert_eq!(ordinals(&told), [(0, "containerd://a")]);
    assert_eq!(told.deaths[0].back_off, "CrashLoopBackOff");
    // And once the next one runs, the same death is lastState with a count that is one higher.
    let told = ledger
        .observe(&pod(status(1, "containerd://b", &running(), &terminated("containerd://a", 7))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
}

#[test]
fn state_and_last_state_can_be_two_deaths() {
    let mut ledger = primed();
    let told = ledger.observe(&pod(status(1, "b", &terminated("b", 2), &terminated("a", 1))), seen());
    assert_eq!(ordinals(&told), [(0, "a"), (1, "b")]);
    assert_eq!(told.deaths.iter().map(|death| death.exit_code.unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(
        ledger
            .observe(&pod(status(1, "b", &terminated("b", 2), &terminated("a", 1))), seen())
            .deaths
            .is_empty()
    );
}

#[test]
fn a_count_that_jumps_tells_how_many_were_missed() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    let told = ledger.observe(&pod(status(4, "e", &running(), &terminated("d", 1))), seen());
    assert_eq!(ordinals(&told), [(3, "d")]);
    assert_eq!((told.deaths[0].missed_before, told.missed), (3, 3));
}

/// Seconds that the container was restarting, and its missed deaths, as they are told by one status.
fn tally(told: &Told) -> (i64, u64) {
    match &told.tallies[..] {
        [] => (0, 0),
        [tally] => {
            assert_eq!(tally.container, "app");
            (tally.restarting_ns / SECOND, tally.missed)
        }
        more => panic!("one container, not {more:?}"),
    }
}

#[test]
fn the_time_from_an_end_to_the_next_beginning_is_counted_once() {
    let end = |id: &str, from: &str, to: &str| {
        let (started, finished) = (format!("2024-01-01T00:{from}Z"), format!("2024-01-01T00:{to}Z"));
        json!({"terminated": {"exitCode": 1, "startedAt": started, "finishedAt": finished, "containerID": id}})
    };
    let runs = |from: &str| json!({"running": {"startedAt": format!("2024-01-01T00:{from}Z")}});
    let mut ledger = primed();
    let mut tell = |count, id: &str, state: &Value, last: &Value| {
        tally(&ledger.observe(&pod(status(count, id, state, last)), seen()))
    };
    let (none, a) = (json!({}), end("a", "00:00", "00:10"));
    assert_eq!(tell(0, "a", &runs("00:00"), &none), (0, 0));
    assert_eq!(tell(0, "a", &a, &none), (0, 0), "nothing came after it yet");
    assert_eq!(tell(1, "b", &runs("00:40"), &a), (30, 0));
    assert_eq!(tell(1, "b", &runs("00:40"), &a), (0, 0));
    assert_eq!(tell(0, "a", &a, &none), (0, 0), "a source that lags");
    // The next beginning is that of a death that is seen together with its end; it waits again before c.
    let b = end("b", "00:40", "00:50");
    assert_eq!(tell(2, "c", &end("c", "01:10", "01:20"), &b), (20, 0));
    // What never began has waited since the end before it.
    let failed = json!({"terminated": {"exitCode": 128, "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": "2024-01-01T00:01:40Z", "containerID": "d"}});
    assert_eq!(tell(3, "d", &failed, &end("c", "01:10", "01:20")), (0, 0));
    assert_eq!(tell(4, "e", &runs("02:20"), &failed), (60, 0));
    // Between two ends of which one was missed nobody knows how long it ran.
    assert_eq!(tell(7, "h", &runs("09:00"), &end("g", "08:00", "08:10")), (50, 2));
    assert_eq!(tell(7, "h", &end("h", "09:00", "10:00"), &json!({})), (0, 0));
    assert_eq!(tell(10, "k", &runs("12:00"), &end("j", "11:00", "11:10")), (50, 1));
}

#[test]
fn an_init_container_that_runs_again_was_not_restarting_all_the_while() {
    let setup = |count, id: &str, state: Value| {
        let of_app = status(count, id, &state, &json!({}));
        let mut of_setup = of_app.clone();
        of_setup["name"] = json!("setup");
        let of_app = json!({"name": "app", "restartCount": 0, "state": {"waiting": {}}});
        pod_with(
            json!({"phase": "Pending", "initContainerStatuses": [of_setup], "containerStatuses": [of_app]}),
        )
    };
    let mut ledger = primed();
    ledger.observe(&setup(0, "a", terminated("a", 0)), seen());
    // Ten minutes later the pod's sandbox is made anew.
    let told = ledger.observe(&setup(1, "b", later()), seen());
    assert!(told.tallies.is_empty(), "{:?}", told.tallies);
}

#[test]
fn what_was_waited_for_before_our_time_is_not_counted() {
    let mut ledger = Ledger::new("node-1", BEGAN);
    let told = ledger.observe(&pod(status(5, "f", &running(), &terminated("e", 1))), seen());
    assert_eq!((told.deaths.len(), tally(&told)), (1, (0, 0)));
}

#[test]
fn missed_deaths_are_found_by_their_log_files_and_not_reported_again() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    ledger.log_seen(log(1));
    ledger.log_seen(log(2));
    ledger.log_seen(log(4));
    let told = ledger.observe(&pod(status(4, "e", &running(), &terminated("d", 1))), seen());
    assert_eq!(ordinals(&told), [(1, ""), (2, ""), (3, "d")]);
    assert_eq!((told.deaths[0].missed_before, told.missed), (1, 1));
    assert_eq!((told.deaths[0].source(), told.deaths[0].exit_code), (Source::LogOrdinal, None));
    // The container id of ordinal 2 becomes known late, from a source that lags.
    let told = ledger.observe(&pod(status(2, "c", &terminated("c", 1), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
    let told = ledger.observe(&pod(status(4, "e", &terminated("e", 1), &terminated("d", 1))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(4, "e")], 0));
}

#[test]
fn a_log_file_alone_is_no_death() {
    let mut ledger = primed();
    ledger.log_seen(log(0));
    ledger.log_seen(log(1));
    let told = ledger.observe(&pod(status(1, "b", &running(), &terminated("a", 1))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "a")], 0));
}

#[test]
fn the_first_snapshot_reports_what_it_shows_and_counts_nothing_before() {
    let mut ledger = Ledger::new("node-1", BEGAN);
    let told = ledger.observe(&pod(status(50, "z", &running(), &terminated("y", 1))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(49, "y")], 0));
}

#[test]
fn a_pod_from_before_our_time_that_is_listed_late_has_missed_nothing() {
    // A kubelet that starts lists its static pods first, and the others once it has them from the API server.
    let mut ledger = primed();
    let mut late = pod(status(50, "z", &running(), &terminated("y", 1)));
    late.metadata.creation_timestamp = "2020-01-01T00:00:00Z".into();
    let told = ledger.observe(&late, seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(49, "y")], 0));
}

#[test]
fn a_count_that_falls_is_no_negative_restart() {
    let mut ledger = primed();
    for count in 0..3 {
        let last = if count == 0 { json!({}) } else { terminated(&format!("a{}", count - 1), 1) };
        ledger.observe(&pod(status(count, &format!("a{count}"), &running(), &last)), seen());
    }
    // The node rebooted and the runtime forgot: a2 ended unseen.
    let told = ledger.observe(&pod(status(0, "b0", &later(), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 1));
    let told = ledger.observe(&pod(status(0, "b0", &terminated("b0", 3), &json!({}))), seen());
    assert_eq!(ordinals(&told), [(0, "b0")]);
    assert_eq!(told.deaths[0].missed_before, 1);
}

#[test]
fn a_count_that_falls_still_tells_how_the_last_one_ended() {
    let mut ledger = primed();
    ledger.observe(&pod(status(5, "a5", &running(), &terminated("a4", 1))), seen());
    let told = ledger.observe(&pod(status(0, "b0", &later(), &terminated("a5", 9))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(5, "a5")], 0));
    let told = ledger.observe(&pod(status(1, "b1", &later(), &terminated("b0", 9))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "b0")], 0));
}

#[test]
fn a_source_that_lags_neither_repeats_nor_resets() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    ledger.observe(&pod(status(1, "b", &running(), &terminated("a", 1))), seen());
    let told = ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
    let told = ledger.observe(&pod(status(1, "b", &terminated("b", 1), &terminated("a", 1))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(1, "b")], 0));
}

#[test]
fn a_container_that_the_runtime_lost_is_one_death_without_an_id() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    let lost = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was deleted.", "startedAt": null, "finishedAt": null}});
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let told = ledger.observe(&pod(status(1, "", &waiting, &lost)), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "")], 0));
    assert_eq!(told.deaths[0].back_off, "", "ContainerCreating is no back-off");
    let told = ledger.observe(&pod(status(1, "b", &running(), &lost)), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
}

#[test]
fn a_container_that_was_lost_when_its_pod_was_evicted_is_one_death_and_what_was_never_created_none() {
    let lost = |when: &str| {
        json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown",
            "message": format!("The container could not be located when the pod was {when}"), "startedAt": null, "finishedAt": null}})
    };
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    let told = ledger.observe(&pod(status(1, "", &waiting, &lost("deleted"))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "")], 0));
    let told = ledger.observe(&pod(status(1, "", &lost("terminated"), &lost("deleted"))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
    let told = ledger.observe(&pod(status(1, "", &lost("terminated"), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
    // Both at once.
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    let told = ledger.observe(&pod(status(1, "", &lost("terminated"), &lost("deleted"))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "")], 0));
    // One that was being created, and one that ran.
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "", &waiting, &json!({}))), seen());
    let told = ledger.observe(&pod(status(0, "", &lost("terminated"), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    let told = ledger.observe(&pod(status(0, "", &lost("terminated"), &json!({}))), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![(0, "")], 0));
}

#[test]
fn a_runtime_that_lost_all_and_counts_from_zero_repeats_nothing() {
    let mut ledger = primed();
    ledger.observe(&pod(status(3, "a", &running(), &terminated("x", 1))), seen());
    let lost = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}});
    ledger.observe(&pod(status(4, "", &json!({"waiting": {"reason": "ContainerCreating"}}), &lost)), seen());
    let told = ledger.observe(&pod(status(0, "b", &later(), &lost)), seen());
    assert_eq!((ordinals(&told), told.missed), (vec![], 0));
}

#[test]
fn init_sidecar_app_and_ephemeral_containers_are_told_apart() {
    let one = |name: &str| {
        let mut status = status(0, &format!("id-{name}"), &terminated(&format!("id-{name}"), 0), &json!({}));
        status["name"] = json!(name);
        status
    };
    let pod = pod_with(json!({
        "initContainerStatuses": [one("setup"), one("proxy")],
        "containerStatuses": [one("app")],
        "ephemeralContainerStatuses": [one("debugger")]
    }));
    let told = primed().observe(&pod, seen());
    let kinds: HashMap<&str, ContainerKind> =
        told.deaths.iter().map(|death| (death.container.as_str(), death.container_kind())).collect();
    assert_eq!(kinds["setup"], ContainerKind::Init);
    assert_eq!(kinds["proxy"], ContainerKind::Sidecar);
    assert_eq!(kinds["app"], ContainerKind::App);
    assert_eq!(kinds["debugger"], ContainerKind::Ephemeral);
    assert_eq!(told.deaths[0].exit_code, Some(0), "a completed container is a record too");
}

#[test]
fn a_node_that_rebooted_is_one_death_of_each_container_that_ran_on_it() {
    let mut ledger = primed();
    ledger.observe(&pod(status(2, "a", &running(), &json!({}))), seen());
    // A kubelet that starts lists few pods at first, and its runtime knows nothing of how they ended.
    ledger.end_snapshot(&HashSet::new(), BEGAN + 60 * SECOND);
    let mut lost = terminated("a", 255);
    lost["terminated"]["reason"] = json!("Unknown");
    let told = ledger.observe(&pod(status(3, "b", &later(), &lost)), seen());
    let [death] = &told.deaths[..] else { panic!("one death, not {:?}", told.deaths) };
    assert_eq!((death.ordinal, death.exit_code, death.reason.as_str()), (2, Some(255), "Unknown"));
    ledger.end_snapshot(&HashSet::from([UID.to_owned()]), BEGAN + 61 * SECOND);
    assert_eq!(ledger.settle(BEGAN + 3600 * SECOND), [], "nothing that runs now has ended");
}

#[test]
fn what_only_a_log_file_tells_of_when_the_pod_goes_is_an_unseen_end_for_each_of_them() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    ledger.observe(&pod(status(0, "a", &terminated("a", 1), &json!({}))), seen());
    for ordinal in [0, 1, 2] {
        ledger.log_seen(LogSeen { pod_uid: UID.into(), container: "app".into(), ordinal });
    }
    // The files of those before it are gone.
    ledger.log_seen(LogSeen { pod_uid: UID.into(), container: "never-shown".into(), ordinal: 3 });
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    let mut unseen = ledger.settle(BEGAN + 3600 * SECOND);
    unseen.sort_by_key(|unseen| unseen.ends);
    let ends = |container: &str, ends| Unseen { namespace: "shop".into(), container: container.into(), ends };
    assert_eq!(unseen, [ends("app", 2), ends("never-shown", 4)], "the first of app was told");
    assert_eq!(ledger.settle(BEGAN + 7200 * SECOND), []);
}

#[test]
fn a_pod_that_goes_while_running_is_one_unseen_end_for_each_container() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    assert_eq!(ledger.settle(BEGAN + SECOND).len(), 0, "a source that lags may still show its end");
    let unseen = Unseen { namespace: "shop".into(), container: "app".into(), ends: 1 };
    assert_eq!(ledger.settle(BEGAN + 61 * SECOND), [unseen]);
    assert_eq!(ledger.settle(BEGAN + 62 * SECOND).len(), 0);
    assert_eq!(ledger.settle(BEGAN + 3600 * SECOND).len(), 0);
    assert!(ledger.is_empty());
}

#[test]
fn a_pod_whose_end_was_seen_after_it_was_gone_has_no_unseen_end() {
    let mut ledger = primed();
    ledger.observe(&pod(status(0, "a", &running(), &json!({}))), seen());
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    let told = ledger.observe(&pod(status(0, "a", &terminated("a", 143), &json!({}))), seen());
    ledger.gone(UID, BEGAN + SECOND);
    assert_eq!(ordinals(&told), [(0, "a")]);
    assert_eq!(ledger.settle(BEGAN + 100 * SECOND).len(), 0);
}

#[test]
fn a_pod_that_comes_back_is_the_same_pod() {
    let mut ledger = primed();
    let crashed = pod(status(1, "b", &running(), &terminated("a", 1)));
    assert_eq!(ledger.observe(&crashed, seen()).deaths.len(), 1);
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    ledger.settle(BEGAN + 61 * SECOND);
    assert!(ledger.observe(&crashed, seen()).deaths.is_empty());
}

#[test]
fn a_pod_that_came_back_is_neither_given_up_nor_forgotten() {
    let mut ledger = primed();
    let alive = pod(status(0, "a", &running(), &json!({})));
    ledger.observe(&alive, seen());
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    ledger.observe(&alive, seen());
    assert_eq!(ledger.settle(BEGAN + 3600 * SECOND).len(), 0);
    assert_eq!(ledger.len(), 1);
}

#[test]
fn the_identity_is_the_same_after_a_restart_of_the_agent() {
    let crashed = pod(status(3, "d", &running(), &terminated("containerd://c", 1)));
    let mut long = primed();
    for count in 0..3 {
        long.observe(
            &pod(status(count, ["a", "b", "containerd://c"][count as usize], &running(), &json!({}))),
            seen(),
        );
    }
    let before = long.observe(&crashed, seen());
    let after = Ledger::new("node-1", BEGAN).observe(&crashed, seen());
    let identity = |told: &Told| nodetap_wire::identity::Identity::of_death("c", told.deaths.last().unwrap());
    assert_eq!(identity(&before), identity(&after));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut ledger = primed();
    for number in 0..3000 {
        ledger.log_seen(LogSeen { pod_uid: format!("u{number}"), container: "app".into(), ordinal: 0 });
        let mut pod = pod(status(0, "a", &terminated("a", 0), &json!({})));
        pod.metadata.uid = format!("p{number}");
        ledger.observe(&pod, seen());
    }
    for ordinal in 0..1000 {
        ledger.log_seen(log(ordinal));
    }
    ledger.end_snapshot(&HashSet::new(), BEGAN);
    ledger.settle(BEGAN + 61 * SECOND);
    assert!(ledger.len() <= GONE_PODS, "{}", ledger.len());
    assert!(ledger.logs.len() <= LOG_PODS);
    assert!(ledger.logs.values().flatten().all(|(_, ordinals)| ordinals.len() <= LOG_ORDINALS));
}

/// What one container lives through, state by state, as the kubelet reports it.
#[derive(Clone, Debug)]
struct Life {
    states: Vec<Value>,
    /// How many deaths have happened up to each state.
    deaths: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    back_off: bool,
    shows_terminated: bool,
    forgets_last: bool,
}

fn lives(resets: bool) -> impl Strategy<Value = Life> {
    let round = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.15));
    prop::collection::vec(round, 1..12).prop_map(move |rounds| {
        let mut life = Life { states: Vec::new(), deaths: Vec::new() };
        let (mut count, mut died, mut last) = (0, 0, json!({}));
        for (number, (back_off, shows_terminated, forgets_last, reset)) in rounds.into_iter().enumerate() {
            let round = Round { back_off, shows_terminated, forgets_last };
            let id = format!("containerd://{number}");
            let started = format!("2024-01-01T00:00:{:02}Z", 2 * number);
            let mut show = |mut state: Value, last: &Value, died: u64| {
                if !state["running"].is_null() {
                    state["running"]["startedAt"] = json!(started);
                }
                life.states.push(status(count, &id, &state, last));
                life.deaths.push(died);
            };
            show(running(), &last, died);
            died += 1;
            let mut end = terminated(&id, i32::try_from(number).unwrap());
            end["terminated"]["startedAt"] = json!(started);
            if round.shows_terminated {
                show(end.clone(), &last, died);
            }
            if round.back_off {
                show(json!({"waiting": {"reason": "CrashLoopBackOff"}}), &end, died);
            }
            last = if round.forgets_last { json!({}) } else { end };
            count = if resets && reset { 0 } else { count + 1 };
        }
        life
    })
}

fn visible(state: &Value) -> Vec<String> {
    [&state["lastState"], &state["state"]]
        .iter()
        .filter_map(|state| state["terminated"]["containerID"].as_str().map(ToOwned::to_owned))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_death_is_reported_once_or_counted_as_missed(
        life in lives(false),
        observed in prop::collection::vec(any::<bool>(), 40),
        logged in prop::collection::vec(any::<bool>(), 12),
        lags in prop::collection::vec(prop::bool::weighted(0.2), 40),
    ) {
        let mut ledger = primed();
        for (ordinal, _) in logged.iter().enumerate().filter(|(_, logged)| **logged) {
            ledger.log_seen(log(u32::try_from(ordinal).unwrap()));
        }
        let (mut reported, mut missed, mut said, mut died) = (Vec::new(), 0, 0, 0);
        let mut before: Option<Value> = None;
        for (index, state) in life.states.iter().enumerate().filter(|(index, _)| observed[*index % observed.len()]) {
            let told = ledger.observe(&pod(state.clone()), seen());
            reported.extend(told.deaths.iter().map(|death| death.ordinal));
            missed += told.missed;
            said += told.deaths.iter().map(|death| u64::from(death.missed_before)).sum::<u64>();
            died = match state["state"]["running"] {
                Value::Null => life.deaths[index],
                _ => u64::from(u32::try_from(state["restartCount"].as_u64().unwrap()).unwrap()),
            };
            prop_assert_eq!(reported.len() as u64 + missed, died, "after {}", state);
            let again = ledger.observe(&pod(state.clone()), seen());
            prop_assert!(again.deaths.is_empty() && again.missed == 0, "a repeated snapshot told {:?}", again);
            if lags[index % lags.len()] && let Some(before) = &before {
                let stale = ledger.observe(&pod(before.clone()), seen());
                prop_assert!(stale.deaths.is_empty() && stale.missed == 0, "an older one told {:?}", stale);
            }
            before = Some(state.clone());
        }
        let mut ordinals = reported.clone();
        ordinals.sort_unstable();
        ordinals.dedup();
        prop_assert_eq!(ordinals.len(), reported.len(), "an ordinal twice: {:?}", reported);
        prop_assert!(said <= missed);
        prop_assert!(died >= reported.len() as u64);
    }

    #[test]
    fn each_terminated_state_that_was_shown_is_reported_once_even_when_counts_fall(
        life in lives(true),
        observed in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut ledger = primed();
        let (mut shown, mut reported): (BTreeSet<String>, Vec<String>) = Default::default();
        let mut missed = 0;
        for (_, state) in life.states.iter().enumerate().filter(|(index, _)| observed[*index % observed.len()]) {
            shown.extend(visible(state));
            for _ in 0..2 {
                let told = ledger.observe(&pod(state.clone()), seen());
                reported.extend(told.deaths.into_iter().map(|death| death.container_id));
                missed += told.missed;
            }
        }
        let once: BTreeSet<String> = reported.iter().cloned().collect();
        prop_assert_eq!(once.len(), reported.len(), "twice: {:?}", reported);
        prop_assert_eq!(&once, &shown);
        prop_assert!(reported.len() as u64 + missed <= life.deaths.last().copied().unwrap_or(0), "{} missed", missed);
    }
}
