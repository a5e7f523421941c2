//! nodetap-agent: runs on every node, holds the event watches it is given, taps the kubelet for container deaths, and sends
//! what it takes to the aggregator over one mTLS stream.

pub mod app;
mod checksum;
pub mod config;
pub mod http;
pub mod kubernetes;
pub mod link;
pub mod outbox;
pub mod tap;
pub mod watch;
