//! `webhook`: one POST a record, as kubernetes-event-exporter does it, with the record's id beside it.
//!
//! Records go one after the other, so a receiver sees them in order; the first that has to be tried again stops the batch.
//! A batch also ends after a quarter of a second, so that little is sent twice when the process is killed.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::http::Client;
use super::{Cause, Delivery, Limits, Outcome, Report, Sink};
use crate::config::receivers::WebhookConfig;

/// Carries the record's id.
pub const ID: HeaderName = HeaderName::from_static("nodetap-id");
/// The same, under the name that others look for.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const LIMITS: Limits = Limits { records: 64, bytes: 1 << 20, wait: Duration::ZERO };
const SLICE: Duration = Duration::from_millis(250);

/// Posts to one address.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
}

// === impl Webhook ===

impl Webhook {
    /// The webhook of the receiver called `name`.
    ///
    /// # Errors
    /// Where its address or TLS cannot be used.
    pub fn new(name: &str, config: &WebhookConfig) -> Result<Self, Cause> {
        Ok(Self { client: Client::new(name, &config.endpoint, &config.tls, config.timeout)? })
    }

    async fn post(&self, delivery: &Delivery) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let id = id_value(&delivery.id);
        headers.insert(IDEMPOTENCY_KEY, id.clone());
        for (name, value) in &delivery.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(ID, id);
        match self.client.post(headers, delivery.body.clone()).await {
            Ok(answer) => answer.outcome(),
            Err(error) => error.outcome(),
        }
    }
}

impl Sink for Webhook {
    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn deliver(&mut self, batch: &[Delivery], report: &mut Report) {
        let began = Instant::now();
        for (index, delivery) in batch.iter().enumerate() {
            if index > 0 && began.elapsed() >= SLICE {
                return;
            }
            let outcome = self.post(delivery).await;
            let again = matches!(outcome, Outcome::Retry(_));
            report.set(index, outcome);
            if again {
                return;
            }
        }
    }
}

/// An id as a header's value: a cluster's name in it is free text, and headers are not.
fn id_value(id: &str) -> HeaderValue {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests;
