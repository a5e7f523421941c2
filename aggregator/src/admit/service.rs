//! The one call of the service `nodetap.v1.Link` of `wire/proto/nodetap.proto`, as tonic's server calls it.
//!
//! Written here and not by tonic-build, because the messages of a stream are read by [`super::incoming`].

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use nodetap_wire::{FromAgent, ToAgent};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBody, SingleMessageCompressionOverride};
use tonic::codegen::http::{HeaderValue, Request, Response, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic_prost::ProstCodec;

use super::connection::Peer;
use super::stream::Admission;
use crate::journal::Journal;

/// Takes the streams of agents.
#[derive(Debug)]
pub(super) struct Link<J>(Arc<Admission<J>>);

const STREAM: &str = "/nodetap.v1.Link/Stream";

/// Of gRPC over HTTP/2.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

// === impl Link ===

impl<J> Link<J> {
    pub(super) fn new(admission: Arc<Admission<J>>) -> Self {
        Self(admission)
    }
}

impl<J> Clone for Link<J> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J> NamedService for Link<J> {
    const NAME: &'static str = "nodetap.v1.Link";
}

impl<J: Journal> Service<Request<Body>> for Link<J> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let admission = self.0.clone();
        Box::pin(async move { Ok(stream(&admission, request).await.unwrap_or_else(Status::into_http)) })
    }
}

async fn stream<J: Journal>(
    admission: &Admission<J>,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (head, body) = request.into_parts();
    if head.uri.path() != STREAM {
        return Err(Status::unimplemented(format!("{} is not there: agents call {STREAM}", head.uri.path())));
    }
    let peer = head.extensions.get::<Peer>().cloned();
    let peer = peer.ok_or_else(|| Status::internal("a stream on a connection without a certificate"))?;
    let frames = admission.stream(peer, body).await?;
    let encoder = ProstCodec::<ToAgent, FromAgent>::default().encoder();
    let compression = SingleMessageCompressionOverride::default();
    let mut response =
        Response::new(Body::new(EncodeBody::new_server(encoder, frames, None, compression, None)));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    Ok(response)
}
