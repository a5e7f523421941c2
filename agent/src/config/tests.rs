use super::*;

fn arguments(flags: &[&str]) -> Arguments {
    Arguments::try_parse_from([&["nodetap-agent"], flags].concat()).unwrap()
}

#[test]
fn every_problem_is_told_at_once_with_its_flag() {
    let problems = arguments(&[
        "--aggregator=nowhere",
        "--tls-ca=/no/such/ca.crt",
        "--listen=9465",
        "--kubelet=http://10.0.0.1:10250",
        "--poll-interval=never",
        "--log-lines=sometimes",
        "--redact-patterns=/no/such/file",
    ])
    .check()
    .unwrap_err();
    let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
    for expected in [
        "--node-name: missing: give the node's name, or NODE_NAME in its environment",
        "--aggregator: `nowhere` is not HOST:PORT",
        "--tls-ca: cannot read /no/such/ca.crt: No such file or directory (os error 2)",
        "--tls-certificate: missing: give the file of this agent's certificate",
        "--tls-key: missing: give the file of its key",
        "--listen: `9465` is not ADDRESS:PORT",
        "--kubelet: `http://10.0.0.1:10250` is not https://HOST:PORT",
        "--log-lines: `sometimes` is neither opt-out nor opt-in",
        "--redact-patterns: cannot read /no/such/file: No such file or directory (os error 2)",
        "--poll-interval: `never` is not a number of seconds from 0.1 to 300",
    ] {
        assert!(told.iter().any(|problem| problem == expected), "{expected} is not among {told:#?}");
    }
    assert_eq!(told.len(), 10, "{told:#?}");
}

#[test]
fn the_aggregators_name_is_its_host_unless_it_is_given() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().display();
    let common = [
        "--node-name=node1".to_owned(),
        "--aggregator=[::1]:9443".to_owned(),
        format!("--tls-ca={file}"),
        format!("--tls-certificate={file}"),
        format!("--tls-key={file}"),
    ];
    let common: Vec<&str> = common.iter().map(String::as_str).collect();
    assert_eq!(arguments(&common).check().unwrap().aggregator_name, "::1");
    let named = [common, vec!["--aggregator-name=nodetap-aggregator"]].concat();
    assert_eq!(arguments(&named).check().unwrap().aggregator_name, "nodetap-aggregator");
}

#[test]
fn the_flags_are_well_formed() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}

#[test]
fn a_kubelet_on_an_ipv6_node_is_taken_without_brackets() {
    assert_eq!(bracketed("https://fd00::1:10250"), "https://[fd00::1]:10250");
    for whole in ["https://[fd00::1]:10250", "https://10.0.0.1:10250", "https://node1:10250", "https://node1"]
    {
        assert_eq!(bracketed(whole), whole);
    }
}
