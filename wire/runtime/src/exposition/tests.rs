use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::*;

fn registry() -> Registry {
    let mut registry = Registry::default();
    let family = Family::<Vec<(String, String)>, Counter>::default();
    family.get_or_create(&vec![("why".to_owned(), "a # {b".to_owned())]).inc_by(3);
    registry.register("dropped", "What was dropped", family);
    let gauge = Gauge::<i64>::default();
    gauge.set(7);
    registry.register("waiting", "What waits", gauge);
    registry
}

#[test]
fn prometheus_text_names_a_counter_family_as_its_samples() {
    assert_eq!(
        prometheus(&registry()),
        "# HELP dropped_total What was dropped.\n\
         # TYPE dropped_total counter\n\
         dropped_total{why=\"a # {b\"} 3\n\
         # HELP waiting What waits.\n\
         # TYPE waiting gauge\n\
         waiting 7\n"
    );
}

#[test]
fn open_metrics_text_ends_with_its_mark() {
    assert!(open_metrics(&registry()).ends_with("# EOF\n"));
    assert!(open_metrics(&registry()).contains("# TYPE dropped counter\n"));
}

#[test]
fn open_metrics_is_given_only_to_those_who_ask_for_it() {
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
    assert!(wants_open_metrics(prometheus_3));
    for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "text/html, application/json"]
    {
        assert!(!wants_open_metrics(accept), "{accept}");
    }
}
