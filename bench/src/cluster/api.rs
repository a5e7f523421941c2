//! The API server's paths: who asks, what fault is set, which resource is meant.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::events::Event;
use super::faults::{Answer, Scope};
use super::lives::Lives;
use super::object::{Key, Resource};
use super::selectors::Selector;
use super::server::{Body, answer, bearer, query, streaming};
use super::state::{OpenWatch, State};
use super::status::Status;
use super::{list, watch};

/// The API server.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) state: Arc<State>,
    pub(super) lives: Arc<Lives>,
    pub(super) nodes: Arc<[String]>,
}

/// A path under `/api/v1` of what is served.
struct Target<'a> {
    resource: Resource,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The API server's bound on a request, and then some, so that an oversized event can be made.
const MAX_REQUEST: usize = 16 << 20;

// === impl Api ===

impl Api {
    pub(super) async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        match self.respond(request).await {
            Ok(response) => response,
            Err(status) => refuse(&status),
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let user = bearer(&request).and_then(|token| self.state.tokens.get(token)).cloned();
        let path = request.uri().path().to_owned();
        if matches!(path.as_str(), "/livez" | "/readyz" | "/healthz") {
            return Ok(answer(200, TEXT, "ok"));
        }
        let user = user.ok_or_else(Status::unauthorized)?;
        let query = query(request.uri());
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["version"] => {
                self.state.count("get version");
                let version = self.state.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(answer(200, JSON, VERSION.replace("v1.36.3", &version)))
            }
            ["apis", "discovery.k8s.io", "v1", "namespaces", "default", "endpointslices", "kubernetes"] => {
                Ok(answer(200, JSON, self.servers()))
            }
            ["api"] => Ok(answer(
                200,
                JSON,
                r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}"#,
            )),
            ["apis"] => Ok(answer(200, JSON, r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#)),
            ["api", "v1"] => Ok(answer(200, JSON, RESOURCES)),
            ["api", "v1", "namespaces"] if partial(&request) => {
                let target =
                    Target { resource: Resource::Namespaces, namespace: None, name: None, subresource: None };
                self.resource(&user, &target, &query, request).await
            }
            ["api", "v1", "namespaces"] => Ok(self.namespaces()),
            ["api", "v1", "nodes"] => Ok(self.list_nodes()),
            ["api", "v1", rest @ ..] => {
                let Some(target) = Target::of(rest) else {
                    return Ok(answer(404, TEXT, "404 page not found\n"));
                };
                self.resource(&user, &target, &query, request).await
            }
            _ => Ok(answer(404, TEXT, "404 page not found\n")),
        }
    }

    async fn resource(
        &self,
        user: &str,
        target: &Target<'_>,
        query: &BTreeMap<String, String>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let watching = query.get("watch").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
        let reading = request.method() == Method::GET;
        let (scope, verb) = match (target.resource, target.subresource, target.name, watching) {
            (_, Some(_), _, _) => (Scope::Logs, "log"),
            (_, _, Some(_), _) => (Scope::Any, "get"),
            (Resource::Events, _, _, true) => (Scope::EventWatches, "watch events"),
            (Resource::Events, _, _, false) => (Scope::EventLists, "list events"),
            (Resource::Pods, _, _, true) => (Scope::Pods, "watch pods"),
            (Resource::Pods, _, _, false) => (Scope::Pods, "list pods"),
            (Resource::Namespaces, _, _, true) => (Scope::Namespaces, "watch namespaces"),
            (Resource::Namespaces, _, _, false) => (Scope::Namespaces, "list namespaces"),
        };
        if reading {
            self.state.count(verb);
            if let Some(fault) = self.state.faults.take(scope) {
                return self.fault(fault, user, target, if watching { "watch" } else { "list" });
            }
        }
        match (request.method(), target.namespace, target.name, target.subresource) {
            (&Method::GET, _, None, None) if watching => self.watch(user, target, query),
            (&Method::GET, _, None, None) => self.list(target, query),
            (&Method::GET, Some(namespace), Some(name), None) => self.get(target.resource, namespace, name),
            (&Method::GET, Some(namespace), Some(name), Some("log")) if target.resource == Resource::Pods => {
                self.log(namespace, name, query)
            }
            (method, Some(namespace), name, None) if target.resource == Resource::Events => {
                let (method, name) = (method.clone(), name.map(str::to_owned));
                self.write(&method, namespace, name, request).await
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn list(&self, target: &Target<'_>, query: &BTreeMap<String, String>) -> Result<Response<Body>, Status> {
        let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        if query.contains_key("sendInitialEvents") {
            return Err(Status::invalid_options(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        let (matching, asked) = (get("resourceVersionMatch"), get("resourceVersion"));
        if !matching.is_empty() && asked.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(Status::invalid_options("resourceVersionMatch", why));
        }
        if matching == "Exact" && asked == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return Err(Status::invalid_options("resourceVersionMatch", why));
        }
        let request = list::Request {
            resource: target.resource,
            namespace: target.namespace.map(str::to_owned),
            selector: self.selector(target.resource, query)?,
            limit: number(get("limit"))?.unwrap_or(0) as usize,
            token: get("continue").to_owned(),
            revision: number(asked)?,
            exact: matching == "Exact",
        };
        Ok(answer(200, JSON, list::list(&self.state, &request)?))
    }

    fn watch(
        &self,
        user: &str,
        target: &Target<'_>,
        query: &BTreeMap<String, String>,
    ) -> Result<Response<Body>, Status> {
        let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let initial = get("sendInitialEvents") == "true";
        let matching = get("resourceVersionMatch");
        if query.contains_key("sendInitialEvents") && matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(Status::invalid_options("resourceVersionMatch", why));
        }
        if !query.contains_key("sendInitialEvents") && !matching.is_empty() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(Status::invalid_options("resourceVersionMatch", why));
        }
        let asked = number(get("resourceVersion"))?;
        let start = match asked {
            Some(asked) if initial => {
                let current = self.state.store().revision();
                if asked > current {
                    return Err(Status::too_large(asked, current));
                }
                watch::Start::StateAndBookmark
            }
            None if initial => watch::Start::StateAndBookmark,
            None | Some(0) => watch::Start::State,
            Some(revision) => watch::Start::After(revision),
        };
        let timeout = number(get("timeoutSeconds"))?.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let request = watch::Request {
            resource: target.resource,
            namespace: target.namespace.map(str::to_owned),
            selector: self.selector(target.resource, query)?,
            start,
            timeout: timeout.unwrap_or(self.state.watch_timeout),
            bookmarks: matches!(get("allowWatchBookmarks"), "1" | "true"),
            open: OpenWatch {
                user: user.to_owned(),
                resource: target.resource,
                namespace: target.namespace.map(str::to_owned),
                selector: get("fieldSelector").to_owned(),
                shard: get("shardSelector").to_owned(),
                from: get("resourceVersion").to_owned(),
            },
        };
        Ok(streaming(JSON, watch::stream(Arc::clone(&self.state), request)))
    }

    fn selector(&self, resource: Resource, query: &BTreeMap<String, String>) -> Result<Selector, Status> {
        let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let accepts = self.state.accepts;
        Selector::parse(get("fieldSelector"), resource, accepts)?.sharded(get("shardSelector"), accepts)
    }

    /// The EndpointSlice of the service `kubernetes`.
    fn servers(&self) -> String {
        let endpoint = |number| serde_json::json!({"addresses": [format!("10.0.0.{}", number + 1)]});
        let endpoints: Vec<_> = (0..self.state.api_servers).map(endpoint).collect();
        let slice = serde_json::json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "addressType": "IPv4",
            "endpoints": endpoints,
        });
        slice.to_string()
    }

    fn get(&self, resource: Resource, namespace: &str, name: &str) -> Result<Response<Body>, Status> {
        let store = self.state.store();
        let object = store.get(resource, &key(namespace, name));
        let object = object.ok_or_else(|| Status::not_found(resource.plural(), name))?;
        Ok(answer(200, JSON, object.whole(resource)))
    }

    fn log(
        &self,
        namespace: &str,
        name: &str,
        query: &BTreeMap<String, String>,
    ) -> Result<Response<Body>, Status> {
        let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let previous = get("previous") == "true";
        let tail = number(get("tailLines"))?.map(|lines| lines as usize);
        let timestamps = get("timestamps") == "true";
        let limit = number(get("limitBytes"))?.map(|bytes| bytes as usize);
        let mut text = self.lives.log(namespace, name, get("container"), previous, tail, timestamps)?;
        if let Some(limit) = limit {
            text.truncate(text.floor_char_boundary(limit));
        }
        Ok(answer(200, TEXT, text))
    }

    async fn write(
        &self,
        method: &Method,
        namespace: &str,
        name: Option<String>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let manager = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or("unknown");
        let manager = manager.split('/').next().unwrap_or_default().to_owned();
        let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
        let body = body.map_err(|error| Status::bad_request(error.to_string()))?.to_bytes();
        let bad = |error: serde_json::Error| {
            Status::bad_request(format!("Event in version \"v1\" cannot be handled as a Event: {error}"))
        };
        let (code, object) = match (method, name) {
            (&Method::POST, None) => {
                let event: Event = serde_json::from_slice(&body).map_err(bad)?;
                (201, self.state.create_event(namespace, event, &manager)?)
            }
            (&Method::PUT, Some(name)) => {
                let event: Event = serde_json::from_slice(&body).map_err(bad)?;
                let written = self.state.update_event(&key(namespace, &name), |stored| {
                    let asked = &event.metadata.resource_version;
                    if !asked.is_empty() && *asked != stored.metadata.resource_version {
                        return Err(Status::conflict("events", &name));
                    }
                    *stored = event;
                    Ok(())
                });
                (200, written?)
            }
            (&Method::PATCH, Some(name)) => {
                let patch = serde_json::from_slice(&body).map_err(bad)?;
                (200, self.state.patch_event(&key(namespace, &name), patch)?)
            }
            (&Method::DELETE, Some(name)) => {
                let gone = self.state.delete(Resource::Events, &[key(namespace, &name)]);
                let gone = gone.first().ok_or_else(|| Status::not_found("events", &name))?;
                let details = serde_json::json!({"name": name, "kind": "events", "uid": gone.object.uid()});
                let status = serde_json::json!({
                    "kind": "Status",
                    "apiVersion": "v1",
                    "metadata": {},
                    "status": "Success",
                    "details": details,
                });
                return Ok(answer(200, JSON, status.to_string()));
            }
            _ => return Err(Status::method_not_allowed()),
        };
        Ok(answer(code, JSON, object.whole(Resource::Events)))
    }

    fn fault(
        &self,
        fault: Answer,
        user: &str,
        target: &Target<'_>,
        verb: &str,
    ) -> Result<Response<Body>, Status> {
        match fault {
            Answer::Unauthorized => Err(Status::unauthorized()),
            Answer::Forbidden => {
                Err(Status::forbidden(user, verb, target.resource.plural(), target.namespace))
            }
            Answer::InternalError => Err(Status::internal("etcdserver: leader changed")),
            Answer::Gone => Err(Status::list_too_old()),
            Answer::TooManyRequests(after) => {
                let mut response = answer(429, TEXT, "Too many requests, please try again later.\n");
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
                Ok(response)
            }
            Answer::Garbage => Ok(answer(200, JSON, "<html><body>It works!</body></html>\n")),
            Answer::Empty => Ok(answer(200, JSON, "")),
        }
    }

    fn namespaces(&self) -> Response<Body> {
        let store = self.state.store();
        let of_pods = store.objects(Resource::Pods).keys().map(|(namespace, _)| namespace.to_string());
        let made = store.objects(Resource::Namespaces).keys().map(|(_, name)| name.to_string());
        let names: std::collections::BTreeSet<String> = of_pods.chain(made).collect();
        objects("NamespaceList", store.revision(), names.iter().map(String::as_str))
    }

    fn list_nodes(&self) -> Response<Body> {
        let revision = self.state.store().revision();
        objects("NodeList", revision, self.nodes.iter().map(String::as_str))
    }
}

// === impl Target ===

impl<'a> Target<'a> {
    fn of(segments: &[&'a str]) -> Option<Self> {
        let resource = |plural: &str| match plural {
            "events" => Some(Resource::Events),
            "pods" => Some(Resource::Pods),
            _ => None,
        };
        let (namespace, rest) = match segments {
            ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] if namespace.is_some() => (*plural, Some(*name), None),
            [plural, name, subresource] if namespace.is_some() => (*plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Self { resource: resource(plural)?, namespace, name, subresource })
    }
}

/// Whether the metadata alone is asked for.
fn partial(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata"))
}

fn key(namespace: &str, name: &str) -> Key {
    (Arc::from(namespace), Arc::from(name))
}

fn refuse(status: &Status) -> Response<Body> {
    let mut response = answer(status.code, JSON, status.json());
    if let Some(after) = status.details.as_ref().and_then(|details| details.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
    }
    response
}

fn number(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

fn objects<'a>(kind: &str, revision: u64, names: impl Iterator<Item = &'a str>) -> Response<Body> {
    let items: Vec<_> = names.map(|name| serde_json::json!({"metadata": {"name": name}})).collect();
    let list = serde_json::json!({
        "kind": kind,
        "apiVersion": "v1",
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    });
    answer(200, JSON, list.to_string())
}

const VERSION: &str = r#"{
  "major": "1",
  "minor": "36",
  "gitVersion": "v1.36.3",
  "gitCommit": "0000000000000000000000000000000000000000",
  "gitTreeState": "clean",
  "buildDate": "2026-07-01T00:00:00Z",
  "goVersion": "go1.26.0",
  "compiler": "gc",
  "platform": "linux/amd64"
}"#;

const RESOURCES: &str = r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
{"name":"events","singularName":"event","namespaced":true,"kind":"Event","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["ev"]},
{"name":"namespaces","singularName":"namespace","namespaced":false,"kind":"Namespace","verbs":["get","list","watch"],"shortNames":["ns"]},
{"name":"nodes","singularName":"node","namespaced":false,"kind":"Node","verbs":["get","list"],"shortNames":["no"]},
{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list","watch"],"shortNames":["po"]},
{"name":"pods/log","singularName":"","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#;
