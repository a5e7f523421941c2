#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

#[test]
fn a_time_is_written_without_its_fraction_whatever_was_written_before() {
    for nanoseconds in
        [0, 1, 999_999_999, 1_000_000_000, 0, 1_700_000_000_123_456_789, 1_700_000_000_999_999_999, 0]
    {
        let at = Timestamp::from_nanosecond(nanoseconds).unwrap();
        let expected = Timestamp::from_second(at.as_second()).unwrap().to_string();
        assert_eq!(seconds(at), expected);
    }
    assert_eq!(seconds(Timestamp::from_millisecond(1_500).unwrap()), "1970-01-01T00:00:01Z");
}

fn event() -> Event {
    let text = r#"{
        "metadata": {
            "name": "web.1", "namespace": "shop", "uid": "u-1", "labels": {"a": "b"},
            "managedFields": [{"manager": "kubelet"}]
        },
        "involvedObject": {
            "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u-0", "apiVersion": "v1",
            "resourceVersion": "7", "fieldPath": "spec.containers{app}"
        },
        "reason": "Unhealthy",
        "message": "said \"no\"\n\u0001 häßlich",
        "source": {"host": "node-1"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "count": 3,
        "type": "Warning",
        "series": {"count": 2, "lastObservedTime": null},
        "reportingComponent": "kubelet",
        "reportingInstance": "node-1"
    }"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_event_is_stored_as_the_json_that_its_fields_are_of_whatever_was_stored_before() {
    let mut long = Event { message: "x".repeat(10_000), ..event() };
    let mut short = event();
    for revision in [1, 99, 100_000] {
        for event in [&mut long, &mut short] {
            let object = event.store(revision);
            assert_eq!(event.metadata.resource_version, revision.to_string());
            assert_eq!(object.body(), serde_json::to_vec(event).unwrap());
            assert_eq!(serde_json::from_slice::<Event>(object.body()).unwrap(), *event);
        }
    }
}

#[test]
fn every_selectable_field_has_its_value() {
    let object = event().store(5);
    assert_eq!((object.namespace(), object.name(), object.uid()), ("shop", "web.1", "u-1"));
    let expected = [
        "Pod",
        "shop",
        "web",
        "u-0",
        "v1",
        "7",
        "spec.containers{app}",
        "Unhealthy",
        "kubelet",
        "kubelet",
        "Warning",
        "node-1",
    ];
    assert_eq!(SELECTABLE.map(|label| object.field(label)), expected);
    let mut named =
        Event { source: Source { component: "scheduler".to_owned(), ..Source::default() }, ..event() };
    assert_eq!(named.store(6).field("source"), "scheduler");
}
