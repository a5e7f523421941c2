#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_767_225_600_000_000_000;

fn all() -> Vec<&'static Parameter> {
    [FILTERS, PAGING, COUNTING, TAILING].into_iter().flatten().collect()
}

#[test]
fn moments_are_read_as_people_write_them() {
    for (text, ns) in [
        ("now", NOW),
        ("2h", NOW - 7_200_000_000_000),
        ("1h30m", NOW - 5_400_000_000_000),
        ("1767225600", NOW),
        ("1767225600.5", NOW + 500_000_000),
        ("0", 0),
        ("2026-01-01T00:00:00Z", NOW),
        ("2026-01-01T01:00:00+01:00", NOW),
        ("2026-01-01T01:00:00 01:00", NOW),
    ] {
        assert_eq!(moment(text, NOW), Some(ns), "{text}");
    }
    for text in ["", ".", "1.2.3", "-1", "1767225600000", "2026-01-01", "tomorrow", "9999999y"] {
        assert_eq!(moment(text, NOW), None, "{text}");
    }
}

#[test]
fn no_two_parameters_of_a_route_have_one_name_and_each_takes_its_example() {
    for endpoint in &super::super::routes::ENDPOINTS {
        let known = endpoint.parameters();
        for (index, parameter) in known.iter().enumerate() {
            assert!(
                known.iter().take(index).all(|before| before.name != parameter.name),
                "{}",
                parameter.name
            );
            if !parameter.example.is_empty() {
                let query = format!("{}={}", parameter.name, parameter.example.replace(' ', "+"));
                read(&query, &known, NOW).unwrap();
            }
        }
    }
}

#[test]
fn a_cursor_belongs_to_a_question_in_whatever_order_it_is_asked() {
    let fingerprint = |query: &str| read(query, &all(), NOW).unwrap().fingerprint;
    let one = fingerprint("namespace=a&reason=b&limit=5");
    assert_eq!(one, fingerprint("reason=b&cursor=x&namespace=a"));
    assert_ne!(one, fingerprint("reason=b&namespace=ab"));
    assert_ne!(fingerprint("namespace=a&name=b"), fingerprint("name=a&namespace=b"));
}

proptest! {
    #[test]
    fn no_query_panics(query in ".{0,200}") {
        let _ = read(&query, &all(), NOW);
    }

    #[test]
    fn no_value_panics(which in 0..20_usize, value in "[0-9a-zA-Z.%+:*-]{0,40}") {
        let known = all();
        let name = known[which % known.len()].name;
        let _ = read(&format!("{name}={value}"), &known, NOW);
    }
}
