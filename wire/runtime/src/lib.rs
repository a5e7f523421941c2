//! What both binaries need to run: logs, named tasks, signals, and metrics and health over HTTP.
//!
//! Apart from `nodetap-wire`, which is the contract and stays free of tokio and hyper.

pub mod bounded;
pub mod endpoint;
pub mod exposition;
pub mod logging;
pub mod process;
pub mod reloading;
pub mod signal;
pub mod tasks;
