//! The webhook that everything is delivered to: it shows what comes, and is the oracle of what was delivered.
//!
//! It reads the JSON that kubernetes-event-exporter's webhook gets, one a request, an array, or one after the other, and goes by
//! the facts in it, not by nodetap's ids.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::show;
use crate::cluster::Death;
use crate::cluster::server::{self, Body, answer};
use crate::delivered::Delivered;

/// The webhook.
#[derive(Debug)]
pub(super) struct Receiver {
    url: String,
    in_colour: bool,
    delivered: Mutex<Delivered>,
    came: Notify,
    _stop: DropGuard,
}

/// More than any batch.
const MAX_BODY: usize = 64 << 20;

// === impl Receiver ===

impl Receiver {
    /// Listens on loopback.
    pub(super) async fn start(in_colour: bool) -> anyhow::Result<Arc<Self>> {
        let (listener, address) = server::bind().await?;
        let stop = CancellationToken::new();
        let receiver = Arc::new(Self {
            url: format!("http://{address}/records"),
            in_colour,
            delivered: Mutex::default(),
            came: Notify::new(),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&receiver);
        let handle = move |request| {
            let receiver = weak.upgrade();
            async move {
                match receiver {
                    Some(receiver) => receiver.handle(request).await,
                    None => answer(503, "text/plain", "the demo is over\n"),
                }
            }
        };
        let down = tokio::sync::watch::Sender::new(false);
        tokio::spawn(async move {
            server::serve(listener, None, down.subscribe(), stop, handle).await;
        });
        Ok(receiver)
    }

    /// Where records are to be posted.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How many distinct records came, and how many repeats.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.lock().counts()
    }

    /// Waits until something more comes.
    pub(super) async fn next(&self) {
        self.came.notified().await;
    }

    /// What happened and did not come.
    pub(super) fn missing(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        self.lock().missing(deaths, truth)
    }

    /// What came and never happened.
    pub(super) fn strangers(&self, deaths: &[Death], truth: &HashSet<String>) -> Vec<String> {
        self.lock().strangers(deaths, truth)
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return answer(400, "text/plain", format!("{error}\n")),
        };
        let records: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&body).into_iter().collect();
        let Ok(records) = records else { return answer(400, "text/plain", "this is no JSON\n") };
        let records = records.into_iter().flat_map(|record| match record {
            Value::Array(records) => records,
            record => vec![record],
        });
        for record in records {
            self.take(&record);
        }
        self.came.notify_waiters();
        self.came.notify_one();
        answer(200, "text/plain", "")
    }

    fn take(&self, record: &Value) {
        let first = self.lock().take(record);
        if first {
            show::record(record, self.in_colour);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
