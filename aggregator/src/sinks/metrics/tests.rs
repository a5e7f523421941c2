use super::*;

#[test]
fn a_sink_has_its_series_from_the_start_and_their_names_end_as_they_should() {
    let mut registry = Registry::default();
    let sink = Metrics::register(&mut registry).sink("hook");
    sink.failed(FailureClass::Throttled);
    sink.delivered.inc_by(2);
    sink.request_seconds.observe(0.01);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"nodetap_sink_delivered_total{sink="hook"} 2"#,
        r#"nodetap_sink_failed_attempts_total{sink="hook",reason="throttled"} 1"#,
        r#"nodetap_sink_dead_letters_total{sink="hook"} 0"#,
        r#"nodetap_sink_retried_total{sink="hook"} 0"#,
        r#"nodetap_sink_missed_total{sink="hook"} 0"#,
        r#"nodetap_sink_lag_records{sink="hook"} 0"#,
        r#"nodetap_sink_lag_seconds{sink="hook"} 0.0"#,
        r#"nodetap_sink_batch_records_count{sink="hook"} 0"#,
        r#"nodetap_sink_attempt_duration_seconds_count{sink="hook"} 1"#,
        r#"nodetap_sink_last_success_timestamp_seconds{sink="hook"} 0.0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
