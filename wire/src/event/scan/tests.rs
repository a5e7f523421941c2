#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const USUAL: &str = r#"{"kind":"Event","apiVersion":"v1","metadata":{"name":"web.17f3","namespace":"shop","uid":"u-1",
"resourceVersion":"812","creationTimestamp":"2026-07-01T12:00:00Z","labels":{"a":"1"},"annotations":null,"generation":-12,
"managedFields":[{"manager":"kubelet","operation":"Update","fieldsV1":{"f:count":{},"f:source":{"f:host":{}},"x":[1,true,null]}}]},
"involvedObject":{"kind":"Pod","namespace":"shop","name":"web","uid":"p-1","fieldPath":"spec.containers{app}"},
"reason":"Unhealthy","message":"Get \"http://10.0.0.1/\": größer \u00fc \\ \n no","source":{"component":"kubelet","host":"n1"},
"firstTimestamp":"2026-07-01T12:00:00Z","lastTimestamp":null,"count":6,"type":"Warning","eventTime":null,
"series":{"count":3,"lastObservedTime":"2026-07-01T12:10:00.000001Z"},"related":{"kind":"Node","name":"n1"},
"reportingComponent":"kubelet","reportingInstance":"n1"}"#;

fn parsed(json: &str) -> Option<String> {
    serde_json::from_str::<Event<'_>>(json).ok().map(|event| format!("{event:?}"))
}

fn scanned_with(json: &str, known: &mut Known) -> Option<String> {
    let mut read = Event::default();
    event(json, &mut read, known).map(|()| format!("{read:?}"))
}

/// What is read, whatever was read before.
fn scanned(json: &str) -> Option<String> {
    let mut known = Known::default();
    for before in [USUAL.to_owned(), USUAL.replace("kubelet", "").replace("f:", "g:")] {
        assert!(scanned_with(&before, &mut known).is_some());
    }
    let scanned = scanned_with(json, &mut Known::default());
    assert_eq!(scanned_with(json, &mut known), scanned);
    assert_eq!(scanned_with(json, &mut known), scanned, "what was learnt from it itself changes nothing");
    scanned
}

#[test]
fn an_event_as_api_servers_write_it_is_read_here_and_as_the_same() {
    assert!(scanned(USUAL).is_some());
    assert_eq!(scanned(USUAL), parsed(USUAL));
    let compact = USUAL.replace('\n', "");
    assert_eq!(scanned(&compact), parsed(&compact));
    let bare = r#"{"metadata":{}}"#;
    assert_eq!(scanned(bare), parsed(bare));
    assert!(scanned(bare).is_some());
}

#[test]
fn a_text_with_escapes_says_what_serde_json_reads_in_it() {
    for text in
        [r#"\"web\" \\ \/ \n\t\r\b\f"#, r"\\n", r#"größer \"ü\""#, r"no \u00fc \ud83d\ude00", r"\n\u0041"]
    {
        let json = format!(r#"{{"message":"{text}"}}"#);
        assert_eq!(scanned(&json), parsed(&json));
        assert!(scanned(&json).is_some(), "{json}");
    }
}

#[test]
fn what_is_known_is_bounded_and_the_oldest_is_forgotten_first() {
    let with = |fields: &str| {
        format!(r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{fields}}},{{"fieldsV1":null}}]}}}}"#)
    };
    let mut known = Known::default();
    for number in 0..9 {
        let json = with(&format!(r#"{{"f:{number}":{{}}}}"#));
        for _ in 0..2 {
            assert_eq!(scanned_with(&json, &mut known), parsed(&json));
        }
    }
    assert_eq!(known.objects, [8, 5, 6, 7].map(|number| format!(r#"{{"f:{number}":{{}}}}"#)));
    let long = with(&format!(r#"{{"{}":1}}"#, "f".repeat(KNOWN_BYTES)));
    assert!(scanned_with(&long, &mut known).is_some());
    // What is no object is not known, and neither is what is not JSON.
    for odd in ["[]", "7", "\"\"", r#"{"f:1":}"#] {
        let odd = with(odd);
        let read = scanned_with(&odd, &mut known);
        assert!(read.is_none() || read == parsed(&odd), "{odd}");
    }
    assert_eq!(known.objects.map(|object| object.len()), [10; 4]);
}

#[test]
fn what_differs_in_one_character_from_what_is_known_is_read_as_if_nothing_were() {
    for (at, character) in USUAL.char_indices() {
        let (before, after) = (&USUAL[..at], &USUAL[at + character.len_utf8()..]);
        for other in ["", " ", "}", "]", "\"", "x"] {
            let json = [before, other, after].concat();
            // Both ways of reading it are compared there.
            let read = scanned(&json);
            assert!(read.is_none() || read == parsed(&json), "{json}");
        }
    }
}

#[test]
fn what_is_not_usual_is_left_to_serde_json() {
    for json in [
        "",
        "[]",
        "{",
        "{}}",
        r#"{"metadata":null}"#,
        r#"{"metadata":{},"metadata":{}}"#,
        r#"{"note":"x"}"#,
        r#"{"re\u0061son":"x"}"#,
        r#"{"reason":7}"#,
        r#"{"reason":"\ud800"}"#,
        r#"{"reason":"\x"}"#,
        r#"{"count":1.0}"#,
        r#"{"count":01}"#,
        r#"{"count":-}"#,
        r#"{"count":9223372036854775807}"#,
        r#"{"x":tru}"#,
        r#"{"x":[1,]}"#,
        r#"{"x":{"y":1,}}"#,
        r#"{"source":[]}"#,
        "{\"reason\":\"\u{1}\"}",
    ] {
        assert_eq!(scanned(json), None, "{json}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_here_is_read_as_serde_json_reads_it(
        at in any::<prop::sample::Index>(),
        cut in 0..4_usize,
        put in prop_oneof![Just(String::new()), "[\"\\\\{}\\[\\],: 0-9a-z\\n.-]{1,4}", any::<char>().prop_map(String::from)],
    ) {
        let start = USUAL.floor_char_boundary(at.index(USUAL.len()));
        let end = USUAL.ceil_char_boundary((start + cut).min(USUAL.len()));
        let json = [&USUAL[..start], put.as_str(), &USUAL[end..]].concat();
        if let Some(scanned) = scanned(&json) {
            prop_assert_eq!(Some(scanned), parsed(&json));
        }
    }

    #[test]
    fn the_first_special_byte_is_found(text in "[\"\\\\\\x00-\\x1fa-zü]{0,24}", at in 0..24_usize) {
        let bytes = text.as_bytes();
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
        let expected = bytes.iter().enumerate().skip(at).find(|(_, byte)| is_special(byte)).map(|(at, _)| at);
        prop_assert_eq!(special(bytes, at), expected);
    }
}
