#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::SharedStr;

const IDENTITY: &str = r#""metadata":{"uid":"u","resourceVersion":"7"}"#;

/// An Event of nothing but its identity and what is given.
fn event(fields: &str) -> String {
    match fields {
        "" => format!("{{{IDENTITY}}}"),
        fields => format!("{{{IDENTITY},{fields}}}"),
    }
}

fn with(fields: &str, check: impl FnOnce(Event<'_>)) {
    let json = event(fields);
    check(Event::parse(&json).unwrap_or_else(|error| panic!("{json}: {error}")));
}

fn refusal(json: &str) -> String {
    Event::parse(json).err().unwrap_or_else(|| panic!("taken: {json}")).to_string()
}

fn ns(text: &str) -> i64 {
    time::parse_ns(text).unwrap()
}

#[test]
fn an_event_of_core_v1_is_read() {
    let json = json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {
            "name": "web.17f3", "namespace": "shop", "uid": "u-1", "resourceVersion": "812",
            "creationTimestamp": "2026-07-01T12:00:00Z", "labels": {"b": "2", "a": "1"},
        },
        "involvedObject": {
            "kind": "Pod", "namespace": "shop", "name": "web", "uid": "p-1", "apiVersion": "v1",
            "resourceVersion": "800", "fieldPath": "spec.containers{app}",
        },
        "reason": "BackOff", "message": "Back-off restarting failed container",
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2026-07-01T12:00:00Z", "lastTimestamp": "2026-07-01T12:05:00Z", "count": 6,
        "type": "Warning", "eventTime": null, "reportingComponent": "kubelet", "reportingInstance": "n1",
    })
    .to_string();
    let seen = EventSeen::from_json(&json, Change::Modified).unwrap();
    let expected = EventSeen {
        uid: "u-1".into(),
        resource_version: "812".into(),
        namespace: "shop".into(),
        count: 6,
        time_ns: ns("2026-07-01T12:05:00Z"),
        change: Change::Modified.into(),
        kind: "Pod".into(),
        object: "web".into(),
        reason: "BackOff".into(),
        r#type: "Warning".into(),
        node: "n1".into(),
        object_uid: "p-1".into(),
        object_namespace: "shop".into(),
        raw: json.clone().into_bytes().into(),
    };
    assert_eq!(seen, expected);
}

#[test]
fn an_event_of_events_k8s_io_is_read_as_the_same() {
    with(
        r#""regarding":{"kind":"Pod","name":"web","uid":"p-1"},"note":"0/3 nodes are available","reason":"FailedScheduling",
           "deprecatedSource":{"component":"default-scheduler"},"deprecatedFirstTimestamp":"2026-07-01T12:00:00Z",
           "deprecatedLastTimestamp":"2026-07-01T12:01:00Z","deprecatedCount":3,"action":"Scheduling","type":"Warning",
           "reportingController":"default-scheduler","reportingInstance":"default-scheduler-m1",
           "eventTime":"2026-07-01T11:59:59.123456Z""#,
        |event| {
            assert_eq!((&*event.involved_object.kind, &*event.involved_object.name), ("Pod", "web"));
            assert_eq!(&*event.message, "0/3 nodes are available");
            assert_eq!(
                (&*event.source.component, &*event.reporting_component),
                ("default-scheduler", "default-scheduler")
            );
            assert_eq!((event.count, event.occurrences()), (3, 3));
            assert_eq!(event.time_ns(), ns("2026-07-01T12:01:00Z"));
            assert_eq!(event.node(), "");
        },
    );
}

#[test]
fn whatever_is_null_or_absent_is_empty() {
    let nulls = r#""involvedObject":null,"reason":null,"message":null,"source":null,"firstTimestamp":null,"lastTimestamp":null,
        "count":null,"type":null,"eventTime":null,"series":null,"action":null,"related":null,"reportingComponent":null,
        "reportingInstance":null"#;
    for fields in ["", nulls] {
        with(fields, |event| {
            assert!(
                event.involved_object.kind.is_empty() && event.reason.is_empty() && event.message.is_empty()
            );
            assert!(event.source.host.is_empty() && event.series.is_none() && event.related.is_none());
            assert_eq!((event.occurrences(), event.time_ns(), event.node()), (1, 0, ""));
        });
    }
    with(r#""source":{"host":null},"series":{"count":null,"lastObservedTime":null}"#, |event| {
        assert_eq!((event.occurrences(), event.time_ns(), event.node()), (1, 0, ""));
    });
}

#[test]
fn the_largest_count_counts() {
    for (fields, expected) in [
        (r#""count":0"#, 1),
        (r#""count":-3"#, 1),
        (r#""count":4"#, 4),
        (r#""series":{"count":9}"#, 9),
        (r#""count":12,"series":{"count":9}"#, 12),
        (r#""count":2147483647"#, 2_147_483_647),
    ] {
        with(fields, |event| assert_eq!(event.occurrences(), expected, "{fields}"));
    }
}

#[test]
fn it_happened_at_the_latest_of_its_times() {
    let (early, late) = ("2026-07-01T12:00:00Z", "2026-07-01T12:30:00.5Z");
    for fields in [
        format!(r#""firstTimestamp":"{early}","lastTimestamp":"{late}""#),
        format!(r#""eventTime":"{early}","series":{{"count":2,"lastObservedTime":"{late}"}}"#),
        format!(r#""eventTime":"{late}","firstTimestamp":null,"lastTimestamp":null"#),
        format!(r#""lastTimestamp":"0001-01-01T00:00:00Z","firstTimestamp":"{late}""#),
        format!(r#""lastTimestamp":"soon","eventTime":"{late}""#),
    ] {
        with(&fields, |event| assert_eq!(event.time_ns(), ns(late), "{fields}"));
    }
    let created = format!(
        r#"{{"metadata":{{"uid":"u","resourceVersion":"7","creationTimestamp":"{late}"}},"eventTime":null}}"#
    );
    assert_eq!(Event::parse(&created).unwrap().time_ns(), ns(late));
}

#[test]
fn the_latest_time_counts_in_whichever_field_it_stands() {
    let (early, late) = ("2026-07-01T12:00:00Z", "2026-07-01T12:30:00.5Z");
    for fields in [
        format!(r#""firstTimestamp":"{late}","lastTimestamp":"{early}""#),
        format!(r#""lastTimestamp":"{early}","eventTime":"{late}""#),
        format!(r#""lastTimestamp":"{late}","series":{{"count":2,"lastObservedTime":"{early}"}}"#),
    ] {
        with(&fields, |event| assert_eq!(event.time_ns(), ns(late), "{fields}"));
    }
}

#[test]
fn the_kubelet_alone_names_its_node_by_its_instance() {
    for (fields, expected) in [
        (r#""source":{"host":"n1"},"reportingComponent":"kubelet","reportingInstance":"n2""#, "n1"),
        (r#""reportingComponent":"kubelet","reportingInstance":"n2""#, "n2"),
        (r#""reportingController":"kubelet","reportingInstance":"n2""#, "n2"),
        (r#""reportingComponent":"default-scheduler","reportingInstance":"scheduler-1""#, ""),
    ] {
        with(fields, |event| assert_eq!(event.node(), expected, "{fields}"));
    }
}

#[test]
fn without_an_identity_it_is_refused_by_name() {
    for (json, missing) in [
        (r#"{}"#, "metadata.uid"),
        (r#"[]"#, "metadata.uid"),
        (r#"{"metadata":{"resourceVersion":"7"}}"#, "metadata.uid"),
        (r#"{"metadata":{"uid":"","resourceVersion":"7"}}"#, "metadata.uid"),
        (r#"{"metadata":{"uid":null,"resourceVersion":"7"}}"#, "metadata.uid"),
        (r#"{"metadata":{"uid":"u"}}"#, "metadata.resourceVersion"),
    ] {
        assert_eq!(refusal(json), format!("not an Event: {missing} is missing or empty"));
    }
}

#[test]
fn a_key_that_stands_twice_is_refused_by_name() {
    for (json, key) in [
        (event(r#""reason":"a","reason":"b""#), "reason"),
        (event(r#""count":1,"count":2"#), "count"),
        (event(r#""metadata":{"uid":"other","resourceVersion":"9"}"#), "metadata"),
        (event(r#""involvedObject":{"uid":"a","uid":"b"}"#), "uid"),
        (r#"{"metadata":{"uid":"u","resourceVersion":"7","resourceVersion":"8"}}"#.into(), "resourceVersion"),
    ] {
        let refusal = refusal(&json);
        assert!(refusal.contains(&format!("duplicate field `{key}`")), "{json}: {refusal}");
    }
}

#[test]
fn what_is_not_an_event_is_refused_with_its_place() {
    for json in [
        "",
        "null",
        "{",
        r#"{"metadata":{"uid":"u","resourceVersion":"7"}"#,
        r#"{"metadata":{"uid":"u","resourceVersion":7}}"#,
        r#"{"metadata":{"uid":"u","resourceVersion":"7"}} trailing"#,
        &event(r#""count":"3""#),
        &event(r#""count":1.5"#),
        &event(r#""count":99999999999999999999"#),
        &event(r#""involvedObject":"pod""#),
        &event(r#""message":"\ud800 alone""#),
        &event("\"message\":\"cut\nline\""),
    ] {
        let refusal = refusal(json);
        assert!(refusal.starts_with("not an Event: ") && refusal.contains("line"), "{json}: {refusal}");
    }
}

#[test]
fn odd_text_is_kept() {
    with(
        r#""message":"a\"b\\c\/d\n\t\u00fc\ud83d\ude00 \u0000 é 漢 \u2028","reason":"\u0042ackOff""#,
        |event| {
            assert_eq!(&*event.message, "a\"b\\c/d\n\tü😀 \0 é 漢 \u{2028}");
            assert_eq!(&*event.reason, "BackOff");
        },
    );
}

#[test]
fn keys_come_in_any_order_and_unknown_ones_are_passed_over() {
    let json = r#" { "type" : "Normal", "unknown":{"metadata":{"uid":"x"}}, "message":"m",
        "metadata" : {"future":[1,{"uid":"y"}],"resourceVersion":"7" , "uid":"u"}, "reason":"r" } "#;
    let event = Event::parse(json).unwrap();
    assert_eq!((&*event.metadata.uid, &*event.metadata.resource_version), ("u", "7"));
    assert_eq!((&*event.r#type, &*event.message, &*event.reason), ("Normal", "m", "r"));
}

#[test]
fn managed_fields_go_wherever_they_stand() {
    let elsewhere = r#""note":"\"managedFields\":[]","other":{"managedFields":[{"a":1}]}"#;
    for metadata in [
        r#"{"managedFields":[{"manager":"k","f":{}}],"uid":"u","resourceVersion":"7"}"#,
        r#"{"uid":"u","managedFields":[{"manager":"k"}],"resourceVersion":"7"}"#,
        r#"{"uid":"u","resourceVersion":"7","managedFields":[]}"#,
        "{ \"uid\" : \"u\" ,\n \"managedFields\" : [ { \"a\" : \"]}\" } ] ,\n \"resourceVersion\" : \"7\" }",
        "{\n\"managedFields\"\t:\n[]\n,\n\"uid\":\"u\",\"resourceVersion\":\"7\"}",
        "{\"uid\":\"u\",\"resourceVersion\":\"7\" , \"managedFields\" : [ ] }",
        r#"{"uid":"u","resourceVersion":"7","managedFields":{"odd":"shape"},"annotations":{"managedFields":"mine"}}"#,
    ] {
        for json in [
            format!(r#"{{"metadata":{metadata},{elsewhere}}}"#),
            format!(r#"{{{elsewhere},"metadata":{metadata}}}"#),
        ] {
            let raw = EventSeen::from_json(&json, Change::Added).unwrap().raw;
            let mut expected: Value = serde_json::from_str(&json).unwrap();
            expected["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap();
            let found: Value =
                serde_json::from_slice(&raw).unwrap_or_else(|error| panic!("{raw:?}: {error}"));
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn without_managed_fields_the_bytes_stay_as_they_came() {
    let json = "{\"metadata\": {\"uid\":\"u\",\n\"resourceVersion\":\"7\"}, \"x\":1.0e2 }";
    assert_eq!(EventSeen::from_json(json, Change::Added).unwrap().raw, json.as_bytes());
}

#[test]
fn managed_fields_spelled_with_escapes_are_emptied() {
    let json = r#"{"metadata":{"uid":"u","managed\u0046ields":[{"manager":"k"}],"resourceVersion":"7"}}"#;
    let raw = EventSeen::from_json(json, Change::Added).unwrap().raw;
    assert_eq!(raw, r#"{"metadata":{"uid":"u","managed\u0046ields":[],"resourceVersion":"7"}}"#.as_bytes());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(managedFields|\\PC{0,6})", inner, 0..4)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn only_managed_fields_are_taken_out(
        fields in prop::collection::vec(("(managedFields|x[a-z]{0,3})", any_json()), 0..5),
        at in 0..6_usize,
        managed in prop::option::of(prop::collection::vec(any_json(), 0..3)),
        is_pretty in any::<bool>(),
    ) {
        // serde_json's maps are sorted: names before and after `managedFields` put it first, between and last.
        let mut metadata = Map::new();
        metadata.insert("uid".into(), "u".into());
        metadata.insert("resourceVersion".into(), "7".into());
        for (index, (key, value)) in fields.iter().enumerate() {
            let prefix = if index < at { "a" } else { "z" };
            metadata.insert(format!("{prefix}{key}"), value.clone());
        }
        let expected = json!({"metadata": metadata, "x": fields.iter().map(|(_, value)| value).collect::<Vec<_>>()});
        if let Some(managed) = managed {
            metadata.insert("managedFields".into(), managed.into());
        }
        let mut value = expected.clone();
        value["metadata"] = metadata.into();
        let text = if is_pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let raw = EventSeen::from_json(&text, Change::Added).unwrap().raw;
        prop_assert_eq!(serde_json::from_slice::<Value>(&raw).unwrap(), expected);
    }

    #[test]
    fn an_event_that_was_read_once_is_had_again_from_its_outline(
        texts in prop::collection::vec("(\\PC{0,6}|[a-z<>\"\\\\\n]{0,8})", 24),
        count in any::<i64>(),
        has in any::<[bool; 4]>(),
    ) {
        let mut texts = texts.into_iter();
        let mut next = || Value::from(texts.next().unwrap());
        let reference = json!({"kind": next(), "name": next(), "uid": next(), "fieldPath": next(), "namespace": next()});
        let mut event = json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "name": next(), "namespace": next()},
            "involvedObject": reference, "reason": next(), "message": next(), "type": next(), "action": next(),
            "source": {"component": next(), "host": next()}, "count": count, "lastTimestamp": next(),
            "reportingComponent": next(), "reportingInstance": next(),
        });
        for (has, key) in has.into_iter().zip(["related", "series"]) {
            if has {
                event[key] = json!({"name": next(), "count": 3, "lastObservedTime": next()});
            }
        }
        for (has, key) in has.into_iter().skip(2).zip(["labels", "annotations"]) {
            if has {
                event["metadata"][key] = json!({"a": next(), "\"": next()});
            }
        }
        let json = event.to_string();
        let json = SharedStr::from(json);
        let parsed = Event::parse(&json).unwrap();
        let outline = Outline::of(&parsed, &json).unwrap();
        let again = outline.event();
        prop_assert_eq!(again.time_ns(), parsed.time_ns());
        let again = Event { known_time_ns: None, ..again };
        prop_assert_eq!(format!("{again:?}"), format!("{parsed:?}"));
    }

    #[test]
    fn any_text_is_an_answer_not_a_panic(text in "\\PC{0,80}") {
        let _ = EventSeen::from_json(&text, Change::Added);
    }

    #[test]
    fn any_json_is_an_answer_not_a_panic(metadata in any_json(), value in any_json(), key in prop::sample::select(vec![
        "involvedObject", "reason", "message", "source", "lastTimestamp", "count", "series", "related", "regarding",
    ])) {
        let _ = EventSeen::from_json(&json!({"metadata": metadata, key: value.clone()}).to_string(), Change::Added);
        let identity = json!({"uid": "u", "resourceVersion": "7", "labels": value.clone(), "managedFields": value});
        let _ = EventSeen::from_json(&json!({"metadata": identity}).to_string(), Change::Added);
    }

    #[test]
    fn a_cut_event_is_an_answer_not_a_panic(at in any::<prop::sample::Index>()) {
        let json = event(r#""message":"größer","series":{"count":2},"related":{"kind":"Node"}"#);
        let end = (0..=at.index(json.len())).rev().find(|end| json.is_char_boundary(*end)).unwrap_or(0);
        prop_assert!(EventSeen::from_json(&json[..end], Change::Added).is_err());
    }
}
