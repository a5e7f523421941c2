use proptest::prelude::*;

use super::*;

#[test]
fn what_kubernetes_writes_is_read() {
    let noon = 1_782_907_200_000_000_000;
    for (text, expected) in [
        ("2026-07-01T12:00:00Z", Some(noon)),
        ("2026-07-01T12:00:00.000001Z", Some(noon + 1_000)),
        ("2026-07-01T14:00:00+02:00", Some(noon)),
        ("2026-07-01T12:00:00.123456789Z", Some(noon + 123_456_789)),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2026-07-01", None),
        ("2026-13-01T12:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ] {
        assert_eq!(parse_ns(text), expected, "{text:?}");
    }
}

#[test]
fn an_unknown_time_has_no_text() {
    assert_eq!(format_ns(0), None);
    assert_eq!(format_ns(-1), None);
}

proptest! {
    #[test]
    fn a_known_time_is_read_as_it_was_written(ns in 1..=i64::MAX) {
        prop_assert_eq!(format_ns(ns).as_deref().and_then(parse_ns), Some(ns));
    }

    #[test]
    fn the_usual_way_of_writing_a_time_is_read_as_any_other(
        year in 1960..2300, month in 0..15, day in 0..33, hour in 0..26, minute in 0..62, second in 0..62,
    ) {
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        prop_assert_eq!(parse_ns(&format!("{text}Z")), parse_ns(&format!("{text}.0Z")));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = parse_ns(&text);
    }
}
