#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::Redactor;
use super::*;

#[test]
fn a_text_is_looked_at_for_what_its_words_hint_at_and_nothing_else() {
    let hints = Hints::new().unwrap();
    let of = |text| (0..LOOKED).filter(|pattern| hints.of(text).has(*pattern)).collect::<Vec<_>>();
    assert_eq!(of("level=info msg=started"), [0; 0]);
    assert_eq!(of("GET https://example.net/a"), [0; 0], "no user in it");
    assert_eq!(of("GET https://example.net/a?to=bob@example.net"), [0; 0], "no user in it");
    assert_eq!(of("GET https://bob@example.net/a"), [URLS]);
    assert_eq!(of("from Asia/Tokyo"), [0; 0], "not in this case");
    assert_eq!(of("ASIAXXXX"), [8]);
    assert_eq!(of("PassWord=1"), [13]);
    assert_eq!(of("a token was refreshed: 12"), [0; 0], "no value");
    assert_eq!(of(r#"{\"db_password_2\" : \"x"#), [13]);
    assert_eq!(of("run --Token x"), [14]);
    assert_eq!(of("run -Token x"), [0; 0], "no flag");
}

#[test]
fn a_line_is_suspect_for_what_is_in_it_alone() {
    let hints = Hints::new().unwrap();
    let text = "fine\ntoken\n=3\nGET https://a\nuser@b\npassword=1\nfine";
    assert_eq!(hints.suspect(text, 0), Some(Suspect::Line(35..46)));
    assert_eq!(hints.suspect(text, 46), None);
    assert_eq!(hints.suspect("a\nsecretskey-auth-1\n", 0), Some(Suspect::Line(2..20)), "words may overlap");
    assert_eq!(hints.suspect("a\n-----END RSA\n", 0), Some(Suspect::Key));
}

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new().unwrap());

/// What texts about secrets are made of.
const PARTS: &[&str] = &[
    "password",
    "token",
    "Secret",
    "api_key",
    "credentials",
    "authorization",
    "Set-Cookie",
    "bearer ",
    "basic\t",
    "--",
    "-",
    "_",
    ".",
    "=",
    ":",
    ": ",
    " := ",
    "=>",
    " ",
    "\t",
    "\u{b}",
    "\u{a0}",
    "\n",
    "\"",
    "'",
    "\\",
    "\\\"",
    "://",
    "@",
    "/",
    "?",
    "#",
    "<",
    "user",
    "hunter2x",
    "a1b2c3d4e5f6g7h8",
    "\u{e9}",
    "\u{17f}",
    "[",
    "(",
    "{",
    "eyJ",
    "x",
    "-----BEGIN PRIVATE KEY-----",
    "hooks.slack.com/services/",
    "@tcp(",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_",
];

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PARTS), 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pattern_matches_where_its_hint_does_not_hold(text in text()) {
        let redactor = &*REDACTOR;
        let looked = redactor.hints.of(&text);
        for (pattern, _) in redactor.patterns.iter().enumerate().filter(|(_, pattern)| pattern.regex.is_match(&text)) {
            prop_assert!(looked.has(pattern), "pattern {} matches in {:?}", pattern, text);
        }
    }
}
