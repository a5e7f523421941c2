#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

#[test]
fn labels_that_no_api_server_selects_by_are_refused() {
    for label in
        ["spec.source.host", "source.host", "reportingInstance", "source.component", "message", "action"]
    {
        let status =
            Selector::parse(&format!("{label}=x"), Resource::Events, Accepts::default()).unwrap_err();
        assert_eq!((status.code, status.reason), (400, "BadRequest"));
        assert_eq!(status.message, format!("field label not supported: {label}"));
    }
}

#[test]
fn labels_of_the_list_are_accepted_with_three_operators() {
    for label in EVENT_LABELS {
        for operator in ["=", "==", "!="] {
            assert!(
                Selector::parse(&format!("{label}{operator}x"), Resource::Events, Accepts::default()).is_ok()
            );
        }
    }
}

#[test]
fn sets_are_not_understood() {
    let status = Selector::parse("type in (Normal)", Resource::Events, Accepts::default()).unwrap_err();
    assert_eq!(status.code, 400);
    assert_eq!(status.message, "invalid selector: 'type in (Normal)'; can't understand 'type in (Normal)'");
}

#[test]
fn the_old_spelling_of_a_pods_node_still_works() {
    assert_eq!(
        Selector::parse("spec.host=a", Resource::Pods, Accepts::default()).unwrap(),
        Selector::parse("spec.nodeName=a", Resource::Pods, Accepts::default()).unwrap()
    );
}
