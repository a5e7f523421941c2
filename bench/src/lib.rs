//! A simulated API server and kubelets, the demo, load generators and benchmarks.

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod compare;
mod control_plane;
mod delivered;
pub mod demo;
pub mod faults;
pub mod figures;
mod fleet;
mod journal;
pub mod journal_speed;
mod launch;
pub mod load;
mod oracle;
pub mod parity;
pub mod pki;
pub mod plan;
mod posting;
mod random;
pub mod reconnect;
pub mod redact;
pub mod sink_day;
pub mod tap_latency;
pub mod throughput;
pub mod watch_cost;

pub use random::Random;

/// A line for who runs it.
#[allow(clippy::print_stdout, reason = "what is shown is what this program is for")]
pub fn say(line: &str) {
    println!("{line}");
}

/// A line about what went wrong.
#[allow(clippy::print_stderr, reason = "the program's own refusals, before and after any log")]
pub fn complain(line: &str) {
    eprintln!("nodetap-bench: {line}");
}

/// Waits for SIGINT or SIGTERM; for ever where they cannot be asked for.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
