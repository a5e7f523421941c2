//! `receivers`, as they stand in the file.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};

use super::{
    BatchConfig, DeliveryConfig, FileConfig, LokiConfig, Order, Receiver, ReceiverBody, Start, StdoutConfig,
    TlsConfig, WebhookConfig,
};
use crate::config::problem::Findings;
use crate::config::section::{Section, Unknown, join};
use crate::config::tree::{Node, Place, Value};
use crate::route::template::{Layout, Template};

/// Kinds that kubernetes-event-exporter has, in the order in which the first one is taken where there are several.
const KINDS: &[&str] = &[
    "inMemory",
    "pipe",
    "webhook",
    "file",
    "syslog",
    "stdout",
    "elasticsearch",
    "kinesis",
    "firehose",
    "opensearch",
    "opsgenie",
    "sqs",
    "sns",
    "slack",
    "kafka",
    "pubsub",
    "opscenter",
    "teams",
    "bigquery",
    "eventbridge",
    "loki",
];
/// Those that are here.
const OURS: &[&str] = &["stdout", "file", "webhook", "loki"];
const LOKI_PUSH: &str = "/loki/api/v1/push";
/// Requests of a webhook at one time.
const CONCURRENCY: usize = 4;
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A file that the configuration names, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct NamedFile {
    pub(in crate::config) file: std::path::PathBuf,
    pub(in crate::config) at: Place,
    pub(in crate::config) path: String,
}

/// One receiver; none where something is wrong with it.
pub(in crate::config) fn receiver(
    node: &Node,
    path: &str,
    files: &mut Vec<NamedFile>,
    findings: &mut Findings,
) -> Option<Receiver> {
    if matches!(node.value, Value::Null) {
        findings.problem(node.at, path, "a receiver without anything; remove the line");
        return None;
    }
    let mut section = Section::of(node, path, findings)?;
    let name = section.text("name", findings).filter(|name| !name.is_empty());
    if name.is_none()
        && !matches!(section.raw("name").map(|node| &node.value), Some(Value::List(_) | Value::Map(_)))
    {
        findings.problem(node.at, path, "has no name; add `name: ...`, by which routes name it");
    }
    let there: Vec<&'static str> = KINDS.iter().copied().filter(|kind| section.has(kind)).collect();
    for kind in &there {
        section.raw(kind);
    }
    let full = |kind: &&&'static str, section: &mut Section<'_>| section.get(kind).is_some();
    let body = match there.iter().find(|kind| full(kind, &mut section)).copied() {
        Some(kind) => {
            for other in there.iter().filter(|other| **other != kind) {
                let message = format!("ignored: a receiver has one kind, and {kind} comes first");
                findings.warning(section.key_at(other), &section.path_of(other), message);
            }
            body(kind, &mut section, files, findings)
        }
        None => {
            match there.first() {
                Some(kind) => findings.problem(
                    section.key_at(kind),
                    &section.path_of(kind),
                    format!("there is nothing in it; write `{kind}: {{}}` or its settings"),
                ),
                None => {
                    findings.problem(node.at, path, format!("has no kind; add one of {}", OURS.join(", ")))
                }
            }
            None
        }
    };
    // What could have been meant.
    for kind in OURS {
        section.raw(kind);
    }
    let delivery = delivery(&mut section, findings);
    section.finish(Unknown::Warned, findings);
    Some(Receiver { name: name?, body: body?, delivery })
}

fn delivery(section: &mut Section<'_>, findings: &mut Findings) -> DeliveryConfig {
    let default = DeliveryConfig::default();
    let starts = [("beginning", Start::Beginning), ("now", Start::Now)];
    let orders = [("journal", Order::Journal), ("object", Order::Object), ("none", Order::None)];
    let after = section.integer("deadLetterAfter", 0, 1_000_000, findings);
    DeliveryConfig {
        start: section.choice("start", &starts, findings).unwrap_or_default(),
        order: section.choice("order", &orders, findings),
        dead_letter_after: after.and_then(|n| u32::try_from(n).ok()).unwrap_or(default.dead_letter_after),
    }
}

fn body(
    kind: &'static str,
    section: &mut Section<'_>,
    files: &mut Vec<NamedFile>,
    findings: &mut Findings,
) -> Option<ReceiverBody> {
    let path = section.path_of(kind);
    let node = section.get(kind)?;
    if !OURS.contains(&kind) {
        let message = format!(
            "there is no receiver of kind {kind} here yet; there are {}. Use one of them, or take it out",
            OURS.join(", ")
        );
        findings.problem(section.key_at(kind), &path, message);
        return None;
    }
    let mut body = Section::of(node, &path, findings)?;
    let before = findings.problems.len();
    let read = match kind {
        "stdout" => Some(ReceiverBody::Stdout(StdoutConfig {
            de_dot: body.boolean("deDot", findings).unwrap_or(false),
            layout: layout(&mut body, findings),
        })),
        "file" => file(&mut body, findings).map(ReceiverBody::File),
        "webhook" => webhook(&mut body, files, findings).map(ReceiverBody::Webhook),
        _ => loki(&mut body, files, findings).map(ReceiverBody::Loki),
    };
    body.finish(Unknown::Warned, findings);
    read.filter(|_| findings.problems.len() == before)
}

fn file(body: &mut Section<'_>, findings: &mut Findings) -> Option<FileConfig> {
    let path = body.path_buf("path", findings);
    if path.is_none() {
        findings.problem(body.at, &body.path, "has no path; add `path: /var/log/events.json`");
    }
    let mut number = |key, most| body.integer(key, 0, most, findings).filter(|number| *number > 0);
    let megabytes = number("maxsize", 1 << 24);
    let days = number("maxage", 36_500);
    let backups = number("maxbackups", 1 << 20);
    Some(FileConfig {
        max_bytes: megabytes.and_then(|n| u64::try_from(n).ok()).unwrap_or(100) << 20,
        max_age: days.and_then(|n| u64::try_from(n).ok()).map(|n| std::time::Duration::from_secs(n * 86_400)),
        max_backups: backups.and_then(|n| usize::try_from(n).ok()),
        de_dot: body.boolean("deDot", findings).unwrap_or(false),
        layout: layout(body, findings),
        path: path?,
    })
}

fn webhook(
    body: &mut Section<'_>,
    files: &mut Vec<NamedFile>,
    findings: &mut Findings,
) -> Option<WebhookConfig> {
    let endpoint = address(body, "endpoint", "https://example.org/events", findings);
    Some(WebhookConfig {
        tls: tls(body, files, findings),
        layout: layout(body, findings),
        headers: headers(body, findings),
        timeout: body.duration("timeout", findings).unwrap_or(TIMEOUT),
        concurrency: body
            .integer("concurrency", 1, 256, findings)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(CONCURRENCY),
        endpoint: endpoint?,
    })
}

fn loki(body: &mut Section<'_>, files: &mut Vec<NamedFile>, findings: &mut Findings) -> Option<LokiConfig> {
    let url = address(body, "url", "http://loki:3100", findings).map(with_push_path);
    let tenant = body.text("tenant", findings);
    Some(LokiConfig {
        labels: labels(body, findings),
        tenant: tenant
            .and_then(|source| template(&source, body.value_at("tenant"), &body.path_of("tenant"), findings)),
        tls: tls(body, files, findings),
        headers: headers(body, findings),
        layout: layout(body, findings),
        batch: batch(body, findings),
        timeout: body.duration("timeout", findings).unwrap_or(TIMEOUT),
        url: url?,
    })
}

/// `streamLabels`, which are text, and `labels`, which are templates.
fn labels(body: &mut Section<'_>, findings: &mut Findings) -> Vec<(String, Template)> {
    let mut all = BTreeMap::new();
    for key in ["streamLabels", "labels"] {
        for (name, (source, at)) in body.strings(key, findings) {
            let path = join(&body.path_of(key), &name);
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                findings.problem(
                    at,
                    &path,
                    format!("{name:?} is no name of a label: letters, digits and _ only"),
                );
                continue;
            }
            let value = if key == "labels" {
                template(&source, at, &path, findings)
            } else {
                Some(Template::literal(&source))
            };
            if let Some(value) = value {
                all.insert(name, value);
            }
        }
    }
    all.into_iter().collect()
}

fn batch(body: &mut Section<'_>, findings: &mut Findings) -> BatchConfig {
    let default = BatchConfig::default();
    let path = body.path_of("batch");
    let Some(mut section) = body.get("batch").and_then(|node| Section::of(node, &path, findings)) else {
        return default;
    };
    let batch = BatchConfig {
        max_records: section
            .integer("maxRecords", 1, 100_000, findings)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default.max_records),
        max_bytes: section
            .bytes("maxBytes", 1024, findings)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(default.max_bytes),
        max_wait: section.duration("maxWait", findings).unwrap_or(default.max_wait),
    };
    section.finish(Unknown::Refused, findings);
    batch
}

fn tls(body: &mut Section<'_>, files: &mut Vec<NamedFile>, findings: &mut Findings) -> TlsConfig {
    let path = body.path_of("tls");
    let Some(mut section) = body.get("tls").and_then(|node| Section::of(node, &path, findings)) else {
        return TlsConfig::default();
    };
    let mut file = |key, section: &mut Section<'_>, findings: &mut Findings| {
        let file = section.path_buf(key, findings)?;
        files.push(NamedFile { file: file.clone(), at: section.value_at(key), path: section.path_of(key) });
        Some(file)
    };
    let tls = TlsConfig {
        ca_file: file("caFile", &mut section, findings),
        cert_file: file("certFile", &mut section, findings),
        key_file: file("keyFile", &mut section, findings),
        server_name: section.text("serverName", findings).filter(|name| !name.is_empty()),
        insecure_skip_verify: section.boolean("insecureSkipVerify", findings).unwrap_or(false),
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => {
            findings.problem(section.at, &path, "certFile without keyFile; give both, or neither")
        }
        (None, Some(_)) => {
            findings.problem(section.at, &path, "keyFile without certFile; give both, or neither")
        }
        _ => {}
    }
    if tls.insecure_skip_verify {
        let message = "any certificate is taken, a forged one too; give caFile instead";
        findings.warning(
            section.value_at("insecureSkipVerify"),
            &section.path_of("insecureSkipVerify"),
            message,
        );
    }
    section.finish(Unknown::Warned, findings);
    tls
}

/// `headers`, whose values are templates. One that does not compile is sent as it is, as upstream does.
fn headers(body: &mut Section<'_>, findings: &mut Findings) -> Vec<(HeaderName, Template)> {
    let mut headers = Vec::new();
    for (name, (source, at)) in body.strings("headers", findings) {
        let path = join(&body.path_of("headers"), &name);
        let Ok(header) = HeaderName::try_from(name.as_str()) else {
            findings.problem(at, &path, format!("{name:?} is no name of a header"));
            continue;
        };
        let value = Template::compile(&source).unwrap_or_else(|error| {
            findings.warning(at, &path, format!("sent as it is: {error}"));
            Template::literal(&source)
        });
        if value.is_literal() && HeaderValue::from_str(&source).is_err() {
            findings.problem(at, &path, "holds a character that no header may have, such as a line break");
            continue;
        }
        headers.push((header, value));
    }
    headers
}

fn template(source: &str, at: Place, path: &str, findings: &mut Findings) -> Option<Template> {
    Template::compile(source).map_err(|error| findings.problem(at, path, error.to_string())).ok()
}

fn address(body: &mut Section<'_>, key: &'static str, example: &str, findings: &mut Findings) -> Option<Uri> {
    let Some(text) = body.text(key, findings).filter(|text| !text.is_empty()) else {
        if !matches!(body.raw(key).map(|node| &node.value), Some(Value::List(_) | Value::Map(_))) {
            findings.problem(body.at, &body.path, format!("has no {key}; add `{key}: {example}`"));
        }
        return None;
    };
    let uri = text.trim().parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    // The address is not repeated: it may hold a password.
    let message = || format!("is no address; write one such as {example}");
    body.checked(key, uri.ok_or_else(message), findings)
}

fn with_push_path(uri: Uri) -> Uri {
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return uri;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(LOKI_PUSH));
    Uri::from_parts(parts).unwrap_or(uri)
}

/// `layout`, with every template that is wrong in it reported where it stands.
fn layout(body: &mut Section<'_>, findings: &mut Findings) -> Option<Layout> {
    let node = body.get("layout")?;
    let path = body.path_of("layout");
    if !matches!(node.value, Value::Map(_)) {
        findings.problem(node.at, &path, format!("must be a mapping, not {}", node.value.name()));
        return None;
    }
    let before = findings.problems.len();
    let json = layout_json(node, &path, 0, findings);
    if findings.problems.len() > before {
        return None;
    }
    let layout =
        Layout::compile(&json).map_err(|error| findings.problem(node.at, &path, error.to_string())).ok()?;
    if layout.is_empty() {
        findings.warning(
            node.at,
            &path,
            "an empty layout: every record is written as {}; remove it to write the whole record",
        );
    }
    Some(layout)
}

fn layout_json(node: &Node, path: &str, depth: usize, findings: &mut Findings) -> serde_json::Value {
    use serde_json::Value as Json;

    if depth > 64 {
        return Json::Null;
    }
    match &node.value {
        Value::Text(source) => {
            template(source, node.at, path, findings);
            Json::String(source.clone())
        }
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|entry| {
                    let json = layout_json(&entry.value, &join(path, &entry.key), depth + 1, findings);
                    (entry.key.clone(), json)
                })
                .collect(),
        ),
        Value::List(items) => Json::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| layout_json(item, &format!("{path}[{index}]"), depth + 1, findings))
                .collect(),
        ),
        Value::Null => Json::Null,
        value @ (Value::Bool(_) | Value::Integer(_) | Value::Real(_)) => {
            let message =
                format!("{value} is written as null, as kubernetes-event-exporter does; quote it to keep it");
            findings.warning(node.at, path, message);
            Json::Null
        }
    }
}
