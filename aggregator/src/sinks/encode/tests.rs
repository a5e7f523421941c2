use nodetap_wire::face::Object;

use super::*;
use crate::config::receivers::FileConfig;
use crate::journal::{Body, Entry};

fn entry(json: &str) -> Entry {
    let object = Object { labels: [("a.b".to_owned(), "c.d".to_owned())].into(), ..Object::default() };
    let body = Body::Event(json.to_owned().into());
    Entry {
        position: Position(7),
        taken_ns: 5_000,
        body,
        outline: None,
        object: Some(object.into()),
        occurrences: 1,
    }
}

fn encode(encoder: &mut Encoder, json: &str) -> Result<Delivery, EncodeError> {
    let entry = entry(json);
    let face = entry.face("prod").unwrap();
    encoder.encode(&face, entry.position, entry.taken_ns)
}

const BARE: &str = r#"{"metadata":{"uid":"u","resourceVersion":"1","labels":{"x.y":"z"}},"involvedObject":{"kind":"Pod","name":"p"},"firstTimestamp":"0001-01-01T00:00:00Z"}"#;

#[test]
fn what_go_escapes_is_escaped_and_nothing_else() {
    let escaped = |text: &str| {
        let mut escaped = Vec::new();
        escape_as_go(text.as_bytes(), &mut escaped);
        String::from_utf8(escaped).unwrap()
    };
    assert_eq!(escaped("plain ünï €"), "plain ünï €");
    assert_eq!(escaped("<a>&"), r"\u003ca\u003e\u0026");
    assert_eq!(escaped("a\u{2028}\u{2029}\u{2027}b<"), "a\\u2028\\u2029\u{2027}b\\u003c");
    assert_eq!(escaped("\u{2028}"), r"\u2028");
    assert_eq!(escaped(""), "");
}

#[test]
fn a_record_without_a_time_of_its_own_has_that_of_its_taking_and_never_year_1() {
    let delivery = encode(&mut Encoder::default(), BARE).unwrap();
    assert_eq!(delivery.time_ns, 5_000);
    assert_eq!((&*delivery.id, &*delivery.object), ("event/prod/u/1", "p"));
}

#[test]
fn dots_leave_the_keys_of_labels_where_the_receiver_asks_for_it() {
    let config = FileConfig {
        path: "/x".into(),
        layout: None,
        max_bytes: 1 << 20,
        max_age: None,
        max_backups: None,
        de_dot: true,
    };
    let mut encoder = Encoder::new(&ReceiverBody::File(config));
    let body: serde_json::Value = serde_json::from_slice(&encode(&mut encoder, BARE).unwrap().body).unwrap();
    assert_eq!(body["metadata"]["labels"], serde_json::json!({"x_y": "z"}));
    assert_eq!(body["involvedObject"]["labels"], serde_json::json!({"a_b": "c.d"}));
}

#[test]
fn a_layout_stands_in_for_the_face_and_one_that_does_not_render_is_an_error_that_says_so() {
    let mut encoder = Encoder {
        layout: Some(Layout::compile(&serde_json::json!({"k": "{{ .InvolvedObject.Kind }}"})).unwrap()),
        ..Encoder::default()
    };
    assert_eq!(encode(&mut encoder, BARE).unwrap().body, r#"{"k":"Pod"}"#);
    encoder.layout = Some(Layout::compile(&serde_json::json!({"k": "{{ fail \"no\" }}"})).unwrap());
    let error = encode(&mut encoder, BARE).unwrap_err().to_string();
    assert!(error.starts_with("layout: "), "{error}");
}

#[test]
fn a_header_that_does_not_render_is_sent_as_it_was_written() {
    let name = HeaderName::from_static("x-test");
    let with = |source: &str| Encoder {
        headers: vec![(name.clone(), Template::compile(source).unwrap())],
        ..Encoder::default()
    };
    let value = |source: &str| encode(&mut with(source), BARE).unwrap().headers[0].1.clone();
    assert_eq!(value("k={{ .InvolvedObject.Kind }}"), "k=Pod");
    assert_eq!(value("{{ fail \"no\" }}"), "{{ fail \"no\" }}");
}

#[test]
fn labels_are_rendered_and_where_none_is_left_the_default_one_stands_in() {
    let with = |labels: &[(&str, &str)]| Encoder {
        labels: Some(
            labels
                .iter()
                .map(|(name, source)| ((*name).to_owned(), Template::compile(source).unwrap()))
                .collect(),
        ),
        ..Encoder::default()
    };
    let labels = |labels: &[(&str, &str)]| encode(&mut with(labels), BARE).unwrap().labels;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        labels(&[("env", "test"), ("kind", "{{ .InvolvedObject.Kind }}")]),
        [pair("env", "test"), pair("kind", "Pod")]
    );
    assert_eq!(labels(&[]), [pair("app", "kubernetes-event-exporter")]);
    assert_eq!(labels(&[("type", "{{ .Type }}")]), [pair("app", "kubernetes-event-exporter")]);
}

#[test]
fn labels_never_make_more_streams_than_their_bound() {
    let mut encoder = Encoder {
        labels: Some(vec![
            ("app".to_owned(), Template::literal("x")),
            ("uid".to_owned(), Template::compile("{{ .UID }}").unwrap()),
        ]),
        ..Encoder::default()
    };
    let mut streams = HashSet::new();
    for index in 0..MAX_STREAMS + 50 {
        let json = BARE.replace(r#""uid":"u""#, &format!(r#""uid":"u{index}""#));
        streams.insert(encode(&mut encoder, &json).unwrap().labels);
    }
    assert_eq!(streams.len(), MAX_STREAMS + 1);
    assert!(
        streams.contains(&vec![("app".to_owned(), "x".to_owned()), ("uid".to_owned(), OVERFLOW.to_owned())])
    );
}
