//! Logs: text on a terminal, JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that filters logs, in `tracing_subscriber`'s syntax: such as `info,nodetap_agent::watch=debug`.
pub const FILTER_VARIABLE: &str = "NODETAP_LOG";

/// kube's client logs each answer that is an error; who asked does so too, and knows what it means.
const FILTER: &str = "info,kube_client=off";

/// Starts logging to standard error. Standard output belongs to the `stdout` sink.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(FILTER));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as tests make, leaves the first one's logs in place.
    let _ = if std::io::stderr().is_terminal() {
        logs.try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
}
