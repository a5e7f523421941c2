//! The OpenAPI document is true: what it says is taken is taken, what it says is refused is refused, and what comes back is as it
//! says.

use nodetap_aggregator::journal::Body;
use nodetap_wire::face::Object;
use nodetap_wire::{ContainerDied, ContainerKind, LogLine, Owner, Source};
use serde_json::Value;

use crate::client::{Served, TOKEN};
use crate::store::Store;
use crate::{death, event, three};

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
    let fits = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
    if !fits {
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

/// An event and a death with everything that one can have.
fn full() -> Store {
    let store = Store::new();
    let json = serde_json::json!({
        "metadata": {"name": "e", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "annotations": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "p", "apiVersion": "v1",
            "resourceVersion": "6", "fieldPath": "spec.containers{app}"},
        "related": {"kind": "Node", "name": "node-1", "uid": "n", "apiVersion": "v1"},
        "reason": "BackOff", "type": "Warning", "message": "again", "count": 3, "action": "Restart",
        "source": {"component": "kubelet", "host": "node-1"}, "reportingComponent": "kubelet", "reportingInstance": "node-1",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "eventTime": "2026-01-01T00:00:00.5Z",
        "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:01Z"},
    });
    let pairs = || [("a".to_owned(), "b".to_owned())].into();
    let owner = || Owner {
        api_version: "apps/v1".into(),
        kind: "ReplicaSet".into(),
        name: "web".into(),
        uid: "r".into(),
        controller: true,
    };
    let known = Object { labels: pairs(), annotations: pairs(), owners: vec![owner()], deleted: true };
    store.put(Body::Event(json.to_string().into()), Some(known));
    let died = ContainerDied {
        namespace: "shop".into(),
        pod: "web-0".into(),
        pod_uid: "p".into(),
        node: "node-1".into(),
        container: "app".into(),
        container_kind: ContainerKind::App.into(),
        source: Source::PodWatch.into(),
        container_id: "containerd://1".into(),
        image: "web".into(),
        image_id: "web@1".into(),
        ordinal: 1,
        exit_code: Some(137),
        signal: 9,
        reason: "OOMKilled".into(),
        message: "killed".into(),
        started_ns: 1_767_225_600_000_000_000,
        finished_ns: 1_767_225_601_500_000_000,
        seen_ns: 1_767_225_602_000_000_000,
        back_off: "CrashLoopBackOff".into(),
        last_lines: vec![LogLine { text: "the last".into(), ..LogLine::default() }],
        owners: vec![owner()],
        missed_before: 2,
        ..ContainerDied::default()
    };
    let object = died.object();
    store.put(Body::Death(Box::new(died)), Some(object));
    store
}

#[tokio::test]
async fn every_field_of_an_event_and_of_a_death_is_in_the_document() {
    let served = Served::start(full()).await;
    let document = served.get_as("/openapi.json", &[], None).await.json();
    for position in [1, 2] {
        let row = served.json(&format!("/api/v1/records/{position}")).await;
        let record = serde_json::json!({"$ref": "#/components/schemas/Record"});
        assert_eq!(wrong(&row, &record, &document), None, "{row}");
        let has = |pointer: &str| row["event"].pointer(pointer).is_some_and(|value| !value.is_null());
        match position {
            1 => assert!(
                has("/series/count") && has("/related/kind") && has("/involvedObject/ownerReferences/0/uid")
            ),
            _ => {
                assert!(has("/container/signal") && has("/container/runSeconds") && has("/container/backOff"))
            }
        }
    }
}

#[tokio::test]
async fn what_tails_and_exports_send_is_as_the_document_says() {
    let store = three();
    for number in 4..=20 {
        store.put(event(number, number, "x"), None);
    }
    store.damage(8..=9);
    let served = Served::start(store.clone()).await;
    let document = served.get_as("/openapi.json", &[], None).await.json();
    let content =
        |path: &str, kind: &str| document["paths"][path]["get"]["responses"]["200"]["content"][kind].clone();
    let events = content("/api/v1/tail", "text/event-stream")["x-events"].clone();
    let mut tail = served.tail("/api/v1/tail", Some(0)).await;
    let mut names = std::collections::BTreeSet::new();
    while names.len() < events.as_object().unwrap().len() {
        let sent = tail.event().await;
        assert_eq!(wrong(&sent.data, &events[&sent.event], &document), None, "{sent:?}");
        names.insert(sent.event);
        if sent.id == Some(20) {
            served.identity.put("token", "fedcba9876543210fedcba9876543210");
            assert!(served.api.refresh());
            store.put(death(50), None);
        }
    }

    let served = Served::start(store).await;
    let lines = content("/api/v1/export", "application/x-ndjson")["x-lines"]["oneOf"].clone();
    let mut kinds = std::collections::BTreeSet::new();
    for order in ["newest", "oldest"] {
        for line in served.get(&format!("/api/v1/export?order={order}")).await.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let fits = |schema: &&Value| wrong(&line, schema, &document).is_none();
            let fitting: Vec<&Value> = lines.as_array().unwrap().iter().filter(fits).collect();
            assert_eq!(fitting.len(), 1, "{line}");
            kinds.insert(fitting[0].to_string());
        }
    }
    assert_eq!(kinds.len(), lines.as_array().unwrap().len());
}

#[tokio::test]
async fn headers_and_refusals_are_as_the_document_says() {
    let served = Served::start(three()).await;
    let document = served.get_as("/openapi.json", &[], None).await.json();
    let bearer = format!("Bearer {TOKEN}");
    let mut headers_checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let operation = &operations["get"];
        let url = path.replace("{position}", "1");
        for parameter in
            operation["parameters"].as_array().unwrap().iter().filter(|one| one["in"] == "header")
        {
            let name = parameter["name"].as_str().unwrap().to_lowercase();
            assert_eq!(wrong(&parameter["example"], &parameter["schema"], &document), None);
            for (value, status) in
                [(parameter["example"].to_string(), 200), ("x".into(), 400), ("-1".into(), 400)]
            {
                let headers = [("authorization", bearer.as_str()), (name.as_str(), value.as_str())];
                let response = served.begin(http::Method::GET, &url, &headers, None).await.unwrap();
                assert_eq!(response.status(), status, "{path} {name}={value}");
            }
            headers_checked += 1;
        }
        let headers = [("authorization", bearer.as_str())];
        let long = format!("{url}?{}", "x".repeat(9_000));
        for (method, url) in [(http::Method::GET, long), (http::Method::POST, url)] {
            let answer = served.send(method, &url, &headers, None).await.unwrap();
            let refusal = &operation["responses"][answer.status.as_str()]["$ref"];
            assert!(refusal.is_string(), "{path}: {} is not in the document", answer.status);
            let error = serde_json::json!({"$ref": "#/components/schemas/Error"});
            assert_eq!(wrong(&answer.json(), &error, &document), None, "{path}");
        }
    }
    assert_eq!(headers_checked, 1);
}
