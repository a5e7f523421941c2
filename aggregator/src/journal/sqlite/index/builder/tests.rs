#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;

use nodetap_wire::SharedStr;
use nodetap_wire::event::Outline;

use super::*;

fn terms(builder: &Builder) -> Vec<(Vec<u8>, Vec<u16>)> {
    let mut terms = Vec::new();
    let told: Result<(), Infallible> = builder.terms.try_each_sorted(|term, offsets| {
        terms.push((term.to_vec(), offsets.to_vec()));
        Ok(())
    });
    assert_eq!(told, Ok(()));
    terms
}

#[test]
fn a_record_in_memory_is_indexed_as_it_is_from_the_disk() {
    let event = r#"{"metadata":{"name":"e","namespace":"shop","uid":"u","resourceVersion":"812"},
        "involvedObject":{"kind":"Pod","name":"web","fieldPath":"spec.containers{app}"},"reason":"BackOff",
        "message":"Back-off: \"registry\" größer","source":{"host":"n1"},"lastTimestamp":"2026-07-01T12:00:00Z","count":6}"#;
    let facts = r#"{"labels":{},"annotations":{},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-1","uid":"rs","controller":true}],"deleted":false}"#;
    let death = ContainerDied { pod: "web".into(), message: "Lost it".into(), ..ContainerDied::default() };
    let death = serde_json::to_vec(&death).unwrap();
    let of_event = Stored {
        position: 7,
        taken_ns: 5,
        occurrences: 3,
        is_death: false,
        body: event.as_bytes(),
        facts: Some(facts.as_bytes()),
    };
    let of_death =
        Stored { position: 8, occurrences: 1, is_death: true, body: &death, facts: None, ..of_event };
    let (mut disk, mut memory) = (Builder::new(1, 7), Builder::new(1, 7));
    for stored in [of_event, of_death] {
        disk.add(&stored).unwrap();
        let mut entry = stored.entry().unwrap();
        if let Body::Event(json) = &entry.body {
            let json = SharedStr::try_from(json.clone()).unwrap();
            entry.outline = Outline::of(&Event::parse(&json).unwrap(), &json).map(Arc::new);
        }
        memory.add_entry(&entry).unwrap();
    }
    assert!(terms(&disk).iter().any(|(term, _)| term.ends_with("größer".as_bytes())));
    assert!(terms(&disk).iter().any(|(term, _)| term.ends_with(b"web-1")));
    assert_eq!(terms(&memory), terms(&disk));
    assert_eq!((&memory.times, &memory.occurrences), (&disk.times, &disk.occurrences));
    assert_eq!((&memory.versions, &memory.recurrences), (&disk.versions, &disk.recurrences));
}
