#![allow(clippy::unwrap_used)]

use super::*;

fn at(path: &str) -> Target {
    Target { path: path.to_owned(), selector: String::new(), resource: Resource::Events }
}

fn namespace(name: &str) -> Shard {
    Shard::namespace(name)
}

#[test]
fn a_page_is_asked_for_by_limit_and_token() {
    let first = Request::Page { continue_token: String::new(), limit: 500 };
    assert_eq!(first.to_uri(&at("/api/v1/events")), "/api/v1/events?limit=500");
    let next = Request::Page { continue_token: "a+b/c=&x".to_owned(), limit: 250 };
    assert_eq!(next.to_uri(&at("/api/v1/events")), "/api/v1/events?limit=250&continue=a%2Bb%2Fc%3D%26x");
}

#[test]
fn a_watch_is_asked_for_with_bookmarks_and_an_end() {
    let watch = Request::Watch { resource_version: "1 2".to_owned(), timeout_seconds: 290 };
    assert_eq!(
        watch.to_uri(&at("/e")),
        "/e?watch=true&allowWatchBookmarks=true&resourceVersion=1%202&timeoutSeconds=290"
    );
    let list = Request::StreamedList { timeout_seconds: 300 };
    assert_eq!(
        list.to_uri(&at("/e")),
        "/e?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &timeoutSeconds=300"
    );
}

#[test]
fn a_name_that_is_no_namespace_or_node_reaches_no_path() {
    let path_of = |shard: &Shard| Target::of(shard).map(|target| target.path);
    assert_eq!(path_of(&namespace("kube-system")).as_deref(), Some("/api/v1/namespaces/kube-system/events"));
    for name in ["", "-a", "a-", "A", "a/b", "..", "a?b", "a b", &"a".repeat(64)] {
        assert_eq!(path_of(&namespace(name)), None, "{name}");
        assert_eq!(path_of(&Shard::host(name)), None, "{name}");
    }
    assert_eq!(path_of(&Shard { share: None }), None);
    assert_eq!(path_of(&Shard::cluster()).as_deref(), Some("/api/v1/events"));
}

#[test]
fn what_selects_a_share_stands_in_every_request_for_it() {
    let selector = |shard: &Shard| Target::of(shard).map(|target| target.selector);
    let host = selector(&Shard::host("ip-10-0-0-1.eu.internal"));
    assert_eq!(host.as_deref(), Some("fieldSelector=spec.source.host%3Dip-10-0-0-1.eu.internal"));
    assert_eq!(selector(&Shard::no_host()).as_deref(), Some(""));
    let half = Target::of(&Shard::uid_range(1, 2)).unwrap();
    let range =
        "shardRange%28object.metadata.uid%2C%20%270x8000000000000000%27%2C%20%270x10000000000000000%27%29";
    for request in [
        Request::Page { continue_token: "t".to_owned(), limit: 5 },
        Request::StreamedList { timeout_seconds: 1 },
        Request::Watch { resource_version: "1".to_owned(), timeout_seconds: 1 },
    ] {
        assert!(request.to_uri(&half).ends_with(&format!("&shardSelector={range}")));
    }
}

#[test]
fn of_namespaces_the_metadata_alone_is_asked_for() {
    let target = Target::of(&Shard::namespaces()).unwrap();
    assert_eq!((target.path.as_str(), target.resource), ("/api/v1/namespaces", Resource::Namespaces));
    let page = Request::Page { continue_token: String::new(), limit: 1 };
    assert!(target.resource.accept(&page).contains("as=PartialObjectMetadataList"));
    let watch = Request::StreamedList { timeout_seconds: 1 };
    assert!(target.resource.accept(&watch).contains("as=PartialObjectMetadata;"));
}
