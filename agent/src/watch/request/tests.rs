use nodetap_wire::WholeCluster;

use super::*;

fn namespace(name: &str) -> Shard {
    Shard { share: Some(Share::Namespace(name.to_owned())) }
}

#[test]
fn a_page_is_asked_for_by_limit_and_token() {
    let first = Request::Page { continue_token: String::new(), limit: 500 };
    assert_eq!(first.to_uri("/api/v1/events"), "/api/v1/events?limit=500");
    let next = Request::Page { continue_token: "a+b/c=&x".to_owned(), limit: 250 };
    assert_eq!(next.to_uri("/api/v1/events"), "/api/v1/events?limit=250&continue=a%2Bb%2Fc%3D%26x");
}

#[test]
fn a_watch_is_asked_for_with_bookmarks_and_an_end() {
    let watch = Request::Watch { resource_version: "1 2".to_owned(), timeout_seconds: 290 };
    assert_eq!(
        watch.to_uri("/e"),
        "/e?watch=true&allowWatchBookmarks=true&resourceVersion=1%202&timeoutSeconds=290"
    );
    let list = Request::StreamedList { timeout_seconds: 300 };
    assert_eq!(
        list.to_uri("/e"),
        "/e?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &timeoutSeconds=300"
    );
}

#[test]
fn a_name_that_is_no_namespace_reaches_no_path() {
    assert_eq!(path_of(&namespace("kube-system")).as_deref(), Some("/api/v1/namespaces/kube-system/events"));
    for name in ["", "-a", "a-", "A", "a/b", "..", "a?b", "a b", &"a".repeat(64)] {
        assert_eq!(path_of(&namespace(name)), None, "{name}");
    }
    assert_eq!(path_of(&Shard { share: None }), None);
    let cluster = Shard { share: Some(Share::Cluster(WholeCluster {})) };
    assert_eq!(path_of(&cluster).as_deref(), Some("/api/v1/events"));
    assert_eq!(name_of(&cluster), "cluster");
    assert_eq!(name_of(&namespace("a")), "namespace/a");
}
