//! Takes the plainest secrets out of text before it leaves the node.
//!
//! One linear pass for a few dozen words tells what a text could hold (see `hints`): clean text is scanned once. Only what it
//! could hold is looked for and replaced by `[redacted]`, and counted by kind. Uuids, digests and hashes that stand alone are left
//! as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nodetap_wire::LogLine;
use regex::{Captures, Regex, RegexBuilder};

use hints::{Hints, Suspect};
use named::Named;

pub mod command;
mod hints;
mod judge;
pub mod named;

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
    /// The values of a `Cookie` or `Set-Cookie` header.
    Cookie,
    /// What a password is kept as: bcrypt, argon2 and those of crypt(3).
    PasswordHash,
    /// A pattern of the configuration, by its place there; [`Redactor::name`] names it.
    Named(u16),
}

/// How often each kind was found.
pub type Counts = BTreeMap<Kind, u64>;

/// The patterns, compiled.
#[derive(Debug)]
pub struct Redactor {
    hints: Hints,
    /// In the order of [`hints::Looked`].
    patterns: Vec<Pattern>,
    named: Named,
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

/// Tokens whose vendor gave them a prefix, or another mark.
const VENDORS: &str = r"\b(?P<secret>gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|gl(?:pat|rt|dt|cbt|ptt|ft|soat|oas)-[A-Za-z0-9_-]{20,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{16,}|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}={0,2}|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9_-]{24,}|hv[sb]\.[A-Za-z0-9_-]{20,}|pypi-[A-Za-z0-9_-]{40,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}|shp(?:at|ss|ca)_[a-fA-F0-9]{32}|hf_[A-Za-z0-9]{30,}|dckr_pat_[A-Za-z0-9_-]{20,}|NRAK-[A-Z0-9]{27}|glsa_[A-Za-z0-9_]{32,}|glc_[A-Za-z0-9+/=]{32,}|rubygems_[a-f0-9]{48}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{40,}|dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9]{40,}|lin_api_[A-Za-z0-9]{30,}|sq0(?:atp|csp)-[A-Za-z0-9_-]{22,}|sntrys_[A-Za-z0-9+/=_-]{24,}|PMAK-[a-f0-9]{24}-[a-f0-9]{34}|tskey-[a-z]+-[A-Za-z0-9-]{16,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{33})";

/// In each: `secret` is what is replaced. The order matters: what an earlier one replaced, a later one leaves alone.
fn sources() -> [(Kind, String, Judge); hints::LOOKED] {
    let always: Judge = |_| true;
    let pairs = format!(
        r#"(?i)(?P<key>[a-z0-9_.-]*{NAMES}[a-z0-9_.-]*)\\*["']?(?P<sign>\s*(?:=>|:=|[=:])\s*)(?:\\+["'](?P<escaped>[^"'\\]+)|"(?P<double>(?:[^"\\]|\\.)+)|'(?P<single>[^']+)|(?P<bare>[^\s,;&"'\\{{\[(<}}\])]+))"#
    );
    let flags =
        format!(r#"(?i)(?P<key>--[a-z0-9-]*{NAMES}[a-z0-9-]*)(?P<sign>\s+)["']?(?P<bare>[^\s"'-][^\s"']*)"#);
    [
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
        (Kind::Cookie, r#"(?i)\b(?:set-)?cookie\\*["']?\s*[:=]\s*\[?\\*["']?(?P<secret>[^\r\n"'\\\]]+)"#.into(), judge::cookie),
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
            r"(?P<secret>\bAIza[A-Za-z0-9_-]{35}|\bya29\.[A-Za-z0-9_-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{20,}|\bdo[opr]_v1_[a-f0-9]{40,}|\bdapi[a-f0-9]{32}\b|\b[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})".into(),
            always,
        ),
        (Kind::CloudKey, r"(?i)[?&]sig=(?P<secret>[a-z0-9%+/_-]{20,}=*)".into(), always),
        (Kind::VendorToken, VENDORS.into(), always),
        (Kind::PasswordHash, r"(?P<secret>\$(?:2[abxy]|5|6|y|argon2(?:id|i|d))\$[./A-Za-z0-9$,=+-]{20,})".into(), always),
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
            Self::Cookie => "cookie",
            Self::PasswordHash => "password_hash",
            Self::Named(_) => "named",
        }
    }
}

// === impl Redactor ===

impl Redactor {
    /// Compiles the patterns, without any of the configuration's.
    ///
    /// # Errors
    /// None can come from outside: the patterns are this module's own.
    pub fn new() -> Result<Self, regex::Error> {
        Self::with(Named::default())
    }

    /// The same, with patterns of the configuration, which are looked for last.
    ///
    /// # Errors
    /// None can come from outside: the patterns are this module's own, and those of the configuration have been read.
    pub fn with(named: Named) -> Result<Self, regex::Error> {
        // The automata are built as they are needed, up to this size: the agent's memory is counted.
        const AUTOMATON: usize = 512 * 1024;
        let patterns = sources()
            .into_iter()
            .map(|(kind, source, judge)| {
                let regex = RegexBuilder::new(&source).dfa_size_limit(AUTOMATON).build()?;
                Ok(Pattern { kind, regex, judge })
            })
            .collect::<Result<_, regex::Error>>()?;
        Ok(Self {
            hints: Hints::new().map_err(|error| regex::Error::Syntax(error.to_string()))?,
            patterns,
            named,
            begin: Regex::new(
                r"-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE|PUBLIC KEY)(?: BLOCK)?-----",
            )?,
            end: Regex::new(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")?,
            body: Regex::new(r"^\s*[A-Za-z0-9+/]{16,}={0,2}\s*$")?,
        })
    }

    /// A kind as a label's value: for one of the configuration the name that it has there.
    pub fn name(&self, kind: Kind) -> &str {
        match kind {
            Kind::Named(index) => self.named.name(index),
            kind => kind.name(),
        }
    }

    /// The first line of a text of many, from `from` on, that is to be looked at more closely; with patterns of the configuration, any.
    fn suspect(&self, text: &str, from: usize) -> Option<Suspect> {
        if self.named.is_empty() { self.hints.suspect(text, from) } else { Some(Suspect::Key) }
    }

    /// One text, such as a termination message.
    pub fn text<'a>(&self, text: &'a str, counts: &mut Counts) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        let looked = self.hints.of(&text);
        if !looked.is_empty() {
            for (index, pattern) in self.patterns.iter().enumerate() {
                if looked.has(index)
                    && let Some(replaced) = pattern.replace(&text, counts)
                {
                    text = Cow::Owned(replaced);
                }
            }
        }
        for index in self.named.matches(&text) {
            if let Some(replaced) = self.named.replace(index, &text, counts) {
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
        let may_hold = |line: &&mut LogLine| line.text.contains("-----") || judge::begins_a_key(&line.text);
        if !lines.iter().any(may_hold) {
            return;
        }
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
            if is_redacted(secret.as_str()) || !(self.judge)(&captures) {
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

fn is_redacted(secret: &str) -> bool {
    secret.contains(REDACTED.trim_end_matches(']'))
}

#[cfg(test)]
mod tests;
