//! A receiver that answers when, and as, it is told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A webhook. Keeps what it has answered 200 to.
#[derive(Clone)]
pub struct Webhook {
    url: String,
    answer: watch::Sender<Option<u16>>,
    asked: watch::Sender<usize>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Webhook {
    /// Answers with nothing yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Self {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            answer: watch::Sender::new(None),
            asked: watch::Sender::new(0),
            taken: Arc::default(),
        };
        let own = webhook.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let webhook = own.clone();
                let service = service_fn(move |request| webhook.clone().serve(request));
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        webhook
    }

    async fn serve(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let id = request.headers()["nodetap-id"].to_str().unwrap().to_owned();
        let _ = request.into_body().collect().await;
        self.asked.send_modify(|asked| *asked += 1);
        let status = self.answer.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
        if status == 200 {
            self.taken.lock().unwrap().push(id);
        }
        Ok(Response::builder().status(status).body(Full::default()).unwrap())
    }

    /// Answers so from now on, those that wait too.
    pub fn answer(&self, status: u16) {
        self.answer.send_replace(Some(status));
    }

    /// Until somebody has asked so often.
    pub async fn asked(&self, times: usize) {
        self.asked.subscribe().wait_for(|asked| *asked >= times).await.unwrap();
    }

    /// The ids of what it took, as they came.
    pub fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    /// As a receiver in a configuration.
    pub fn receiver(&self) -> serde_json::Value {
        serde_json::json!({"name": "hook", "webhook": {"endpoint": self.url}})
    }
}
