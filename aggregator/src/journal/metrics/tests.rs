#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn families_have_the_names_that_dashboards_use() {
    let metrics = JournalMetrics::default();
    metrics.commits.inc();
    metrics.commit_duration.observe(0.004);
    metrics.records.get_or_create(&KindLabel { kind: Kind::Death }).inc();
    metrics.duplicates.get_or_create(&DuplicateLabel { kind: Kind::Event, reason: Known::Identity }).inc();
    metrics.dropped.get_or_create(&DroppedLabel { reason: Dropped::Age }).inc_by(3);
    let label = ConsumerLabel { consumer: "loki".into(), reason: "retention" };
    metrics.undelivered.get_or_create(&label).inc_by(2);
    metrics.errors.get_or_create(&ErrorLabel { reason: Failed::Full }).inc();
    metrics.bytes.set(7);
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "nodetap_journal_commits_total 1",
        "nodetap_journal_commit_duration_seconds_count 1",
        r#"nodetap_journal_records_total{kind="death"} 1"#,
        r#"nodetap_journal_duplicates_total{kind="event",reason="identity"} 1"#,
        r#"nodetap_journal_dropped_records_total{reason="age"} 3"#,
        r#"nodetap_journal_undelivered_records_total{consumer="loki",reason="retention"} 2"#,
        r#"nodetap_journal_errors_total{reason="full"} 1"#,
        "nodetap_journal_disk_bytes 7",
        "nodetap_journal_head_position 0",
        "nodetap_journal_files_set_aside_total 0",
        "nodetap_journal_unknown_records_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
