//! The OpenAPI document, written from the tables by which requests are read.

use bytes::Bytes;
use serde_json::{Map, Value, json};

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
    let parameters: Vec<Value> = path.into_iter().chain(query).collect();
    let is_open = !endpoint.path.starts_with("/api/");
    let mut content = json!({"schema": schema_of(endpoint)});
    if endpoint.kind != "application/json" {
        content = json!({"schema": {"type": "string"}});
    }
    let mut responses = json!({"200": {"description": endpoint.about, "content": {endpoint.kind: content}}});
    let refusals: &[&str] = match is_open {
        true => &["405"],
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

fn schema_of(endpoint: &Endpoint) -> Value {
    let name = match endpoint.path {
        "/api/v1/records" => "Records",
        "/api/v1/counts" => "Counts",
        "/api/v1/records/{position}" => "Record",
        _ => return json!({"type": "object"}),
    };
    json!({"$ref": format!("#/components/schemas/{name}")})
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
                "event": {"type": "object", "description":
                    "As kubernetes-event-exporter shows an event; for a death with one more object, container."},
            }),
            &["position", "time", "record", "firstTime", "lastTime", "count", "event"],
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
