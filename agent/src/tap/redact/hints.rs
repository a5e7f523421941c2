//! Words without which a pattern cannot match: all of them are looked for in one pass of an automaton, at several hundred megabytes a
//! second, and text that has none of them is clean.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};

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

/// The last pattern needs this as well.
const FLAG: &str = "--";
const FLAGS: usize = LOOKED - 1;

/// The pattern of user and password in a URL needs this as well.
const AT: u8 = b'@';
const URLS: usize = 1;

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
            .collect();
        let words = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(hints.iter().map(|hint| hint.word))?;
        Ok(Self { words, hints })
    }

    /// Whether there is any word at all, or what a private key of several lines has.
    pub(super) fn any(&self, text: &str) -> bool {
        self.words.is_match(text) || text.contains("-----") || text.lines().any(super::judge::begins_a_key)
    }

    /// Which patterns could match.
    pub(super) fn of(&self, text: &str) -> Looked {
        let mut looked = Looked::default();
        if !self.words.is_match(text) {
            return looked;
        }
        for found in self.words.find_overlapping_iter(text) {
            let Some(hint) = self.hints.get(found.pattern().as_usize()) else { continue };
            if looked.has(hint.pattern) {
                continue;
            }
            let is_so = hint.any_case || text.get(found.range()) == Some(hint.word);
            let holds = match hint.pattern {
                URLS => memchr::memchr(AT, text.as_bytes().get(found.end()..).unwrap_or_default()).is_some(),
                FLAGS => text.contains(FLAG),
                _ => true,
            };
            if is_so && holds {
                looked.add(hint.pattern);
            }
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_at_for_what_its_words_hint_at_and_nothing_else() {
        let hints = Hints::new().unwrap();
        let of = |text| (0..LOOKED).filter(|pattern| hints.of(text).has(*pattern)).collect::<Vec<_>>();
        assert_eq!(of("level=info msg=started"), [0; 0]);
        assert_eq!(of("GET https://example.net/a"), [0; 0], "no user in it");
        assert_eq!(of("GET https://bob@example.net/a"), [URLS]);
        assert_eq!(of("from Asia/Tokyo"), [0; 0], "not in this case");
        assert_eq!(of("ASIAXXXX"), [8]);
        assert_eq!(of("PassWord=1"), [13]);
        assert_eq!(of("run --Token x"), [13, 14]);
    }
}
