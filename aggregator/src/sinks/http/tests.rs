use super::*;
use crate::sinks::Cause;

fn answer(status: u16) -> Outcome {
    Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: None, body: "why".to_owned() }
        .outcome()
}

#[test]
fn only_what_an_answer_says_of_the_record_itself_refuses_it() {
    for status in [200, 201, 202, 204] {
        assert_eq!(answer(status), Outcome::Delivered, "{status}");
    }
    for status in [400, 409, 413, 414, 415, 422, 431] {
        assert!(matches!(answer(status), Outcome::Refused(reason) if reason.ends_with(": why")), "{status}");
    }
    for (status, class) in [
        (302, FailureClass::Unavailable),
        (401, FailureClass::Unauthorized),
        (403, FailureClass::Unauthorized),
        (404, FailureClass::Unavailable),
        (405, FailureClass::Unavailable),
        (410, FailureClass::Unavailable),
        (407, FailureClass::Unauthorized),
        (408, FailureClass::Timeout),
        (425, FailureClass::Unavailable),
        (429, FailureClass::Throttled),
        (500, FailureClass::Unavailable),
        (502, FailureClass::Unavailable),
        (503, FailureClass::Unavailable),
        (504, FailureClass::Unavailable),
    ] {
        assert!(matches!(answer(status), Outcome::Retry(failure) if failure.class == class), "{status}");
    }
}

#[test]
fn an_address_without_scheme_or_host_is_refused_and_one_with_a_user_is_stripped_of_it() {
    for bad in ["/path", "loki:3100", "ftp://host/"] {
        assert!(address(&bad.parse().unwrap()).is_err(), "{bad}");
    }
    let (bare, authorization) = address(&"https://a:b@host:1/p?q".parse().unwrap()).unwrap();
    assert_eq!(bare.to_string(), "https://host:1/p?q");
    assert_eq!(authorization.unwrap(), "Basic YTpi");
}

#[test]
fn tls_files_that_hold_nothing_usable_are_errors_that_name_setting_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no PEM at all\n").unwrap();
    let missing = folder.path().join("missing.pem");
    let error = |config: TlsConfig| {
        let uri = "https://host/".parse().unwrap();
        match Client::new("s", &uri, &config, Duration::from_secs(1)) {
            Err(Cause::Tls(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let none = TlsConfig::default();
    let said = error(TlsConfig { ca_file: Some(empty.clone()), ..none.clone() });
    assert_eq!(said, format!("tls.caFile: {}: no certificate in it", empty.display()));
    let said = error(TlsConfig { ca_file: Some(missing.clone()), ..none.clone() });
    assert!(said.starts_with(&format!("tls.caFile: {}: ", missing.display())), "{said}");
    let said = error(TlsConfig { cert_file: Some(empty.clone()), ..none.clone() });
    assert_eq!(said, "tls.certFile and tls.keyFile: one is given without the other");
    let said = error(TlsConfig { server_name: Some("not a name".to_owned()), ..none });
    assert_eq!(said, r#"tls.serverName: "not a name" is no DNS name and no IP address"#);
}
