use nodetap_wire::EventSeen;
use nodetap_wire::record::Kind;
use proptest::prelude::*;

use super::*;

const EVENT: &str =
    r#"{"metadata":{"name":"a.1","namespace":"n","uid":"u1","resourceVersion":"7"},"reason":"R"}"#;

/// An Event as it is handed over.
fn event(json: &str, change: Change) -> Result<EventSeen, FrameError> {
    let (mut event, mut run) = (Event::default(), Run::default());
    read(&mut Reader::default(), json, &mut event)?;
    let time_ns = put(&mut run, &event, json, change)?;
    match run.records().unwrap().pop().unwrap().kind {
        Some(Kind::Event(seen)) => {
            assert_eq!(seen.time_ns, time_ns);
            Ok(seen)
        }
        other => panic!("{other:?}"),
    }
}

fn parse(line: &str) -> Frame<'_> {
    Frame::parse(line.as_bytes()).unwrap()
}

#[test]
fn frames_are_read_in_either_order_of_keys() {
    for line in [
        format!(r#"{{"type":"ADDED","object":{EVENT}}}"#),
        format!(r#"{{"object":{EVENT},"type":"ADDED"}}"#),
        format!(r#" {{ "x":[1], "object" : {EVENT} , "type" : "ADD\u0045D" }} "#),
    ] {
        let Frame::Added(object) = parse(&line) else { panic!("{line}") };
        let event = event(object, Change::Added).unwrap();
        assert_eq!((&*event.uid, &*event.resource_version), ("u1", "7"));
        assert_eq!(event.change(), Change::Added);
        assert_eq!(event.raw, EVENT);
    }
    assert!(matches!(parse(&format!(r#"{{"type":"MODIFIED","object":{EVENT}}}"#)), Frame::Modified(EVENT)));
}

#[test]
fn bookmarks_and_deletions_give_their_version() {
    let Frame::Bookmark(mark) = parse(
        r#"{"type":"BOOKMARK","object":{"kind":"Event","metadata":{"resourceVersion":"12","creationTimestamp":null,
            "annotations":{"k8s.io/initial-events-end":"true"}},"involvedObject":{},"firstTimestamp":null}}"#,
    ) else {
        panic!()
    };
    assert_eq!((mark.resource_version(), mark.ends_initial_events()), ("12", true));
    let Frame::Bookmark(mark) =
        parse(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"13"}}}"#)
    else {
        panic!()
    };
    assert_eq!((mark.resource_version(), mark.ends_initial_events()), ("13", false));
    let deleted = format!(r#"{{"type":"DELETED","object":{EVENT}}}"#);
    let Frame::Deleted(mark) = parse(&deleted) else { panic!() };
    assert_eq!(mark.resource_version(), "7");
}

#[test]
fn an_error_frame_gives_its_code_its_words_and_its_wait() {
    let Frame::Error(status) = parse(
        r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
            "message":"The resourceVersion for the provided watch is too old.","reason":"Expired","code":410}}"#,
    ) else {
        panic!()
    };
    assert_eq!(status.code(), 410);
    assert_eq!(status.to_message(), "410 Expired The resourceVersion for the provided watch is too old.");
    assert_eq!(status.retry_after(), None);

    let Frame::Error(status) =
        parse(r#"{"type":"ERROR","object":{"reason":"Gone","details":{"retryAfterSeconds":3}}}"#)
    else {
        panic!()
    };
    assert_eq!((status.code(), status.retry_after()), (410, Some(Duration::from_secs(3))));
    let Frame::Error(status) = parse(r#"{"type":"ERROR","object":{}}"#) else { panic!() };
    assert_eq!(status.code(), 500);
}

#[test]
fn a_status_without_an_envelope_is_an_error_frame() {
    let Frame::Error(status) = parse(r#"{"kind":"Status","code":429,"message":"too many"}"#) else {
        panic!()
    };
    assert_eq!(status.code(), 429);
}

#[test]
fn the_body_of_a_refusal_is_read_whatever_it_is() {
    let status = Status::of_body(403, br#"{"kind":"Status","message":"no","reason":"Forbidden","code":403}"#);
    assert_eq!(status.to_message(), "403 Forbidden no");
    assert_eq!(Status::of_body(502, b"<html>\r\nbad gateway").to_message(), "502 <html>bad gateway");
    assert_eq!(Status::of_body(500, b"\xff\xfe").to_message(), "500");
    assert!(Status::of_body(500, &vec![b'x'; 100_000]).to_message().len() < 400);
}

#[test]
fn what_is_no_frame_is_refused_by_reason() {
    for (line, reason) in [
        (&b"garbage"[..], "malformed_frame"),
        (b"{\"type\":\"ADDED\"}", "malformed_frame"),
        (b"{\"type\":\"ADDED\",\"object\":{\"a\":", "malformed_frame"),
        (b"{\"type\":\"ADDED\",\"type\":\"ADDED\",\"object\":{}}", "malformed_frame"),
        (b"{\"type\":\"ADDED\",\"object\":{\"a\":\"\xff\"}}", "not_utf8"),
        (b"{\"type\":\"BOOKMARK\",\"object\":7}", "malformed_frame"),
    ] {
        assert_eq!(Frame::parse(line).unwrap_err().reason(), reason, "{}", String::from_utf8_lossy(line));
    }
    assert!(matches!(parse(r#"{"type":"NEW","object":{}}"#), Frame::Unknown(kind) if &*kind == "NEW"));
}

#[test]
fn what_is_no_event_is_refused_by_reason() {
    for (json, reason) in [
        (r#"{"metadata":{"uid":"u"}}"#, "no_identity"),
        (r#"{"metadata":{"resourceVersion":"1"}}"#, "no_identity"),
        (r#"{"metadata":{"uid":"u","uid":"v","resourceVersion":"1"}}"#, "malformed_event"),
        (r#"{"metadata":{"uid":7,"resourceVersion":"1"}}"#, "malformed_event"),
        ("7", "malformed_event"),
    ] {
        assert_eq!(event(json, Change::Added).unwrap_err().reason(), reason, "{json}");
    }
}

#[test]
fn null_timestamps_are_taken() {
    let json = r#"{"metadata":{"uid":"u","resourceVersion":"1","creationTimestamp":"2026-01-02T03:04:05Z"},
        "firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"series":null}"#;
    let event = event(json, Change::Listed).unwrap();
    assert_eq!(event.time_ns, 1_767_323_045_000_000_000);
    assert_eq!(event.change(), Change::Listed);
}

#[test]
fn an_event_that_no_batch_would_hold_is_refused() {
    let long = |message: usize, reason: usize| {
        format!(
            r#"{{"metadata":{{"name":"a","namespace":"n","uid":"u","resourceVersion":"1"}},"message":"{}","reason":"{}"}}"#,
            "m".repeat(message),
            "r".repeat(reason)
        )
    };
    assert!(event(&long(2_000_000, 0), Change::Added).is_ok());
    assert_eq!(event(&long(3 << 20, 0), Change::Added).unwrap_err().reason(), "too_long");
    // What is parsed beside the JSON counts as well.
    assert_eq!(event(&long(0, 2_000_000), Change::Added).unwrap_err().reason(), "too_long");
    assert_eq!(name_of(&long(3 << 20, 0)).as_deref(), Some("n/a"));
}

#[test]
fn a_page_gives_its_items_its_version_and_the_next_one() {
    let json = format!(
        r#"{{"kind":"EventList","metadata":{{"resourceVersion":"70","continue":"t","remainingItemCount":2}},"items":[{EVENT},{EVENT}]}}"#
    );
    let page: Page<'_> = serde_json::from_str(&json).unwrap();
    assert_eq!((&*page.metadata.resource_version, &*page.metadata.continue_token), ("70", "t"));
    assert_eq!(page.items.unwrap().iter().map(|item| item.get()).collect::<Vec<_>>(), [EVENT, EVENT]);
    let empty: Page<'_> =
        serde_json::from_str(r#"{"items":null,"metadata":{"resourceVersion":"1"}}"#).unwrap();
    assert!(empty.items.is_none());
}

proptest! {
    #[test]
    fn any_line_is_a_frame_or_an_error(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::parse(&line);
        let _ = Status::of_body(500, &line).to_message();
    }

    #[test]
    fn any_cut_of_a_frame_is_a_frame_or_an_error(cut in 0_usize..200, text in "\\PC{0,20}") {
        let line = serde_json::json!({"type": "ADDED", "object": {"metadata": {"uid": text, "resourceVersion": "1"}}});
        let line = line.to_string();
        let cut = line.floor_char_boundary(cut);
        if let Ok(Frame::Added(object)) = Frame::parse(&line.as_bytes()[..cut]) {
            prop_assert_eq!(cut, line.len());
            let _ = event(object, Change::Added);
        }
    }

    #[test]
    fn an_object_is_taken_from_a_frame_as_it_is_read_from_it_or_refused(
        cut in 0_usize..200,
        kind in prop::sample::select(vec!["ADDED", "MODIFIED", "OTHER"]),
        text in "\\PC{0,20}",
        tail in prop::sample::select(vec!["", "}", " ", ",\"object\":{}", "{}"]),
    ) {
        let line = format!(
            r#"{{"type":"{kind}","object":{}{tail}}}"#,
            serde_json::json!({"metadata": {"uid": text, "resourceVersion": "1"}})
        );
        let line = &line.as_bytes()[..line.floor_char_boundary(cut)];
        let object = |frame| match frame {
            Ok(Frame::Added(object) | Frame::Modified(object)) => event(object, Change::Added).ok(),
            _ => None,
        };
        prop_assert_eq!(object(Frame::take(line)), object(Frame::parse(line)));
    }
}
