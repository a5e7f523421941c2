#![allow(clippy::unwrap_used, clippy::panic)]

use nodetap_wire::event::Event;
use nodetap_wire::face::{Face, Object};
use nodetap_wire::{ContainerDied, LogLine};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const EVENT: &str = r#"{"metadata":{"name":"web-0.17a","namespace":"default","uid":"u1","resourceVersion":"7",
"creationTimestamp":"2024-03-05T06:07:08Z","labels":{"a.b/c":"d"}},"type":"Warning","reason":"BackOff",
"message":"Back-off <restarting> \"web\"","count":3,"firstTimestamp":"2024-03-05T06:07:08Z",
"lastTimestamp":"2024-03-05T06:09:10Z","source":{"component":"kubelet","host":"node-1"},
"reportingComponent":"kubelet","reportingInstance":"node-1",
"involvedObject":{"kind":"Pod","apiVersion":"v1","namespace":"default","name":"web-0","uid":"u2"}}"#;

fn with_face<T>(run: impl FnOnce(&Face<'_>) -> T) -> T {
    let object = Object {
        labels: [
            ("app.kubernetes.io/name".to_owned(), "web".to_owned()),
            ("team".to_owned(), "a".to_owned()),
        ]
        .into(),
        owners: vec![nodetap_wire::Owner {
            api_version: "apps/v1".into(),
            kind: "StatefulSet".into(),
            name: "web".into(),
            uid: "u3".into(),
            controller: true,
        }],
        ..Object::default()
    };
    run(&Face::of_event(Event::parse(EVENT).unwrap(), "prod", Some(&object), 2))
}

fn rendered(source: &str) -> String {
    with_face(|face| Template::compile(source).and_then(|template| template.render(face)))
        .unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn fields_have_the_names_that_go_gives_them() {
    for (source, expected) in [
        ("plain", "plain"),
        ("{{ .Reason }} {{ .Type }} {{.Count}}", "BackOff Warning 3"),
        ("{{ .Namespace }}/{{ .Name }}", "default/web-0.17a"),
        ("{{ .ObjectMeta.Name }} {{ .Event.Reason }}", "web-0.17a BackOff"),
        ("{{ .InvolvedObject.Kind }} {{ .InvolvedObject.APIVersion }}", "Pod v1"),
        ("{{ .InvolvedObject.ObjectReference.Name }}", "web-0"),
        ("{{ .InvolvedObject.Labels.team }}", "a"),
        ("{{ .InvolvedObject.Labels.owner }}", "<no value>"),
        ("{{ index .InvolvedObject.Labels \"app.kubernetes.io/name\" }}", "web"),
        ("[{{ index .InvolvedObject.Labels \"none\" }}]", "[]"),
        ("{{ .InvolvedObject.Deleted }}", "false"),
        ("{{ range .InvolvedObject.OwnerReferences }}{{ .Kind }}/{{ .Name }}{{ end }}", "StatefulSet/web"),
        ("{{ (index .InvolvedObject.OwnerReferences 0).Name }}", "web"),
        (
            "{{ range $k, $v := .InvolvedObject.Labels }}{{ $k }}={{ $v }};{{ end }}",
            "app.kubernetes.io/name=web;team=a;",
        ),
        ("{{ .Source.Component }}@{{ .Source.Host }}", "kubelet@node-1"),
        ("{{ .ReportingController }} {{ .ClusterName }}", "kubelet prod"),
        ("{{ .Occurrences }} {{ .ID }}", &format!("2 {}", with_face(|face| face.id.clone()))),
        ("{{ with .Container }}died{{ else }}event{{ end }}", "event"),
        ("{{ with .Series }}{{ .Count }}{{ end }}", ""),
        ("{{ $x := .InvolvedObject }}{{ $x.Name }}", "web-0"),
        ("{{ if eq .Type \"Warning\" }}!{{ else }}.{{ end }}", "!"),
        ("{{ define \"t\" }}<{{ .Reason }}>{{ end }}{{ template \"t\" . }}", "<BackOff>"),
        ("{{ (index (.DeDot).InvolvedObject.Labels \"app_kubernetes_io/name\") }}", "web"),
    ] {
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn times_are_shown_and_laid_out_as_go_does() {
    for (source, expected) in [
        ("{{ .GetTimestampMs }}", "1709618828000"),
        ("{{ mul .GetTimestampMs 1000000 }}", "1709618828000000000"),
        ("{{ .GetTimestampISO8601 }}", "2024-03-05T06:07:08.000Z"),
        ("{{ .LastTimestamp }}", "2024-03-05 06:09:10 +0000 UTC"),
        ("{{ .EventTime }}", "0001-01-01 00:00:00 +0000 UTC"),
        ("{{ .LastTimestamp.Unix }}", "1709618950"),
        ("{{ .LastTimestamp.UnixNano }}", "1709618950000000000"),
        ("{{ .LastTimestamp.Format \"2006-01-02T15:04:05Z07:00\" }}", "2024-03-05T06:09:10Z"),
        ("{{ .LastTimestamp.Time.UTC.Format \"Mon Jan _2 3:04PM 2006\" }}", "Tue Mar  5 6:09AM 2024"),
        ("{{ (.LastTimestamp.Format \"2006.01\") | printf \"%s!\" }}", "2024.03!"),
        ("{{ .LastTimestamp | date \"02/01/06\" }}", "05/03/24"),
        ("{{ date \"15:04:05.000\" .LastTimestamp.Time }}", "06:09:10.000"),
        ("{{ printf \"%s\" .LastTimestamp }}", "2024-03-05 06:09:10 +0000 UTC"),
        ("{{ .EventTime.IsZero }}", "true"),
        ("{{ if gt now.Unix 1700000000 }}later{{ end }}", "later"),
        ("{{ $n := now }}{{ if gt $n.UnixNano 0 }}ok{{ end }}", "ok"),
        ("{{ toJson .EventTime }} {{ toJson .LastTimestamp }}", "null \"2024-03-05T06:09:10Z\""),
    ] {
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn the_functions_seen_in_the_wild_are_there() {
    for (source, expected) in [
        ("{{ .Reason | lower }} {{ upper \"a\" }} {{ title \"a bc\" }}", "backoff A A Bc"),
        ("{{ default \"x\" .InvolvedObject.Labels.owner }}", "x"),
        ("{{ trunc 4 .Reason }} {{ trunc -3 .Reason }}", "Back Off"),
        ("{{ replace \"-\" \"_\" \"a-b-c\" }}", "a_b_c"),
        ("{{ add 1 2 3 }} {{ sub 5 3 }} {{ div 7 2 }} {{ mod 7 2 }} {{ add1 1 }}", "6 2 3 1 2"),
        ("{{ div 1 0 }}", "error: template: execution error: div: 1 cannot be divided by 0"),
        ("{{ quote .Reason }} {{ squote 1 }}", "\"BackOff\" '1'"),
        (
            "{{ contains \"ack\" .Reason }} {{ hasPrefix \"Back\" .Reason }} {{ hasSuffix \"x\" .Reason }}",
            "true true false",
        ),
        (
            "{{ join \",\" (list 1 2 \"a\") }} {{ splitList \",\" \"a,b\" }} {{ (split \",\" \"a,b\")._1 }}",
            "1,2,a [a b] b",
        ),
        ("{{ indent 2 \"a\\nb\" }}|{{ nindent 1 \"c\" }}", "  a\n  b|\n c"),
        ("{{ b64enc \"hello\" }} {{ b64dec \"aGVsbG8=\" }} {{ b64enc \"ab\" }}", "aGVsbG8= hello YWI="),
        ("{{ sha256sum \"abc\" }}", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("{{ ternary \"a\" \"b\" true }} {{ empty \"\" }} {{ coalesce \"\" \"z\" }}", "a true z"),
        ("{{ $d := dict \"k\" 1 }}{{ get $d \"k\" }} {{ hasKey $d \"x\" }} {{ keys $d }}", "1 false [k]"),
        ("{{ first (list 1 2) }} {{ last (list 1 2) }} {{ rest (list 1 2) }}", "1 2 [2]"),
        ("{{ int \"12\" }} {{ int64 3.9 }} {{ float64 \"1.5\" }} {{ toString 5 }}", "12 3 1.5 5"),
        ("{{ printf \"%s-%d\" .Reason .Count }} {{ len .Reason }}", "BackOff-3 7"),
        ("{{ toJson .Source }}", r#"{"component":"kubelet","host":"node-1"}"#),
        ("{{ toJson .Message }}", r#""Back-off \u003crestarting\u003e \"web\"""#),
        ("{{ toPrettyJson .Source }}", "{\n  \"component\": \"kubelet\",\n  \"host\": \"node-1\"\n}"),
        ("{{ toJson (dict \"a\" (list 1 nil)) }}", r#"{"a":[1,null]}"#),
        ("{{ (fromJson \"{\\\"a\\\":[1]}\").a }}", "[1]"),
        ("{{ regexMatch \"^Back\" .Reason }} {{ regexReplaceAll \"o+\" \"foo\" \"[$0]\" }}", "true f[oo]"),
        (
            "{{ regexFind \"[a-z]+\" .Reason }} {{ regexMatch \"a**\" .Reason }}",
            "error: template: execution error: regexMatch: invalid pattern: invalid nested repetition operator: `**`",
        ),
    ] {
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn the_whole_event_as_json_is_the_face() {
    with_face(|face| {
        let expected = serde_json::to_value(face).unwrap();
        for source in [
            "{{ toJson . }}",
            "{{ toPrettyJson . }}",
            "{{ toRawJson $ }}",
            "{{ .ToJSON }}",
            "{{ .DeDot | toJson }}",
        ] {
            let json: serde_json::Value =
                serde_json::from_str(&Template::compile(source).unwrap().render(face).unwrap()).unwrap();
            if source.contains("DeDot") {
                assert_eq!(json["involvedObject"]["labels"]["app_kubernetes_io/name"], "web");
                assert_eq!(json["metadata"]["labels"]["a_b/c"], "d");
            } else {
                assert_eq!(json, expected, "{source}");
            }
        }
    });
}

#[test]
fn a_death_has_its_container() {
    let death = ContainerDied {
        container: "app".into(),
        pod: "web-0".into(),
        exit_code: Some(7),
        finished_ns: 1_709_618_828_000_000_000,
        last_lines: vec![LogLine { text: "boom".into(), ..LogLine::default() }],
        ..ContainerDied::default()
    };
    let object = Object::default();
    let face = Face::of_death(&death, "prod", &object);
    for (source, expected) in [
        ("{{ .Reason }} {{ .Container.Name }} {{ .Container.ExitCode }}", "ContainerDied app 7"),
        ("{{ .Container.FinishedAt.Unix }} {{ .Container.StartedAt.IsZero }}", "1709618828 true"),
        ("{{ range .Container.LastLines }}{{ . }}{{ end }}", "boom"),
        ("{{ .Container.RunSeconds }}", "<no value>"),
    ] {
        assert_eq!(Template::compile(source).unwrap().render(&face).unwrap(), expected, "{source}");
    }
}

#[test]
fn what_cannot_be_is_refused_when_it_is_compiled() {
    for (source, expected) in [
        ("{{ .Reason", "template: line 1, column 11: unclosed action"),
        ("{{ .NoSuchField }}", "template: line 1: the event has no field \"NoSuchField\""),
        ("{{ .reason }}", "template: line 1: the event has no field \"reason\"; did you mean \"Reason\"?"),
        (
            "a\n{{ .InvolvedObject.Nmae }}",
            "template: line 2: the involved object has no field \"Nmae\"; did you mean \"Name\"?",
        ),
        (
            "{{ if false }}{{ .Message.Text }}{{ end }}",
            "template: line 1: a string or number has no field \"Text\"",
        ),
        (
            "{{ .LastTimestamp.Formt }}",
            "template: line 1: a time has no field \"Formt\"; did you mean \"Format\"?",
        ),
        (
            "{{ env \"HOME\" }}",
            "template: line 1: there is no function \"env\" (there are Go's own and those of Sprig that need no environment, file, network, key or chance)",
        ),
        ("{{ template \"none\" . }}", "template: line 1: no template \"none\" is defined"),
    ] {
        assert_eq!(Template::compile(source).unwrap_err().to_string(), expected, "{source}");
    }
    assert_eq!(Template::compile(&"x".repeat(MAX_SOURCE + 1)).unwrap_err(), TemplateError::TooLong);
}

#[test]
fn output_and_loops_are_bounded() {
    for source in [
        "{{ range until 100000 }}{{ $.Message }}{{ $.Message }}{{ end }}",
        "{{ range until 1000 }}{{ repeat 1000000 \"x\" }}{{ end }}",
    ] {
        assert_eq!(rendered(source), format!("error: {}", TemplateError::OutputTooLong), "{source}");
    }
    for source in [
        "{{ repeat 100000000 \"xx\" }}",
        "{{ indent 99999999999 \"x\" }}",
        "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}",
        "{{ define \"t\" }}{{ template \"t\" }}{{ end }}{{ template \"t\" }}",
    ] {
        assert!(rendered(source).starts_with("error: template: "), "{source}");
    }
}

#[test]
fn only_what_is_read_is_built() {
    let Body::Program { needs, .. } = Template::compile("{{ .Reason }} {{ $.Type }}").unwrap().body else {
        panic!("not a program");
    };
    assert_eq!(needs.fields.iter().copied().collect::<Vec<_>>(), ["Reason", "Type"]);
    assert!(!needs.all && !needs.json);
}

#[test]
fn a_layout_says_where_it_is_wrong() {
    for (layout, expected) in [
        (json!("x"), "a layout is a mapping of keys to templates"),
        (json!({"a": {"b": ["ok", "{{ .X }}"]}}), "a.b[1]: template: line 1: the event has no field \"X\""),
    ] {
        assert_eq!(Layout::compile(&layout).unwrap_err().to_string(), expected);
    }
    let layout =
        Layout::compile(&json!({"z": {"n": 1, "b": true, "x": null}, "a": "{{ fail .Reason }}"})).unwrap();
    let error = with_face(|face| layout.render(face)).unwrap_err();
    assert_eq!(error.to_string(), "a: template: execution error: fail: BackOff");
}

#[test]
fn a_layout_gives_strings_and_nulls() {
    let layout =
        Layout::compile(&json!({"z": {"n": 1, "b": true}, "c": "{{ .Count }}", "l": ["{{ .Type }}", 2]}))
            .unwrap();
    let json = with_face(|face| layout.render(face)).unwrap();
    assert_eq!(json.to_string(), r#"{"c":"3","l":["Warning",null],"z":{"b":null,"n":null}}"#);
}

proptest! {
    #[test]
    fn any_text_compiles_and_renders_or_is_an_error(text in "(\\{\\{|\\}\\}|[ .|()$\"a-zA-Z0-9:=]|range|end|if|with|Reason|index|now|date){0,40}") {
        if let Ok(template) = Template::compile(&text) {
            let _ = with_face(|face| template.render(face));
        }
    }

    #[test]
    fn any_layout_of_a_time_is_laid_out(layout in ".{0,40}", seconds in -99_999_999_999i64..99_999_999_999) {
        let _ = time::format(jiff::Timestamp::from_second(seconds).unwrap(), &layout);
    }
}
