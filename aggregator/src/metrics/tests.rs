use nodetap_runtime::exposition;
use nodetap_wire::Change;
use prometheus_client::registry::Registry;

use super::compatibility::{EventExporterCounters, Switches};
use super::*;

const EVERYTHING: Switches =
    Switches { kubernetes_event_exporter: true, event_exporter: true, event_router: true };

fn event(namespace: &str, r#type: &str) -> Record {
    let json = format!(
        r#"{{"metadata":{{"name":"web.1","namespace":"{namespace}","uid":"u","resourceVersion":"7"}},
        "involvedObject":{{"kind":"Pod","name":"web","namespace":"{namespace}"}},"reason":"BackOff","type":"{type}",
        "source":{{"component":"kubelet","host":"node1"}},"count":3}}"#
    );
    Record { kind: Some(Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
}

fn death(exit_code: Option<i32>) -> Record {
    let death = ContainerDied {
        namespace: "shop".into(),
        container: "app".into(),
        reason: "Error".into(),
        exit_code,
        missed_before: 2,
        ..ContainerDied::default()
    };
    Record { kind: Some(Kind::Death(death.into())) }
}

#[test]
fn events_count_by_their_occurrences_and_deaths_one_by_one() {
    let mut registry = Registry::default();
    let metrics = ClusterMetrics::register(&mut registry, Switches::default());
    metrics.count(&event("shop", "Warning"), 3);
    metrics.count(&event("shop", "Warning"), 2);
    metrics.count(&death(Some(7)), 1);
    metrics.count(&death(None), 1);
    let text = exposition::prometheus(&registry);
    for line in [
        r#"nodetap_events_total{namespace="shop",kind="Pod",reason="BackOff",type="Warning"} 5"#,
        r#"nodetap_container_deaths_total{namespace="shop",container="app",reason="Error",exit="7"} 1"#,
        r#"nodetap_container_deaths_total{namespace="shop",container="app",reason="Error",exit="unknown"} 1"#,
        r#"nodetap_container_deaths_missed_total{namespace="shop",container="app"} 4"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn ten_thousand_namespaces_stay_within_the_bound_and_nothing_goes_uncounted() {
    let mut registry = Registry::default();
    let metrics = ClusterMetrics::register(&mut registry, EVERYTHING);
    for namespace in 0..10_000 {
        metrics.count(&event(&format!("n{namespace}"), "Warning"), 1);
    }
    let text = exposition::prometheus(&registry);
    assert!(text.lines().filter(|line| line.starts_with("nodetap_")).count() < 5_000);
    let total: u64 = text
        .lines()
        .filter(|line| line.starts_with("nodetap_events_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(total, 10_000);
    assert!(text.contains("nodetap_label_overflow_total{family=\"nodetap_events\"} 7500"), "{text}");
}

#[test]
fn other_exporters_families_keep_their_names_and_labels() {
    let mut registry = Registry::default();
    let metrics = ClusterMetrics::register(&mut registry, EVERYTHING);
    metrics.count(&event("shop", "Warning"), 3);
    let text = exposition::prometheus(&registry);
    for line in [
        r#"kube_event_unique_events_total{name="web.1",namespace="shop",involved_object_namespace="shop",involved_object_name="web",involved_object_kind="Pod",reason="BackOff",type="Warning",source="node1/kubelet"} 3"#,
        r#"heptio_eventrouter_warnings_total{involved_object_kind="Pod",involved_object_name="web",involved_object_namespace="shop",reason="BackOff",source="node1"} 3"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn families_that_name_objects_are_off_unless_switched_on() {
    let mut registry = Registry::default();
    let metrics = ClusterMetrics::register(&mut registry, Switches::default());
    metrics.count(&event("shop", "Warning"), 3);
    let text = exposition::prometheus(&registry);
    assert!(!text.contains("kube_event_") && !text.contains("heptio_"), "{text}");
}

#[test]
fn event_exporters_counters_have_no_total_in_either_format() {
    let counters =
        EventExporterCounters { prefix: "event_exporter_".into(), ..EventExporterCounters::default() };
    counters.events_sent.inc_by(5);
    let text = counters.expose(false);
    assert!(
        text.contains("# TYPE event_exporter_events_sent counter\nevent_exporter_events_sent 5\n"),
        "{text}"
    );
    assert!(
        counters
            .expose(true)
            .contains("# TYPE event_exporter_events_sent unknown\nevent_exporter_events_sent 5\n")
    );
}
