//! A client of the API, and the API on loopback as the aggregator puts it together.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nodetap_aggregator::history::History;
use nodetap_aggregator::history::api::{Api, Client, Limits, Metrics, Settings};
use nodetap_aggregator::journal::Journal;
use nodetap_wire::tls::Files;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Identity};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The API, served.
pub struct Served {
    pub api: Api,
    pub metrics: Metrics,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub authority: Authority,
    /// The server's files, and `token` beside them.
    pub identity: Identity,
    pub running: tokio::task::JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body broke off.
    pub is_cut: bool,
}

/// Server-sent events.
pub struct Tail {
    pub body: Incoming,
    buffer: String,
}

/// One event.
#[derive(Debug, PartialEq)]
pub struct Sent {
    pub id: Option<u64>,
    pub event: String,
    pub data: Value,
}

impl Served {
    pub async fn start(history: impl History + Journal) -> Self {
        Self::start_as(history, Limits::default(), &[]).await
    }

    pub async fn start_as(history: impl History + Journal, limits: Limits, clients: &[&str]) -> Self {
        let authority = Authority::new();
        let identity = authority.server("nodetap-aggregator");
        identity.put("token", &format!("{TOKEN}\n"));
        let settings = Settings {
            files: Files {
                ca: identity.path("ca.crt"),
                certificate: identity.path("tls.crt"),
                key: identity.path("tls.key"),
            },
            token_files: vec![identity.path("token")],
            clients: clients.iter().map(|client| Client::parse(client).unwrap()).collect(),
            cluster: "c".to_owned(),
            limits,
        };
        let metrics = Metrics::default();
        let api = Api::build(settings, metrics.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(api.clone().run(listener, history, stop.clone()));
        Self { api, metrics, address, stop, authority, identity, running }
    }

    /// GET with the token.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_as(path, &[("authorization", &format!("Bearer {TOKEN}"))], None).await
    }

    /// GET with the token, of an answer that is good, as JSON.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn get_as(&self, path: &str, headers: &[(&str, &str)], identity: Option<&Identity>) -> Answer {
        self.send(Method::GET, path, headers, identity).await.unwrap()
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        identity: Option<&Identity>,
    ) -> Result<Answer, String> {
        let (head, mut body) = self.begin(method, path, headers, identity).await?.into_parts();
        let (mut bytes, mut is_cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    is_cut = true;
                    break;
                }
            }
        }
        Ok(Answer { status: head.status, headers: head.headers, body: bytes.into(), is_cut })
    }

    /// Opens a tail with the token.
    pub async fn tail(&self, path: &str, last_event_id: Option<u64>) -> Tail {
        let bearer = format!("Bearer {TOKEN}");
        let id = last_event_id.map(|id| id.to_string());
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(id.as_deref().map(|id| ("last-event-id", id)));
        let response = self.begin(Method::GET, path, &headers, None).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Tail { body: response.into_body(), buffer: String::new() }
    }

    pub async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        identity: Option<&Identity>,
    ) -> Result<http::Response<Incoming>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.identity.path("ca.crt")).unwrap()).unwrap();
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let certificate = CertificateDer::from_pem_file(identity.path("tls.crt")).unwrap();
                let key = PrivateKeyDer::from_pem_file(identity.path("tls.key")).unwrap();
                config.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let tcp = TcpStream::connect(self.address).await.map_err(|error| said(&error))?;
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("nodetap-aggregator").unwrap();
        let tls =
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| said(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await;
        let (mut sender, connection) = handshake.map_err(|error| said(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "nodetap-aggregator");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| said(&error))?;
        let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
        Ok(response)
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Of a page of records.
    pub fn positions(&self) -> Vec<u64> {
        assert_eq!(self.status, 200, "{}", self.text());
        positions(&self.json())
    }

    /// Of a refusal.
    pub fn message(&self) -> String {
        let error = self.json()["error"].clone();
        assert!(error["code"].is_string());
        error["message"].as_str().unwrap().to_owned()
    }
}

pub fn positions(page: &Value) -> Vec<u64> {
    page["records"].as_array().unwrap().iter().map(|row| row["position"].as_u64().unwrap()).collect()
}

impl Tail {
    /// The next block of any kind; none at a clean end.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let sent = Sent {
                    id: field("id: ").map(|id| id.parse().unwrap()),
                    event: field("event: ").unwrap_or_default(),
                    data: field("data: ")
                        .map(|data| serde_json::from_str(&data).unwrap())
                        .unwrap_or_default(),
                };
                self.buffer = rest.to_owned();
                return Some(sent);
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer += std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap();
        }
    }

    /// The next event with a name.
    pub async fn event(&mut self) -> Sent {
        loop {
            let sent = self.next().await.expect("the tail has ended");
            if !sent.event.is_empty() {
                return sent;
            }
        }
    }
}
