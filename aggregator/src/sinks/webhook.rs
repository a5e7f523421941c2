//! `webhook`: one POST a record, as kubernetes-event-exporter does it, with the record's id beside it.
//!
//! Several requests are on their way at one time, no two of them of one object, so that a receiver sees each object's in order. The
//! first that has to be tried again ends the batch with those that are on their way. So does a quarter of a second, so that little
//! is sent twice when the process is killed.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::http::Client;
use super::{Cause, Delivery, Limits, Order, Outcome, Report, Sink};
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
    /// Requests at one time.
    concurrency: usize,
    /// Whether two of one object may be on their way.
    is_keyed: bool,
}

// === impl Webhook ===

impl Webhook {
    /// The webhook of the receiver called `name`.
    ///
    /// # Errors
    /// Where its address or TLS cannot be used.
    pub fn new(name: &str, config: &WebhookConfig, order: Order) -> Result<Self, Cause> {
        Ok(Self {
            client: Client::new(name, &config.endpoint, &config.tls, config.timeout)?,
            concurrency: if order == Order::Journal { 1 } else { config.concurrency.max(1) },
            is_keyed: order != Order::None,
        })
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
        let this = &*self;
        let began = Instant::now();
        let mut waiting: Vec<usize> = (0..batch.len()).collect();
        let mut under_way = FuturesUnordered::new();
        let mut busy: Vec<&str> = Vec::new();
        let (mut failed, mut started) = (false, false);
        loop {
            while !failed && under_way.len() < this.concurrency && (!started || began.elapsed() < SLICE) {
                let is_free = |index: &usize| {
                    batch.get(*index).is_some_and(|one| !this.is_keyed || !busy.contains(&&*one.object))
                };
                let Some(place) = waiting.iter().position(is_free) else { break };
                let index = waiting.remove(place);
                let Some(delivery) = batch.get(index) else { continue };
                busy.push(&delivery.object);
                started = true;
                under_way.push(async move { (index, this.post(delivery).await) });
            }
            let Some((index, outcome)) = under_way.next().await else { return };
            failed |= matches!(outcome, Outcome::Retry(_));
            if let Some(delivery) = batch.get(index)
                && let Some(place) = busy.iter().position(|object| *object == &*delivery.object)
            {
                busy.swap_remove(place);
            }
            report.set(index, outcome);
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
