//! Takes the plainest secrets out of text before it leaves the node.
//!
//! One linear pass (`RegexSet`) tells what a text could hold; only what it could hold is looked for and replaced by
//! `[redacted]`, and counted by kind. Uuids, digests and hashes that stand alone are left as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nodetap_wire::LogLine;
use regex::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

mod judge;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// What a secret was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A private key in PEM, or some lines of one.
    PrivateKey,
    /// User and password in a URL or a data source name.
    Url,
    /// An `Authorization` header, or a bearer token.
    Authorization,
    /// A JSON web token.
    Jwt,
    /// A key of a cloud provider.
    CloudKey,
    /// A token whose vendor gave it a prefix.
    VendorToken,
    /// The value of a key that is called password, token, secret or the like.
    Pair,
}

/// How often each kind was found.
pub type Counts = BTreeMap<Kind, u64>;

/// The patterns, compiled.
#[derive(Debug)]
pub struct Redactor {
    set: RegexSet,
    patterns: Vec<Pattern>,
    begin: Regex,
    end: Regex,
    body: Regex,
}

type Judge = fn(&Captures<'_>) -> bool;

#[derive(Debug)]
struct Pattern {
    kind: Kind,
    regex: Regex,
    /// Whether what was matched is a secret, by what a pattern cannot say.
    judge: Judge,
}

/// Words that name a secret when a key has one of them.
const NAMES: &str = r"(?:password|passwd|passphrase|passwort|pwd|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|signing[_.-]?key|encryption[_.-]?key|account[_.-]?key|master[_.-]?key|credentials?|x-amz-signature|sharedaccesssignature)";

/// In each: `secret` is what is replaced. The order matters: what an earlier one replaced, a later one leaves alone.
fn sources() -> Vec<(Kind, String, Judge)> {
    let always: Judge = |_| true;
    let pairs = format!(
        r#"(?i)(?P<key>[a-z0-9_.-]*{NAMES}[a-z0-9_.-]*)\\*["']?(?P<sign>\s*(?:=>|:=|[=:])\s*)(?:\\+["'](?P<escaped>[^"'\\]+)|"(?P<double>(?:[^"\\]|\\.)+)|'(?P<single>[^']+)|(?P<bare>[^\s,;&"'\\{{\[(<}}\])]+))"#
    );
    let flags =
        format!(r#"(?i)(?P<key>--[a-z0-9-]*{NAMES}[a-z0-9-]*)(?P<sign>\s+)["']?(?P<bare>[^\s"'-][^\s"']*)"#);
    vec![
        (
            Kind::PrivateKey,
            r"(?P<secret>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z))".into(),
            always,
        ),
        (
            Kind::Url,
            r#"(?i)\b[a-z][a-z0-9+.-]*://(?P<secret>(?P<user>[^\s/?#:@"'<>]*)(?P<password>:[^\s/?#"'<>]*)?)@"#.into(),
            judge::user_info,
        ),
        (Kind::Url, r"\b[A-Za-z0-9_.-]+:(?P<secret>[^\s@/:]+)@(?:tcp|unix|udp)\(".into(), always),
        (
            Kind::Url,
            r"(?i)(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/(?P<secret>[A-Za-z0-9/_-]{16,})".into(),
            always,
        ),
        (
            Kind::Authorization,
            r#"(?i)\b(?:proxy-)?authorization\\*["']?\s*[:=]\s*\[?\\*["']?(?P<secret>(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?[^\s"'\\,\]]{6,})"#.into(),
            judge::authorization,
        ),
        (Kind::Jwt, r"\b(?P<secret>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,3})".into(), always),
        (Kind::Authorization, r"(?i)\b(?:bearer|basic)\s+(?P<secret>[a-z0-9._~+/=-]{12,})".into(), judge::mixed),
        (Kind::CloudKey, r"\b(?P<secret>(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{16})\b".into(), always),
        (
            Kind::CloudKey,
            r"\b(?P<secret>AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,}|dop_v1_[a-f0-9]{40,})".into(),
            always,
        ),
        (
            Kind::VendorToken,
            r"\b(?P<secret>gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9_-]{24,}|hv[sb]\.[A-Za-z0-9_-]{20,}|pypi-[A-Za-z0-9_-]{40,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}|shp(?:at|ss|ca)_[a-fA-F0-9]{32})".into(),
            always,
        ),
        (Kind::Pair, pairs, judge::pair),
        (Kind::Pair, flags, judge::pair),
    ]
}

// === impl Kind ===

impl Kind {
    /// As a label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::Url => "url",
            Self::Authorization => "authorization",
            Self::Jwt => "jwt",
            Self::CloudKey => "cloud_key",
            Self::VendorToken => "vendor_token",
            Self::Pair => "pair",
        }
    }
}

// === impl Redactor ===

impl Redactor {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// None can come from outside: the patterns are this module's own.
    pub fn new() -> Result<Self, regex::Error> {
        // The automata are built as they are needed, up to this size: the agent's memory is counted.
        const AUTOMATON: usize = 512 * 1024;
        let sources = sources();
        let set = RegexSetBuilder::new(sources.iter().map(|(_, source, _)| source))
            .dfa_size_limit(AUTOMATON)
            .build()?;
        let patterns = sources
            .into_iter()
            .map(|(kind, source, judge)| {
                let regex = RegexBuilder::new(&source).dfa_size_limit(AUTOMATON).build()?;
                Ok(Pattern { kind, regex, judge })
            })
            .collect::<Result<_, regex::Error>>()?;
        Ok(Self {
            set,
            patterns,
            begin: Regex::new(
                r"-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE|PUBLIC KEY)(?: BLOCK)?-----",
            )?,
            end: Regex::new(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")?,
            body: Regex::new(r"^\s*[A-Za-z0-9+/]{16,}={0,2}\s*$")?,
        })
    }

    /// One text, such as a termination message.
    pub fn text<'a>(&self, text: &'a str, counts: &mut Counts) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for index in self.set.matches(&text) {
            if let Some(pattern) = self.patterns.get(index)
                && let Some(replaced) = pattern.replace(&text, counts)
            {
                text = Cow::Owned(replaced);
            }
        }
        text
    }

    /// The values of a map, such as a pod's annotations.
    pub fn values(&self, map: &mut BTreeMap<String, String>, counts: &mut Counts) {
        for value in map.values_mut() {
            if let Cow::Owned(text) = self.text(value, counts) {
                *value = text;
            }
        }
    }

    /// Lines of one log, where a key may be spread over several.
    pub fn lines(&self, lines: &mut [LogLine], counts: &mut Counts) {
        for stderr in [false, true] {
            let mut stream: Vec<&mut LogLine> =
                lines.iter_mut().filter(|line| line.stderr == stderr).collect();
            self.blocks(&mut stream, counts);
        }
        for line in lines {
            if let Cow::Owned(text) = self.text(&line.text, counts) {
                line.text = text;
            }
        }
    }

    /// Private keys whose lines are lines of the log, also where the first or last of them are not there.
    fn blocks(&self, lines: &mut [&mut LogLine], counts: &mut Counts) {
        let mut index = 0;
        while index < lines.len() {
            let text = &lines[index].text;
            if let Some(begin) = self.begin.find(text) {
                let private = begin.as_str().contains("PRIVATE");
                let until = begin.end();
                if self.end.is_match(&text[until..]) {
                    index += 1;
                    continue;
                }
                if private {
                    lines[index].text.truncate(begin.start());
                    lines[index].text.push_str(REDACTED);
                    *counts.entry(Kind::PrivateKey).or_default() += 1;
                }
                index += 1;
                while index < lines.len() {
                    let text = &lines[index].text;
                    let last = text.contains("-----END ");
                    // Headers of an encrypted key, an empty line, and then the body.
                    if !last && !self.body.is_match(text) && text.contains(' ') && !text.contains(": ") {
                        break;
                    }
                    if private {
                        REDACTED.clone_into(&mut lines[index].text);
                    }
                    index += 1;
                    if last {
                        break;
                    }
                }
            } else if self.end.is_match(text) {
                let first = lines[..index]
                    .iter()
                    .rposition(|line| !self.body.is_match(&line.text))
                    .map_or(0, |at| at + 1);
                for line in &mut lines[first..=index] {
                    REDACTED.clone_into(&mut line.text);
                }
                *counts.entry(Kind::PrivateKey).or_default() += 1;
                index += 1;
            } else if judge::begins_a_key(text) && self.body.is_match(text) {
                while index < lines.len() && self.body.is_match(&lines[index].text) {
                    REDACTED.clone_into(&mut lines[index].text);
                    index += 1;
                }
                *counts.entry(Kind::PrivateKey).or_default() += 1;
                if let Some(line) = lines.get_mut(index)
                    && self.end.is_match(&line.text)
                {
                    REDACTED.clone_into(&mut line.text);
                    index += 1;
                }
            } else {
                index += 1;
            }
        }
    }
}

// === impl Pattern ===

impl Pattern {
    /// `None`: nothing to replace.
    fn replace(&self, text: &str, counts: &mut Counts) -> Option<String> {
        let mut replaced = String::new();
        let mut copied = 0;
        for captures in self.regex.captures_iter(text) {
            let secret = ["secret", "escaped", "double", "single", "bare"]
                .into_iter()
                .find_map(|name| captures.name(name));
            let Some(secret) = secret else { continue };
            if secret.as_str().contains(REDACTED.trim_end_matches(']')) || !(self.judge)(&captures) {
                continue;
            }
            *counts.entry(self.kind).or_default() += 1;
            replaced.push_str(&text[copied..secret.start()]);
            replaced.push_str(REDACTED);
            copied = secret.end();
        }
        if copied == 0 {
            return None;
        }
        replaced.push_str(&text[copied..]);
        Some(replaced)
    }
}

#[cfg(test)]
mod tests;
