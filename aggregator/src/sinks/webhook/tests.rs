use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::receivers::{Receiver, ReceiverBody, TlsConfig};
use crate::route::template::Template;
use crate::sinks::encode::Encoder;
use crate::sinks::metrics::SinkMetrics;
use crate::sinks::tests::journal::Memory;
use crate::sinks::tests::server::{Reply, Server};
use crate::sinks::tests::{looping, webhook};
use crate::sinks::{AnySink, build};

/// Starts delivering to `config`, until the test ends.
fn deliver(journal: &Memory, config: WebhookConfig) -> SinkMetrics {
    let receiver = Receiver {
        name: "hook".to_owned(),
        body: ReceiverBody::Webhook(config),
        delivery: Default::default(),
    };
    let sink: AnySink = build(&receiver).unwrap();
    let (delivering, metrics) = looping("hook", journal, Encoder::new(&receiver.body), sink);
    tokio::spawn(delivering.run(CancellationToken::new()));
    metrics
}

fn object_and_position(body: &str) -> (String, u64) {
    let face: serde_json::Value = serde_json::from_str(body).unwrap();
    let object = face["involvedObject"]["name"].as_str().unwrap().to_owned();
    (object, face["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_record_is_posted_as_its_face_with_its_id_beside_it() {
    let server = Server::start(|_| Reply::Status(200)).await;
    let journal = Memory::new();
    journal.event("a", "a <b> & c");
    let mut config = webhook(&server.url("/events?x=1"));
    config.headers = vec![
        (HeaderName::from_static("x-reason"), Template::compile("r-{{ .Reason }}").unwrap()),
        (CONTENT_TYPE, Template::literal("application/vnd.event+json")),
    ];
    deliver(&journal, config);
    journal.reached("hook", 1).await;
    let got = server.got().remove(0);
    assert_eq!(got.path, "/events?x=1");
    assert_eq!(got.headers["nodetap-id"], "event/prod/u1/1");
    assert_eq!(got.headers["idempotency-key"], "event/prod/u1/1");
    assert_eq!(got.headers["x-reason"], "r-Started");
    assert_eq!(got.headers["content-type"], "application/vnd.event+json");
    assert!(got.body.contains(r#""message":"a \u003cb\u003e \u0026 c""#), "{}", got.body);
    assert_eq!(object_and_position(&got.body), ("a".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn after_503_for_ten_minutes_every_record_is_there_once_and_in_order() {
    let began = Instant::now();
    let server =
        Server::start(move |_| Reply::Status(if began.elapsed().as_secs() < 600 { 503 } else { 204 })).await;
    let journal = Memory::new();
    for index in 0..200 {
        journal.event(["a", "b", "c"][index % 3], "x");
    }
    let metrics = deliver(&journal, webhook(&server.url("/")));
    journal.reached("hook", 200).await;
    let failed = metrics.retried.get() as usize;
    let mut of: HashMap<String, Vec<u64>> = HashMap::new();
    for body in server.bodies().iter().skip(failed) {
        let (object, position) = object_and_position(body);
        of.entry(object).or_default().push(position);
    }
    assert_eq!(of.values().map(Vec::len).sum::<usize>(), 200);
    assert!(of.values().all(|positions| positions.is_sorted()), "{of:?}");
    assert_eq!(server.got().len(), 200 + failed);
    assert_eq!(metrics.delivered.get(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_to_be_tried_again_is_overtaken_by_none() {
    let mut answers = vec![200, 200, 503, 200];
    let server = Server::start(move |_| Reply::Status(answers.pop().unwrap_or(200))).await;
    let journal = Memory::new();
    for _ in 0..4 {
        journal.event("a", "x");
    }
    deliver(&journal, webhook(&server.url("/")));
    journal.reached("hook", 4).await;
    let posted: Vec<u64> = server.bodies().iter().map(|body| object_and_position(body).1).collect();
    assert_eq!(posted, [1, 2, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let began = Instant::now();
    let mut first = true;
    let server = Server::start(move |_| {
        if std::mem::take(&mut first) { Reply::RetryAfter(429, "120") } else { Reply::Status(200) }
    })
    .await;
    let journal = Memory::new();
    journal.event("a", "x");
    deliver(&journal, webhook(&server.url("/")));
    journal.reached("hook", 1).await;
    assert!(began.elapsed() >= Duration::from_secs(120), "came back after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(130), "came back after {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_is_a_dead_letter_with_the_answer_and_the_others_arrive() {
    let server = Server::start(|got| {
        if got.body.contains("poison") { Reply::Text(400, "field x: too odd") } else { Reply::Status(200) }
    })
    .await;
    let journal = Memory::new();
    journal.event("a", "fine");
    journal.event("a", "poison");
    journal.event("a", "fine");
    let metrics = deliver(&journal, webhook(&server.url("/")));
    journal.reached("hook", 3).await;
    assert_eq!(server.got().len(), 3);
    assert_eq!(journal.dead("hook"), [(2, "answered 400 Bad Request: field x: too odd".to_owned())]);
    assert_eq!((metrics.delivered.get(), metrics.dead_letters.get()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_answers_is_given_up_on_and_tried_again() {
    let mut hang = 2;
    let server = Server::start(move |_| {
        if hang == 0 {
            return Reply::Status(200);
        }
        hang -= 1;
        Reply::Hang
    })
    .await;
    let journal = Memory::new();
    journal.event("a", "x");
    let began = Instant::now();
    let metrics = deliver(&journal, webhook(&server.url("/")));
    journal.reached("hook", 1).await;
    assert!(began.elapsed() >= Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((metrics.delivered.get(), metrics.retried.get()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_not_up_yet_gets_everything_once_it_is() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let journal = Memory::new();
    for _ in 0..5 {
        journal.event("a", "x");
    }
    let metrics = deliver(&journal, webhook(&format!("http://{address}/")));
    while metrics.retried.get() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let server = Server::listen(address, None, |_| Reply::Status(200)).await;
    journal.reached("hook", 5).await;
    assert_eq!(server.got().len(), 5);
    assert_eq!(journal.dead("hook"), []);
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_layout_does_not_render_is_a_dead_letter() {
    let server = Server::start(|_| Reply::Status(200)).await;
    let journal = Memory::new();
    journal.event("a", "x");
    journal.event("b", "x");
    let layout = serde_json::json!({"m": r#"{{ if eq .InvolvedObject.Name "a" }}{{ fail "no a" }}{{ end }}{{ .Message }}"#});
    let mut config = webhook(&server.url("/"));
    config.layout = Some(crate::route::template::Layout::compile(&layout).unwrap());
    deliver(&journal, config);
    journal.reached("hook", 2).await;
    assert_eq!(server.bodies(), [r#"{"m":"x"}"#]);
    let dead = journal.dead("hook");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].1.contains("no a"), "{dead:?}");
}

#[tokio::test(start_paused = true)]
async fn user_and_password_of_the_address_are_sent_as_a_header_only() {
    let server = Server::start(|_| Reply::Status(200)).await;
    let journal = Memory::new();
    journal.event("a", "x");
    deliver(&journal, webhook(&format!("http://aladdin:open%20sesame@{}/", server.address)));
    journal.reached("hook", 1).await;
    assert_eq!(server.got()[0].headers["authorization"], "Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(server.got()[0].headers["host"], server.address.to_string());
}

/// A certificate for `name` by an authority of its own, and that authority as PEM.
fn certificate(name: &str) -> (TlsAcceptor, String) {
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(params, authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

#[tokio::test(start_paused = true)]
async fn two_webhooks_trust_each_its_own_authority_and_not_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    for name in ["one.test", "two.test"] {
        let (acceptor, pem) = certificate(name);
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        let server =
            Server::listen("127.0.0.1:0".parse().unwrap(), Some(acceptor), |_| Reply::Status(200)).await;
        servers.push((server, name, file));
    }
    let tried = async |server: usize, authority: Option<usize>, skip: bool| {
        let (server, name, _) = &servers[server];
        let mut config = webhook(&format!("https://{}/", server.address));
        config.tls = TlsConfig {
            ca_file: authority.map(|of| servers[of].2.clone()),
            server_name: Some((*name).to_owned()),
            insecure_skip_verify: skip,
            ..TlsConfig::default()
        };
        let sink = Webhook::new("hook", &config, crate::sinks::Order::Object).unwrap();
        sink.post(&crate::sinks::tests::delivery(1, "a")).await
    };
    assert_eq!(tried(0, Some(0), false).await, Outcome::Delivered);
    assert_eq!(tried(1, Some(1), false).await, Outcome::Delivered);
    assert_eq!(tried(1, None, true).await, Outcome::Delivered);
    for (server, authority) in [(0, Some(1)), (1, Some(0)), (0, None)] {
        match tried(server, authority, false).await {
            Outcome::Retry(failure) => {
                assert!(failure.reason.contains("invalid peer certificate"), "{failure:?}")
            }
            other => panic!("server {server} with authority {authority:?}: {other:?}"),
        }
    }
}

#[test]
fn an_id_that_no_header_can_carry_is_escaped() {
    assert_eq!(id_value("event/prod/u/1"), "event/prod/u/1");
    assert_eq!(id_value("event/größe\n/u/1"), "event/gr%C3%B6%C3%9Fe%0A/u/1");
}

/// Deliveries of a webhook that holds up to four requests, against a server that answers when it is told to.
#[tokio::test]
async fn requests_go_at_one_time_but_never_two_of_one_object_and_a_slow_one_holds_up_its_object_alone() {
    use std::sync::{Arc, Mutex};

    use tokio::sync::{mpsc, watch};

    let (arrived, mut arrivals) = mpsc::channel(8);
    let (answer, answers) = watch::channel(Vec::<u64>::new());
    let at_once: Arc<Mutex<(usize, usize)>> = Arc::default();
    let count = Arc::clone(&at_once);
    let server = crate::sinks::tests::server::Server::start_slow(move |got| {
        let (object, position) = object_and_position(&got.body);
        let (mut answers, arrived, count) = (answers.clone(), arrived.clone(), Arc::clone(&count));
        async move {
            {
                let mut count = count.lock().unwrap();
                count.0 += 1;
                count.1 = count.1.max(count.0);
            }
            arrived.send((object, position)).await.unwrap();
            let _ = answers.wait_for(|answers| answers.contains(&position)).await;
            count.lock().unwrap().0 -= 1;
            200
        }
    })
    .await;
    let journal = Memory::new();
    for object in ["slow", "slow", "a", "b", "a", "c", "d", "slow"] {
        journal.event(object, "x");
    }
    let metrics = deliver(&journal, WebhookConfig { concurrency: 4, ..webhook(&server.url("/")) });
    let mut came: Vec<(String, u64)> = Vec::new();
    // All but the slow object's second and third come, although its first is not answered.
    while came.len() < 6 {
        let (object, position) = arrivals.recv().await.unwrap();
        if position != 1 {
            answer.send_modify(|answers| answers.push(position));
        }
        came.push((object, position));
    }
    came.sort_by_key(|(_, position)| *position);
    assert_eq!(came.iter().map(|(_, position)| *position).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7]);
    assert_eq!(
        journal.cursor_of("hook"),
        Some(crate::journal::Position(0)),
        "the cursor stands before the slow one"
    );
    answer.send_modify(|answers| answers.extend([1, 2, 8]));
    journal.reached("hook", 8).await;
    assert_eq!(metrics.delivered.get(), 8);
    assert!((2..=4).contains(&at_once.lock().unwrap().1), "{} at one time", at_once.lock().unwrap().1);
}

#[tokio::test(start_paused = true)]
async fn killed_amid_its_requests_it_sends_again_what_was_not_noted_and_keeps_each_objects_order() {
    let server = Server::start(|got| {
        let (_, position) = object_and_position(&got.body);
        Reply::Status(if position % 11 == 0 && got.headers.contains_key("x-first") { 503 } else { 200 })
    })
    .await;
    let journal = Memory::new();
    for index in 0..400_usize {
        journal.event(["a", "b", "c", "d", "e"][index * index % 5], "x");
    }
    let mut kills = 0;
    while journal.cursor_of("hook") != Some(crate::journal::Position(400)) {
        let mut config = webhook(&server.url("/"));
        config.concurrency = 3;
        if kills % 2 == 0 {
            config.headers = vec![(HeaderName::from_static("x-first"), Template::literal("1"))];
        }
        let receiver = Receiver {
            name: "hook".to_owned(),
            body: ReceiverBody::Webhook(config),
            delivery: Default::default(),
        };
        let (delivering, _) =
            looping("hook", &journal, Encoder::new(&receiver.body), build(&receiver).unwrap());
        let task = tokio::spawn(delivering.run(CancellationToken::new()));
        let before = server.got().len();
        while server.got().len() < before + 5 + kills % 7
            && journal.cursor_of("hook").is_none_or(|at| at.0 < 400)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        task.abort();
        let _ = task.await;
        kills += 1;
        assert!(kills < 1_000, "it does not get on");
    }
    let mut first: HashMap<String, Vec<u64>> = HashMap::new();
    for body in server.bodies() {
        let (object, position) = object_and_position(&body);
        let of = first.entry(object).or_default();
        if !of.contains(&position) {
            of.push(position);
        }
    }
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), 400);
    assert!(first.values().all(|positions| positions.is_sorted()), "{first:?}");
}
