#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use nodetap_wire::face::Object;
use nodetap_wire::record;

use super::*;
use crate::history::conformance;
use crate::history::query::Filter;
use crate::journal::Position;
use crate::journal::facets::{Facets, Test};

fn entries() -> Vec<Entry> {
    let entry = |(index, record): (usize, nodetap_wire::Record)| {
        let (body, object): (_, Option<Arc<Object>>) = match record.kind.unwrap() {
            record::Kind::Event(event) => (Body::Event(event.raw.to_vec().into()), None),
            record::Kind::Death(death) => {
                let object = death.object();
                (Body::Death(death), Some(Arc::new(object)))
            }
            record::Kind::Pod(_) => unreachable!(),
        };
        let position = Position(index as u64 + 1);
        Entry { position, taken_ns: conformance::BEGIN_NS, body, outline: None, object, occurrences: 1 }
    };
    conformance::records().into_iter().enumerate().map(entry).collect()
}

fn let_through(filter: &Filter) -> usize {
    let test = Test::new(filter.clone()).unwrap();
    entries().iter().filter(|entry| test.matches(&Facets::of(entry).unwrap())).count()
}

#[test]
fn each_filter_lets_some_through_and_holds_back_the_rest() {
    let all = let_through(&Filter::default());
    for filter in conformance::filters().iter().skip(1) {
        let some = let_through(filter);
        assert!(some > 0 && some < all, "{filter:?} lets {some} of {all} through");
    }
}

#[test]
fn what_nobody_has_is_let_through_by_no_field() {
    let nobody = || vec!["nobody".to_owned()];
    let none = Filter::default;
    for filter in [
        Filter { namespaces: nobody(), ..none() },
        Filter { object_kinds: nobody(), ..none() },
        Filter { objects: nobody(), ..none() },
        Filter { nodes: nobody(), ..none() },
        Filter { reasons: nobody(), ..none() },
        Filter { types: nobody(), ..none() },
        Filter { owners: nobody(), ..none() },
        Filter { containers: nobody(), ..none() },
        Filter { exit_codes: vec![42], ..none() },
        Filter { text: Some("nobody".to_owned()), ..none() },
        Filter { text: Some("imag".to_owned()), ..none() },
        Filter { text: Some("image nobody".to_owned()), ..none() },
        Filter { since_ns: Some(i64::MAX), ..none() },
        Filter { until_ns: Some(1), ..none() },
    ] {
        assert_eq!(let_through(&filter), 0, "{filter:?}");
    }
}

#[test]
fn the_bounds_of_time_are_from_and_before() {
    let entry = entries().into_iter().nth(1).unwrap();
    let face = entry.face("c").unwrap();
    let at = time_ns(&entry, &face);
    let within = |since_ns, until_ns| {
        let test = Test::new(Filter { since_ns, until_ns, ..Filter::default() }).unwrap();
        test.matches(&Facets::of(&entry).unwrap())
    };
    assert!(within(Some(at), None) && !within(Some(at + 1), None));
    assert!(!within(None, Some(at)) && within(None, Some(at + 1)));
}
