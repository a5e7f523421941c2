//! A receiver on loopback that answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What came.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// What to answer.
pub enum Reply {
    Status(u16),
    Text(u16, &'static str),
    RetryAfter(u16, &'static str),
    Hang,
}

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

type Script = Arc<Mutex<dyn FnMut(&Got) -> Reply + Send>>;

impl Server {
    /// Listens and answers by `script`.
    pub async fn start(script: impl FnMut(&Got) -> Reply + Send + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), None, script).await
    }

    /// Listens and answers with a status whenever `script` comes to one.
    pub async fn start_slow<F>(script: impl Fn(&Got) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = u16> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let (script, own) = (Arc::new(script), server.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, script) = (own.clone(), Arc::clone(&script));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (server, script) = (server.clone(), Arc::clone(&script));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let body = String::from_utf8(body.to_vec()).unwrap();
                        let got = Got { path: parts.uri.to_string(), headers: parts.headers, body };
                        let status = script(&got).await;
                        server.got.lock().unwrap().push(got);
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(response)
                    }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    pub async fn listen(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        script: impl FnMut(&Got) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let script: Script = Arc::new(Mutex::new(script));
        let own = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, script, tls) = (own.clone(), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.serve(stream, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.serve(stream, script).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, script: Script) {
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, script) = (self.clone(), Arc::clone(&script));
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let got = Got {
                    path: parts.uri.to_string(),
                    headers: parts.headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                let reply = (script.lock().unwrap())(&got);
                server.got.lock().unwrap().push(got);
                let mut response = Response::new(Full::new(Bytes::new()));
                match reply {
                    Reply::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
                    Reply::Text(status, text) => {
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        *response.body_mut() = Full::from(text);
                    }
                    Reply::RetryAfter(status, after) => {
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        response.headers_mut().insert("retry-after", after.parse().unwrap());
                    }
                    Reply::Hang => std::future::pending().await,
                }
                Ok::<_, Infallible>(response)
            }
        });
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.got().into_iter().map(|got| got.body).collect()
    }
}
