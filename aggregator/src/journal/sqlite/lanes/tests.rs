use super::*;

#[test]
fn an_append_that_begins_before_the_failure_was_received_is_behind_it() {
    let lanes = Lanes::default();
    let first = lanes.enter("n1");
    lanes.fail();
    let second = lanes.enter("n1");
    assert!(lanes.is_behind(second.failures()), "the first has not gone");
    drop((first, second));
    assert!(!lanes.is_behind(lanes.enter("n1").failures()), "it was received, and this is sent again");
    assert!(lanes.0.lanes.lock().is_ok_and(|lanes| lanes.is_empty()));
}
