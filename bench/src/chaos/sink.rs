//! The webhook that everything is delivered to: it can refuse and fall silent, and is the oracle of what was delivered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Death;
use crate::cluster::server::{self, Body, answer};
use crate::delivered::Delivered;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// 503, and takes nothing.
    Refuses,
    /// Takes it, and its answer is lost.
    Forgetful,
    /// Not at all.
    Silent,
}

/// The webhook.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) url: String,
    delivered: Mutex<Delivered>,
    mood: watch::Sender<Mood>,
    _stop: DropGuard,
}

/// More than any batch.
const MAX_BODY: usize = 64 << 20;

// === impl Sink ===

impl Sink {
    pub(super) async fn start() -> anyhow::Result<Arc<Self>> {
        let (listener, address) = server::bind().await?;
        let stop = CancellationToken::new();
        let sink = Arc::new(Self {
            url: format!("http://{address}/records"),
            delivered: Mutex::default(),
            mood: watch::Sender::new(Mood::Well),
            _stop: stop.clone().drop_guard(),
        });
        let weak = Arc::downgrade(&sink);
        let handle = move |request| {
            let sink = weak.upgrade();
            async move {
                match sink {
                    Some(sink) => sink.handle(request).await,
                    None => answer(503, "text/plain", "it is over\n"),
                }
            }
        };
        let down = watch::Sender::new(false);
        tokio::spawn(async move {
            server::serve(listener, None, down.subscribe(), stop, handle).await;
        });
        Ok(sink)
    }

    pub(super) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many distinct records came, and how many repeats.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.lock().counts()
    }

    /// How many of the repeats had to come, as their copy before was taken and its answer lost.
    pub(super) fn repeats_of_refused(&self) -> usize {
        self.lock().repeats_of_refused()
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
        let mood = *self.mood.borrow();
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return answer(400, "text/plain", format!("{error}\n")),
        };
        match mood {
            Mood::Refuses => return answer(503, "text/plain", "not now\n"),
            Mood::Silent => {
                // Nothing is taken, and the answer of later is a refusal.
                let _ = self.mood.subscribe().wait_for(|mood| *mood != Mood::Silent).await;
                return answer(503, "text/plain", "too late\n");
            }
            Mood::Well | Mood::Forgetful => {}
        }
        let records: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&body).into_iter().collect();
        let Ok(records) = records else { return answer(400, "text/plain", "this is no JSON\n") };
        let mut delivered = self.lock();
        let records = records.iter().flat_map(|record| match record {
            Value::Array(records) => records.as_slice(),
            record => std::slice::from_ref(record),
        });
        for record in records {
            match mood {
                Mood::Forgetful => delivered.take_and_refuse(record),
                _ => _ = delivered.take(record),
            }
        }
        drop(delivered);
        if mood == Mood::Forgetful {
            return answer(500, "text/plain", "taken, and forgotten\n");
        }
        answer(200, "text/plain", "")
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
