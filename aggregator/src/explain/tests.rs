#![allow(clippy::unwrap_used)]

use nodetap_wire::Change;

use super::*;

const SECOND: i64 = 1_000_000_000;
const NOON: &str = "2026-07-01T12:00:00Z";

fn noon() -> i64 {
    nodetap_wire::time::parse_ns(NOON).unwrap()
}

fn event(kind: &str, uid: &str, reason: &str, path: &str, message: &str, at: &str) -> EventSeen {
    let json = serde_json::json!({
        "metadata": {"uid": format!("{uid}-{reason}"), "resourceVersion": "1", "namespace": "shop"},
        "involvedObject": {"kind": kind, "namespace": "shop", "name": uid, "uid": uid, "fieldPath": path},
        "reason": reason, "message": message, "lastTimestamp": at, "count": 1,
    });
    EventSeen::from_json(&json.to_string(), Change::Added).unwrap()
}

fn killing(uid: &str, message: &str, at: &str) -> EventSeen {
    event("Pod", uid, "Killing", "spec.containers{app}", message, at)
}

fn death(uid: &str) -> ContainerDied {
    ContainerDied {
        pod_uid: uid.into(),
        node: "n1".into(),
        container: "app".into(),
        exit_code: Some(143),
        started_ns: noon() - 60 * SECOND,
        finished_ns: noon(),
        ..ContainerDied::default()
    }
}

#[test]
fn a_death_is_explained_by_the_events_about_its_pod() {
    let mut explainer = Explainer::default();
    explainer.learn(
        &event("Pod", "p", "Unhealthy", "spec.containers{app}", "Liveness probe failed: no answer", NOON),
        None,
    );
    explainer.learn(&killing("p", "Container app failed liveness probe, will be restarted", NOON), None);
    explainer.learn(&killing("other", "Stopping container app", NOON), None);
    explainer.learn(&killing("", "Stopping container app", NOON), None);
    let told = explainer.explained(&death("p"));
    let expected = "app stopped when it was told to: its liveness probe failed with \"no answer\" (exit 143) after 1 min";
    assert_eq!(told.explanation, expected);
    assert_eq!(ContainerDied { explanation: String::new(), ..told }, death("p"));
    assert!(explainer.explained(&death("unknown")).explanation.starts_with("app was ended by SIGTERM"));
    assert_eq!(explainer.len(), 2);
}

#[test]
fn a_kill_that_is_counted_up_is_remembered_by_its_last_time() {
    let mut explainer = Explainer::default();
    let message = "Container app failed liveness probe, will be restarted";
    explainer.learn(&killing("p", message, NOON), None);
    explainer.learn(&killing("p", message, "2026-07-01T11:50:00Z"), None);
    assert!(explainer.explained(&death("p")).explanation.contains("its liveness probe failed"));
}

#[test]
fn a_node_without_memory_is_remembered() {
    let mut explainer = Explainer::default();
    for node in 0..2 * NODES {
        explainer.learn(
            &event(
                "Node",
                &format!("n{node}"),
                SYSTEM_OOM,
                "",
                "System OOM encountered",
                "2026-07-01T11:00:00Z",
            ),
            None,
        );
    }
    explainer.learn(
        &event("Node", "n1", SYSTEM_OOM, "", "System OOM encountered, victim process: app", NOON),
        None,
    );
    assert!(explainer.system_oom.len() <= NODES);
    let killed = ContainerDied { exit_code: Some(137), reason: "OOMKilled".into(), ..death("p") };
    assert!(explainer.explained(&killed).explanation.contains("its node was out of memory"));
}

#[test]
fn memory_is_bounded_and_the_latest_stay() {
    let mut explainer = Explainer::new(Bounds { bytes: 100_000 });
    for pod in 0..3_000 {
        explainer.learn(&killing(&format!("p{pod}"), &"m".repeat(pod), NOON), None);
        explainer.learn(&killing(&format!("p{pod}"), "Stopping container app", NOON), None);
        assert!(explainer.young_bytes <= 60_000, "{}", explainer.young_bytes);
    }
    assert!(explainer.explained(&death("p2999")).explanation.contains("told"));
    assert!(explainer.len() < 1_000);
    for number in 0..100 {
        explainer.learn(&killing("p2999", &format!("{number}"), NOON), None);
    }
    assert_eq!(explainer.young["p2999"].len(), EVENTS);
}

#[test]
fn what_is_no_event_of_a_container_is_passed_over() {
    let mut explainer = Explainer::default();
    explainer.learn(&event("Pod", "p", "Scheduled", "", "assigned", NOON), None);
    explainer.learn(&event("Job", "j", "Killing", "", "no pod", NOON), None);
    explainer.learn(&EventSeen { raw: b"not json"[..].into(), ..killing("p", "", NOON) }, None);
    explainer.learn(&EventSeen { raw: vec![0xff].into(), ..killing("p", "", NOON) }, None);
    assert!(explainer.is_empty());
    assert_eq!(
        (container_of("spec.containers{app}"), container_of("spec"), container_of("a}b{")),
        ("app", "", "")
    );
}
