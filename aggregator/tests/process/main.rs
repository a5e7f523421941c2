//! The aggregator's own process, with an agent's end of the stream before it and a webhook behind it: killed, and told to end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

#[path = "../link/certificates.rs"]
#[allow(dead_code, reason = "the tests of the link use more of it")]
mod certificates;
mod defects;
mod full;
mod kill;
#[path = "../link/raw.rs"]
#[allow(dead_code, reason = "the tests of the link use more of it")]
mod raw;
mod running;
mod sender;
mod shutdown;
mod torn;
mod webhook;

use std::time::Duration;

use nodetap_wire::{Change, EventSeen, Record, record};

/// Longer than anything here takes, on any machine: what is not so by then never is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fails where something takes longer than anything here does.
#[track_caller]
fn within<F: Future>(what: F) -> impl Future<Output = F::Output> {
    let asked = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, what).await {
            Ok(done) => done,
            Err(_) => panic!("what {asked} waits for never came to be"),
        }
    }
}

/// The event of a resourceVersion.
fn event(version: u64) -> Record {
    let json = format!(
        r#"{{"metadata":{{"name":"web.{version}","namespace":"shop","uid":"u{version}","resourceVersion":"{version}"}},"involvedObject":{{"kind":"Pod","namespace":"shop","name":"web-{}","uid":"pod-{}"}},"reason":"BackOff","message":"{}","count":1,"type":"Warning","lastTimestamp":"2026-07-01T12:00:00Z"}}"#,
        version % 7,
        version % 7,
        "x".repeat((version * 31 % 900) as usize),
    );
    Record { kind: Some(record::Kind::Event(EventSeen::from_json(&json, Change::Added).unwrap())) }
}
