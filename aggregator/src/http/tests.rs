#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_commit_under_way_for_more_than_ten_seconds_makes_the_journal_unready() {
    let second = 1_000_000_000;
    assert_eq!(hung(None, 100 * second), None);
    assert_eq!(hung(Some(90 * second), 100 * second), None);
    let said = hung(Some(88 * second), 100 * second);
    assert!(said.is_some_and(|said| said.contains("12 s") && said.contains("journal.path")));
}

#[test]
fn a_check_that_fails_is_told_once_and_once_more_when_it_holds_again() {
    let mut registry = Registry::default();
    let mut readiness = Readiness::default();
    readiness.register(&mut registry);
    let checks = |failure: Option<&str>| {
        vec![Check::new("journal", failure.map(str::to_owned)), Check::new("admit", None)]
    };
    assert!(readiness.look(checks(None)).is_empty());
    assert_eq!(readiness.look(checks(Some("full"))), ["journal"]);
    assert!(readiness.look(checks(Some("full still"))).is_empty());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains(r#"nodetap_ready{check="journal"} 0"#), "{text}");
    assert!(text.contains(r#"nodetap_ready{check="admit"} 1"#), "{text}");
    assert_eq!(readiness.look(checks(None)), ["journal"]);
}
