//! Words without which a pattern cannot match: all of them are looked for in one pass of an automaton, at several hundred megabytes a
//! second. Text that has none of them is clean, and so is text where the bytes beside them rule the pattern out.

use std::ops::Range;

use aho_corasick::automaton::OverlappingState;
use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, Input};
use memchr::{memchr, memrchr};

/// How many patterns of our own there are.
pub(super) const LOOKED: usize = 15;

/// Which patterns a text is to be searched for: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked(u16);

/// The automaton, and whose hint each word is.
#[derive(Debug)]
pub(super) struct Hints {
    words: AhoCorasick,
    hints: Vec<Hint>,
}

#[derive(Clone, Copy, Debug)]
struct Hint {
    word: &'static str,
    pattern: usize,
    /// In whatever case: else it counts only as it is written here.
    any_case: bool,
}

/// By pattern, in the order of `sources`: its words, and whether they count in whatever case.
const WORDS: [(bool, &[&str]); LOOKED] = [
    (false, &["PRIVATE KEY"]),
    (true, &["://"]),
    (false, &["@tcp(", "@unix(", "@udp("]),
    (true, &["hooks.slack.com/services", "discord.com/api/webhooks", "discordapp.com/api/webhooks"]),
    (true, &["cookie"]),
    (true, &["authorization"]),
    (false, &["eyJ"]),
    (true, &["bearer ", "basic ", "bearer\t", "basic\t"]),
    (false, &["AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ANPA", "ABIA", "ACCA"]),
    (false, &["AIza", "ya29.", "GOCSPX-", "doo_v1_", "dop_v1_", "dor_v1_", "dapi", "Q~"]),
    (true, &["?sig=", "&sig="]),
    (
        false,
        &[
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "glrt-",
            "gldt-",
            "glcbt-",
            "glptt-",
            "glft-",
            "glsoat-",
            "gloas-",
            "xoxa-",
            "xoxb-",
            "xoxe-",
            "xoxo-",
            "xoxp-",
            "xoxr-",
            "xoxs-",
            "xapp-",
            "k_live_",
            "k_test_",
            "whsec_",
            "npm_",
            "SG.",
            "sk-",
            "hvs.",
            "hvb.",
            "pypi-",
            "AGE-SECRET-KEY-1",
            "shpat_",
            "shpss_",
            "shpca_",
            "hf_",
            "dckr_pat_",
            "NRAK-",
            "glsa_",
            "glc_",
            "rubygems_",
            ".atlasv1.",
            "dp.pt.",
            "dp.st.",
            "dp.ct.",
            "dp.sa.",
            "lin_api_",
            "sq0atp-",
            "sq0csp-",
            "sntrys_",
            "PMAK-",
            "tskey-",
            ":AA",
        ],
    ),
    (false, &["$2a$", "$2b$", "$2x$", "$2y$", "$5$", "$6$", "$y$", "$argon2"]),
    (true, NAMES),
    (true, NAMES),
];

/// Those of `super::NAMES`, each way that it can be written.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api.key",
    "api-key",
    "accesskey",
    "access_key",
    "access.key",
    "access-key",
    "privatekey",
    "private_key",
    "private.key",
    "private-key",
    "signingkey",
    "signing_key",
    "signing.key",
    "signing-key",
    "encryptionkey",
    "encryption_key",
    "encryption.key",
    "encryption-key",
    "accountkey",
    "account_key",
    "account.key",
    "account-key",
    "masterkey",
    "master_key",
    "master.key",
    "master-key",
    "credential",
    "x-amz-signature",
    "sharedaccesssignature",
];

/// What a private key that is spread over several lines has: its first or last line, or the first bytes of its body.
const KEYS: &[&str] = &["-----BEGIN ", "-----END ", "MII", "MIG", "MHc", "MC4CAQ", "b3BlbnNzaC1rZXk"];

/// Stands for no pattern: the lines around it are to be looked at together.
const BLOCK: usize = LOOKED;

/// Patterns that need more than their word, see [`holds`].
const URLS: usize = 1;
const COOKIES: usize = 4;
const AUTHORIZATIONS: usize = 5;
const PAIRS: usize = LOOKED - 2;
const FLAGS: usize = LOOKED - 1;

/// A line of a text that is to be looked at more closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    /// Its bytes, and those of its end.
    Line(Range<usize>),
    /// It may belong to a private key of several lines.
    Key,
}

// === impl Looked ===

impl Looked {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, pattern: usize) -> bool {
        self.0 & (1 << pattern) != 0
    }

    fn add(&mut self, pattern: usize) {
        self.0 |= 1 << pattern;
    }
}

// === impl Hints ===

impl Hints {
    pub(super) fn new() -> Result<Self, BuildError> {
        let hints: Vec<Hint> = WORDS
            .iter()
            .enumerate()
            .flat_map(|(pattern, (any_case, words))| {
                words.iter().map(move |word| Hint { word, pattern, any_case: *any_case })
            })
            .chain(KEYS.iter().map(|word| Hint { word, pattern: BLOCK, any_case: false }))
            .collect();
        let words = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(hints.iter().map(|hint| hint.word))?;
        Ok(Self { words, hints })
    }

    /// Which patterns could match.
    pub(super) fn of(&self, text: &str) -> Looked {
        let mut looked = Looked::default();
        for found in self.words.find_overlapping_iter(text) {
            let Some(hint) = self.hints.get(found.pattern().as_usize()) else { continue };
            if hint.pattern != BLOCK
                && !looked.has(hint.pattern)
                && hint.is_written(text, found.range())
                && holds(hint.pattern, text.as_bytes(), found.range())
            {
                looked.add(hint.pattern);
            }
        }
        looked
    }

    /// The first line of a text of many, from `from` on, in which some pattern could match.
    pub(super) fn suspect(&self, text: &str, from: usize) -> Option<Suspect> {
        let input = Input::new(text).range(from..);
        let mut state = OverlappingState::start();
        loop {
            self.words.find_overlapping(input.clone(), &mut state);
            let found = state.get_match()?;
            let Some(hint) = self.hints.get(found.pattern().as_usize()) else { continue };
            if !hint.is_written(text, found.range()) {
                continue;
            }
            if hint.pattern == BLOCK {
                return Some(Suspect::Key);
            }
            let bytes = text.as_bytes();
            let start = memrchr(b'\n', bytes.get(from..found.start())?).map_or(from, |at| from + at + 1);
            let end = memchr(b'\n', bytes.get(found.end()..)?).map_or(bytes.len(), |at| found.end() + at + 1);
            let within = found.start() - start..found.end() - start;
            if holds(hint.pattern, bytes.get(start..end)?, within) {
                return Some(Suspect::Line(start..end));
            }
        }
    }
}

// === impl Hint ===

impl Hint {
    /// Whether what was found counts as it is written.
    fn is_written(&self, text: &str, found: Range<usize>) -> bool {
        self.any_case || text.get(found) == Some(self.word)
    }
}

/// Whether a pattern can match around its word, by the bytes beside it: most texts that speak of a token hold none. What is not ASCII
/// is taken for whatever the pattern needs.
fn holds(pattern: usize, text: &[u8], word: Range<usize>) -> bool {
    let behind = text.get(word.end..).unwrap_or_default();
    match pattern {
        // A user, and `@` before anything that ends it.
        URLS => {
            let ends = |byte: &u8| {
                byte.is_ascii_whitespace()
                    || matches!(byte, 0x0b | b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'@')
            };
            behind.iter().find(|byte| ends(byte)) == Some(&b'@')
        }
        COOKIES | AUTHORIZATIONS => is_signed(behind),
        PAIRS => is_signed(after(behind, |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
        })),
        FLAGS => {
            let is_flag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || !byte.is_ascii();
            let before = text.get(..word.start).unwrap_or_default();
            let begins = before.iter().rposition(|byte| !is_flag(*byte)).map_or(0, |at| at + 1);
            let name = before.get(begins..).unwrap_or_default();
            (name.windows(2).any(|two| two == b"--") || !name.is_ascii())
                && is_blank(after(behind, |byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        }
        _ => true,
    }
}

/// Whether a `:` or `=` comes next, behind a quote and blanks at most.
fn is_signed(text: &[u8]) -> bool {
    let text = after(text, |byte| byte == b'\\');
    let text = match text {
        [b'"' | b'\'', rest @ ..] => rest,
        text => text,
    };
    match after(text, |byte| byte.is_ascii_whitespace() || byte == 0x0b) {
        [byte, ..] => matches!(byte, b':' | b'=') || !byte.is_ascii(),
        [] => false,
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| byte.is_ascii_whitespace() || *byte == 0x0b || !byte.is_ascii())
}

/// What is left behind the bytes that are so.
fn after(text: &[u8], is: impl Fn(u8) -> bool) -> &[u8] {
    let ends = text.iter().position(|byte| !is(*byte)).unwrap_or(text.len());
    text.get(ends..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
