//! The OpenAPI document is true: what it says is taken is taken, what it says is refused is refused, and what comes back is as it
//! says.

use serde_json::Value;

use crate::client::{Served, TOKEN};
use crate::three;

/// What is wrong with a value by a schema of the few words that the document uses.
fn wrong(value: &Value, schema: &Value, document: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return wrong(value, document.pointer(reference.trim_start_matches('#')).expect(reference), document);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        return Some(format!("{value} is no {kinds:?}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        return Some(format!("{number} is below {least}"));
    }
    if let (Some(names), Some(_)) = (schema["enum"].as_array(), value.as_str())
        && !names.contains(value)
    {
        return Some(format!("{value} is none of {names:?}"));
    }
    if let Some(items) = value.as_array() {
        return items.iter().find_map(|item| wrong(item, &schema["items"], document));
    }
    let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return None;
    };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Some(format!("{name} is missing"));
        }
    }
    object.iter().find_map(|(name, value)| match properties.get(name) {
        Some(schema) => wrong(value, schema, document).map(|said| format!("{name}: {said}")),
        None => Some(format!("{name} is not in the document")),
    })
}

fn encoded(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn the_document_is_as_the_api_does() {
    let served = Served::start(three()).await;
    let document = served.get_as("/openapi.json", &[], None).await.json();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 7);
    let mut checked = 0;
    for (path, operations) in paths {
        let operation = &operations["get"];
        let parameters = operation["parameters"].as_array().unwrap();
        let is_open = operation["security"] == serde_json::json!([]);
        let url = path.replace("{position}", "1");
        let refused = served.get_as(&url, &[], None).await;
        assert_eq!(refused.status.as_u16(), if is_open { 200 } else { 401 }, "{path}");

        // As it stands, and with each parameter's example and something else.
        let mut questions = vec![(url.clone(), 200)];
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let (schema, example) = match parameter["schema"]["type"].as_str() {
                Some("array") => (&parameter["schema"]["items"], &parameter["example"][0]),
                _ => (&parameter["schema"], &parameter["example"]),
            };
            if !example.is_null() {
                assert_eq!(wrong(example, schema, &document), None, "{path} {name}");
                questions.push((format!("{url}?{name}={}", encoded(example)), 200));
                if parameter["schema"]["type"] == "array" {
                    questions.push((format!("{url}?{name}={0}&{name}={0}", encoded(example)), 200));
                } else {
                    questions.push((format!("{url}?{name}={0}&{name}={0}", encoded(example)), 400));
                }
            }
            for name_of_choice in schema["enum"].as_array().into_iter().flatten() {
                questions.push((format!("{url}?{name}={}", encoded(name_of_choice)), 200));
            }
            for bound in ["minimum", "maximum"].into_iter().filter_map(|bound| schema[bound].as_i64()) {
                questions.push((format!("{url}?{name}={bound}"), 200));
            }
            if let Some(most) = schema["maximum"].as_i64() {
                questions.push((format!("{url}?{name}={}", i128::from(most) + 1), 400));
            }
            if let Some(least) = schema["minimum"].as_i64() {
                questions.push((format!("{url}?{name}={}", i128::from(least) - 1), 400));
            }
            let most = schema["maxLength"].as_u64().unwrap_or(100) as usize;
            questions.push((format!("{url}?{name}={}", "-".repeat(most + 1)), 400));
            questions.push((format!("{url}?{name}="), 400));
            checked += 1;
        }
        if !is_open {
            questions.push((format!("{url}?nothing=1"), 400));
        }
        for (url, status) in questions {
            let bearer = format!("Bearer {TOKEN}");
            let headers = [("authorization", bearer.as_str())];
            let response = served.begin(http::Method::GET, &url, &headers, None).await.unwrap();
            assert_eq!(response.status(), status, "{url}");
            assert!(
                !operation["responses"][status.to_string()].is_null(),
                "{path}: {status} is not in the document"
            );
            let content = &operation["responses"]["200"]["content"];
            let kind =
                response.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
            if status == 200 {
                assert_eq!(content.as_object().unwrap().keys().collect::<Vec<_>>(), [&kind], "{url}");
            }
            if kind == "application/json" {
                let answer = served.get(&url).await;
                let schema = match status {
                    200 => content["application/json"]["schema"].clone(),
                    _ => serde_json::json!({"$ref": "#/components/schemas/Error"}),
                };
                assert_eq!(wrong(&answer.json(), &schema, &document), None, "{url}: {}", answer.text());
            }
        }
    }
    // The filters of four routes, and what each has of its own.
    assert_eq!(checked, 4 * 14 + 2 + 3 + 1 + 2);
}
