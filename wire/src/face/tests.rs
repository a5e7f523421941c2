#![allow(clippy::unwrap_used)]

use super::*;
use crate::LogLine;

fn object() -> Object {
    Object {
        labels: BTreeMap::from([("app".into(), "web".into()), ("tier".into(), "front".into())]),
        annotations: BTreeMap::from([("note".into(), "ü".into())]),
        owners: vec![Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "web-6d9".into(),
            uid: "rs-1".into(),
            controller: true,
        }],
        deleted: false,
    }
}

fn face_of(json: &str, object: Option<&Object>, occurrences: u64) -> String {
    serde_json::to_string(&Face::of_event(Event::parse(json).unwrap(), "prod", object, occurrences)).unwrap()
}

#[test]
fn the_face_of_a_kubelets_event() {
    let json = r#"{"kind":"Event","apiVersion":"v1",
        "metadata":{"uid":"u-1","name":"web.17f3","namespace":"shop","resourceVersion":"812",
            "creationTimestamp":"2026-07-01T12:00:00Z","managedFields":[{"manager":"kubelet"}]},
        "involvedObject":{"apiVersion":"v1","kind":"Pod","namespace":"shop","name":"web","uid":"p-1","resourceVersion":"800",
            "fieldPath":"spec.containers{app}"},
        "reason":"BackOff","message":"Back-off <restarting>","source":{"host":"n1","component":"kubelet"},
        "firstTimestamp":"2026-07-01T12:00:00Z","lastTimestamp":"2026-07-01T12:05:00Z","count":6,"type":"Warning",
        "eventTime":null,"reportingComponent":"kubelet","reportingInstance":"n1"}"#;
    let expected = concat!(
        r#"{"metadata":{"name":"web.17f3","namespace":"shop","uid":"u-1","resourceVersion":"812","#,
        r#""creationTimestamp":"2026-07-01T12:00:00Z"},"#,
        r#""reason":"BackOff","message":"Back-off <restarting>","source":{"component":"kubelet","host":"n1"},"#,
        r#""firstTimestamp":"2026-07-01T12:00:00Z","lastTimestamp":"2026-07-01T12:05:00Z","count":6,"type":"Warning","#,
        r#""eventTime":null,"reportingComponent":"kubelet","reportingInstance":"n1","clusterName":"prod","#,
        r#""involvedObject":{"kind":"Pod","namespace":"shop","name":"web","uid":"p-1","apiVersion":"v1","#,
        r#""resourceVersion":"800","fieldPath":"spec.containers{app}","#,
        r#""labels":{"app":"web","tier":"front"},"annotations":{"note":"ü"},"#,
        r#""ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-6d9","uid":"rs-1","controller":true}],"#,
        r#""deleted":false},"id":"event/prod/u-1/812","occurrences":2}"#,
    );
    assert_eq!(face_of(json, Some(&object()), 2), expected);
}

#[test]
fn the_face_of_a_schedulers_event_with_null_timestamps() {
    let json = r#"{"metadata":{"name":"web.17f4","namespace":"shop","uid":"u-2","resourceVersion":"900",
            "creationTimestamp":"2026-07-01T12:00:00Z","labels":{"b":"2","a":"1"}},
        "involvedObject":{"kind":"Pod","namespace":"shop","name":"web","uid":"p-1"},
        "reason":"FailedScheduling","message":"0/3 nodes","source":{},"firstTimestamp":null,"lastTimestamp":null,
        "type":"Warning","eventTime":"2026-07-01T12:00:00.123456Z",
        "series":{"count":3,"lastObservedTime":"2026-07-01T12:10:00.000001Z"},"action":"Scheduling",
        "related":{"kind":"Node","name":"n1"},
        "reportingComponent":"default-scheduler","reportingInstance":"default-scheduler-m1"}"#;
    let expected = concat!(
        r#"{"metadata":{"name":"web.17f4","namespace":"shop","uid":"u-2","resourceVersion":"900","#,
        r#""creationTimestamp":"2026-07-01T12:00:00Z","labels":{"b":"2","a":"1"}},"#,
        r#""reason":"FailedScheduling","message":"0/3 nodes","source":{},"firstTimestamp":null,"lastTimestamp":null,"#,
        r#""type":"Warning","eventTime":"2026-07-01T12:00:00.123456Z","#,
        r#""series":{"count":3,"lastObservedTime":"2026-07-01T12:10:00.000001Z"},"action":"Scheduling","#,
        r#""related":{"kind":"Node","name":"n1"},"#,
        r#""reportingComponent":"default-scheduler","reportingInstance":"default-scheduler-m1","clusterName":"prod","#,
        r#""involvedObject":{"kind":"Pod","namespace":"shop","name":"web","uid":"p-1","deleted":false},"#,
        r#""id":"event/prod/u-2/900","occurrences":3}"#,
    );
    assert_eq!(face_of(json, None, 3), expected);
}

#[test]
fn the_face_of_an_event_of_nothing_but_its_identity() {
    let json = r#"{"metadata":{"uid":"u","resourceVersion":"7"},"firstTimestamp":"0001-01-01T00:00:00Z"}"#;
    let expected = concat!(
        r#"{"metadata":{"uid":"u","resourceVersion":"7","creationTimestamp":null},"source":{},"#,
        r#""firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":"","#,
        r#""clusterName":"prod","involvedObject":{"deleted":false},"id":"event/prod/u/7","occurrences":1}"#,
    );
    assert_eq!(face_of(json, None, 1), expected);
}

fn death() -> ContainerDied {
    ContainerDied {
        namespace: "shop".into(),
        pod: "web".into(),
        pod_uid: "p-1".into(),
        node: "n1".into(),
        container: "app".into(),
        container_kind: ContainerKind::App.into(),
        ordinal: 3,
        container_id: "containerd://4f1".into(),
        image: "web:1".into(),
        image_id: "sha256:1".into(),
        exit_code: Some(7),
        signal: 0,
        reason: "Error".into(),
        message: String::new(),
        started_ns: time::parse_ns("2026-07-01T12:00:00Z").unwrap(),
        finished_ns: time::parse_ns("2026-07-01T12:00:02.5Z").unwrap(),
        back_off: "CrashLoopBackOff".into(),
        owners: object().owners,
        last_lines: vec![
            LogLine { time_ns: 0, stderr: false, text: "starting".into() },
            LogLine { time_ns: 0, stderr: true, text: "no \"config\"".into() },
        ],
        lines_from: LinesFrom::LogFile.into(),
        seen_ns: time::parse_ns("2026-07-01T12:00:03Z").unwrap(),
        source: Source::Kubelet.into(),
        missed_before: 1,
        labels: object().labels,
        annotations: object().annotations,
        pod_resource_version: "800".into(),
        ..ContainerDied::default()
    }
}

#[test]
fn the_face_of_a_death() {
    let death = death();
    let object = death.object();
    let expected = concat!(
        r#"{"metadata":{"name":"web.app.3","namespace":"shop","uid":"death/prod/p-1/app/4f1","#,
        r#""creationTimestamp":"2026-07-01T12:00:02.5Z"},"reason":"ContainerDied","#,
        r#""message":"app failed (exit 7) after 2 s; its next start waits in CrashLoopBackOff; 1 end before it was not seen; "#,
        r#"last line: no \"config\"","#,
        r#""source":{"component":"nodetap-agent","host":"n1"},"#,
        r#""firstTimestamp":"2026-07-01T12:00:02.5Z","lastTimestamp":"2026-07-01T12:00:02.5Z","count":1,"type":"Warning","#,
        r#""eventTime":null,"reportingComponent":"nodetap-agent","reportingInstance":"n1","clusterName":"prod","#,
        r#""involvedObject":{"kind":"Pod","namespace":"shop","name":"web","uid":"p-1","apiVersion":"v1","#,
        r#""resourceVersion":"800","fieldPath":"spec.containers{app}","#,
        r#""labels":{"app":"web","tier":"front"},"annotations":{"note":"ü"},"#,
        r#""ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-6d9","uid":"rs-1","controller":true}],"#,
        r#""deleted":false},"#,
        r#""container":{"name":"app","kind":"app","ordinal":3,"containerId":"containerd://4f1","image":"web:1","#,
        r#""imageID":"sha256:1","exitCode":7,"reason":"Error","startedAt":"2026-07-01T12:00:00Z","#,
        r#""finishedAt":"2026-07-01T12:00:02.5Z","runSeconds":2.5,"backOff":"CrashLoopBackOff","#,
        r#""lastLines":["starting","no \"config\""],"linesFrom":"log file","seenBy":"kubelet","seenAt":"2026-07-01T12:00:03Z","missedBefore":1,"#,
        r#""explanation":"app failed (exit 7) after 2 s; its next start waits in CrashLoopBackOff; 1 end before it was not seen; "#,
        r#"last line: no \"config\""},"#,
        r#""id":"death/prod/p-1/app/4f1","occurrences":1}"#,
    );
    assert_eq!(serde_json::to_string(&Face::of_death(&death, "prod", &object)).unwrap(), expected);
}

#[test]
fn an_oom_kill_has_a_reason_of_its_own_and_a_clean_exit_is_no_warning() {
    let object = object();
    let killed = ContainerDied { reason: "OOMKilled".into(), exit_code: Some(137), ..death() };
    let face = Face::of_death(&killed, "prod", &object);
    assert_eq!((&*face.reason, &*face.r#type), ("ContainerOOMKilled", "Warning"));
    let clean = ContainerDied { reason: "Completed".into(), exit_code: Some(0), ..death() };
    let face = Face::of_death(&clean, "prod", &object);
    assert_eq!((&*face.reason, &*face.r#type), ("ContainerDied", "Normal"));
    let unseen = ContainerDied { exit_code: None, finished_ns: 0, ..death() };
    let face = Face::of_death(&unseen, "prod", &object);
    assert_eq!((&*face.r#type, face.time_ns), ("Warning", unseen.seen_ns));
}

#[test]
fn an_init_container_is_found_under_its_list() {
    let object = object();
    for (kind, path) in [
        (ContainerKind::App, "spec.containers{app}"),
        (ContainerKind::Init, "spec.initContainers{app}"),
        (ContainerKind::Sidecar, "spec.initContainers{app}"),
        (ContainerKind::Ephemeral, "spec.ephemeralContainers{app}"),
    ] {
        let death = ContainerDied { container_kind: kind.into(), ..death() };
        assert_eq!(&*Face::of_death(&death, "prod", &object).involved_object.reference.field_path, path);
    }
}

#[test]
fn a_death_is_kept_as_json_and_read_as_the_same() {
    let death = death();
    let json = serde_json::to_string(&death).unwrap();
    assert!(json.contains(r#""containerKind":"app""#) && json.contains(r#""source":"kubelet""#), "{json}");
    assert_eq!(serde_json::from_str::<ContainerDied>(&json).unwrap(), death);
    // What an older version wrote lacks fields, and a newer one has names that are not known.
    let odd =
        serde_json::from_str::<ContainerDied>(r#"{"pod":"web","containerKind":"novel","novel":1}"#).unwrap();
    assert_eq!(odd, ContainerDied { pod: "web".into(), ..ContainerDied::default() });
}
