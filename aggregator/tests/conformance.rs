//! Behaviour of kubernetes-event-exporter, case by case: `conformance/route-cases.json`. What we do otherwise, we do visibly:
//! each deviation stands in a table here, with its reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use nodetap_aggregator::config::{Config, Problem, Warning};
use nodetap_aggregator::route::Router;
use nodetap_aggregator::route::template::Layout;
use nodetap_wire::event::Event;
use nodetap_wire::face::{Face, Object};
use serde_json::{Value, json};

fn cases(of: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("conformance/route-cases.json")).unwrap();
    all[of].clone()
}

fn parse(text: &str) -> Result<(Config, Vec<Warning>), Vec<Problem>> {
    Config::parse("case", text, |_| None)
}

fn with_face<T>(event: &Value, run: impl FnOnce(&Face<'_>) -> T) -> T {
    let mut event = event.clone();
    // The API server always sends one.
    event["metadata"]["resourceVersion"] = json!("1");
    let strings = |value: &Value| -> BTreeMap<String, String> {
        serde_json::from_value(value.clone()).unwrap_or_default()
    };
    let object = Object {
        labels: strings(&event["involvedObject"]["labels"]),
        annotations: strings(&event["involvedObject"]["annotations"]),
        ..Object::default()
    };
    let text = event.to_string();
    run(&Face::of_event(Event::parse(&text).unwrap(), "", Some(&object), 1))
}

fn receivers_of(route: &Value, names: &mut BTreeSet<String>) {
    match route {
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("receiver") {
                names.insert(name.clone());
            }
            map.values().for_each(|value| receivers_of(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| receivers_of(value, names)),
        _ => {}
    }
}

#[test]
fn every_route_case_delivers_as_upstream() {
    let cases = cases("route_cases");
    let cases = cases.as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let mut names = BTreeSet::new();
        receivers_of(&case["route"], &mut names);
        let receivers: Vec<Value> = names.iter().map(|name| json!({"name": name, "stdout": {}})).collect();
        // JSON is YAML: the case goes through the loader as a user's file would.
        let text = json!({"route": case["route"], "receivers": receivers}).to_string();
        let (config, _) = parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:?}", case["id"]));
        let configured: Vec<String> = match &case["configured_receivers"] {
            Value::Null => names.into_iter().collect(),
            configured => serde_json::from_value(configured.clone()).unwrap(),
        };
        let router = Router::new(&config.route, &configured);
        let delivered: Vec<&str> = with_face(&case["event"], |face| {
            router.deliveries(face).into_iter().map(|index| configured[index.0].as_str()).collect()
        });
        if json!(delivered) != case["expect"]["deliveries"] {
            wrong.push(format!("{}: {delivered:?}, not {}", case["id"], case["expect"]["deliveries"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(cases.len(), 78);
    eprintln!("route cases: 78 of 78 as upstream");
}

#[test]
fn a_config_that_names_an_unknown_receiver_is_refused_though_a_router_goes_on() {
    let text = r#"{"route": {"match": [{"receiver": "typo"}, {"receiver": "a"}]}, "receivers": [{"name": "a", "stdout": {}}]}"#;
    let problems = parse(text).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().ends_with("route.match[0].receiver: unknown receiver \"typo\"; there are a")
    );
}

#[test]
fn variables_are_put_in_as_upstream_does() {
    let all = cases("env_expansion_cases");
    let environment = |name: &str| all["environment"].get(name).and_then(Value::as_str).map(str::to_owned);
    let cases = all["cases"].as_array().unwrap();
    for case in cases {
        let text = format!("clusterName: '{}'\n", case["text"].as_str().unwrap());
        let (config, _) = Config::parse("case", &text, environment).unwrap();
        assert_eq!(config.cluster_name, case["expect"].as_str().unwrap(), "{case}");
    }
    eprintln!("env expansion cases: {0} of {0} as upstream", cases.len());
}

#[test]
fn layouts_render_as_upstream_does() {
    let all = cases("layout_cases");
    let cases = all["cases"].as_array().unwrap();
    for case in cases {
        let compiled = Layout::compile(&case["layout"]);
        match &case["expect"] {
            // No layout is not a layout: see the loader.
            Value::String(text) if text.starts_with("<the whole") => assert!(compiled.is_err()),
            // Found when the configuration is loaded, not when the first event is lost.
            Value::String(text) if text.starts_with("<error") => {
                assert!(compiled.unwrap_err().to_string().contains("has no field \"NoSuchField\""));
            }
            expected => {
                let rendered = with_face(&all["event"], |face| compiled.unwrap().render(face).unwrap());
                assert_eq!(&rendered, expected, "{case}");
            }
        }
    }
    let text = "route: {match: [{receiver: a}]}\nreceivers:\n  - name: a\n    stdout:\n      deDot: true\n      layout:\n";
    let (config, warnings) = parse(text).unwrap();
    assert!(config.receivers[0].body.layout().is_none() && warnings.is_empty());
    eprintln!(
        "layout cases: {0} of {0}; 1 deviates: an unknown field is refused at load, not per event",
        cases.len()
    );
}

/// What becomes of a file.
#[derive(Debug, PartialEq)]
enum Fate {
    /// Refused, with this in a message.
    Refused(&'static str),
    /// Taken, with this in a warning.
    Warned(&'static str),
    /// Taken without a word.
    Taken,
}

#[test]
fn yaml_is_taken_as_upstream_does_or_visibly_otherwise() {
    use Fate::{Refused, Taken, Warned};
    // Of the case: its YAML; what we do; where that is not what upstream does, why.
    let table: &[(&str, Fate, Option<&str>)] = &[
        ("stdout:", Refused("there is nothing in it"), None),
        ("file: {path: /x, layout: {}}", Warned("an empty layout"), None),
        ("file: {path: /x, layout: }", Taken, None),
        (
            "namespace: *test*   # unquoted",
            Refused("unknown anchor"),
            Some("upstream drops every event in silence"),
        ),
        ("labels: {a: }", Taken, Some("upstream crashes; an empty pattern asks for the label")),
        ("kind: 12", Taken, None),
        ("kind: true", Taken, None),
        ("labels: {z: 1.10}", Taken, None),
        ("kind: [A, B]", Refused("must be a string, not a list"), None),
        ("minCount: \"5\"", Refused("must be a whole number"), None),
        ("minCount: 1.5", Warned("1.5 is cut to 1"), None),
        ("minCount: 3000000000", Refused("out of range"), None),
        ("kind: A\nkind: B", Warned("the last one is taken"), None),
        ("foo: 1", Warned("unknown key, ignored"), None),
        ("two documents separated by ---", Warned("only the first document"), None),
        ("throttlePeriod: 5\nmaxEventAgeSeconds: 5", Refused("both are given"), None),
        ("metricsNamePrefix: event_exporter", Refused("is no prefix"), None),
    ];
    let cases = cases("yaml_cases");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), table.len());
    let mut deviations = 0;
    for (case, (yaml, fate, deviation)) in cases.iter().zip(table) {
        assert_eq!(case["yaml"], *yaml);
        let indent =
            |by: usize| yaml.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<String>();
        let fine = "receivers: [{name: a, stdout: {}}]\nroute:\n  match: [{receiver: a}]\n";
        let text = match case["at"].as_str().unwrap() {
            "receiver body" => {
                format!("route: {{match: [{{receiver: a}}]}}\nreceivers:\n  -\n    name: a\n{}", indent(4))
            }
            "drop rule" => format!("{fine}  drop:\n    -\n{}", indent(6)),
            "rule" | "rule, flow style" => {
                format!("{fine}  drop:\n    -\n      reason: never\n{}", indent(6))
            }
            "file" => format!("{fine}---\nwobble: 1\n"),
            _ => format!("{fine}{}", indent(0)),
        };
        let parsed = parse(&text);
        let good = match (fate, &parsed) {
            (Refused(part), Err(problems)) => problems.len() == 1 && problems[0].message.contains(part),
            (Warned(part), Ok((_, warnings))) => warnings.len() == 1 && warnings[0].0.message.contains(part),
            (Taken, Ok((_, warnings))) => warnings.is_empty(),
            _ => false,
        };
        assert!(good, "{yaml}: {fate:?}, not {parsed:?}");
        deviations += usize::from(deviation.is_some());
    }
    eprintln!("yaml cases: {} of {}; {deviations} deviate, see the table", table.len(), cases.len());
}

#[test]
fn age_drops_nothing() {
    let cases = cases("event_age_cases");
    let cases = cases.as_array().unwrap();
    let now = jiff::Timestamp::now();
    let mut deviations = 0;
    for case in cases {
        let at = |key: &str| {
            case["seconds_before_now"][key]
                .as_i64()
                .map(|before| (now - jiff::SignedDuration::from_secs(before)).to_string())
        };
        let text = format!(
            "maxEventAgeSeconds: {}\nroute: {{match: [{{receiver: a}}]}}\nreceivers: [{{name: a, stdout: {{}}}}]\n",
            case["maxEventAgeSeconds"]
        );
        let (config, warnings) = parse(&text).unwrap();
        assert!(warnings[0].0.message.contains("no event is dropped for its age"));
        let event = json!({
            "metadata": {"name": "e", "namespace": "n", "uid": "u", "creationTimestamp": at("metadata.creationTimestamp")},
            "lastTimestamp": at("lastTimestamp"),
            "eventTime": at("eventTime"),
        });
        let deliveries = with_face(&event, |face| config.router().deliveries(face).len());
        assert_eq!(deliveries, 1, "{case}");
        deviations += usize::from(case["expect"]["discarded"] == json!(true));
    }
    eprintln!(
        "event age cases: {} of {}; {deviations} deviate by design: age never drops an event",
        cases.len(),
        cases.len()
    );
}

#[test]
fn what_is_not_run_here_is_counted() {
    // Of the file: how many cases, and what they wait for.
    for (of, count, waits_for) in [
        ("index_name_cases", 4, "the elasticsearch and opensearch sinks"),
        ("kubewatch_advanced_filter_cases", 17, "kubewatch's filters"),
        ("event_exporter_type_filter_cases", 8, "event_exporter's filter of types"),
    ] {
        assert_eq!(cases(of).as_array().unwrap().len(), count, "{of}");
        eprintln!("{of}: {count} not run, they wait for {waits_for}");
    }
}
