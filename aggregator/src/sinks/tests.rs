#![allow(unreachable_pub)]

mod defects;
pub mod journal;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::receivers::{StdoutConfig, TlsConfig, WebhookConfig};
use crate::route::Router;
use crate::route::tree::{Match, Route};

/// A delivery at `position`, about `object`.
pub fn delivery(position: u64, object: &str) -> Delivery {
    Delivery {
        position: Position(position),
        id: format!("event/c/{object}/{position}").into(),
        object: object.into(),
        time_ns: 1_700_000_000_000_000_000 + position as i64,
        taken_ns: 1_700_000_001_000_000_000,
        body: Bytes::from(format!(r#"{{"id":"event/c/{object}/{position}"}}"#)),
        headers: Vec::new(),
        labels: Vec::new(),
    }
}

/// A webhook's configuration.
pub fn webhook(endpoint: &str) -> WebhookConfig {
    WebhookConfig {
        endpoint: endpoint.parse().unwrap(),
        tls: TlsConfig::default(),
        layout: None,
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        concurrency: 1,
    }
}

#[test]
fn whatever_is_wrong_with_any_receiver_is_said_before_one_is_started() {
    let receiver = |name: &str, body| Receiver { name: name.to_owned(), body, delivery: Default::default() };
    let tls = TlsConfig { ca_file: Some("/nonexistent/ca.pem".into()), ..TlsConfig::default() };
    let receivers = [
        receiver("out", ReceiverBody::Stdout(StdoutConfig::default())),
        receiver("one", ReceiverBody::Webhook(WebhookConfig { tls, ..webhook("https://example.com/") })),
        receiver("two", ReceiverBody::Webhook(webhook("/only/a/path"))),
    ];
    let errors: Vec<String> = Built::new(&receivers).err().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with(r#"receiver "one": tls.caFile: /nonexistent/ca.pem: "#), "{errors:?}");
    assert_eq!(errors[1], r#"receiver "two": /only/a/path: not an address such as http://host:port/path"#);
}

/// Of one receiver, to which every record goes so often.
pub fn dispatcher(rules: &[Option<&str>], encoder: &encode::Encoder) -> Arc<dispatch::Dispatcher> {
    let rule = |to: &Option<&str>| Match { receiver: to.map(str::to_owned), ..Match::default() };
    let route = Route { r#match: rules.iter().map(rule).collect(), ..Route::default() };
    let receivers: Vec<&str> = rules.iter().copied().flatten().take(1).collect();
    let router = Arc::new(Router::new(&route, &receivers));
    Arc::new(dispatch::Dispatcher::new(router, "prod".into(), vec![encoder.is_plain()]))
}

/// What says that nothing more will be journalled.
pub fn drained() -> tokio_util::sync::CancellationToken {
    let drained = tokio_util::sync::CancellationToken::new();
    drained.cancel();
    drained
}

/// A loop of the receiver called `name` over `journal`, to which every record goes; and what it counts.
pub fn looping<S: Sink>(
    name: &str,
    journal: &journal::Memory,
    encoder: encode::Encoder,
    sink: S,
) -> (delivery::Loop<journal::Memory, S>, metrics::SinkMetrics) {
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default()).sink(name);
    let delivering = delivery::Loop {
        name: name.to_owned(),
        journal: journal.clone(),
        dispatcher: dispatcher(&[Some(name)], &encoder),
        receiver: 0,
        encoder,
        sink,
        metrics: metrics.clone(),
        start: Position(0),
        tolerance: 10,
        order: Order::Object,
        live_after: delivery::LIVE_AFTER,
        replays: tokio::sync::mpsc::channel(1).1,
        drained: drained(),
        stop_within: Duration::from_secs(5),
    };
    (delivering, metrics)
}
