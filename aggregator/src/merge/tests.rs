#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// What a journal knows, kept the simplest way, and how often it was asked.
#[derive(Default)]
struct Model {
    watermarks: BTreeMap<String, String>,
    events: BTreeSet<(String, String)>,
    counts: BTreeMap<String, u64>,
    deaths: Vec<ContainerDied>,
    looked_up: usize,
    dropped_ns: Option<i64>,
}

impl Known for Model {
    type Error = Infallible;

    fn watermark(&self, namespace: &str) -> Option<&str> {
        self.watermarks.get(namespace).map(String::as_str)
    }

    fn contains_event(&mut self, uid: &str, resource_version: &str) -> Result<bool, Infallible> {
        self.looked_up += 1;
        Ok(self.events.contains(&(uid.to_owned(), resource_version.to_owned())))
    }

    fn last_count(&mut self, event: &EventSeen) -> Result<Option<u64>, Infallible> {
        self.looked_up += 1;
        Ok(self.counts.get(&*event.uid).copied())
    }

    fn contains_death(&mut self, death: &DeathKey<'_>) -> Result<bool, Infallible> {
        Ok(self.deaths.iter().any(|known| DeathKey::of(known).is_same(death)))
    }

    fn dropped_ns(&self) -> Option<i64> {
        self.dropped_ns
    }
}

impl Model {
    fn take(&mut self, event: &EventSeen) -> Verdict {
        let verdict = judge_event(event, self).unwrap();
        if let Verdict::New { count, .. } = verdict {
            assert!(
                self.events.insert((event.uid.to_string(), event.resource_version.to_string())),
                "journalled twice: {event:?}"
            );
            let known = self.counts.entry(event.uid.to_string()).or_default();
            assert!(count >= *known);
            *known = count;
            let version = &event.resource_version;
            if resource_version::compare(version, version).is_some() {
                let watermark =
                    self.watermarks.entry(event.namespace.to_string()).or_insert_with(|| version.to_string());
                if resource_version::is_later(version, watermark) {
                    *watermark = version.to_string();
                }
            }
        }
        verdict
    }

    fn take_death(&mut self, death: &ContainerDied) -> Verdict {
        let verdict = judge_death(death, self).unwrap();
        if verdict != Verdict::Duplicate {
            self.deaths.push(death.clone());
        }
        verdict
    }
}

fn state(uid: u8, version: &str, count: u64, change: Change) -> EventSeen {
    EventSeen {
        uid: format!("u{uid}").into(),
        resource_version: version.into(),
        // An Event keeps its namespace.
        namespace: format!("ns{}", uid % 3).into(),
        count,
        change: change.into(),
        ..EventSeen::default()
    }
}

fn death(container: &str, container_id: &str, ordinal: u32) -> ContainerDied {
    ContainerDied {
        pod_uid: "p".into(),
        container: container.into(),
        container_id: container_id.into(),
        ordinal,
        ..ContainerDied::default()
    }
}

fn occurrences(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::New { occurrences, .. } => occurrences,
        Verdict::Duplicate | Verdict::Forgotten => 0,
    }
}

#[test]
fn an_added_event_above_the_watermark_costs_no_look_up() {
    let mut model = Model::default();
    for version in 1..=50_u8 {
        model.take(&state(version, &version.to_string(), 1, Change::Added));
    }
    assert_eq!((model.events.len(), model.looked_up), (50, 0));
}

#[test]
fn the_same_state_from_a_list_and_from_a_watch_is_one() {
    let mut model = Model::default();
    assert_eq!(model.take(&state(1, "7", 1, Change::Added)), Verdict::New { occurrences: 1, count: 1 });
    assert_eq!(model.take(&state(1, "7", 1, Change::Listed)), Verdict::Duplicate);
    assert_eq!(model.take(&state(1, "7", 1, Change::Modified)), Verdict::Duplicate);
}

#[test]
fn an_opaque_version_is_always_looked_up() {
    let mut model = Model::default();
    for version in ["x", "007", "", "x"] {
        model.take(&state(1, version, 1, Change::Listed));
    }
    assert_eq!(model.events.len(), 3);
    assert!(model.watermarks.is_empty());
}

#[test]
fn an_event_first_seen_with_a_count_happened_that_often() {
    let mut model = Model::default();
    assert_eq!(occurrences(model.take(&state(1, "7", 40, Change::Listed))), 40);
    assert_eq!(occurrences(model.take(&state(1, "9", 42, Change::Modified))), 2);
}

#[test]
fn a_change_that_is_no_recurrence_counts_nothing() {
    let mut model = Model::default();
    model.take(&state(1, "7", 3, Change::Listed));
    assert_eq!(occurrences(model.take(&state(1, "8", 3, Change::Modified))), 0);
}

#[test]
fn a_first_state_that_was_forgotten_counts_as_one() {
    let mut model = Model::default();
    model.take(&state(1, "7", 1, Change::Added));
    model.counts.clear();
    assert_eq!(occurrences(model.take(&state(1, "9", 4, Change::Modified))), 3);
}

#[test]
fn deaths_with_ids_are_told_apart_by_them_whatever_their_ordinals() {
    let mut model = Model::default();
    assert_ne!(model.take_death(&death("app", "containerd://a", 0)), Verdict::Duplicate);
    // The kubelet lost its state: ordinals begin anew.
    assert_ne!(model.take_death(&death("app", "containerd://b", 0)), Verdict::Duplicate);
    assert_eq!(model.take_death(&death("app", "containerd://a", 1)), Verdict::Duplicate);
    assert_ne!(model.take_death(&death("other", "containerd://a", 0)), Verdict::Duplicate);
}

#[test]
fn a_death_without_an_id_is_the_one_of_its_ordinal() {
    for (first, second) in [("", "containerd://a"), ("containerd://a", ""), ("", "")] {
        let mut model = Model::default();
        model.take_death(&death("app", first, 4));
        assert_eq!(
            model.take_death(&death("app", second, 4)),
            Verdict::Duplicate,
            "{first:?} then {second:?}"
        );
        assert_ne!(
            model.take_death(&death("app", second, 5)),
            Verdict::Duplicate,
            "{first:?} then {second:?}"
        );
    }
}

/// The life of some Events: each state with a version of its own, counts that grow.
fn lives() -> impl Strategy<Value = Vec<EventSeen>> {
    prop::collection::vec((0..8_u8, 0..4_u64), 1..60).prop_map(|steps| {
        let mut counts = BTreeMap::new();
        let mut states = Vec::new();
        for (version, (uid, growth)) in (5..).zip(steps) {
            let change = if counts.contains_key(&uid) { Change::Modified } else { Change::Added };
            let count = counts.entry(uid).or_insert(0);
            *count += if change == Change::Added { 1 } else { growth };
            states.push(state(uid, &version.to_string(), *count, change));
        }
        states
    })
}

proptest! {
    #[test]
    fn whatever_the_order_and_however_often_each_identity_is_journalled_once(
        lives in lives(),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..150),
    ) {
        let mut model = Model::default();
        let mut seen = BTreeSet::new();
        for (index, is_listed) in order {
            let mut event = index.get(&lives).clone();
            if is_listed {
                event.change = Change::Listed.into();
            }
            seen.insert((event.uid.to_string(), event.resource_version.to_string()));
            model.take(&event);
        }
        prop_assert_eq!(model.events, seen);
    }

    #[test]
    fn in_order_the_occurrences_add_up_to_the_last_count(lives in lives(), again in any::<prop::sample::Index>()) {
        let mut model = Model::default();
        let mut sums = BTreeMap::<String, u64>::new();
        let mut last = BTreeMap::new();
        let cut = again.index(lives.len());
        // A watch that is resumed from the past repeats a part.
        for event in lives[..cut].iter().chain(&lives[cut / 2..]) {
            *sums.entry(event.uid.to_string()).or_default() += occurrences(model.take(event));
            last.insert(event.uid.to_string(), model.counts[&*event.uid]);
        }
        prop_assert_eq!(sums, last);
    }
}

#[test]
fn a_death_from_long_before_what_is_kept_is_not_new() {
    let hour = 3_600 * 1_000_000_000;
    let died = |finished_ns| ContainerDied { pod_uid: "p".into(), finished_ns, ..ContainerDied::default() };
    let mut model = Model { dropped_ns: Some(10 * hour), ..Model::default() };
    let new = Verdict::New { occurrences: 1, count: 1 };
    assert_eq!(judge_death(&died(9 * hour - 1), &mut model).unwrap(), Verdict::Forgotten);
    assert_eq!(judge_death(&died(9 * hour), &mut model).unwrap(), new);
    assert_eq!(judge_death(&died(0), &mut model).unwrap(), new, "nobody knows when it ended");
    model.dropped_ns = None;
    assert_eq!(judge_death(&died(1), &mut model).unwrap(), new);
}
