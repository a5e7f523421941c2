//! Compiles `proto/nodetap.proto` with a compiler in Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/nodetap.proto");
    let descriptors = protox::compile(["proto/nodetap.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes([".nodetap.v1.Batch.payload", ".nodetap.v1.EventSeen.raw"])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
