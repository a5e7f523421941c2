#![allow(clippy::unwrap_used)]

use nodetap_wire::event::Event;

use super::*;
use crate::route::pattern::Pattern;
use crate::route::rule::Field;

fn reason(pattern: &str) -> Rule {
    let mut rule = Rule::default();
    rule.add(Field::Reason, Pattern::new(pattern));
    rule
}

fn to(receiver: &str, pattern: &str) -> Match {
    Match { rule: reason(pattern), receiver: Some(receiver.to_owned()) }
}

/// Where an event of the reason `Pulled` goes, of the receivers `a`, `b` and `c`.
fn delivered(route: &Route) -> Vec<usize> {
    let json = r#"{"metadata":{"uid":"u","resourceVersion":"1"},"reason":"Pulled"}"#;
    let face = Face::of_event(Event::parse(json).unwrap(), "", None, 1);
    Router::new(route, &["a", "b", "c"]).deliveries(&face).into_iter().map(|index| index.0).collect()
}

#[test]
fn routes_below_are_visited_only_where_every_rule_of_match_matched() {
    let below = || vec![Route { r#match: vec![to("c", "")], ..Route::default() }];
    let one =
        Route { r#match: vec![to("a", "Pulled"), to("b", "Failed")], routes: below(), ..Route::default() };
    assert_eq!(delivered(&one), [0]);
    let both =
        Route { r#match: vec![to("a", "Pulled"), to("b", "Pull")], routes: below(), ..Route::default() };
    assert_eq!(delivered(&both), [0, 1, 2]);
}
