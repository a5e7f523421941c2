//! A kubelet's HTTPS endpoint: `/pods` of its node, for those who may ask.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::faults::KubeletFault;
use super::object::Resource;
use super::server::{Body, answer, bearer};
use super::state::State;

/// The kubelet of one node.
#[derive(Clone, Debug)]
pub(super) struct Kubelet {
    pub(super) state: Arc<State>,
    pub(super) node: Arc<str>,
}

const TEXT: &str = "text/plain; charset=utf-8";

// === impl Kubelet ===

impl Kubelet {
    pub(super) async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if path == "/healthz" {
            return answer(200, TEXT, "ok");
        }
        let Some(user) = bearer(&request).and_then(|token| self.state.tokens.get(token)) else {
            return answer(401, TEXT, "Unauthorized");
        };
        let forbidden = |subresource: &str| {
            let message = format!(
                "Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[{subresource}])\n"
            );
            answer(403, TEXT, message)
        };
        self.state.count("kubelet pods");
        match (request.method(), path.as_str(), self.state.faults.of_kubelet(&self.node)) {
            (_, _, Some(KubeletFault::Unauthorized)) => answer(401, TEXT, "Unauthorized"),
            (_, _, Some(KubeletFault::Forbidden)) => forbidden("pods proxy"),
            (_, _, Some(KubeletFault::InternalError)) => answer(500, TEXT, "Internal Server Error\n"),
            (_, _, Some(KubeletFault::Garbage)) => {
                answer(200, "application/json", "{\"kind\":\"PodList\",\"items\":[{")
            }
            (_, _, Some(KubeletFault::Silent)) => std::future::pending().await,
            (&Method::GET, "/pods", None) => answer(200, "application/json", self.pods()),
            // The simulated users may do nothing else here, as nodetap's service account.
            (_, path, None) => forbidden(match path.split('/').nth(1).unwrap_or_default() {
                "metrics" => "metrics",
                "stats" => "stats",
                "logs" => "log",
                "configz" => "configz proxy",
                _ => "proxy",
            }),
        }
    }

    fn pods(&self) -> Vec<u8> {
        let store = self.state.store();
        let mut body = b"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[".to_vec();
        let mut first = true;
        for pod in
            store.objects(Resource::Pods).values().filter(|pod| pod.field("spec.nodeName") == &*self.node)
        {
            if !std::mem::take(&mut first) {
                body.push(b',');
            }
            body.extend_from_slice(pod.body());
        }
        body.extend_from_slice(b"]}\n");
        body
    }
}
