#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;

fn facts(uid: &str, version: &str, label: &str) -> PodFacts {
    PodFacts {
        uid: uid.into(),
        resource_version: version.into(),
        labels: BTreeMap::from([("app".into(), label.into())]),
        ..PodFacts::default()
    }
}

fn label(pods: &mut Pods, uid: &str) -> Option<String> {
    pods.get(uid).map(|known| known.object.labels["app"].clone())
}

#[test]
fn nothing_is_known_of_an_empty_uid() {
    let mut pods = Pods::new(Bounds::default());
    pods.learn(facts("", "1", "web"), "n1");
    assert!(pods.is_empty());
    assert_eq!(label(&mut pods, ""), None);
}

#[test]
fn newer_facts_replace_older_ones_and_not_the_other_way_round() {
    let mut pods = Pods::new(Bounds::default());
    pods.learn(facts("p", "9", "old"), "n1");
    pods.learn(facts("p", "10", "new"), "n1");
    pods.learn(facts("p", "9", "old"), "n1");
    assert_eq!(label(&mut pods, "p").as_deref(), Some("new"));
    pods.learn(facts("p", "opaque", "newest"), "n1");
    assert_eq!(label(&mut pods, "p").as_deref(), Some("newest"));
    assert_eq!(pods.len(), 1);
}

#[test]
fn a_pod_that_is_gone_stays_known_for_the_events_that_still_come() {
    let mut pods = Pods::new(Bounds::default());
    pods.learn(PodFacts { deleted: true, ..facts("p", "9", "web") }, "n1");
    assert!(pods.get("p").unwrap().object.deleted);
}

#[test]
fn number_and_bytes_are_bounded_and_what_is_asked_for_stays() {
    for bounds in [Bounds { pods: 100, bytes: 1 << 30 }, Bounds { pods: 1 << 30, bytes: 40_000 }] {
        let mut pods = Pods::new(bounds);
        pods.learn(facts("kept", "1", "web"), "n1");
        for n in 0..10_000 {
            pods.learn(facts(&format!("p{n}"), "1", "web"), "n1");
            assert!(pods.get("kept").is_some(), "{bounds:?} after {n}");
            assert!(pods.len() <= 200, "{bounds:?}: {}", pods.len());
        }
        assert!(pods.get("p0").is_none());
    }
}

#[test]
fn the_json_is_the_object() {
    let mut pods = Pods::new(Bounds::default());
    pods.learn(facts("p", "1", "a \"quoted\" \u{fc}"), "n1");
    let known = pods.get("p").unwrap();
    assert_eq!(serde_json::from_str::<Object>(&known.json).unwrap(), *known.object);
}

#[test]
fn the_facts_of_a_pod_are_taken_from_the_node_that_announced_it_alone() {
    let mut pods = Pods::new(Bounds::default());
    let facts = |version: &str, label: &str| PodFacts {
        uid: "u".into(),
        resource_version: version.into(),
        labels: [("app".to_owned(), label.to_owned())].into(),
        ..PodFacts::default()
    };
    assert_eq!(pods.learn(facts("1", "web"), "n1"), Learnt::New);
    assert_eq!(pods.learn(facts("2", "forged"), "n2"), Learnt::Refused);
    assert_eq!(pods.get("u").unwrap().object.labels["app"], "web");
    assert_eq!(pods.learn(facts("3", "api"), "n1"), Learnt::New);
    assert_eq!(pods.learn(facts("2", "old"), "n1"), Learnt::Nothing);
    assert_eq!(pods.get("u").unwrap().object.labels["app"], "api");
}
