//! A small HTTPS client for an API server or a kubelet: whom a kubeconfig names, and by which token or certificate.
//!
//! It is kept apart from nodetap's own, so that what it sees is evidence.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::Value;

/// Speaks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    ca: Bytes,
    token: Option<String>,
    http: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An answer that is read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, as it was sent.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// A watch, line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(rename = "current-context", default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

/// Longer than any answer to a request that is no watch takes.
const TIMEOUT: Duration = Duration::from_secs(60);

// === impl Client ===

impl Client {
    /// A client of a server whose certificate one of these CAs signed.
    ///
    /// # Errors
    /// The PEM cannot be read.
    pub fn new(base: &str, ca_pem: &[u8], token: Option<&str>) -> anyhow::Result<Self> {
        Self::with_identity(base, ca_pem, token, None)
    }

    /// The server, CA and identity that a kubeconfig's current context names.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be read; or it names a way to log in that is not known here.
    pub fn from_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Kubeconfig =
            serde_saphyr::from_str(&text).with_context(|| format!("{} is no kubeconfig", path.display()))?;
        let current = config.contexts.iter().find(|context| context.name == config.current_context);
        let current = current.with_context(|| format!("{} has no current context", path.display()))?;
        let cluster = config.clusters.iter().find(|cluster| cluster.name == current.context.cluster);
        let cluster = &cluster
            .with_context(|| format!("{}: the context's cluster is missing", path.display()))?
            .cluster;
        let user = config.users.iter().find(|user| user.name == current.context.user);
        let user = &user.with_context(|| format!("{}: the context's user is missing", path.display()))?.user;
        let ca = material(
            path,
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let ca =
            ca.with_context(|| format!("{}: the cluster has no certificate authority", path.display()))?;
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => Some(std::fs::read_to_string(beside(path, file))?.trim().to_owned()),
            (None, None) => None,
        };
        let certificate =
            material(path, user.client_certificate_data.as_deref(), user.client_certificate.as_deref())?;
        let key = material(path, user.client_key_data.as_deref(), user.client_key.as_deref())?;
        let identity = certificate.zip(key);
        anyhow::ensure!(
            token.is_some() || identity.is_some(),
            "{}: only tokens and client certificates are understood here",
            path.display()
        );
        let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        Self::with_identity(&cluster.server, &ca, token.as_deref(), identity)
    }

    fn with_identity(
        base: &str,
        ca_pem: &[u8],
        token: Option<&str>,
        identity: Option<(&[u8], &[u8])>,
    ) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
            }
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .build();
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        let ca = Bytes::copy_from_slice(ca_pem);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), ca, token: token.map(str::to_owned), http })
    }

    /// The same with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// One whom the server does not know, by a token that it never gave.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn stranger(&self) -> anyhow::Result<Self> {
        Self::new(&self.base, &self.ca, Some("of-nobody"))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The server cannot be reached, or breaks off.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let answer = async {
            let (head, body) = self.start(method, path, kind, body).await?.into_parts();
            let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.map(str::to_owned);
            Ok(Answer { status: head.status.as_u16(), retry_after, body: body.collect().await?.to_bytes() })
        };
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .with_context(|| format!("no whole answer to {path} in time"))?
    }

    /// GET
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    /// A GET whose answer comes line by line.
    ///
    /// # Errors
    /// As [`Self::send`]; or the answer is no 200.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Lines> {
        let response = self.start(Method::GET, path, "", Bytes::new()).await?;
        anyhow::ensure!(response.status() == 200, "{path} answered {}", response.status());
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    async fn start(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.header(header::USER_AGENT, "nodetap-bench/0").body(Full::new(body.into()))?;
        self.http.request(request).await.with_context(|| format!("cannot ask {}{path}", self.base))
    }
}

// === impl Answer ===

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

// === impl Lines ===

impl Lines {
    /// How many lines ended in what came next; `None` at the end. Not to be mixed with [`Self::next`].
    ///
    /// # Errors
    /// The connection broke.
    pub async fn count(&mut self) -> anyhow::Result<Option<usize>> {
        loop {
            match self.body.frame().await {
                Some(frame) => {
                    let Ok(data) = frame?.into_data() else { continue };
                    return Ok(Some(data.iter().filter(|byte| **byte == b'\n').count()));
                }
                None => return Ok(None),
            }
        }
    }

    /// The next line; `None` at a clean end.
    ///
    /// # Errors
    /// The connection broke, or the end came in the middle of a line.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => {
                    anyhow::ensure!(self.buffer.is_empty(), "the watch ended in the middle of a line");
                    return Ok(None);
                }
            }
        }
    }
}

fn material(kubeconfig: &Path, data: Option<&str>, file: Option<&str>) -> anyhow::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => {
            decode(data).map(Some).with_context(|| format!("{}: bad base64", kubeconfig.display()))
        }
        (None, Some(file)) => {
            let path = beside(kubeconfig, file);
            Ok(Some(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
        }
        (None, None) => Ok(None),
    }
}

/// A file that a kubeconfig names is relative to it.
fn beside(kubeconfig: &Path, file: &str) -> std::path::PathBuf {
    kubeconfig.parent().unwrap_or(Path::new("")).join(file)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut group, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| !letter.is_ascii_whitespace() && *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        group = (group << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    Some(bytes)
}
