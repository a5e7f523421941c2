#![allow(clippy::unwrap_used)]

use super::*;

/// A text, and the part of it that must be gone. Built from pieces, so that no scanner takes this file for a leak.
fn secrets() -> Vec<(String, String)> {
    let jwt = ["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N"].join(".");
    let aws = format!("AKIA{}", "IOSFODNN7EXAMPLE");
    let github = format!("ghp_{}", "16C7e42F292c6912E7710c838347Ae178B4a");
    let gitlab = format!("glpat-{}", "abcDEF123456ghiJKL78");
    let slack = format!("xoxb-{}", "123456789012-abcdefABCDEF");
    let google = format!("AIza{}", "SyA1234567890abcdefghijklmnopqrstuv");
    let stripe = format!("sk_live_{}", "4eC39HqLyjWDarjtT1zdp7dc");
    let sendgrid = format!("SG.{}.{}", "ngeVfQFYQlKU0ufo8x5d1A", "TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc");
    let npm = format!("npm_{}", "abcdefghijklmnopqrstuvwxyz0123456789");
    let vault = format!("hvs.{}", "CAESIJ1234567890abcdefghij");
    let rows: Vec<(String, &str)> = vec![
        ("dial postgres://app:hunter2@db:5432/shop failed".into(), "hunter2"),
        ("redis://:s3cr3tpw@cache:6379/0".into(), "s3cr3tpw"),
        ("amqp://guest:p%40ss@mq:5672//".into(), "p%40ss"),
        ("mongodb+srv://u:p@ss-w0rd@cluster0.example.net/db".into(), "p@ss-w0rd"),
        (format!("git clone https://{github}@github.com/a/b"), &github),
        ("open db: app:hunter2@tcp(10.0.0.3:3306)/shop?tls=true".into(), "hunter2"),
        (
            "https://hooks.slack.com/services/T000/B000/XXXXXXXXXXXXXXXXXXXXXXXX".into(),
            "XXXXXXXXXXXXXXXXXXXXXXXX",
        ),
        ("GET /v1?api_key=9f8a7b6c5d&x=1".into(), "9f8a7b6c5d"),
        ("GET /cb?access_token=abc123def456&state=1".into(), "abc123def456"),
        ("Authorization: Bearer abcdef0123456789abcdef".into(), "abcdef0123456789abcdef"),
        ("> authorization: Basic dXNlcjpwYXNz".into(), "dXNlcjpwYXNz"),
        ("\"Authorization\": \"token 0123456789abcdef\"".into(), "0123456789abcdef"),
        ("headers map[Authorization:[Bearer 0123456789abcdefABCDEF]]".into(), "0123456789abcdefABCDEF"),
        ("Proxy-Authorization: Basic QWxhZGRpbjpvcGVu".into(), "QWxhZGRpbjpvcGVu"),
        ("curl -H 'authorization: bearer tok3n-value-9'".into(), "tok3n-value-9"),
        ("sent bearer abcDEF123456ghiJKL to upstream".into(), "abcDEF123456ghiJKL"),
        (format!("session {jwt} rejected"), &jwt),
        (format!("cookie sid={jwt}; Path=/"), &jwt),
        (format!("key id {aws} is disabled"), &aws),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG".into(), "wJalrXUtnFEMI/K7MDENG"),
        ("{\"SecretAccessKey\":\"wJalrXUtnFEMI\",\"Region\":\"eu\"}".into(), "wJalrXUtnFEMI"),
        (format!("maps key {google} over quota"), &google),
        (format!("pushing with {github}"), &github),
        (format!("pulling with {gitlab}"), &gitlab),
        (format!("posting with {slack}"), &slack),
        (format!("charging with {stripe}"), &stripe),
        (format!("mailing with {sendgrid}"), &sendgrid),
        (format!("publishing with {npm}"), &npm),
        (format!("unsealing with {vault}"), &vault),
        ("password=hunter2".into(), "hunter2"),
        ("DB_PASSWORD=hunter2 starting".into(), "hunter2"),
        ("password: hunter2".into(), "hunter2"),
        ("  dbPassword: \"correct horse battery\"".into(), "correct horse battery"),
        ("{\"user\":\"a\",\"password\":\"p\\\"q\",\"n\":1}".into(), "p\\\"q"),
        ("{\"log\":\"{\\\"password\\\":\\\"hunter2\\\"}\"}".into(), "hunter2"),
        ("config {clientSecret: 'abc-def-123', id: 7}".into(), "abc-def-123"),
        ("client_secret=8f14e45f-ceea-467f-a0e6-0d3a1b2c3d4e".into(), "8f14e45f-ceea-467f-a0e6-0d3a1b2c3d4e"),
        ("passwd='two words'".into(), "two words"),
        ("Pwd=Sup3r;Server=db;".into(), "Sup3r"),
        ("AccountKey=abcd1234efgh5678==;EndpointSuffix=core".into(), "abcd1234efgh5678"),
        ("token => t0ps3cret,".into(), "t0ps3cret"),
        ("api-key: 0a1b2c3d4e5f".into(), "0a1b2c3d4e5f"),
        ("encryption_key=\"bXkga2V5\"".into(), "bXkga2V5"),
        ("exec --password hunter2 --verbose".into(), "hunter2"),
        ("exec --auth-token=hunter2x".into(), "hunter2x"),
        ("PGPASSWORD=12345678 psql".into(), "12345678"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----".into(),
            "MIIEowIBAAKCAQEA",
        ),
        (
            "key: \"-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADAN\\n-----END PRIVATE KEY-----\\n\"".into(),
            "MIIEvQIBADAN",
        ),
    ];
    rows.into_iter().map(|(text, secret)| (text, secret.to_owned())).collect()
}

const LOOK_ALIKES: &[&str] = &[
    "pod 8f14e45f-ceea-467f-a0e6-0d3a1b2c3d4e started",
    "image sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 90e02957c1d0b4f1c3a9b5d8e7f60123456789ab merged",
    "containerd://4f1c2d3e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA",
    "https://example.net:8443/path?page=2&sort=name",
    "git@github.com:a/b.git",
    "ssh://git@github.com/a/b.git",
    "mail to ops@example.net",
    "token expired",
    "token: expired",
    "invalid token: unexpected end of input",
    "password: incorrect",
    "error: password is required",
    "secret \"default/web-tls\" not found",
    "secretName: web-tls",
    "secretKeyRef: {name: web, key: user}",
    "imagePullSecrets: [regcred]",
    "tokenExpirationSeconds: 3607",
    "token_type=bearer",
    "\"expires_in\":3600,\"token_type\":\"Bearer\"",
    "max_tokens=4096",
    "prompt tokens: 512",
    "secrets: 3",
    "password=",
    "password=null",
    "password: ***",
    "password=${DB_PASSWORD}",
    "PWD=/srv/app",
    "OLDPWD=/srv",
    "passwordFile=/run/secrets/db",
    "token_url=https://login.example.net/oauth",
    "basic authentication failed",
    "bearer authentication required",
    "authorization: denied",
    "authorization failed for user bob",
    "eyJ is how a token begins",
    "level=error ts=2024-01-01T00:00:00Z caller=main.go:42 msg=\"connection refused\"",
    "panic: runtime error: index out of range [5] with length 3",
    "goroutine 1 [running]: main.main() /src/main.go:12 +0x1d",
    "task-123456789012345678901234567890 done",
    "AKIASHORT is no key",
    "10.0.0.1:8080: connect: connection refused",
    "-----BEGIN CERTIFICATE-----",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGdhbWU= ops",
    "resourceVersion 123456789 too old",
    "key: value",
];

#[test]
fn each_secret_of_the_corpus_is_gone_and_counted() {
    let redactor = Redactor::new().unwrap();
    let secrets = secrets();
    assert!(secrets.len() >= 40);
    let mut kept = Vec::new();
    for (text, secret) in &secrets {
        assert!(text.contains(secret.as_str()), "{text}");
        let mut counts = Counts::new();
        let redacted = redactor.text(text, &mut counts);
        if redacted.contains(secret.as_str()) || counts.values().sum::<u64>() == 0 {
            kept.push(format!("{text} -> {redacted} {counts:?}"));
        }
    }
    assert!(kept.is_empty(), "{kept:#?}");
}

#[test]
fn no_look_alike_of_the_corpus_is_touched() {
    let redactor = Redactor::new().unwrap();
    assert!(LOOK_ALIKES.len() >= 40);
    let mut touched = Vec::new();
    for text in LOOK_ALIKES {
        let mut counts = Counts::new();
        let mut lines = [LogLine { time_ns: 0, stderr: false, text: (*text).to_owned() }];
        redactor.lines(&mut lines, &mut counts);
        if lines[0].text != *text || !counts.is_empty() {
            touched.push(format!("{text} -> {} {counts:?}", lines[0].text));
        }
    }
    assert!(touched.is_empty(), "{touched:#?}");
}

#[test]
fn what_is_around_a_secret_stays() {
    let redactor = Redactor::new().unwrap();
    let mut counts = Counts::new();
    let text = redactor.text(
        "connect postgres://app:pw1@db/shop with password=\"a b\" and token=zz9; retrying",
        &mut counts,
    );
    assert_eq!(
        text,
        "connect postgres://[redacted]@db/shop with password=\"[redacted]\" and token=[redacted]; retrying"
    );
    assert_eq!(counts, Counts::from([(Kind::Url, 1), (Kind::Pair, 2)]));
    let mut again = Counts::new();
    assert_eq!(redactor.text(&text, &mut again), text);
    assert!(again.is_empty(), "what is redacted is not counted again: {again:?}");
}

fn redact_lines(texts: &[&str]) -> (Vec<String>, u64) {
    let mut lines: Vec<LogLine> =
        texts.iter().map(|text| LogLine { time_ns: 0, stderr: false, text: (*text).to_owned() }).collect();
    let mut counts = Counts::new();
    Redactor::new().unwrap().lines(&mut lines, &mut counts);
    (
        lines.into_iter().map(|line| line.text).collect(),
        counts.get(&Kind::PrivateKey).copied().unwrap_or_default(),
    )
}

const BODY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";

#[test]
fn a_private_key_over_several_lines_is_gone_as_a_whole_or_in_part() {
    let whole = ["a", "-----BEGIN PRIVATE KEY-----", BODY, "c2hvcnQ=", "-----END PRIVATE KEY-----", "b"];
    let (lines, count) = redact_lines(&whole);
    assert_eq!(lines, ["a", "[redacted]", "[redacted]", "[redacted]", "[redacted]", "b"]);
    assert_eq!(count, 1);
    let (lines, count) =
        redact_lines(&["a", BODY, "abcdefghijklmnopqrst", "-----END EC PRIVATE KEY-----", "b"]);
    assert_eq!((lines.concat(), count), ("a[redacted][redacted][redacted]b".to_owned(), 1));
    let (lines, count) = redact_lines(&["a", BODY, "b"]);
    assert_eq!((lines.concat(), count), ("a[redacted]b".to_owned(), 1));
}

#[test]
fn a_certificate_is_public_and_stays() {
    let certificate = ["-----BEGIN CERTIFICATE-----", BODY, "c2hvcnQ=", "-----END CERTIFICATE-----"];
    assert_eq!(redact_lines(&certificate), (certificate.map(ToOwned::to_owned).to_vec(), 0));
}
