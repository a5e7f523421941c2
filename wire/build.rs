//! Compiles `proto/nodetap.proto` with a compiler in Rust, so that no `protoc` is needed.

const KEPT: &str =
    "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, rename_all = \"camelCase\")]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/nodetap.proto");
    let descriptors = protox::compile(["proto/nodetap.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes([".nodetap.v1.Batch.payload", ".nodetap.v1.LedgerEntry.state"])
        // By hand, so that its texts need no memory of their own.
        .extern_path(".nodetap.v1.EventSeen", "crate::seen::EventSeen")
        .btree_map(["."])
        // Large, and few: events are moved as they are.
        .boxed(".nodetap.v1.Record.kind.death")
        // What the journal keeps as JSON, so that a death can be read with the sqlite3 shell.
        .type_attribute(".nodetap.v1.ContainerDied", KEPT)
        .type_attribute(".nodetap.v1.LogLine", KEPT)
        .type_attribute(".nodetap.v1.Owner", KEPT)
        // Small ones that are kept and compared by thousands.
        .type_attribute(".nodetap.v1.Shard", "#[derive(PartialOrd, Ord)]")
        .type_attribute(".nodetap.v1.WholeCluster", "#[derive(PartialOrd, Ord)]")
        .type_attribute(".nodetap.v1.NoHost", "#[derive(PartialOrd, Ord)]")
        .type_attribute(".nodetap.v1.Namespaces", "#[derive(PartialOrd, Ord)]")
        .type_attribute(".nodetap.v1.UidRange", "#[derive(PartialOrd, Ord)]")
        .field_attribute(
            ".nodetap.v1.ContainerDied.container_kind",
            "#[serde(with = \"crate::kept::container_kind\")]",
        )
        .field_attribute(".nodetap.v1.ContainerDied.source", "#[serde(with = \"crate::kept::source\")]")
        .field_attribute(
            ".nodetap.v1.ContainerDied.lines_from",
            "#[serde(with = \"crate::kept::lines_from\")]",
        )
        .compile_fds(descriptors)?;
    Ok(())
}
