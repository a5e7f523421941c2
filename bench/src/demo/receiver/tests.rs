#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::json;

use super::*;

fn death(id: &str, ordinal: u32) -> Death {
    Death {
        node: "node-1".to_owned(),
        namespace: "shop".to_owned(),
        pod: "web".to_owned(),
        pod_uid: "p".to_owned(),
        container: "app".to_owned(),
        container_id: format!("containerd://{id}"),
        ordinal,
        exit_code: 1,
        signal: 0,
        reason: "Error".to_owned(),
        last_line: String::new(),
        of_deleted_pod: false,
    }
}

fn face(container: &Value) -> Value {
    json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "involvedObject": {"uid": "p"}, "container": container})
}

#[tokio::test]
async fn a_record_counts_once_and_again_as_a_repeat() {
    let receiver = Receiver::start(false).await.unwrap();
    receiver.take(&face(&Value::Null));
    receiver.take(&face(&Value::Null));
    assert_eq!(receiver.counts(), (1, 1));
    let truth = HashSet::from(["event/u/7".to_owned(), "event/u/8".to_owned()]);
    assert_eq!(receiver.missing(&[], &truth), ["event/u/8"]);
    assert!(receiver.strangers(&[], &truth).is_empty());
}

#[tokio::test]
async fn a_death_is_known_by_its_container_id_or_its_ordinal() {
    let receiver = Receiver::start(false).await.unwrap();
    let deaths = [death("c0", 0), death("c1", 1), death("c2", 2)];
    receiver.take(&face(&json!({"name": "app", "containerId": "containerd://c0", "ordinal": 0})));
    receiver.take(&face(&json!({"name": "app", "ordinal": 1})));
    receiver.take(&face(&json!({"name": "app", "ordinal": 9})));
    let truth = deaths.iter().map(Death::key).collect();
    assert_eq!(receiver.missing(&deaths, &truth), ["death/p/app/c2"]);
    assert_eq!(receiver.strangers(&deaths, &truth), ["death/p/app/#9"]);
}
