//! The client of the API server, shared by what watches events and what taps the node.
//!
//! Retries nothing by itself: whoever asks decides when to ask again. Connecting has a timeout here; the time until an
//! answer begins, and between its parts, is the asker's to bound.

pub mod requests;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use hyper::body::Incoming;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use tonic::codegen::{Service, StdError};

/// A connection that is not there by then is tried anew.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After what silence a peer is gone. A watch of few events says nothing for minutes, and an API server whose node is gone says no
/// more than that: the kernel asks the other kernel, of which the API server itself hears nothing.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// A connection on which nothing comes is asked about after so long.
    idle: Duration,
    /// And then each so often.
    interval: Duration,
    /// It is gone after so many without an answer.
    probes: u32,
    /// It is gone as well when what was sent is not acknowledged for so long: a request is a few hundred bytes. Linux ends a
    /// connection by this time instead of the number of probes where both are given; it lies before the probe that would be one
    /// too many, as a timer may fire a little early.
    unacknowledged: Duration,
}

/// 11 s: nobody waits for it.
const PATIENT: Silence = Silence {
    idle: Duration::from_secs(5),
    interval: Duration::from_secs(2),
    probes: 3,
    unacknowledged: Duration::from_millis(10_500),
};

/// 3 s, two lost probes: a holder of event watches is to be replaced within 5 s. A packet a second and silent watch, of which there
/// are few; a watch that is ended for nothing goes on where it was.
const IMPATIENT: Silence = Silence {
    idle: Duration::from_secs(1),
    interval: Duration::from_secs(1),
    probes: 2,
    unacknowledged: Duration::from_millis(2_500),
};

/// What the kubelet and kubectl set in every pod.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How to reach the cluster, and as whom.
#[derive(Clone)]
pub struct KubernetesAccess {
    /// Speaks to the API server.
    pub client: Client,
    /// The same, and knows within 3 s that the API server is gone: for the event watches, which others take over then.
    pub watches: Client,
    config: Config,
    token: Arc<Token>,
}

/// Whom a server must prove to be.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The cluster's CA, as for the API server; read again when its file changes.
    Cluster,
    /// One of the CAs of this PEM bundle.
    Bundle(Vec<u8>),
    /// Anybody at all.
    Anybody,
}

/// Why the cluster cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No kubeconfig, and no service account either.
    #[error("not in a cluster ({SERVICE_HOST} is not set): name a kubeconfig with --kubeconfig")]
    Nowhere,
    /// The service account's files or variables cannot be used.
    #[error("the pod's service account cannot be used: {0}")]
    InCluster(#[from] InClusterError),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path} cannot be used: {error}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<KubeconfigError>,
    },
    /// TLS or credentials do not make a client.
    #[error("no client can be made for {url}: {error}")]
    Client {
        /// The server.
        url: String,
        /// What is wrong.
        error: Box<kube::Error>,
    },
    /// There is a proxy, which this agent does not speak through.
    #[error(
        "the API server {url} is to be reached by the proxy {proxy}, and this agent uses none: remove proxy-url from the kubeconfig, or HTTPS_PROXY from the agent's environment, and let it connect by itself"
    )]
    Proxy {
        /// The server.
        url: String,
        /// The proxy's host and port.
        proxy: String,
    },
    /// A file of credentials or trust cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A bundle without a certificate.
    #[error("a CA bundle without a PEM certificate: {0}")]
    NoCertificate(String),
}

/// Where the bearer token comes from.
enum Token {
    /// The user has none: a client certificate, an exec plugin, or nobody.
    None,
    Fixed(String),
    /// Rotated by the kubelet; the last one read goes on counting while the file cannot be read.
    File {
        path: PathBuf,
        last: Mutex<String>,
    },
}

/// An HTTP client whose errors are boxed, as kube's layers want them.
#[derive(Clone)]
struct Http<C> {
    client: hyper_util::client::legacy::Client<C, Body>,
    token: Arc<Token>,
}

// === impl KubernetesAccess ===

impl KubernetesAccess {
    /// From a kubeconfig where one is named, else from the pod's service account.
    ///
    /// # Errors
    /// Where neither is there, or what is there cannot be used.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, AccessError> {
        let config = match kubeconfig {
            Some(path) => read_kubeconfig(path)
                .await
                .map_err(|error| AccessError::Kubeconfig { path: path.to_owned(), error })?,
            None if std::env::var_os(SERVICE_HOST).is_some() => Config::incluster_env()?,
            None => return Err(AccessError::Nowhere),
        };
        Self::from_config(config)
    }

    /// From a kube configuration, as tests and tools make one.
    ///
    /// # Errors
    /// Where its TLS settings, credentials or files cannot be used.
    pub fn from_config(mut config: Config) -> Result<Self, AccessError> {
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = None;
        if let Some(proxy) = &config.proxy_url {
            // Without the user and password that may stand before it.
            let proxy = format!("{}:{}", proxy.host().unwrap_or_default(), proxy.port_u16().unwrap_or(80));
            return Err(AccessError::Proxy { url: config.cluster_url.to_string(), proxy });
        }
        let token = Arc::new(Token::of(&config)?);
        let [patient, impatient] = [PATIENT, IMPATIENT].map(|silence| client(&config, &token, silence));
        Ok(Self { client: patient?, watches: impatient?, config, token })
    }

    /// A client for another server of the cluster, such as a kubelet, with the same credentials.
    ///
    /// # Errors
    /// Where the trust or the credentials do not make a client.
    pub fn client_at(&self, server: http::Uri, trust: &Trust) -> Result<Client, AccessError> {
        let mut config = self.config.clone();
        config.cluster_url = server;
        config.tls_server_name = None;
        match trust {
            // Whether the API server is verified says nothing about this server.
            Trust::Cluster => config.accept_invalid_certs = false,
            Trust::Bundle(pem) => {
                config.root_cert = Some(certificates(pem)?.iter().map(|der| der.to_vec()).collect());
                config.root_cert_file = None;
                config.accept_invalid_certs = false;
            }
            Trust::Anybody => config.accept_invalid_certs = true,
        }
        client(&config, &self.token, PATIENT)
    }

    /// The cluster's CA bundle in PEM, as it is now; `None` where the configuration names none.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn ca_pem(&self) -> Result<Option<Vec<u8>>, AccessError> {
        if let Some(path) = &self.config.root_cert_file {
            let read = std::fs::read(path);
            return read.map(Some).map_err(|error| AccessError::Unreadable { path: path.clone(), error });
        }
        Ok(self.config.root_cert.as_ref().map(|certificates| to_pem(certificates)))
    }

    /// The bearer token, as it is now; `None` where the user has none of its own (a client certificate, an exec plugin).
    pub fn token(&self) -> Option<String> {
        self.token.now()
    }

    /// The API server's address.
    pub fn server(&self) -> &http::Uri {
        &self.config.cluster_url
    }
}

impl std::fmt::Debug for KubernetesAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesAccess").field("server", self.server()).finish_non_exhaustive()
    }
}

// === impl Token ===

impl Token {
    fn of(config: &Config) -> Result<Self, AccessError> {
        // kube gives a secret away only to a serializer.
        let user = serde_json::to_value(&config.auth_info).unwrap_or_default();
        if let Some(token) = user.get("token").and_then(|token| token.as_str()) {
            return Ok(Self::Fixed(token.trim().to_owned()));
        }
        let Some(path) = config.auth_info.token_file.as_ref().map(PathBuf::from) else {
            return Ok(Self::None);
        };
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(Self::File { path, last: Mutex::new(token.trim().to_owned()) }),
            Err(error) => Err(AccessError::Unreadable { path, error }),
        }
    }

    fn now(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            Self::File { path, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                // One that is being written is empty for a moment.
                if let Ok(token) = std::fs::read_to_string(path)
                    && !token.trim().is_empty()
                {
                    token.trim().clone_into(&mut last);
                }
                Some(last.clone())
            }
        }
    }

    /// For a request, where it comes from a file.
    fn header(&self) -> Option<HeaderValue> {
        let Self::File { .. } = self else { return None };
        let mut header = HeaderValue::try_from(format!("Bearer {}", self.now()?)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

// === impl Http ===

impl<C> Service<http::Request<Body>> for Http<C>
where
    hyper_util::client::legacy::Client<C, Body>: Service<
            http::Request<Body>,
            Response = http::Response<Incoming>,
            Error = hyper_util::client::legacy::Error,
            Future: Send + 'static,
        >,
{
    type Response = http::Response<Incoming>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.client.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = self.token.header() {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let answered = self.client.call(request);
        Box::pin(async move { answered.await.map_err(Into::into) })
    }
}

/// Several files, separated as in `PATH`, are merged as kubectl does.
async fn read_kubeconfig(path: &Path) -> Result<Config, Box<KubeconfigError>> {
    let mut merged = Kubeconfig::default();
    for path in std::env::split_paths(path) {
        merged = merged.merge(Kubeconfig::read_from(path)?)?;
    }
    Ok(Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await?)
}

fn client(config: &Config, token: &Arc<Token>, silence: Silence) -> Result<Client, AccessError> {
    let url = || config.cluster_url.to_string();
    made(config, token, silence).map_err(|error| AccessError::Client { url: url(), error: Box::new(error) })
}

/// As kube makes one, but with connections that find out that their peer is gone, and with a token from a file as it
/// is at each request: kube reads it once a minute, and would go on for so long with one that is refused.
fn made(config: &Config, token: &Arc<Token>, silence: Silence) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    tcp.set_keepalive(Some(silence.idle));
    tcp.set_keepalive_interval(Some(silence.interval));
    tcp.set_keepalive_retries(Some(silence.probes));
    tcp.set_tcp_user_timeout(Some(silence.unacknowledged));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    // That of TCP is over when a peer accepts; one that then says nothing of TLS is given up here.
    let mut bounded = TimeoutConnector::new(tls);
    bounded.set_connect_timeout(config.connect_timeout);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(bounded);
    let bare =
        ClientBuilder::new(Http { client: http, token: Arc::clone(token) }, &*config.default_namespace)
            .with_layer(&config.extra_headers_layer()?);
    let uri = config.base_uri_layer();
    let auth = if let Token::File { .. } = **token { None } else { config.auth_layer()? };
    Ok(match auth {
        Some(auth) => bare.with_layer(&auth).with_layer(&uri).build(),
        None => bare.with_layer(&uri).build(),
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    use rustls_pki_types::pem::PemObject;

    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(AccessError::NoCertificate("it has none".to_owned()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(AccessError::NoCertificate(error.to_string())),
    }
}

fn to_pem(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut pem = String::new();
    for der in certificates {
        let base64 = serde_json::to_value(ByteString(der.clone())).unwrap_or_default();
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        // RFC 7468: lines of 64.
        for (place, character) in base64.as_str().unwrap_or_default().chars().enumerate() {
            if place > 0 && place % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    pem.into_bytes()
}

#[cfg(test)]
mod tests;
