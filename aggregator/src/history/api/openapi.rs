//! The OpenAPI document, written from the tables by which requests are read.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::metrics::{Cut, RouteValue};
use super::parameters::{Kind, MAX_TEXT, Parameter};
use super::routes::{ENDPOINTS, Endpoint};

/// The document: OpenAPI 3.1.
pub(super) fn document() -> Bytes {
    let paths: Map<String, Value> = ENDPOINTS
        .iter()
        .map(|endpoint| (endpoint.path.to_owned(), json!({"get": operation(endpoint)})))
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "nodetap history",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Kubernetes events and container deaths, kept. Read only.",
        },
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
            "responses": {
                "Refused": {"description": "Says what is wrong, and the way out.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
            },
            "schemas": schemas(),
        },
    });
    // Of values that were just made, nothing fails.
    Bytes::from(format!("{document:#}\n"))
}

fn operation(endpoint: &Endpoint) -> Value {
    let name = endpoint.path.trim_start_matches("/api/v1/");
    let path = endpoint.path.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}'));
    let path = path.map(|name| {
        json!({"name": name, "in": "path", "required": true, "description": "Place in the journal.",
            "schema": {"type": "integer", "minimum": 1}, "example": 1})
    });
    let query = endpoint.parameters().into_iter().map(parameter);
    let header = (endpoint.route == RouteValue::tail).then(|| {
        json!({"name": "Last-Event-ID", "in": "header", "required": false,
            "description": "The id of the last event that came: start behind it. It counts for more than after.",
            "schema": {"type": "integer", "minimum": 0}, "example": 1})
    });
    let parameters: Vec<Value> = path.into_iter().chain(query).chain(header).collect();
    let is_open = !endpoint.path.starts_with("/api/");
    let content = content_of(endpoint);
    let mut responses = json!({"200": {"description": endpoint.about, "content": {endpoint.kind: content}}});
    let refusals: &[&str] = match is_open {
        true => &["405", "414"],
        false if path_has_argument(endpoint) => {
            &["400", "401", "403", "404", "405", "414", "429", "500", "503"]
        }
        false => &["400", "401", "403", "405", "414", "429", "500", "503"],
    };
    for status in refusals {
        responses[status] = json!({"$ref": "#/components/responses/Refused"});
    }
    let mut operation = json!({
        "operationId": if name == "/" { "page" } else { name.split(['{', '.']).next().unwrap_or(name).trim_matches('/') },
        "summary": endpoint.about,
        "parameters": parameters,
        "responses": responses,
    });
    if path_has_argument(endpoint) {
        operation["operationId"] = json!("record");
    }
    if is_open {
        operation["security"] = json!([]);
    }
    operation
}

fn path_has_argument(endpoint: &Endpoint) -> bool {
    endpoint.path.contains('{')
}

/// What comes, and of a stream what each of its pieces is, for which OpenAPI 3.1 has no word of its own.
fn content_of(endpoint: &Endpoint) -> Value {
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    match endpoint.route {
        RouteValue::records => json!({"schema": schema("Records")}),
        RouteValue::counts => json!({"schema": schema("Counts")}),
        RouteValue::record => json!({"schema": schema("Record")}),
        RouteValue::tail => json!({
            "schema": {"type": "string", "description":
                "Server-sent events: x-events has the data of each by its name. One without a name has an id alone."},
            "x-events": {"record": schema("Record"), "gap": schema("Gap"), "end": schema("End")},
        }),
        RouteValue::export => json!({
            "schema": {"type": "string", "description": "A line each of one of x-lines."},
            "x-lines": {"oneOf": [schema("Record"), schema("GapLine"), schema("UnreadableLine")]},
        }),
        RouteValue::openapi => json!({"schema": {"type": "object"}}),
        RouteValue::page | RouteValue::other => json!({"schema": {"type": "string"}}),
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match &parameter.kind {
        Kind::Text(_) => json!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
        Kind::Choice(choices) => {
            let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
            json!({"type": "string", "enum": names})
        }
        Kind::Integer(least, most, _) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Moment(_) | Kind::Span(_) => json!({"type": "string", "description": parameter.expected()}),
    };
    let mut described = json!({"name": parameter.name, "in": "query", "description": parameter.about});
    let is_number = matches!(parameter.kind, Kind::Integer(..));
    let example = if is_number {
        parameter.example.parse::<i64>().map_or(Value::Null, Value::from)
    } else {
        parameter.example.into()
    };
    if parameter.repeats {
        described["schema"] = json!({"type": "array", "items": schema});
        described["explode"] = json!(true);
        described["example"] = json!([example]);
    } else {
        described["schema"] = schema;
        if !parameter.example.is_empty() {
            described["example"] = example;
        }
    }
    described
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let number = json!({"type": "integer", "minimum": 0});
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    json!({
        "Record": object(
            json!({
                "position": number,
                "time": time,
                "record": {"type": "string", "enum": ["event", "death"]},
                "firstTime": time,
                "lastTime": time,
                "count": number,
                "event": {"$ref": "#/components/schemas/Event"},
            }),
            &["position", "time", "record", "firstTime", "lastTime", "count", "event"],
        ),
        "Event": event(&object),
        "Gap": object(
            json!({
                "after": {"type": "integer", "minimum": 0, "description": "The last position before."},
                "next": {"type": "integer", "minimum": 0, "description":
                    "The first position behind: of those between, the journal has none any more."},
            }),
            &["after", "next"],
        ),
        "GapLine": object(json!({"gap": {"$ref": "#/components/schemas/Gap"}}), &["gap"]),
        "UnreadableLine": object(
            json!({"unreadable": {"type": "integer", "minimum": 0, "description":
                "The last line: so many records are in the journal, cannot be read any more, and are not in the export."}}),
            &["unreadable"],
        ),
        "End": object(
            json!({
                "reason": {"type": "string", "enum": Cut::ALL.map(|cut| cut.said().0)},
                "message": text,
                "position": number,
            }),
            &["reason", "message", "position"],
        ),
        "Records": object(
            json!({
                "records": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}},
                "cursor": {"type": ["string", "null"], "description": "Of the next page; null: this is the last."},
                "head": {"type": "integer", "minimum": 0, "description":
                    "The last position taken into account: a tail behind it misses nothing."},
                "unreadable": {"type": "integer", "minimum": 0, "description":
                    "Records of this page that the journal holds and cannot read any more: they are not among the rows."},
            }),
            &["records", "cursor", "head", "unreadable"],
        ),
        "Counts": object(
            json!({
                "since": time,
                "until": time,
                "counts": {"type": "array", "items": {"$ref": "#/components/schemas/Count"}},
            }),
            &["since", "until", "counts"],
        ),
        "Count": object(
            json!({"value": text, "from": time, "records": number, "occurrences": number}),
            &["value", "records", "occurrences"],
        ),
        "Error": object(
            json!({"error": object(
                json!({"code": text, "message": text, "parameter": text, "value": text}),
                &["code", "message"],
            )}),
            &["error"],
        ),
    })
}

/// The face of a record: `nodetap_wire::face`.
fn event(object: &dyn Fn(Value, &[&str]) -> Value) -> Value {
    let text = json!({"type": "string"});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let whole = json!({"type": "integer"});
    let pairs = json!({"type": "object", "additionalProperties": text});
    let mut reference = json!({"kind": text, "namespace": text, "name": text, "uid": text,
        "apiVersion": text, "resourceVersion": text, "fieldPath": text});
    let related = object(reference.clone(), &[]);
    let owner = object(
        json!({"apiVersion": text, "kind": text, "name": text, "uid": text, "controller": {"type": "boolean"}}),
        &["apiVersion", "kind", "name", "uid"],
    );
    reference["labels"] = pairs.clone();
    reference["annotations"] = pairs.clone();
    reference["ownerReferences"] = json!({"type": "array", "items": owner});
    reference["deleted"] = json!({"type": "boolean"});
    let container = object(
        json!({
            "name": text,
            "kind": {"type": "string", "enum": ["app", "init", "sidecar", "ephemeral", "unknown"]},
            "ordinal": {"type": "integer", "minimum": 0},
            "containerId": text,
            "image": text,
            "imageID": text,
            "exitCode": {"type": ["integer", "null"]},
            "signal": whole,
            "reason": text,
            "message": text,
            "startedAt": time,
            "finishedAt": time,
            "runSeconds": {"type": ["number", "null"]},
            "backOff": text,
            "lastLines": {"type": "array", "items": text},
            "linesFrom": text,
            "seenBy": text,
            "seenAt": time,
            "missedBefore": {"type": "integer", "minimum": 0},
            "explanation": text,
        }),
        &[
            "name",
            "kind",
            "ordinal",
            "exitCode",
            "startedAt",
            "finishedAt",
            "runSeconds",
            "lastLines",
            "seenBy",
            "seenAt",
            "missedBefore",
            "explanation",
        ],
    );
    let mut event = object(
        json!({
            "metadata": object(
                json!({"name": text, "namespace": text, "uid": text, "resourceVersion": text,
                    "creationTimestamp": time, "labels": pairs, "annotations": pairs}),
                &["creationTimestamp"],
            ),
            "reason": text,
            "message": text,
            "source": object(json!({"component": text, "host": text}), &[]),
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": whole,
            "type": text,
            "eventTime": time,
            "series": object(json!({"count": whole, "lastObservedTime": time}), &["lastObservedTime"]),
            "action": text,
            "related": related,
            "reportingComponent": text,
            "reportingInstance": text,
            "clusterName": text,
            "involvedObject": object(reference, &["deleted"]),
            "container": container,
            "id": text,
            "occurrences": {"type": "integer", "minimum": 0},
        }),
        &[
            "metadata",
            "source",
            "firstTimestamp",
            "lastTimestamp",
            "eventTime",
            "reportingComponent",
            "reportingInstance",
            "clusterName",
            "involvedObject",
            "id",
            "occurrences",
        ],
    );
    event["description"] =
        json!("As kubernetes-event-exporter shows an event; a death has one more object, container.");
    event
}
