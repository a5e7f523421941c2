//! What agent and aggregator say to each other: records, their identities, their face, and the frames of the stream.
//!
//! Free of kube, tokio and hyper, so that everything in it is tested without a runtime. The messages are generated from
//! `proto/nodetap.proto`, which is the contract.

pub mod event;
pub mod explain;
pub mod face;
pub mod frame;
pub mod identity;
pub mod ledger;
pub mod resource_version;
pub mod time;
pub mod tls;

mod kept;
mod seen;
mod share;
mod shared;

mod proto {
    #![allow(missing_docs, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/nodetap.v1.rs"));
}

pub use proto::*;
pub use seen::EventSeen;
pub use shared::SharedStr;
