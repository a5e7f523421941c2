//! A client that does not do as an agent would.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::Stream;
use hyper_util::rt::TokioIo;
use nodetap_wire::{Batch, FromAgent, Hello, ToAgent, from_agent};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::certificates::Identity;

async fn dial(ca: &Identity, identity: Option<&Identity>, address: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.path("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config =
        config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let certificate = CertificateDer::from_pem_file(identity.path("tls.crt")).unwrap();
            let key = PrivateKeyDer::from_pem_file(identity.path("tls.key")).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("nodetap-aggregator").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

/// Connects, and answers with what ended the connection.
pub async fn connect(ca: &Identity, identity: Option<&Identity>, address: SocketAddr) -> String {
    let mut tls = dial(ca, identity, address).await;
    loop {
        match tls.read_u8().await {
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

#[derive(Clone)]
struct Connector(Arc<tokio::sync::Mutex<Option<TlsStream<TcpStream>>>>);

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let io = self.0.clone();
        Box::pin(async move {
            let io = io.lock().await.take();
            io.map(TokioIo::new).ok_or_else(|| std::io::ErrorKind::NotConnected.into())
        })
    }
}

/// Connects for gRPC, over a connection that is never made anew.
pub async fn channel(identity: &Identity, address: SocketAddr) -> Channel {
    let io = dial(identity, Some(identity), address).await;
    let connector = Connector(Arc::new(tokio::sync::Mutex::new(Some(io))));
    Endpoint::from_static("http://aggregator").connect_with_connector(connector).await.unwrap()
}

/// Opens a stream: what goes in, and what comes out.
pub async fn open(
    channel: Channel,
    frames: impl Stream<Item = FromAgent> + Send + 'static,
) -> Result<Streaming<ToAgent>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<FromAgent, ToAgent>::default();
    let path = PathAndQuery::from_static("/nodetap.v1.Link/Stream");
    Ok(client.streaming(Request::new(frames), path, codec).await?.into_inner())
}

/// Sends frames on a stream, and answers with what ended it.
pub async fn stream<F>(identity: &Identity, address: SocketAddr, frames: F) -> Status
where
    F: IntoIterator<Item = FromAgent>,
    F::IntoIter: Send + 'static,
{
    // Never ends by itself.
    let frames = futures_util::StreamExt::chain(
        futures_util::stream::iter(frames),
        futures_util::stream::pending::<FromAgent>(),
    );
    let mut incoming = match open(channel(identity, address).await, frames).await {
        Ok(incoming) => incoming,
        Err(status) => return status,
    };
    loop {
        match incoming.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("the stream ended"),
            Err(status) => return status,
        }
    }
}

pub fn hello(node: &str) -> FromAgent {
    let hello = Hello { node: node.to_owned(), instance: "1".to_owned(), ..Hello::default() };
    FromAgent { frame: Some(from_agent::Frame::Hello(hello)) }
}

pub fn batch(sequence: u64, payload: &'static [u8], raw_bytes: u32) -> FromAgent {
    let batch = Batch { sequence, records: 1, raw_bytes, payload: payload.into() };
    FromAgent { frame: Some(from_agent::Frame::Batch(batch)) }
}
