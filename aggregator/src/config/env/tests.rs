use proptest::prelude::*;

use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "FOO" => Some("bar".to_owned()),
        "LINES" => Some("a\nb".to_owned()),
        _ => None,
    }
}

#[test]
fn lines_of_the_file_are_known_after_expansion() {
    let expanded = expand("1\n2 $LINES\n3 ${NONE}\n", environment);
    assert_eq!(expanded.text, "1\n2 a\nb\n3 \n");
    let lines: Vec<usize> = (1..=4).map(|line| expanded.origin(Place { line, column: 1 }).line).collect();
    assert_eq!(lines, [1, 2, 2, 3]);
    assert_eq!(expanded.unset, [(Place { line: 3, column: 3 }, "${NONE}".to_owned())]);
}

#[test]
fn there_is_no_default_and_no_escape() {
    for (text, expected) in
        [("$$FOO", "FOO"), ("${A:-b}", ""), ("${FOO", "FOO"), ("${$}x", "x"), ("$", "$"), ("$é", "$é")]
    {
        assert_eq!(expand(text, environment).text, expected, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_expanded(text in "(?s).{0,60}") {
        let expanded = expand(&text, environment);
        prop_assert!(text.contains('$') || expanded.text == text);
    }
}
