#![allow(clippy::unwrap_used)]

use super::*;
use crate::tap::redact::Redactor;

#[test]
fn a_pattern_of_the_configuration_is_replaced_and_counted_under_its_name() {
    let named =
        Named::parse("# ours\n\norder  order-(?P<secret>[0-9]{4})\niban\t[A-Z]{2}[0-9]{20}\n").unwrap();
    let redactor = Redactor::with(named).unwrap();
    let mut counts = Counts::new();
    let text =
        redactor.text("order-1234 and order-5678 from DE12345678901234567890, password=x1", &mut counts);
    assert_eq!(text, "order-[redacted] and order-[redacted] from [redacted], password=[redacted]");
    let named: Vec<(&str, u64)> = counts.iter().map(|(kind, times)| (redactor.name(*kind), *times)).collect();
    assert_eq!(named, [("pair", 1), ("order", 2), ("iban", 1)]);
    assert_eq!(redactor.text(&text, &mut Counts::new()), text);
}

#[test]
fn what_cannot_be_used_is_told_with_its_line() {
    let rows = [
        ("a x\nb (", 2, "regex parse error"),
        ("a x\nA-b y", 2, "the name `A-b`"),
        ("alone", 1, "it is not `NAME REGEX`"),
        ("a x*", 1, "it matches where there is nothing"),
        ("a x\n\na y", 3, "there is a pattern `a` before it"),
        ("a \\w{9}{999}", 1, "size limit"),
    ];
    for (text, line, wrong) in rows {
        let (at, told) = Named::parse(text).unwrap_err();
        assert!(at == line && told.contains(wrong), "{text}: {at}: {told}");
    }
    let many: String = (0..65).map(|number| format!("p{number} x{number}\n")).collect();
    assert_eq!(Named::parse(&many).unwrap_err().0, 65);
}
