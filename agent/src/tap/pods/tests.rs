#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn nulls_and_absent_fields_are_empty() {
    let pod: Pod = serde_json::from_str(
        r#"{"metadata":{"name":"a","labels":null,"annotations":{"x":null},"creationTimestamp":null,"ownerReferences":null},
            "spec":null,"status":{"containerStatuses":[{"name":"app","restartCount":null,"state":null,"lastState":{}}],
            "initContainerStatuses":null}}"#,
    )
    .unwrap();
    assert_eq!(pod.metadata.name, "a");
    assert_eq!(pod.metadata.annotations["x"], "");
    assert_eq!(pod.status.container_statuses[0].restart_count, 0);
    assert!(!pod.is_terminating());
    assert_eq!(pod.created_ns(), None);
}

#[test]
fn a_negative_restart_count_is_zero_and_a_huge_one_is_held() {
    let status: ContainerStatus = serde_json::from_str(r#"{"restartCount":-3}"#).unwrap();
    assert_eq!(status.restart_count, 0);
    let status: ContainerStatus = serde_json::from_str(r#"{"restartCount":99999999999}"#).unwrap();
    assert_eq!(status.restart_count, u32::MAX);
}

#[test]
fn one_bad_item_leaves_the_others_readable() {
    let body =
        r#"{"kind":"PodList","metadata":{},"items":[{"metadata":{"name":7}},{"metadata":{"name":"b"}}]}"#;
    let list = PodList::parse(body).unwrap();
    assert!(serde_json::from_str::<Pod>(list.items[0].get()).is_err());
    let pod: Pod = serde_json::from_str(list.items[1].get()).unwrap();
    assert_eq!(pod.metadata.name, "b");
}

#[test]
fn a_list_without_items_is_empty_and_something_else_is_refused() {
    assert!(PodList::parse(r#"{"kind":"PodList","metadata":null,"items":null}"#).unwrap().items.is_empty());
    let refused = PodList::parse(r#"{"kind":"Status","status":"Failure"}"#).unwrap_err();
    assert_eq!(refused.to_string(), r#"the answer is no PodList but "Status""#);
    assert!(PodList::parse("<html>").is_err());
}

#[test]
fn a_mirror_pod_goes_by_the_uid_of_its_static_pod() {
    let pod: Pod = serde_json::from_str(
        r#"{"metadata":{"uid":"5f0e","annotations":{"kubernetes.io/config.mirror":"9a1b","kubectl.kubernetes.io/last-applied-configuration":"{}"}}}"#,
    )
    .unwrap();
    assert_eq!(pod.uid(), "9a1b");
    assert!(!pod.annotations().contains_key("kubectl.kubernetes.io/last-applied-configuration"));
}
