#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<(Config, Vec<Warning>), Vec<Problem>> {
    Config::parse("config.yaml", text, |_| None)
}

fn problems(text: &str) -> Vec<String> {
    parse(text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    match parse(text) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(problems) => panic!("refused: {problems:?}"),
    }
}

const FINE: &str = "route: {match: [{receiver: a}]}\nreceivers: [{name: a, stdout: {}}]\n";

#[test]
fn an_empty_file_is_all_defaults() {
    let (config, warnings) = parse("").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.listen.agents.to_string(), "0.0.0.0:9443");
    assert_eq!(config.listen.metrics.to_string(), "0.0.0.0:2112");
    assert_eq!(config.tls.cert_file, Path::new("/etc/nodetap/tls/tls.crt"));
    assert_eq!(
        config.journal,
        JournalConfig {
            path: "/var/lib/nodetap".into(),
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: 10 << 30,
            synchronous: Synchronous::Full,
        }
    );
    assert_eq!(config.events, Wish::default());
    assert_eq!(config.listen.history.to_string(), "0.0.0.0:9444");
    assert_eq!(config.history, HistoryConfig::default(), "nobody may read the history");
}

#[test]
fn who_may_read_the_history_is_read() {
    let text = r#"
listen: {history: ":7"}
history:
  tokenFiles: [/not/there/yet]
  clients: [CN=alice, "URI:spiffe://c/grafana"]
  clientCaFile: /clients.crt
  maxQueries: 3
  maxTails: 4
  timeout: 5s
"#;
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.listen.history.to_string(), "0.0.0.0:7");
    let history = &config.history;
    assert_eq!(history.token_files, [Path::new("/not/there/yet")]);
    assert_eq!(
        history.clients,
        [Client::CommonName("alice".into()), Client::Uri("spiffe://c/grafana".into())]
    );
    assert_eq!(history.client_ca_file.as_deref(), Some(Path::new("/clients.crt")));
    let limits = (history.limits.queries, history.limits.tails, history.limits.deadline);
    assert_eq!(limits, (3, 4, Duration::from_secs(5)));
    let missing = config.check_files().unwrap_err();
    assert!(missing.iter().any(|problem| problem.path == "history.clientCaFile"), "{missing:?}");
    assert!(missing.iter().all(|problem| !problem.path.contains("tokenFiles")), "it may come later");

    for (text, expected) in [
        ("history: {clients: [alice]}", "history.clients[0]: \"alice\" names no client: write CN=name"),
        ("history: {clients: ['URI:nodetap://node/a']}", "is an agent's, which may not read the history"),
        ("history: {clientCaFile: /a}", "add history.clients"),
        ("history: {tokenFile: /a}", "did you mean tokenFiles?"),
        ("history: {maxTails: 0}", "history.maxTails: 0 is out of range: 1 to 1000"),
        ("listen: {history: ':9443'}", "agents and history have the same address"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn every_setting_is_read() {
    let text = r#"
clusterName: prod
metricsNamePrefix: event_exporter_
listen: {agents: "127.0.0.1:1", metrics: ":2"}
tls: {certFile: /c, keyFile: /k, caFile: /a}
journal: {path: /j, maxAge: 1h30m, maxBytes: 512MiB, synchronous: normal}
events: {watch: cluster}
route:
  match: [{receiver: out}, {receiver: f}, {receiver: w}, {receiver: l}]
receivers:
  - name: out
    stdout: {deDot: true}
  - name: f
    order: none
    deadLetterAfter: 3
    file: {path: /f, maxsize: 1, maxage: 2, maxbackups: 3, layout: {a: "{{ .Reason }}"}}
  - name: w
    webhook:
      endpoint: https://example.org/x
      headers: {X-Type: "{{ .Type }}"}
      tls: {serverName: s, caFile: /wa, certFile: /wc, keyFile: /wk}
      timeout: 3s
      concurrency: 16
  - name: l
    loki:
      url: http://loki:3100
      streamLabels: {app: "{{x}}", a: b}
      labels: {a: "{{ .Namespace }}"}
      tenant: "{{ .ClusterName }}"
      batch: {maxRecords: 10, maxBytes: 64KiB, maxWait: 500ms}
"#;
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (config.cluster_name.as_str(), config.metrics_name_prefix.as_str()),
        ("prod", "event_exporter_")
    );
    assert_eq!(config.listen.metrics.to_string(), "0.0.0.0:2");
    assert_eq!(config.journal.max_bytes, 512 << 20);
    assert_eq!(config.journal.synchronous, Synchronous::Normal);
    assert_eq!(config.events.watch, Watch::Cluster);
    assert_eq!(
        config.receivers.iter().map(|one| one.body.kind()).collect::<Vec<_>>(),
        ["stdout", "file", "webhook", "loki"]
    );
    let orders: Vec<_> = config.receivers.iter().map(receivers::Receiver::order).collect();
    use receivers::Order;
    assert_eq!(orders, [Order::Journal, Order::None, Order::Object, Order::Object]);
    let [_, file, webhook, loki] = config.receivers.as_slice() else { panic!("four receivers") };
    assert_eq!(file.delivery.dead_letter_after, 3);
    let receivers::ReceiverBody::File(file) = &file.body else { panic!("a file") };
    assert_eq!(
        (file.max_bytes, file.max_age, file.max_backups),
        (1 << 20, Some(Duration::from_secs(172_800)), Some(3))
    );
    let receivers::ReceiverBody::Webhook(webhook) = &webhook.body else { panic!("a webhook") };
    assert_eq!((webhook.timeout, webhook.concurrency), (Duration::from_secs(3), 16));
    assert_eq!(webhook.headers[0].1.source(), "{{ .Type }}");
    assert_eq!(webhook.tls.server_name.as_deref(), Some("s"));
    let receivers::ReceiverBody::Loki(loki) = &loki.body else { panic!("loki") };
    assert_eq!(loki.url.to_string(), "http://loki:3100/loki/api/v1/push");
    let labels: Vec<_> =
        loki.labels.iter().map(|(name, value)| (name.as_str(), value.source(), value.is_literal())).collect();
    assert_eq!(labels, [("a", "{{ .Namespace }}", false), ("app", "{{x}}", true)]);
    assert_eq!(loki.batch.max_bytes, 64 << 10);
    assert_eq!(config.files.len(), 6);
}

#[test]
fn every_problem_has_its_place_and_a_way_out() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("listen: {agent: x}", "config.yaml:1:10: listen.agent: unknown key; did you mean agents?"),
        ("listen: {foo: x}", "config.yaml:1:10: listen.foo: unknown key; there are agents, history, metrics"),
        (
            "listen: {agents: x}",
            "config.yaml:1:18: listen.agents: \"x\" is no address and port, such as 0.0.0.0:9443",
        ),
        (
            "listen: {agents: \":1\", metrics: \":1\"}",
            "config.yaml:1:9: listen: agents and metrics have the same address; give them two ports",
        ),
        ("listen: 5", "config.yaml:1:9: listen: must be a mapping, not a number"),
        (
            "journal: {maxAge: 5}",
            "config.yaml:1:19: journal.maxAge: \"5\" is no duration: write a number and ms, s, m, h or d, such as 30s, 168h or 7d",
        ),
        (
            "journal: {maxBytes: lots}",
            "config.yaml:1:21: journal.maxBytes: \"lots\" is no amount of bytes: write a number and KiB, MiB, GiB or TiB, such as 10GiB",
        ),
        (
            "journal: {synchronous: maybe}",
            "config.yaml:1:24: journal.synchronous: \"maybe\" is none of full, normal",
        ),
        (
            "events: {watch: shard}",
            "config.yaml:1:17: events.watch: \"shard\" is none of auto, host, cluster, namespaces, shards",
        ),
        (
            "events: {shards: {count: 0}}",
            "config.yaml:1:26: events.shards.count: 0 is out of range: 1 to 512",
        ),
        (
            "events: {shards: {counts: 3}}",
            "config.yaml:1:19: events.shards.counts: unknown key; did you mean count?",
        ),
        (
            "events: {maxEventsPerWatch: -1}",
            "config.yaml:1:29: events.maxEventsPerWatch: -1 is out of range: 1 to 1000000",
        ),
        ("reciever: []", "config.yaml:1:1: reciever: unknown key; did you mean receivers?"),
        ("jurnal: {}", "config.yaml:1:1: jurnal: unknown key; did you mean journal?"),
        ("journal: {}\njournal: {}", "config.yaml:2:1: journal: stands here for the second time"),
        (
            "metricsNamePrefix: event_exporter",
            "config.yaml:1:20: metricsNamePrefix: \"event_exporter\" is no prefix: a letter, then letters, digits, _ and :, and a _ at the end, such as event_exporter_",
        ),
        (
            "throttlePeriod: 5\nmaxEventAgeSeconds: 5",
            "config.yaml:1:1: throttlePeriod: is the old name of maxEventAgeSeconds, and both are given; remove this one",
        ),
        (
            "route: {match: [{receiver: a}]}",
            "config.yaml:1:28: route.match[0].receiver: unknown receiver \"a\"; there are no receivers",
        ),
        (
            "route: {match: [{receiver: dmup}]}\nreceivers: [{name: dump, stdout: {}}]",
            "config.yaml:1:28: route.match[0].receiver: unknown receiver \"dmup\"; did you mean \"dump\"?",
        ),
        (
            "route:\n  drop:\n    -\n",
            "config.yaml:3:6: route.drop[0]: a rule without anything would match everything; remove the line, or write {}",
        ),
        ("route: {drop: [x]}", "config.yaml:1:16: route.drop[0]: must be a mapping, not a string"),
        ("route: {drop: {}}", "config.yaml:1:15: route.drop: must be a list, not a mapping"),
        (
            "route: {match: [{kind: [A, B]}]}",
            "config.yaml:1:24: route.match[0].kind: must be a string, not a list",
        ),
        (
            "route: {match: [{minCount: \"5\"}]}",
            "config.yaml:1:28: route.match[0].minCount: must be a whole number, not a string",
        ),
        (
            "route: {match: [{minCount: 3000000000}]}",
            "config.yaml:1:28: route.match[0].minCount: 3000000000 is out of range: -2147483648 to 2147483647",
        ),
        (
            "receivers: [{stdout: {}}]",
            "config.yaml:1:13: receivers[0]: has no name; add `name: ...`, by which routes name it",
        ),
        (
            "receivers: [{name: a}]",
            "config.yaml:1:13: receivers[0]: has no kind; add one of stdout, file, webhook, loki",
        ),
        (
            "receivers:\n  - name: a\n    stdout:\n",
            "config.yaml:3:5: receivers[0].stdout: there is nothing in it; write `stdout: {}` or its settings",
        ),
        (
            "receivers: [{name: a, kafka: {topic: t}}]",
            "config.yaml:1:23: receivers[0].kafka: there is no receiver of kind kafka here yet; there are stdout, file, webhook, loki. Use one of them, or take it out",
        ),
        (
            "receivers: [{name: a, file: {}}]",
            "config.yaml:1:29: receivers[0].file: has no path; add `path: /var/log/events.json`",
        ),
        (
            "receivers: [{name: a, webhook: {}}]",
            "config.yaml:1:32: receivers[0].webhook: has no endpoint; add `endpoint: https://example.org/events`",
        ),
        (
            "receivers: [{name: a, webhook: {endpoint: localhost}}]",
            "config.yaml:1:43: receivers[0].webhook.endpoint: is no address; write one such as https://example.org/events",
        ),
        (
            "receivers: [{name: a, loki: {url: \"http://l\", batch: {size: 1}}}]",
            "config.yaml:1:55: receivers[0].loki.batch.size: unknown key; there are maxBytes, maxRecords, maxWait",
        ),
        (
            "receivers: [{name: a, loki: {url: \"http://l\", labels: {a-b: x}}}]",
            "config.yaml:1:61: receivers[0].loki.labels.a-b: \"a-b\" is no name of a label: letters, digits and _ only",
        ),
        (
            "receivers: [{name: a, webhook: {endpoint: \"http://h\", tls: {certFile: /c}}}]",
            "config.yaml:1:60: receivers[0].webhook.tls: certFile without keyFile; give both, or neither",
        ),
        (
            "receivers: [{name: a, webhook: {endpoint: \"http://h\", headers: {\"a b\": x}}}]",
            "config.yaml:1:72: receivers[0].webhook.headers.a b: \"a b\" is no name of a header",
        ),
        (
            "receivers: [{name: a, stdout: {layout: {x: {y: [\"{{ .Foo }}\"]}}}}]",
            "config.yaml:1:49: receivers[0].stdout.layout.x.y[0]: template: line 1: the event has no field \"Foo\"",
        ),
        (
            "receivers: [{name: a, stdout: {layout: x}}]",
            "config.yaml:1:40: receivers[0].stdout.layout: must be a mapping, not a string",
        ),
        ("- a", "config.yaml:1:1: must be a mapping, not a list"),
    ] {
        let found = problems(text);
        if found != [expected] {
            wrong.push((text, found, expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text = "listen:\n  agents: x\nreceivers:\n  - name: a\n    kafka: {topic: t}\n  - name: a\n    stdout: {}\nroute:\n  match:\n    - receiver: b\njournal:\n  maxAge: never\n";
    let found = problems(text);
    let lines: Vec<&str> = found.iter().map(|one| one.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "5", "6", "10", "12"], "{found:#?}");
    assert_eq!(
        found[2],
        "config.yaml:6:5: receivers[1]: another receiver is called \"a\" already, in line 4; rename one"
    );
}

#[test]
fn what_upstream_takes_in_silence_is_taken_with_a_warning() {
    for (text, expected) in [
        ("wobble: 1", "config.yaml:1:1: wobble: unknown key, ignored"),
        (
            "logLevel: debug",
            "config.yaml:1:1: logLevel: without effect here: the log's level is set by the environment variable RUST_LOG",
        ),
        (
            "maxEventAgeSeconds: 60",
            "config.yaml:1:1: maxEventAgeSeconds: without effect here: no event is dropped for its age, and none is delivered twice after a restart",
        ),
        (
            "namespace: shop",
            "config.yaml:1:1: namespace: without effect here: all namespaces are watched; for only this one, route by `namespace: ^shop$`",
        ),
        (
            "route: {drop: [{namespace: \"*test*\"}]}",
            "config.yaml:1:28: route.drop[0].namespace: never matches, as it is no pattern of Go: missing argument to repetition operator: `*`",
        ),
        (
            "route: {drop: [{}]}",
            "config.yaml:1:16: route.drop[0]: a rule without a condition: it drops everything",
        ),
        (
            "route: {match: [{kind: A, minCount: 1.5}]}",
            "config.yaml:1:37: route.match[0].minCount: 1.5 is cut to 1",
        ),
        (
            "route: {match: [{kind: Pod, knid: x}]}",
            "config.yaml:1:29: route.match[0].knid: unknown key, ignored; did you mean kind?",
        ),
        (
            "route: {match: [{kind: Pod, drop: []}]}",
            "config.yaml:1:29: route.match[0].drop: ignored here: it belongs beside the list of rules, not into a rule",
        ),
        (
            "route: {match: [{kind: A, kind: B}]}",
            "config.yaml:1:27: route.match[0].kind: stands here for the second time: the last one is taken",
        ),
        (
            "receivers: [{name: a, stdout: {}}]",
            "config.yaml:1:13: receivers[0]: no route names receiver \"a\": nothing is delivered to it",
        ),
        ("a: $HOME_OF_NOBODY", "config.yaml:1:1: a: unknown key, ignored"),
    ] {
        assert_eq!(warnings(text).first().map(String::as_str), Some(expected), "{text}");
    }
    let with =
        |body: &str| format!("route: {{match: [{{receiver: a}}]}}\nreceivers: [{{name: a, {body}}}]\n");
    for (body, expected) in [
        (
            "stdout: {layout: {}}",
            "config.yaml:2:40: receivers[0].stdout.layout: an empty layout: every record is written as {}; remove it to write the whole record",
        ),
        (
            "stdout: {layout: {n: 1}}",
            "config.yaml:2:44: receivers[0].stdout.layout.n: 1 is written as null, as kubernetes-event-exporter does; quote it to keep it",
        ),
        (
            "stdout: {dedot: true}",
            "config.yaml:2:32: receivers[0].stdout.dedot: unknown key, ignored; did you mean deDot?",
        ),
        (
            "stdout: {}, loki: {}",
            "config.yaml:2:35: receivers[0].loki: ignored: a receiver has one kind, and stdout comes first",
        ),
        (
            "webhook: {endpoint: \"http://h\", headers: {X: \"{{ .No }}\"}}",
            "config.yaml:2:68: receivers[0].webhook.headers.X: sent as it is: template: line 1: the event has no field \"No\"",
        ),
        (
            "webhook: {endpoint: \"http://h\", tls: {insecureSkipVerify: true}}",
            "config.yaml:2:81: receivers[0].webhook.tls.insecureSkipVerify: any certificate is taken, a forged one too; give caFile instead",
        ),
    ] {
        assert_eq!(warnings(&with(body)), [expected], "{body}");
    }
    assert_eq!(warnings(FINE), [] as [&str; 0]);
}

#[test]
fn a_variable_that_is_not_set_is_said_where_it_stood() {
    let text = "clusterName: a\nroute:\n  match:\n    - message: \"x $1 ${NONE}\"\n      receiver: r\nreceivers: [{name: r, stdout: {}}]\n";
    assert_eq!(
        warnings(text),
        [
            "config.yaml:4:19: $1 is taken for an environment variable, is not set, and so vanishes",
            "config.yaml:4:22: ${NONE} is taken for an environment variable, is not set, and so vanishes",
        ]
    );
}

#[test]
fn lines_are_those_of_the_file_after_variables_with_several() {
    let environment = |name: &str| (name == "MANY").then(|| "a\n  b".to_owned());
    let text = "clusterName: >-\n  $MANY\nlisten: 5\n";
    let found = Config::parse("c", text, environment).map(|_| ()).unwrap_err();
    assert_eq!(found[0].to_string(), "c:3:9: listen: must be a mapping, not a number");
}

#[test]
fn what_is_no_yaml_is_one_problem_with_its_place() {
    for (text, start, end) in [
        (
            "route:\n  drop:\n    - namespace: *test*\n",
            "config.yaml:3:18: not YAML: ",
            "; a value that begins with * must be quoted",
        ),
        ("receivers:\n  - name: {{ .X }}\n", "config.yaml:2:", "; a value with {{ in it must be quoted"),
        ("a: [\n", "config.yaml:", ""),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(start) && found[0].ends_with(end), "{}", found[0]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.yaml");
    let found = Config::load(&path).map(|_| ()).unwrap_err();
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!(
            "{}: cannot be read: No such file or directory (os error 2); name a readable file by --config",
            path.display()
        )]
    );
    std::fs::write(&path, b"a: \xff\n").unwrap();
    assert!(Config::load(&path).map(|_| ()).unwrap_err()[0].to_string().contains("is not UTF-8"));
    std::fs::write(&path, FINE).unwrap();
    assert_eq!(Config::load(&path).unwrap().0.receivers.len(), 1);
}

#[test]
fn files_of_tls_sections_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there.pem");
    std::fs::write(&there, "x").unwrap();
    let there = there.display();
    let text = format!("tls:\n  certFile: {there}\n  keyFile: {there}\n  caFile: /nowhere/ca.pem\n");
    let (config, _) = parse(&text).unwrap();
    let found: Vec<String> = config.check_files().unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "config.yaml:4:11: tls.caFile: /nowhere/ca.pem cannot be read: No such file or directory (os error 2); put it there, or name another file"
        ]
    );
    let (config, _) =
        parse(&format!("tls: {{certFile: {there}, keyFile: {there}, caFile: {there}}}")).unwrap();
    assert_eq!(config.check_files(), Ok(()));
}

#[test]
fn an_address_with_a_password_is_not_repeated() {
    let found = problems("receivers: [{name: a, webhook: {endpoint: \"ftp://me:secret@h\"}}]");
    assert!(!found[0].contains("secret"), "{}", found[0]);
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_problems(text in "(?s).{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_mix_of_our_words_is_a_configuration_or_problems(
        text in "((route|receivers|match|drop|name|stdout|loki|url|layout|labels|minCount|tls|listen|journal|a)(: |:\n  |: \\{|: \\[)|- |[\\[\\]{}\n,*&!|>\"']|x|1|~|\\{\\{ \\.Reason \\}\\}){0,30}"
    ) {
        let _ = parse(&text);
    }
}
