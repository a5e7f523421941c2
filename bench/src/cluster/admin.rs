//! Faults and the truth by plain HTTP on loopback, for programs that are not linked with the simulator.
//!
//! `GET /addresses /truth /truth/events /truth/deaths /watches /requests`; `POST /compact /expire`,
//! `/cut?how=clean|broken|middle`, `/stall?on=true|false`, `/dribble?lines=N`, `/empty-when-stale?on=`, `/down?on=`,
//! `/answer?scope=any|lists|watches|pods|logs&with=401|403|410|429|500|garbage|empty&times=N&retryAfter=S` (no `times`: until
//! `/clear`), `/clear`, `/oversized?bytes=N`, `/kubelet?node=NAME&fault=401|403|500|garbage|silent|none`,
//! `/crash?namespace=&pod=&container=&exit=N&line=TEXT`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Parts;
use super::faults::{Answer, CutHow, KubeletFault, Scope, Times};
use super::pods::Ending;
use super::server::{Body, answer, query};

pub(super) async fn handle(parts: std::sync::Arc<Parts>, request: Request<Incoming>) -> Response<Body> {
    let query = query(request.uri());
    match respond(&parts, request.method(), request.uri().path(), &query) {
        Ok(Some(value)) => answer(200, "application/json", format!("{value}\n")),
        Ok(None) => answer(404, "application/json", "{\"error\":\"no such path\"}\n"),
        Err(error) => {
            answer(400, "application/json", format!("{}\n", json!({"error": format!("{error:#}")})))
        }
    }
}

fn respond(
    parts: &std::sync::Arc<Parts>,
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
) -> anyhow::Result<Option<Value>> {
    let get = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let on = || get("on") != "false";
    let (state, faults) = (&parts.state, &parts.state.faults);
    let done = json!({"done": true});
    let value = match (method, path) {
        (&Method::GET, "/addresses") => parts.addresses(),
        (&Method::GET, "/truth") => {
            json!({"events": state.truth.event_count(), "deaths": state.truth.death_count()})
        }
        (&Method::GET, "/truth/events") => serde_json::to_value(state.truth.events())?,
        (&Method::GET, "/truth/deaths") => serde_json::to_value(state.truth.deaths())?,
        (&Method::GET, "/watches") => {
            let show = |watch: &super::OpenWatch| {
                json!({
                    "user": watch.user,
                    "resource": watch.resource.plural(),
                    "namespace": watch.namespace,
                    "fieldSelector": watch.selector,
                    "resourceVersion": watch.from,
                })
            };
            Value::Array(state.open_watches().iter().map(show).collect())
        }
        (&Method::GET, "/requests") => {
            let requests = state.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            json!(*requests)
        }
        (&Method::POST, "/compact") => json!({"compacted": state.compact()}),
        (&Method::POST, "/expire") => json!({"deleted": parts.expire_all_events()}),
        (&Method::POST, "/cut") => {
            faults.cut_event_watches(match get("how") {
                "middle" => CutHow::MiddleOfLine,
                "broken" => CutHow::Broken,
                "clean" | "" => CutHow::Clean,
                other => anyhow::bail!("how={other}: clean, broken or middle"),
            });
            done
        }
        (&Method::POST, "/stall") => {
            faults.stall_event_watches(on());
            done
        }
        (&Method::POST, "/dribble") => {
            faults.dribble_lines(get("lines").parse().context("lines must be a number")?);
            done
        }
        (&Method::POST, "/empty-when-stale") => {
            faults.empty_when_stale(on());
            done
        }
        (&Method::POST, "/down") => {
            faults.api_server_down(on());
            done
        }
        (&Method::POST, "/answer") => {
            let (scope, answer) = (scope(get("scope"))?, fault(get("with"), get("retryAfter"))?);
            let times = match get("times") {
                "" => Times::Always,
                times => Times::Next(times.parse().context("times must be a number")?),
            };
            faults.answer(scope, answer, times);
            done
        }
        (&Method::POST, "/clear") => {
            faults.clear();
            done
        }
        (&Method::POST, "/oversized") => {
            let bytes = if get("bytes").is_empty() { 3 << 20 } else { get("bytes").parse()? };
            json!({"uid": parts.post_oversized_event(bytes)?})
        }
        (&Method::POST, "/kubelet") => {
            let fault = match get("fault") {
                "401" => Some(KubeletFault::Unauthorized),
                "403" => Some(KubeletFault::Forbidden),
                "500" => Some(KubeletFault::InternalError),
                "garbage" => Some(KubeletFault::Garbage),
                "silent" => Some(KubeletFault::Silent),
                "none" | "" => None,
                other => anyhow::bail!("fault={other}: 401, 403, 500, garbage, silent or none"),
            };
            faults.kubelet(get("node"), fault);
            done
        }
        (&Method::POST, "/crash") => {
            let pods = parts.lives.pods();
            let pod =
                pods.into_iter().find(|pod| pod.namespace == get("namespace") && pod.name == get("pod"));
            let pod = pod.with_context(|| format!("no pod {}/{}", get("namespace"), get("pod")))?;
            let exit = if get("exit").is_empty() {
                1
            } else {
                get("exit").parse().context("exit must be a number")?
            };
            let (parts, container) = (std::sync::Arc::clone(parts), get("container").to_owned());
            let ending = Ending::exit(exit, get("line"));
            tokio::spawn(async move {
                if let Err(error) = parts.lives.crash(&pod, &container, &ending).await {
                    tracing::warn!(%error, "cannot crash a container");
                }
            });
            done
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn scope(name: &str) -> anyhow::Result<Scope> {
    Ok(match name {
        "any" | "" => Scope::Any,
        "lists" => Scope::EventLists,
        "watches" => Scope::EventWatches,
        "pods" => Scope::Pods,
        "namespaces" => Scope::Namespaces,
        "logs" => Scope::Logs,
        other => anyhow::bail!("scope={other}: any, lists, watches, pods or logs"),
    })
}

fn fault(name: &str, retry_after: &str) -> anyhow::Result<Answer> {
    Ok(match name {
        "401" => Answer::Unauthorized,
        "403" => Answer::Forbidden,
        "410" => Answer::Gone,
        "429" => Answer::TooManyRequests(retry_after.parse().unwrap_or(1)),
        "500" => Answer::InternalError,
        "garbage" => Answer::Garbage,
        "empty" => Answer::Empty,
        other => anyhow::bail!("with={other}: 401, 403, 410, 429, 500, garbage or empty"),
    })
}
