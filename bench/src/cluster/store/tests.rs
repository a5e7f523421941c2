#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

fn put(store: &mut Store, name: &str, at: u64) -> Change {
    store.put(Resource::Events, Duration::from_secs(at), |revision| {
        let body = format!("{{\"metadata\":{{\"resourceVersion\":\"{revision}\"}}}}");
        Object::new(("shop", name), "u", revision, body.as_bytes(), &[], [])
    })
}

fn names(store: &mut Store, revision: u64) -> Vec<String> {
    let snapshot = store.snapshot(Resource::Events, revision).unwrap();
    snapshot.iter().map(|object| object.name().to_owned()).collect()
}

#[test]
fn a_snapshot_is_the_state_of_its_revision() {
    let mut store = Store::new(100, Duration::from_secs(60));
    let first = put(&mut store, "a", 0);
    let second = put(&mut store, "b", 0);
    put(&mut store, "a", 0);
    store.delete(Resource::Events, std::slice::from_ref(&second.object.key()));
    assert_eq!(names(&mut store, first.revision), ["a"]);
    assert_eq!(names(&mut store, second.revision), ["a", "b"]);
    let snapshot = store.snapshot(Resource::Events, second.revision).unwrap();
    assert_eq!(snapshot[0].revision, first.revision, "the state before the update");
    let now = store.revision();
    assert_eq!(names(&mut store, now), ["a"]);
}

#[test]
fn a_lease_is_shared_for_a_twentieth_of_the_ttl_and_by_a_thousand_and_ends_at_one_revision() {
    let mut store = Store::new(10_000, Duration::from_secs(100));
    for number in 0..1001 {
        put(&mut store, &format!("a{number:04}"), 0);
    }
    put(&mut store, "late", 6);
    assert!(store.expire(Duration::from_secs(104)).is_empty());
    let gone = store.expire(Duration::from_secs(105));
    assert_eq!(gone.len(), 1001);
    let mut revisions: Vec<_> = gone.iter().map(|change| change.revision).collect();
    revisions.dedup();
    assert_eq!(revisions.len(), 2, "two leases, two revisions");
    assert_eq!(store.objects(Resource::Events).len(), 1);
}

#[test]
fn an_update_starts_the_ttl_anew() {
    let mut store = Store::new(100, Duration::from_secs(100));
    put(&mut store, "a", 0);
    put(&mut store, "a", 90);
    assert!(store.expire(Duration::from_secs(110)).is_empty());
    assert_eq!(store.expire(Duration::from_secs(195)).len(), 1);
}

#[test]
fn the_history_is_bounded_and_what_fell_out_is_compacted() {
    let mut store = Store::new(10, Duration::from_secs(100));
    let first = put(&mut store, "a", 0);
    for _ in 0..50 {
        put(&mut store, "a", 0);
    }
    assert!(store.changes.len() <= 10);
    assert!(store.changes_after(first.revision, 10).is_err());
    assert!(store.changes_after(store.revision(), 10).is_ok());
}

#[test]
fn a_watch_that_missed_only_the_compacted_revision_goes_on() {
    let mut store = Store::new(10, Duration::from_secs(100));
    put(&mut store, "a", 0);
    let before = store.revision();
    put(&mut store, "b", 0);
    let now = store.revision();
    store.compact(now);
    assert_eq!(store.changes_after(before, 10).unwrap().count(), 1);
    assert!(store.changes_after(before - 1, 10).is_err());
}

#[test]
fn a_deletion_shows_the_last_state_at_its_own_revision() {
    let mut store = Store::new(10, Duration::from_secs(100));
    let made = put(&mut store, "a", 0);
    let gone = store.delete(Resource::Events, std::slice::from_ref(&made.object.key()));
    let expected = format!("{{\"metadata\":{{\"resourceVersion\":\"{}\"}}}}", made.revision + 1);
    assert_eq!(gone[0].object.body(), expected.as_bytes());
}

#[test]
fn an_event_is_known_by_its_name_for_as_long_as_it_is_kept() {
    let mut store = Store::new(100, Duration::from_secs(100));
    let keys = ["deleted", "expired", "kept"].map(|name| put(&mut store, name, 0).object.key());
    put(&mut store, "kept", 90);
    store.delete(Resource::Events, &keys[..1]);
    store.expire(Duration::from_secs(110));
    store.keep_no_events();
    let passing = put(&mut store, "passing", 90).object.key();
    for key in keys.iter().chain([&passing]) {
        assert_eq!(store.has_event(key), store.get(Resource::Events, key).is_some(), "{}", key.1);
    }
    assert!(store.has_event(&keys[2]));
}
