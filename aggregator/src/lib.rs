//! nodetap-aggregator: one per cluster. Admits agents, merges what they send, keeps it in the journal, exposes metrics, and
//! delivers it to sinks.

pub mod admin;
pub mod admit;
pub mod app;
pub mod arguments;
pub mod ask;
pub mod assign;
pub mod config;
pub mod enrich;
pub mod explain;
pub mod history;
pub mod http;
pub mod journal;
pub mod journal_command;
pub mod merge;
pub mod metrics;
pub mod reconcile;
pub mod route;
pub mod sinks;
