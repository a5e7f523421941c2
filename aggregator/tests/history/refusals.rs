//! Who may read, and who may not.

use http::Method;

use nodetap_aggregator::history::api::{Api, Client, Cut, CutLabel, Limits, Metrics, Settings};

use crate::certificates::{Authority, Identity};
use crate::client::{Served, TOKEN};
use crate::store::Store;
use crate::{event, eventually, three};

const RECORDS: &str = "/api/v1/records";

#[tokio::test]
async fn who_presents_nothing_is_told_what_to_present() {
    let served = Served::start(three()).await;
    for path in [RECORDS, "/api/v1/records/1", "/api/v1/counts", "/api/v1/tail", "/api/v1/export"] {
        let answer = served.get_as(path, &[], None).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"nodetap\"");
        assert!(answer.message().contains("Authorization: Bearer TOKEN"), "{}", answer.text());
    }
}

#[tokio::test]
async fn only_the_whole_token_lets_in() {
    let served = Served::start(three()).await;
    let shorter = &TOKEN[1..];
    for wrong in [
        format!("Bearer {shorter}"),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", TOKEN.to_uppercase()),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
    ] {
        let answer = served.get_as(RECORDS, &[("authorization", &wrong)], None).await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.message().contains("history.tokenFiles"));
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}")] {
        assert_eq!(served.get_as(RECORDS, &[("authorization", &right)], None).await.status, 200, "{right}");
    }
}

#[tokio::test]
async fn a_certificate_lets_in_by_its_name_and_an_agents_never_does() {
    let clients = ["URI:spiffe://cluster/ns/monitoring/sa/grafana"];
    let served = Served::start_as(three(), Limits::default(), &clients).await;
    let get = async |identity: &Identity| served.get_as(RECORDS, &[], Some(identity)).await;

    let grafana = served.authority.client_of(&["spiffe://cluster/ns/monitoring/sa/grafana"]);
    assert_eq!(get(&grafana).await.status, 200);

    let other = get(&served.authority.client_of(&["spiffe://cluster/ns/monitoring/sa/other"])).await;
    assert_eq!(other.status, 403);
    assert!(
        other
            .message()
            .contains("URI:spiffe://cluster/ns/monitoring/sa/other, which history.clients does not")
    );

    let agent = get(&served.authority.agent("node-1")).await;
    assert_eq!(agent.status, 403);
    assert!(agent.message().contains("this is an agent's certificate"));
    let both = ["nodetap://node/node-1", "spiffe://cluster/ns/monitoring/sa/grafana"];
    assert_eq!(get(&served.authority.client_of(&both)).await.status, 403);

    // A token that is sent counts alone.
    let wrong = served.get_as(RECORDS, &[("authorization", "Bearer 0000000000000000")], Some(&grafana)).await;
    assert_eq!(wrong.status, 401);

    let stranger = Authority::new().client_of(&["spiffe://cluster/ns/monitoring/sa/grafana"]);
    assert!(served.send(Method::GET, RECORDS, &[], Some(&stranger)).await.is_err(), "of another CA");
    assert_eq!(served.get_as(RECORDS, &[], None).await.status, 401, "none is needed for a token");
}

#[tokio::test]
async fn a_token_is_rotated_without_a_restart_and_a_tail_of_the_old_one_is_cut() {
    let store = Store::new();
    let served = Served::start(store.clone()).await;
    let new = "fedcba9876543210fedcba9876543210";
    let status = async |token: &str| {
        served.get_as(RECORDS, &[("authorization", &format!("Bearer {token}"))], None).await.status
    };
    let mut tail = served.tail("/api/v1/tail", None).await;
    tail.next().await.unwrap();

    served.identity.put("token", &format!("{TOKEN}\n\n{new}\r\n"));
    assert!(served.api.refresh());
    assert_eq!(
        (status(TOKEN).await.as_u16(), status(new).await.as_u16()),
        (200, 200),
        "both, while it is rotated"
    );

    served.identity.put("token", "short\n");
    assert!(!served.api.refresh(), "what is bad leaves the old");
    assert_eq!((status(TOKEN).await.as_u16(), status("short").await.as_u16()), (200, 401));
    assert_eq!(served.metrics.tokens.failures.get(), 1);

    served.identity.put("token", new);
    assert!(served.api.refresh());
    assert_eq!((status(TOKEN).await.as_u16(), status(new).await.as_u16()), (401, 200));
    store.put(event(1, 1, "x"), None);
    let end = loop {
        let sent = tail.event().await;
        if sent.event == "end" {
            break sent;
        }
    };
    assert_eq!(end.data["reason"], "access");
    assert_eq!(served.metrics.cut.get_or_create(&CutLabel { reason: Cut::access }).get(), 1);

    std::fs::remove_file(served.identity.path("token")).unwrap();
    assert!(served.api.refresh());
    assert_eq!(status(new).await, 401, "taken back");
    eventually(|| served.metrics.tails.get() == 0).await;
}

#[test]
fn settings_that_cannot_be_used_are_refused_each_with_its_message() {
    let authority = Authority::new();
    let identity = authority.server("nodetap-aggregator");
    identity.put("token", "0123456789abcdef\nwith a space in it\n");
    identity.put("tls.key", "no key");
    let settings = Settings {
        files: identity.files(),
        token_files: vec![identity.path("token")],
        clients: Vec::new(),
        cluster: String::new(),
        limits: Limits::default(),
    };
    let problems = Api::build(settings, Metrics::default()).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("tls.key holds no PRIVATE KEY"), "{problems:?}");
    assert!(problems[1].contains("token, line 2, is no token: 16 to 4096 visible ASCII"), "{problems:?}");
    assert!(!problems[1].contains("space in it"), "a token is never shown");

    assert!(
        Client::parse("alice").unwrap_err().contains("write CN=name, DNS:name, URI:uri or email:address")
    );
    assert!(Client::parse("URI:nodetap://node/a").unwrap_err().contains("may not read the history"));
}
