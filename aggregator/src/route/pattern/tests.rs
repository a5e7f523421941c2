use proptest::prelude::*;

use super::*;

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).is_match(text)
}

#[test]
fn what_go_matches_is_matched() {
    for (pattern, text, expected) in [
        ("containers{nginx}", "spec.containers{nginx}", true),
        ("a{1", "a{1", true),
        ("a{,3}", "a{,3}", true),
        ("a{01}", "a{01}", true),
        ("{", "{", true),
        ("a{2}", "aa", true),
        ("^a{2}$", "a{2}", false),
        (r"\Qa.b*\E+", "a.b**", true),
        (r"\Qa.b\E", "axb", false),
        (r"\Qa.b", "a.b", true),
        (r"^\07$", "\u{7}", true),
        (r"^\101$", "A", true),
        (r"\<b\>", "<b>", true),
        (r"\<b\>", "a b c", false),
        (r"^\d+$", "12", true),
        (r"^\d+$", "١٢", false),
        (r"^\w+$", "é", false),
        (r"\s", "\u{a0}", false),
        (r"\s", "\u{b}", false),
        (r"\bé", "é", false),
        (r"\Bé", "é", true),
        (r"[\d\W]", "é", true),
        (r"[^\D]", "5", true),
        ("[a&&b]", "&", true),
        ("[a&&b]", "a", true),
        ("[a~~b]", "~", true),
        ("[[a]", "[", true),
        ("[]a]", "]", true),
        ("[^]a]", "]", false),
        ("[a-]", "-", true),
        ("[[:alpha:]]", "x", true),
        ("[[:^alpha:]]", "x", false),
        ("[[:alpha]", ":", true),
        ("(?i)error", "ERROR", true),
        ("(?i:e)rror", "ERROR", false),
        ("a(?i)b|c", "C", true),
        ("(a(?i)b)c", "aBC", false),
        ("(?-s).", "\n", false),
        ("(?s).", "\n", true),
        ("(?m)^b$", "a\nb", true),
        ("^b$", "b\n", false),
        ("(?)a", "a", true),
        ("^a(?i)*$", "aaa", true),
        ("^a*(?i)?$", "", true),
        ("a|", "b", true),
        ("()", "", true),
        (r"^\pL\p{Greek}\P{^Lu}$", "aαA", true),
        (r"\x41\x{42}", "AB", true),
        (r"[\x{d800}-\x{e000}]", "\u{e000}", true),
        ("(?P<n>x)(?<m>y)", "xy", true),
        ("a b#c", "a b#c", true),
        ("-~&", "-~&", true),
        ("x{1000}", &"x".repeat(1000), true),
        ("^*", "", true),
        ("ü+", "üü", true),
    ] {
        assert_eq!(Pattern::new(pattern).error(), None, "{pattern}");
        assert_eq!(matches(pattern, text), expected, "{pattern} in {text:?}, as {:?}", translate(pattern));
    }
}

#[test]
fn what_go_rejects_matches_nothing_and_says_why() {
    for (pattern, expected) in [
        ("*test*", "missing argument to repetition operator: `*`"),
        ("+x", "missing argument to repetition operator: `+`"),
        ("(*a)", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("(?i)*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a++", "invalid nested repetition operator: `++`"),
        ("a*?+", "invalid nested repetition operator: `*?+`"),
        ("a{1,2}{3}", "invalid nested repetition operator: `{1,2}{3}`"),
        ("x{1001}", "invalid repeat count: `{1001}`"),
        ("x{2,1}", "invalid repeat count: `{2,1}`"),
        ("x{1,99999999999}", "invalid repeat count: `{1,99999999999}`"),
        ("x{99999999999,}", "invalid repeat count: `{99999999999,}`"),
        ("(x{100}){11}", "invalid repeat count: `{11}`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?i", "missing closing ): `(?i`"),
        ("(?P<>a)", "invalid named capture: `(?P<>`"),
        ("(?P<n>a)(?P<n>b)", "duplicate capture group name: `n`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("[", "missing closing ]: `[`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[a--b]", "invalid character class range: `a--`"),
        ("[a-\\d]", "invalid escape sequence: `\\d`"),
        ("[[:none:]]", "invalid character class range: `[:none:]`"),
        (r"\1", "invalid escape sequence: `\\1`"),
        (r"\8", "invalid escape sequence: `\\8`"),
        (r"\Z", "invalid escape sequence: `\\Z`"),
        (r"\C", "invalid escape sequence: `\\C`"),
        (r"\E", "invalid escape sequence: `\\E`"),
        (r"\é", "invalid escape sequence: `\\é`"),
        (r"\xg1", "invalid escape sequence: `\\xg1`"),
        (r"\p{greek}", "invalid character class range: `\\p{greek}`"),
        (r"a\", "trailing backslash at end of expression: ``"),
    ] {
        let pattern = Pattern::new(pattern);
        assert_eq!(
            pattern.error().map(ToString::to_string).as_deref(),
            Some(expected),
            "{}",
            pattern.source()
        );
        assert!(!pattern.is_match(pattern.source()) && !pattern.is_match(""));
    }
}

#[test]
fn a_flag_that_was_set_within_a_group_ends_with_it() {
    for (pattern, text) in [("^(a(?i)b)(?s:c)$", "aBC"), ("^(?i:a)(?s:b)$", "AB")] {
        assert!(!matches(pattern, text), "{pattern}, as {:?}", translate(pattern));
    }
    assert!(matches("^(a(?i)b)(?s:c)$", "aBc"));
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_an_error(text in ".{0,60}") {
        let _ = Pattern::new(&text);
    }

    #[test]
    fn what_is_translated_compiles(text in r"[\\\[\](){}|*+?^$.,:<>=!PQEpdDwWsSbBAzx0-9a-cimsU&~é-]{0,24}") {
        if let Ok(translated) = translate(&text) {
            // A name that is no script of Unicode is only found out by the engine.
            prop_assume!(!translated.contains("{sc="));
            prop_assert!(Regex::new(&translated).is_ok() || translated.contains('{'), "{text} as {translated}");
        }
    }

    #[test]
    fn a_quoted_text_finds_itself(text in "[^\\\\]{0,20}") {
        let quoted = format!("^\\Q{text}\\E$");
        prop_assert!(matches(&quoted, &text));
    }
}
