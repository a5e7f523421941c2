//! Requests whose answers must look alike, whether the simulated or a real API server gives them.
//!
//! What was seen of a real one (1.36) is written down as the expectation, so the simulator is held to it where no real one is at hand.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client};

/// One request and what must be equal.
#[derive(Clone, Debug)]
pub struct Check {
    /// For people.
    pub name: String,
    request: Request,
    /// What a real API server answers, as [`observe`] writes it down.
    pub expected: Vec<String>,
}

#[derive(Clone, Debug)]
enum Request {
    Send { method: Method, path: String, kind: &'static str, body: String, look: Look },
    Stranger { path: String },
    Watch { path: String },
}

/// What is looked at in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The HTTP status, and reason and message of a Status.
    Status,
    /// The HTTP status and the reason only, where messages differ between versions.
    Reason,
    /// The HTTP status, kinds, and which keys an Event has.
    Event,
    /// The HTTP status, kinds, and which keys the list, its metadata and its items have.
    List,
}

/// A check that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of which check.
    pub name: String,
    /// What was expected.
    pub expected: Vec<String>,
    /// What was answered.
    pub observed: Vec<String>,
}

const NAMESPACE: &str = "default";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json";
/// Keys of the Event that [`checks`] writes, in any order.
const EVENT: &str = "keys: apiVersion count eventTime firstTimestamp involvedObject kind lastTimestamp message metadata reason reportingComponent reportingInstance source type";
const ITEM: &str = "item: count eventTime firstTimestamp involvedObject lastTimestamp message metadata reason reportingComponent reportingInstance source type";

/// The requests, in their order: they write, change and delete one event in the namespace `default`.
pub fn checks(name: &str) -> Vec<Check> {
    let one = format!("/api/v1/namespaces/{NAMESPACE}/events/{name}");
    let all = format!("/api/v1/namespaces/{NAMESPACE}/events");
    let mine = format!("{all}?fieldSelector=metadata.name%3D{name}");
    let body = json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "parity"},
        "reason": "Parity",
        "message": "asked of two servers",
        "source": {"component": "nodetap-bench"},
        "type": "Normal",
        "count": 1,
    });
    let body = body.to_string();
    let mut checks = vec![
        send(
            "an event is created",
            Method::POST,
            &all,
            JSON,
            &body,
            Look::Event,
            &["200..", "kind Event v1", EVENT],
        ),
        send(
            "and not twice",
            Method::POST,
            &all,
            JSON,
            &body,
            Look::Status,
            &["409", "AlreadyExists", &format!("events \"{name}\" already exists")],
        ),
        get("it is there", &one, Look::Event, &["200..", "kind Event v1", EVENT]),
        get(
            "a list by name",
            &mine,
            Look::List,
            &["200..", "kind EventList v1", "metadata: resourceVersion", ITEM],
        ),
        get(
            "another is not there",
            &format!("{all}/no-such-event"),
            Look::Status,
            &["404", "NotFound", "events \"no-such-event\" not found"],
        ),
        send(
            "a count grows by a strategic patch",
            Method::PATCH,
            &one,
            STRATEGIC,
            "{\"count\":2}",
            Look::Event,
            &["200..", "kind Event v1", EVENT],
        ),
        send(
            "and by a merge patch",
            Method::PATCH,
            &one,
            MERGE,
            "{\"count\":3}",
            Look::Event,
            &["200..", "kind Event v1", EVENT],
        ),
    ];
    for label in [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
        "metadata.namespace",
        "metadata.name",
    ] {
        let path = format!("{all}?limit=1&fieldSelector={label}%3Dnobody");
        checks.push(get(
            &format!("selector {label}"),
            &path,
            Look::List,
            &["200..", "kind EventList v1", "metadata: resourceVersion", "item:"],
        ));
    }
    for label in
        ["spec.source.host", "source.host", "reportingInstance", "source.component", "message", "action"]
    {
        let message = format!("field label not supported: {label}");
        let path = format!("{all}?fieldSelector={label}%3Dx");
        checks.push(get(
            &format!("no selector {label}"),
            &path,
            Look::Status,
            &["400", "BadRequest", &message],
        ));
    }
    let path = format!("{all}?fieldSelector=type%20in%20(Normal)");
    checks.push(get(
        "no sets",
        &path,
        Look::Status,
        &["400", "BadRequest", "invalid selector: 'type in (Normal)'; can't understand 'type in (Normal)'"],
    ));
    let initial = format!(
        "{all}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&timeoutSeconds=2&fieldSelector=metadata.name%3D{name}"
    );
    checks.extend([
        get("sendInitialEvents wants a match", &initial, Look::Reason, &["422", "Invalid"]),
        watch(
            "a watch that begins with a list ends it by a bookmark",
            &format!("{initial}&resourceVersionMatch=NotOlderThan"),
            &["ADDED Event v1", "BOOKMARK Event v1 initial-events-end=true", "end"],
        ),
        watch(
            "a watch from 0 begins with what is there",
            &format!(
                "{all}?watch=true&resourceVersion=0&timeoutSeconds=1&fieldSelector=metadata.name%3D{name}"
            ),
            &["ADDED Event v1", "end"],
        ),
        get(
            "a token that was not given",
            &format!("{all}?limit=1&continue=nonsense"),
            Look::Reason,
            &["400", "BadRequest"],
        ),
        get(
            "a resourceVersion still to come",
            &format!("{all}?resourceVersion=9000000000000000"),
            Look::Reason,
            &["504", "Timeout"],
        ),
        get(
            "a match without a resourceVersion",
            &format!("{all}?resourceVersionMatch=Exact"),
            Look::Reason,
            &["422", "Invalid"],
        ),
        Check {
            name: "a stranger".to_owned(),
            request: Request::Stranger { path: all.clone() },
            expected: ["401", "Unauthorized", "Unauthorized"].map(str::to_owned).to_vec(),
        },
        send("it is deleted", Method::DELETE, &one, "", "", Look::Reason, &["200..", "Success"]),
        get("and gone", &one, Look::Reason, &["404", "NotFound"]),
    ]);
    checks
}

/// Asks everything of one server; answers what came out otherwise than expected.
///
/// # Errors
/// The server cannot be reached.
pub async fn run(client: &Client, checks: &[Check]) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for check in checks {
        let observed = observe(client, check).await?;
        if observed != check.expected {
            let (name, expected) = (check.name.clone(), check.expected.clone());
            differences.push(Difference { name, expected, observed });
        }
    }
    Ok(differences)
}

/// Asks everything of two servers; answers where they differ from each other: `expected` is what the first one answered.
///
/// # Errors
/// One of them cannot be reached.
pub async fn compare(first: &Client, second: &Client, checks: &[Check]) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for check in checks {
        let (expected, observed) = (observe(first, check).await?, observe(second, check).await?);
        if expected != observed {
            differences.push(Difference { name: check.name.clone(), expected, observed });
        }
    }
    Ok(differences)
}

/// What one server answers, put down so that it can be compared.
///
/// # Errors
/// The server cannot be reached, or breaks off.
pub async fn observe(client: &Client, check: &Check) -> anyhow::Result<Vec<String>> {
    match &check.request {
        Request::Send { method, path, kind, body, look } => {
            let answer = client.send(method.clone(), path, kind, Bytes::from(body.clone())).await?;
            Ok(look_at(&answer, *look))
        }
        Request::Stranger { path } => Ok(look_at(&client.stranger()?.get(path).await?, Look::Status)),
        Request::Watch { path } => {
            let mut lines = client.watch(path).await?;
            let mut seen = Vec::new();
            while let Some(line) = lines.next().await? {
                let object = &line["object"];
                let mut text = format!("{} {}", text(&line["type"]), kind(object));
                let end = &object["metadata"]["annotations"]["k8s.io/initial-events-end"];
                if let Some(end) = end.as_str() {
                    text += &format!(" initial-events-end={end}");
                }
                seen.push(text);
            }
            seen.push("end".to_owned());
            Ok(seen)
        }
    }
}

fn look_at(answer: &Answer, look: Look) -> Vec<String> {
    let body = answer.json();
    // 200 and 201 are both fine.
    let status = if answer.status < 300 { "200..".to_owned() } else { answer.status.to_string() };
    let mut seen = vec![status];
    match look {
        Look::Status => seen.extend([text(&body["reason"]), text(&body["message"])]),
        Look::Reason => seen.push(text(if answer.status < 300 { &body["status"] } else { &body["reason"] })),
        Look::Event => seen.extend([format!("kind {}", kind(&body)), keys("keys:", &body)]),
        Look::List => seen.extend([
            format!("kind {}", kind(&body)),
            keys("metadata:", &body["metadata"]),
            keys("item:", &body["items"][0]),
        ]),
    }
    seen
}

fn keys(title: &str, value: &Value) -> String {
    let mut names: Vec<&str> =
        value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str)).collect();
    names.sort_unstable();
    std::iter::once(title).chain(names).collect::<Vec<_>>().join(" ")
}

fn kind(value: &Value) -> String {
    format!("{} {}", text(&value["kind"]), text(&value["apiVersion"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn get(name: &str, path: &str, look: Look, expected: &[&str]) -> Check {
    send(name, Method::GET, path, "", "", look, expected)
}

fn send(
    name: &str,
    method: Method,
    path: &str,
    kind: &'static str,
    body: &str,
    look: Look,
    expected: &[&str],
) -> Check {
    let (path, body) = (path.to_owned(), body.to_owned());
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    Check { name: name.to_owned(), request: Request::Send { method, path, kind, body, look }, expected }
}

fn watch(name: &str, path: &str, expected: &[&str]) -> Check {
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    Check { name: name.to_owned(), request: Request::Watch { path: path.to_owned() }, expected }
}

#[cfg(test)]
mod tests;
