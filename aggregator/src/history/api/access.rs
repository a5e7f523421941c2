//! Who may read: whoever has a token of the configured files, or a client certificate of a configured name.
//!
//! An agent's certificate is never enough, whatever names are configured: a node that was broken into must not read what all the
//! others said.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use nodetap_runtime::reloading::{Reloading, Source};
use nodetap_wire::tls::NODE_URI;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::answer::Refusal;
use super::metrics::{AccessLabel, Metrics, NoAccess};

/// Judges requests.
#[derive(Clone, Debug)]
pub(super) struct Access {
    tokens: Option<Reloading<TokenFiles>>,
    clients: Vec<Client>,
    metrics: Metrics,
}

/// Whom a client certificate may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// The subject's common name.
    CommonName(String),
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
    /// An e-mail address.
    Email(String),
}

/// By what a request was let in, to be judged again while its answer goes on.
#[derive(Clone, Debug)]
pub(super) enum Grant {
    /// A token, which may be taken back.
    Token(Secret),
    /// A certificate, which was good when the connection was made.
    Certificate {
        /// In seconds since 1970.
        not_after: i64,
    },
}

/// A token. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

/// Files with a token on each line.
#[derive(Debug)]
pub(super) struct TokenFiles(Vec<PathBuf>);

/// Why a file's tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}; make it readable, or take it out of history.tokenFiles")]
    Unreadable {
        /// Where it is.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line is no token.
    #[error(
        "{path}, line {line}, is no token: {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters, such as `openssl rand -hex 32` makes"
    )]
    NoToken {
        /// Where it is.
        path: String,
        /// From 1.
        line: usize,
    },
    /// Much longer than any list of tokens.
    #[error("{path} has more than {MAX_FILE} bytes: expected a token on each line")]
    TooLong {
        /// Where it is.
        path: String,
    },
}

/// Shorter ones can be guessed.
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 4_096;
const MAX_FILE: u64 = 64 << 10;

const EXPIRED: &str = "the client certificate has expired: connect with a new one, or send a token";

// === impl Access ===

impl Access {
    /// Reads the tokens.
    ///
    /// # Errors
    /// Where a file holds something else. One that is not there has no tokens until it is.
    pub(super) fn load(
        files: Vec<PathBuf>,
        clients: Vec<Client>,
        metrics: Metrics,
    ) -> Result<Self, TokenError> {
        let tokens = match files.is_empty() {
            true => None,
            false => {
                for file in files.iter().filter(|file| !file.exists()) {
                    let file = file.display();
                    tracing::warn!(%file, "no such file: until it is there, its token lets nobody read the history");
                }
                Some(Reloading::load(TokenFiles(files), metrics.tokens.clone())?)
            }
        };
        Ok(Self { tokens, clients, metrics })
    }

    /// Looks at the token files. Answers whether there was something new.
    pub(super) fn refresh(&self) -> bool {
        self.tokens.as_ref().is_some_and(Reloading::refresh)
    }

    /// Follows the token files for ever.
    pub(super) async fn follow(&self) {
        match &self.tokens {
            Some(tokens) => tokens.follow().await,
            None => std::future::pending().await,
        }
    }

    /// Judges a request. A token that is sent counts alone; the certificate counts where none is.
    pub(super) fn judge(
        &self,
        headers: &HeaderMap,
        certificate: Option<&CertificateDer<'_>>,
        now_ns: i64,
    ) -> Result<Grant, Refusal> {
        match (headers.get(AUTHORIZATION), certificate) {
            (Some(header), _) => {
                let bytes = header.as_bytes();
                let token = bytes
                    .split_at_checked(7)
                    .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
                    .map(|(_, token)| Secret(token.trim_ascii().to_vec()));
                match token {
                    Some(token) if self.knows(&token) => Ok(Grant::Token(token)),
                    Some(_) => Err(self.refuse(
                        NoAccess::token,
                        "the bearer token is none of those in the files of history.tokenFiles: ask for the one that is",
                    )),
                    None => Err(self.refuse(
                        NoAccess::token,
                        "expected the header `Authorization: Bearer TOKEN`, with a token of history.tokenFiles",
                    )),
                }
            }
            (None, Some(certificate)) => self.judge_certificate(certificate, now_ns),
            (None, None) => Err(self.refuse(
                NoAccess::nothing_presented,
                "send the header `Authorization: Bearer TOKEN`, with a token of history.tokenFiles, or a client certificate that history.clients names",
            )),
        }
    }

    /// Whether what was granted still is.
    pub(super) fn still_grants(&self, grant: &Grant, now_ns: i64) -> bool {
        match grant {
            Grant::Token(token) => self.knows(token),
            Grant::Certificate { not_after } => is_before(now_ns, *not_after),
        }
    }

    fn knows(&self, token: &Secret) -> bool {
        let Some(tokens) = &self.tokens else { return false };
        // All are compared, so that time does not tell which.
        tokens.get().iter().fold(false, |known, one| one.is(token) | known)
    }

    fn judge_certificate(&self, certificate: &CertificateDer<'_>, now_ns: i64) -> Result<Grant, Refusal> {
        let (names, not_after) = read_certificate(certificate).unwrap_or_default();
        let is_agent = names.iter().any(|name| matches!(name, Client::Uri(uri) if uri.starts_with(NODE_URI)));
        if is_agent {
            return Err(self.refuse(
                NoAccess::certificate,
                "this is an agent's certificate, which is for handing over and not for reading: use another, or a token",
            ));
        }
        if names.iter().any(|name| self.clients.contains(name)) {
            // The connection may be older than its end.
            return match is_before(now_ns, not_after) {
                true => Ok(Grant::Certificate { not_after }),
                false => Err(self.refuse(NoAccess::certificate, EXPIRED)),
            };
        }
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let message = format!(
            "the client certificate names {}, which history.clients does not: add it there, or send a token",
            if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
        );
        Err(self.refuse(NoAccess::certificate, message))
    }

    fn refuse(&self, reason: NoAccess, message: impl Into<String>) -> Refusal {
        self.metrics.refused.get_or_create(&AccessLabel { reason }).inc();
        match reason {
            NoAccess::certificate => Refusal::new(StatusCode::FORBIDDEN, "forbidden", message),
            _ => Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message),
        }
    }
}

fn is_before(now_ns: i64, not_after: i64) -> bool {
    now_ns.div_euclid(1_000_000_000) <= not_after
}

/// Everything that a certificate calls its holder, and when it ends, in seconds since 1970.
fn read_certificate(certificate: &CertificateDer<'_>) -> Option<(Vec<Client>, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names: Vec<Client> = Vec::new();
    for name in parsed.subject().iter_common_name() {
        names.extend(name.as_str().ok().map(|name| Client::CommonName(name.to_owned())));
    }
    let others = parsed.subject_alternative_name().ok()?;
    for name in others.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(Client::Dns((*name).to_owned())),
            GeneralName::URI(name) => names.push(Client::Uri((*name).to_owned())),
            GeneralName::RFC822Name(name) => names.push(Client::Email((*name).to_owned())),
            _ => {}
        }
    }
    Some((names, parsed.validity().not_after.timestamp()))
}

// === impl Client ===

impl Client {
    /// `CN=alice`, `DNS:grafana.monitoring.svc`, `URI:spiffe://cluster/ns/sa` or `email:alice@example.com`.
    ///
    /// # Errors
    /// A message that says how one is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest =
            |prefix| text.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty()).map(str::to_owned);
        let client = rest("CN=")
            .map(Self::CommonName)
            .or_else(|| rest("DNS:").map(Self::Dns))
            .or_else(|| rest("URI:").map(Self::Uri))
            .or_else(|| rest("email:").map(Self::Email));
        match client {
            Some(Self::Uri(uri)) if uri.starts_with(NODE_URI) => {
                Err(format!("{text} is an agent's, which may not read the history; name another certificate"))
            }
            Some(client) => Ok(client),
            None => Err(format!(
                "{text:?} names no client: write CN=name, DNS:name, URI:uri or email:address, as its certificate has it"
            )),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "CN={name}"),
            Self::Dns(name) => write!(f, "DNS:{name}"),
            Self::Uri(name) => write!(f, "URI:{name}"),
            Self::Email(name) => write!(f, "email:{name}"),
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Compares in a time that depends on the lengths alone.
    fn is(&self, other: &Self) -> bool {
        if self.0.len() != other.0.len() {
            return false;
        }
        let differs = self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// === impl TokenFiles ===

impl Source for TokenFiles {
    type Contents = Vec<Secret>;
    type Made = Vec<Secret>;
    type Error = TokenError;

    const WHAT: &'static str = "tokens of the history";

    fn read(&self) -> Result<Vec<Secret>, TokenError> {
        self.0.iter().map(read).collect()
    }

    fn make(&self, contents: &Vec<Secret>) -> Result<Vec<Secret>, TokenError> {
        let mut tokens = Vec::new();
        for (Secret(content), path) in contents.iter().zip(&self.0) {
            for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
                let token = line.trim_ascii();
                let fits = (MIN_TOKEN..=MAX_TOKEN).contains(&token.len());
                match token {
                    [] => {}
                    _ if fits && token.iter().all(u8::is_ascii_graphic) => {
                        tokens.push(Secret(token.to_vec()))
                    }
                    _ => {
                        let path = path.display().to_string();
                        return Err(TokenError::NoToken { path, line: index + 1 });
                    }
                }
            }
        }
        Ok(tokens)
    }
}

/// A file that is not there has nothing in it: its token was taken back, or is still to come.
fn read(path: &PathBuf) -> Result<Secret, TokenError> {
    let unreadable = |error| TokenError::Unreadable { path: path.display().to_string(), error };
    let mut content = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(error)),
    };
    if content.len() as u64 > MAX_FILE {
        return Err(TokenError::TooLong { path: path.display().to_string() });
    }
    Ok(Secret(content))
}

#[cfg(test)]
mod tests;
