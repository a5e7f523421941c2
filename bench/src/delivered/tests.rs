use serde_json::{Value, json};

use super::Delivered;

fn event(version: &str) -> Value {
    json!({"metadata": {"uid": "u", "resourceVersion": version}})
}

#[test]
fn a_repeat_of_what_was_refused_is_told_from_one_that_need_not_have_come() {
    let mut delivered = Delivered::default();
    delivered.take_and_refuse(&event("1"));
    delivered.take_and_refuse(&event("1"));
    delivered.take(&event("1"));
    assert_eq!((delivered.counts(), delivered.repeats_of_refused()), ((1, 2), 2));
    delivered.take(&event("1"));
    delivered.take(&event("2"));
    delivered.take(&event("2"));
    assert_eq!((delivered.counts(), delivered.repeats_of_refused()), ((2, 4), 2));
}
