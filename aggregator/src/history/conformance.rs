//! What every history must agree with: the filter's own meaning, record by record, and the order of answers.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use nodetap_wire::{Change, ContainerDied, EventSeen, LogLine, Owner, Record, record};

use super::filter::time_ns;
use super::query::{Count, CountBy, Field, Filter, Mark, RecordKind, Search};
use super::{History, Page};
use crate::journal::facets::{Facets, Test};
use crate::journal::{Entry, Position};

const DEADLINE: Duration = Duration::from_secs(60);
const SECOND: i64 = 1_000_000_000;

/// A second of the records' time: 2026-01-01T00:00:00Z is the first.
pub(crate) const BEGIN_NS: i64 = 1_767_225_600 * SECOND;

/// Records of all shapes, to be appended in this order.
pub(crate) fn records() -> Vec<Record> {
    let mut records = vec![
        // Without a time of its own, with a node that only the newer recorder's field names, about a Node without namespace.
        event(
            r#""metadata":{"uid":"n1","resourceVersion":"1","namespace":"default"},"involvedObject":{"kind":"Node","name":"node-1"},
            "reason":"Rebooted","type":"Warning","message":"Node node-1 has been rebooted","reportingComponent":"kubelet","reportingInstance":"node-1""#,
        ),
        event(
            r#""metadata":{"uid":"n2","resourceVersion":"2","namespace":"shop"},"message":"Überlast: größer als erlaubt","eventTime":"2026-01-01T00:00:07.123456Z""#,
        ),
    ];
    for number in 0..60_u64 {
        let at = |seconds: u64| {
            nodetap_wire::time::format_ns(BEGIN_NS + (seconds * SECOND as u64) as i64).unwrap()
        };
        let namespace = ["shop", "bank", "kube-system"][number as usize % 3];
        let (reason, kind) = [("BackOff", "Warning"), ("Pulled", "Normal")][number as usize / 3 % 2];
        records.push(event(&format!(
            r#""metadata":{{"uid":"e{number}","resourceVersion":"{}","namespace":"{namespace}"}},
            "involvedObject":{{"kind":"Pod","namespace":"{namespace}","name":"web-{}","uid":"p{number}","fieldPath":"spec.containers{{app-{}}}"}},
            "reason":"{reason}","type":"{kind}","message":"{reason} of image registry.example/web:{number}, attempt {}",
            "source":{{"component":"kubelet","host":"node-{}"}},"firstTimestamp":"{}","lastTimestamp":"{}","count":{}"#,
            100 + number, number % 5, number % 2, number % 4, number % 4,
            // Several happened in the same second, and they did not come in the order in which they happened.
            at(0), at(60 - number / 4 * 3), 1 + number % 3,
        )));
        if number % 3 == 0 {
            let death = ContainerDied {
                namespace: namespace.into(),
                pod: format!("web-{}", number % 5),
                pod_uid: format!("p{number}"),
                node: format!("node-{}", number % 4),
                container: format!("app-{}", number % 2),
                container_id: format!("containerd://{number}"),
                ordinal: number as u32,
                exit_code: [Some(0), Some(1), Some(137), None][number as usize % 4],
                reason: if number % 4 == 2 { "OOMKilled" } else { "Error" }.into(),
                message: if number % 2 == 0 { "termination message".into() } else { String::new() },
                finished_ns: if number % 9 == 0 { 0 } else { BEGIN_NS + number as i64 * SECOND },
                seen_ns: BEGIN_NS + (number as i64 + 1) * SECOND,
                // One of each kind, two of one name, or one or none alone.
                owners: (0..number % 4)
                    .map(|owner| Owner {
                        name: format!("web-{}", (number + owner) % 2),
                        kind: "ReplicaSet".into(),
                        ..Owner::default()
                    })
                    .collect(),
                last_lines: vec![
                    LogLine { text: "starting".into(), ..LogLine::default() },
                    LogLine {
                        text: format!("panic: connection-refused by 10.0.0.{number}"),
                        ..LogLine::default()
                    },
                ],
                ..ContainerDied::default()
            };
            records.push(Record { kind: Some(record::Kind::Death(death.into())) });
        }
    }
    records
}

/// Filters of all fields, alone and together, of which each lets something through.
pub(crate) fn filters() -> Vec<Filter> {
    let none = Filter::default;
    let of = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let text = |text: &str| Filter { text: Some(text.to_owned()), ..none() };
    vec![
        none(),
        Filter { since_ns: Some(BEGIN_NS + 30 * SECOND), ..none() },
        Filter { until_ns: Some(BEGIN_NS + 30 * SECOND), ..none() },
        Filter { since_ns: Some(BEGIN_NS + 20 * SECOND), until_ns: Some(BEGIN_NS + 40 * SECOND), ..none() },
        Filter { record: Some(RecordKind::Event), ..none() },
        Filter { record: Some(RecordKind::Death), ..none() },
        Filter { namespaces: of(&["default"]), ..none() },
        Filter { namespaces: of(&["shop", "bank"]), ..none() },
        Filter { object_kinds: of(&["Node"]), ..none() },
        Filter { objects: of(&["web-3"]), ..none() },
        Filter { nodes: of(&["node-1"]), ..none() },
        Filter { reasons: of(&["ContainerOOMKilled"]), ..none() },
        Filter { reasons: of(&["BackOff", "ContainerDied"]), types: of(&["Warning"]), ..none() },
        Filter { types: of(&["Normal"]), ..none() },
        Filter { owners: of(&["web-1"]), ..none() },
        Filter { containers: of(&["app-1"]), ..none() },
        Filter { containers: of(&["app-0"]), record: Some(RecordKind::Event), ..none() },
        Filter { exit_codes: vec![137], ..none() },
        Filter { exit_codes: vec![0, 1], namespaces: of(&["shop"]), ..none() },
        text("image"),
        text("ATTEMPT 2"),
        text("connection-refused"),
        text("termination panic"),
        text("10.0.0.3"),
        text("starting conn*"),
        text("größer"),
        Filter {
            since_ns: Some(BEGIN_NS + SECOND),
            namespaces: of(&["shop"]),
            nodes: of(&["node-0", "node-1", "node-2"]),
            text: Some("web".to_owned()),
            ..none()
        },
    ]
}

/// Whether a history that has these entries answers as the filter does, page by page, and counts the same.
pub(crate) async fn conforms(history: &impl History, entries: &[Entry], filters: &[Filter]) {
    for filter in filters {
        let test = Test::new(filter.clone()).unwrap();
        let mut expected: Vec<(Mark, &Entry)> = entries
            .iter()
            .filter_map(|entry| {
                let face = entry.face("c").unwrap();
                let mark = Mark { time_ns: time_ns(entry, &face), position: entry.position };
                test.matches(&Facets::of(entry).unwrap()).then_some((mark, entry))
            })
            .collect();
        expected.sort_by_key(|(mark, _)| std::cmp::Reverse(*mark));
        assert!(!expected.is_empty(), "{filter:?} lets nothing through");
        let expected_marks: Vec<Mark> = expected.iter().map(|(mark, _)| *mark).collect();
        for limit in [7, 1_000] {
            assert_eq!(pages(history, filter, limit).await, expected_marks, "{filter:?} by {limit}");
        }
        let fields = [
            Field::Record,
            Field::Namespace,
            Field::ObjectKind,
            Field::Object,
            Field::Node,
            Field::Reason,
            Field::Type,
            Field::Owner,
            Field::Container,
            Field::ExitCode,
        ];
        for (field, step) in [None]
            .into_iter()
            .chain(fields.map(Some))
            .flat_map(|field| [(field, None), (field, Some(Duration::from_secs(10)))])
        {
            let by = CountBy { field, step, top: 0 };
            let mut counts = history.count(filter.clone(), by.clone(), DEADLINE).await.unwrap();
            counts.sort_by(|a, b| (&a.value, a.from_ns).cmp(&(&b.value, b.from_ns)));
            assert_eq!(counts, tally(&expected, &by), "{filter:?} by {by:?}");
        }
    }
}

async fn pages(history: &impl History, filter: &Filter, limit: usize) -> Vec<Mark> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let search = Search { filter: filter.clone(), after, limit, deadline: DEADLINE };
        let page: Page = history.search(search).await.unwrap();
        assert!(page.found.len() <= limit);
        found
            .extend(page.found.iter().map(|one| Mark { time_ns: one.time_ns, position: one.entry.position }));
        assert_eq!(
            (page.last, page.unreadable),
            (found.last().copied().filter(|_| !page.found.is_empty()), 0)
        );
        after = page.last;
        if !page.has_more {
            assert!(page.head > Position(0));
            return found;
        }
    }
}

fn tally(found: &[(Mark, &Entry)], by: &CountBy) -> Vec<Count> {
    let mut counts: BTreeMap<(String, i64), (u64, u64)> = BTreeMap::new();
    for (mark, entry) in found {
        let face = entry.face("c").unwrap();
        let values = by.field.map_or_else(|| vec!["".into()], |field| field.values(&face));
        let step = by.step.map_or(0, |step| step.as_nanos() as i64);
        let from = if step == 0 { 0 } else { mark.time_ns.div_euclid(step) * step };
        for value in values {
            let count = counts.entry((value.into_owned(), from)).or_default();
            *count = (count.0 + 1, count.1 + entry.occurrences);
        }
    }
    let count = |((value, from_ns), (records, occurrences))| Count { value, from_ns, records, occurrences };
    counts.into_iter().map(count).collect()
}

fn event(fields: &str) -> Record {
    let seen = EventSeen::from_json(&format!("{{{fields}}}"), Change::Added).unwrap();
    Record { kind: Some(record::Kind::Event(seen)) }
}
