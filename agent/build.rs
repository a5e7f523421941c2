//! Writes the gRPC client of `wire/proto/nodetap.proto`, whose messages `nodetap-wire` has compiled.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let stream = Method::builder()
        .name("stream")
        .route_name("Stream")
        .input_type("nodetap_wire::FromAgent")
        .output_type("nodetap_wire::ToAgent")
        .codec_path("tonic_prost::ProstCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let link = Service::builder().name("Link").package("nodetap.v1").method(stream).build();
    Builder::new().build_server(false).compile(&[link]);
}
