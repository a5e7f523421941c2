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

#[test]
fn the_intake_is_unready_where_no_agent_can_connect_and_says_why() {
    let door = Metrics::default();
    assert_eq!(shut(true, &door, 1_000), None);
    assert_eq!(shut(false, &door, 1_000).unwrap(), "agents are not taken");
    door.certificate_expires.set(1_000);
    assert_eq!(shut(true, &door, 1_000), None);
    let said = shut(true, &door, 1_001).unwrap();
    assert!(said.contains("tls.certFile expired at 1970-01-01T00:16:40"), "{said}");
    // Told once when it runs out, as every check is, and once more when another one was taken.
    let mut readiness = Readiness::default();
    let mut look = |now| readiness.look(vec![Check::new("admit", shut(true, &door, now))]);
    assert_eq!([look(1_000), look(1_001), look(1_002)], [vec![], vec!["admit"], vec![]]);
    door.certificate_expires.set(9_000);
    assert_eq!(look(1_003), ["admit"]);
    door.accept_failing.set(1);
    assert!(shut(true, &door, 1_003).unwrap().contains("cannot be accepted"));
}
