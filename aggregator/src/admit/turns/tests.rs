use futures_util::FutureExt;

use super::*;

#[test]
fn a_stream_is_alone_once_the_one_before_it_has_ended_whatever_others_do() {
    let turns = Turns::default();
    let (node, other): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
    let first = turns.begin(&node);
    let _other = turns.begin(&other);
    assert!(first.alone().now_or_never().is_some());
    let second = turns.begin(&node);
    assert!(second.alone().now_or_never().is_none());
    drop(first);
    assert!(second.alone().now_or_never().is_some());
    let third = turns.begin(&node);
    assert!(third.alone().now_or_never().is_none(), "the first one's end is not the second's");
    drop(second);
    drop(third);
    assert_eq!(turns.0.lock().map(|last| last.len()).ok(), Some(1), "who has ended is forgotten");
}
