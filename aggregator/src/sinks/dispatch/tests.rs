use super::*;
use crate::journal::Journal;
use crate::route::tree::{Match, Route};
use crate::sinks::tests::journal::Memory;

fn to(receiver: &str) -> Match {
    Match { receiver: Some(receiver.to_owned()), ..Match::default() }
}

fn dispatcher(receivers: &[&str], plain: Vec<bool>) -> Dispatcher {
    let route = Route { r#match: receivers.iter().map(|name| to(name)).collect(), ..Route::default() };
    Dispatcher::new(Arc::new(Router::new(&route, &["a", "b"])), "prod".into(), plain)
}

#[tokio::test]
async fn an_entry_is_parsed_routed_and_rendered_once_for_all_sinks() {
    let journal = Memory::new();
    journal.event("web", "x");
    let entry = journal.read_from(Position(0), 1).await.unwrap().remove(0);
    let dispatcher = dispatcher(&["a", "b", "b"], vec![true, false]);
    let (first, face) = dispatcher.route(&entry, &mut Chunk::default()).unwrap();
    assert!(face.is_some());
    let (second, face) = dispatcher.route(&entry, &mut Chunk::default()).unwrap();
    assert!(face.is_none() && Arc::ptr_eq(&first, &second));
    assert_eq!((first.copies(0), first.copies(1), first.copies(2)), (1, 2, 0));
    let body: serde_json::Value = serde_json::from_slice(first.plain.as_ref().unwrap()).unwrap();
    assert_eq!((body["id"].as_str(), &*first.id), (Some("event/prod/u1/1"), "event/prod/u1/1"));
}

#[tokio::test]
async fn a_record_that_nobody_takes_as_it_is_is_not_rendered() {
    let journal = Memory::new();
    journal.event("web", "x");
    let entry = journal.read_from(Position(0), 1).await.unwrap().remove(0);
    let (routed, _) = dispatcher(&["b"], vec![true, false]).route(&entry, &mut Chunk::default()).unwrap();
    assert_eq!((routed.copies(0), routed.copies(1), routed.plain.is_none()), (0, 1, true));
}

#[tokio::test]
async fn what_is_kept_is_the_newest_and_bounded_in_bytes() {
    let journal = Memory::new();
    let long = "x".repeat(8 << 10);
    for _ in 0..ENTRIES + 10 {
        journal.event("web", &long);
    }
    let dispatcher = dispatcher(&["a"], vec![true, true]);
    for entry in journal.read_from(Position(0), ENTRIES + 10).await.unwrap() {
        dispatcher.route(&entry, &mut Chunk::default()).unwrap();
        assert!(dispatcher.recent.as_ref().unwrap().lock().unwrap().bytes <= BYTES);
    }
    let newest = Position(ENTRIES as u64 + 10);
    dispatcher.recent.as_ref().unwrap().lock().unwrap().places.iter_mut().for_each(|place| *place = None);
    dispatcher.recent.as_ref().unwrap().lock().unwrap().bytes = 0;
    let read = async |position: u64| journal.read_from(Position(position - 1), 1).await.unwrap().remove(0);
    let (late, early) = (read(newest.0).await, read(newest.0 - ENTRIES as u64).await);
    dispatcher.route(&late, &mut Chunk::default()).unwrap();
    dispatcher.route(&early, &mut Chunk::default()).unwrap();
    assert!(dispatcher.known(newest).is_some(), "a sink far behind does not push out what others share");
}
