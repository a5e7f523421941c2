//! JSON, as Go's encoder writes it.

use std::sync::Arc;

use gotmpl::Value;
use serde_json::Value as Json;

use super::{Entry, string, text};
use crate::route::template::data::JSON;
use crate::route::template::time;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("toJson", 1, 1, |args| Ok(string(escaped(&json(&args[0]))))),
    ("mustToJson", 1, 1, |args| Ok(string(escaped(&json(&args[0]))))),
    ("toRawJson", 1, 1, |args| Ok(string(json(&args[0])))),
    ("mustToRawJson", 1, 1, |args| Ok(string(json(&args[0])))),
    ("toPrettyJson", 1, 1, |args| Ok(string(pretty(&escaped(&json(&args[0])))))),
    ("mustToPrettyJson", 1, 1, |args| Ok(string(pretty(&escaped(&json(&args[0])))))),
    ("fromJson", 1, 1, |args| Ok(serde_json::from_str(&text(&args[0])).map_or(Value::Nil, value))),
    ("mustFromJson", 1, 1, |args| {
        serde_json::from_str(&text(&args[0])).map(value).map_err(|error| error.to_string())
    }),
];

fn json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    match value {
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Uint(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&Json::from(*number).to_string()),
        Value::String(text) => out.push_str(&quoted(text)),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            if let Some(Value::String(whole)) = map.get(JSON) {
                out.push_str(whole);
            } else if let Some(timestamp) = time::from_value(value) {
                let text = time::rfc3339(timestamp);
                out.push_str(&text.map_or_else(|| "null".to_owned(), |text| quoted(&text)));
            } else {
                out.push('{');
                for (index, (key, value)) in map.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(key));
                    out.push(':');
                    write(value, out);
                }
                out.push('}');
            }
        }
        _ => out.push_str("null"),
    }
}

/// What Go escapes so that JSON may stand in HTML and JavaScript.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// Compact JSON, indented by two: in the order that it has.
fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escape) = (0usize, false, false);
    let mut rest = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escape || c != '"';
            escape = !escape && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(yes) => Value::Bool(yes),
        // Go reads every number as a float64.
        Json::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Value::String(text.into()),
        Json::Array(items) => Value::List(items.into_iter().map(value).collect()),
        Json::Object(map) => {
            Value::Map(Arc::new(map.into_iter().map(|(key, json)| (key.into(), value(json))).collect()))
        }
    }
}
