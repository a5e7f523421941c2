#![allow(clippy::unwrap_used)]

use super::*;

/// What it is, a line that holds it, and the part that must be gone. Built from pieces, so that no scanner takes this file for a leak.
fn secrets() -> Vec<(&'static str, String, String)> {
    let jwt = ["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N"].join(".");
    let hex = "0123456789abcdef0123456789abcdef";
    let mixed = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hL3nR6";
    let aws = format!("AKIA{}", "IOSFODNN7EXAMPLE");
    let github = format!("ghp_{mixed}");
    let google = format!("AIza{}", "SyA1234567890abcdefghijklmnopqrstuv");
    let tokens: Vec<(&str, String)> = vec![
        ("github token", github.clone()),
        ("github token", format!("github_pat_{mixed}")),
        ("gitlab token", format!("glpat-{}", "abcDEF123456ghiJKL78")),
        ("gitlab token", format!("glrt-{}", "abcDEF123456ghiJKL78")),
        ("slack token", format!("xoxb-{}", "123456789012-abcdefABCDEF")),
        ("slack token", format!("xapp-1-{}", "A012ABCDEF-0123456789-abcdef")),
        ("stripe key", format!("sk_live_{}", "4eC39HqLyjWDarjtT1zdp7dc")),
        ("stripe key", format!("whsec_{}", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        (
            "sendgrid key",
            format!("SG.{}.{}", "ngeVfQFYQlKU0ufo8x5d1A", "TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc"),
        ),
        ("npm token", format!("npm_{mixed}")),
        ("vault token", format!("hvs.{}", "CAESIJ1234567890abcdefghij")),
        ("openai key", format!("sk-proj-{mixed}")),
        ("hugging face token", format!("hf_{mixed}")),
        ("docker hub token", format!("dckr_pat_{}", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7")),
        ("new relic key", format!("NRAK-{}", "ABCDEFGHIJ0123456789KLMNOPQ")),
        ("grafana token", format!("glsa_{mixed}_12345678")),
        ("rubygems key", format!("rubygems_{hex}0123456789abcdef")),
        ("terraform token", format!("abcDEF12345678.atlasv1.{mixed}{mixed}")),
        ("telegram token", format!("123456789:AA{}", "Hk3jd9Lq8sT1vW4yZ7cF0hL3nR6aB3dE6")),
        ("tailscale key", format!("tskey-auth-{}", "kAbCdEf1CNTRL-abcdefghijklmnop")),
        ("shopify token", format!("shpat_{hex}")),
        (
            "postman key",
            format!("PMAK-{}-{}", "0123456789abcdef01234567", "0123456789abcdef0123456789abcdef01"),
        ),
        ("google key", google.clone()),
        ("google key", format!("GOCSPX-{}", "aB3dE6gH9jK2mN5pQ8sT1v")),
        ("databricks token", format!("dapi{hex}")),
        ("digitalocean token", format!("dop_v1_{hex}{hex}")),
        ("azure secret", format!("abc8Q~{}", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hL3")),
        ("aws key", aws.clone()),
    ];
    let prose = [
        "pushing with ",
        "upstream said 401 for ",
        "loaded ",
        "time=12:00 level=info msg=\"using ",
        "args: [-v ",
    ];
    let mut rows: Vec<(&str, String, &str)> = tokens
        .iter()
        .enumerate()
        .map(|(index, (kind, token))| {
            (*kind, format!("{}{token} now", prose[index % prose.len()]), token.as_str())
        })
        .collect();
    let bcrypt = format!("$2b$12${}", "EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW");
    let crypt = format!("$6$rounds${}", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hL3nR6aB3dE6gH9jK2mN5pQ8");
    let signature = "Jz8tWw%2Bn2qP0sB1c%2FvK5mX7yD9eR3fA6hL4uQ%3D";
    rows.extend([
        ("database url", "dial postgres://app:hunter2@db:5432/shop failed".into(), "hunter2"),
        ("database url", "redis://:s3cr3tpw@cache:6379/0".into(), "s3cr3tpw"),
        ("database url", "amqp://guest:p%40ss@mq:5672//".into(), "p%40ss"),
        ("database url", "mongodb+srv://u:p@ss-w0rd@cluster0.example.net/db".into(), "p@ss-w0rd"),
        ("url with a token", format!("git clone https://{github}@github.com/a/b"), &github),
        ("data source name", "open db: app:hunter2@tcp(10.0.0.3:3306)/shop?tls=true".into(), "hunter2"),
        (
            "webhook",
            "https://hooks.slack.com/services/T000/B000/XXXXXXXXXXXXXXXXXXXXXXXX".into(),
            "XXXXXXXXXXXXXXXXXXXXXXXX",
        ),
        ("query parameter", "GET /v1?api_key=9f8a7b6c5d&x=1".into(), "9f8a7b6c5d"),
        ("query parameter", "GET /cb?access_token=abc123def456&state=1".into(), "abc123def456"),
        ("azure signature", format!("GET /c/blob?sv=2020&sig={signature}&se=2026"), signature),
        (
            "authorization header",
            "Authorization: Bearer abcdef0123456789abcdef".into(),
            "abcdef0123456789abcdef",
        ),
        ("authorization header", "> authorization: Basic dXNlcjpwYXNz".into(), "dXNlcjpwYXNz"),
        ("authorization header", "\"Authorization\": \"token 0123456789abcdef\"".into(), "0123456789abcdef"),
        (
            "authorization header",
            "headers map[Authorization:[Bearer 0123456789abcdefABCDEF]]".into(),
            "0123456789abcdefABCDEF",
        ),
        ("authorization header", "Proxy-Authorization: Basic QWxhZGRpbjpvcGVu".into(), "QWxhZGRpbjpvcGVu"),
        ("authorization header", "curl -H 'authorization: bearer tok3n-value-9'".into(), "tok3n-value-9"),
        ("bearer token", "sent bearer abcDEF123456ghiJKL to upstream".into(), "abcDEF123456ghiJKL"),
        ("cookie", "< Set-Cookie: session=s%3AaB3dE6gH9jK2; Path=/; HttpOnly".into(), "s%3AaB3dE6gH9jK2"),
        ("cookie", "{\"cookie\":\"sid=0a1b2c3d4e5f; theme=dark\"}".into(), "0a1b2c3d4e5f"),
        ("jwt", format!("session {jwt} rejected"), &jwt),
        ("jwt", format!("cookie sid={jwt}; Path=/"), &jwt),
        ("jwt", format!("{{\"id\":\"{jwt}\"}}"), &jwt),
        ("password hash", format!("user bob has {bcrypt}"), &bcrypt[7..]),
        ("password hash", format!("bob:{crypt}:19000:0:99999"), &crypt[10..]),
        (
            "aws secret",
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ),
        ("aws secret", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG".into(), "wJalrXUtnFEMI/K7MDENG"),
        ("aws secret", "{\"SecretAccessKey\":\"wJalrXUtnFEMI\",\"Region\":\"eu\"}".into(), "wJalrXUtnFEMI"),
        ("password", "password=hunter2".into(), "hunter2"),
        ("password", "DB_PASSWORD=hunter2 starting".into(), "hunter2"),
        ("password", "password: hunter2".into(), "hunter2"),
        ("password", "  dbPassword: \"correct horse battery\"".into(), "correct horse battery"),
        ("password", "{\"user\":\"a\",\"password\":\"p\\\"q\",\"n\":1}".into(), "p\\\"q"),
        ("password", "{\"log\":\"{\\\"password\\\":\\\"hunter2\\\"}\"}".into(), "hunter2"),
        ("password", "passwd='two words'".into(), "two words"),
        ("password", "Pwd=Sup3r;Server=db;".into(), "Sup3r"),
        ("password", "exec --password hunter2 --verbose".into(), "hunter2"),
        ("password", "PGPASSWORD=12345678 psql".into(), "12345678"),
        ("client secret", "config {clientSecret: 'abc-def-123', id: 7}".into(), "abc-def-123"),
        (
            "client secret",
            "client_secret=8f14e45f-ceea-467f-a0e6-0d3a1b2c3d4e".into(),
            "8f14e45f-ceea-467f-a0e6-0d3a1b2c3d4e",
        ),
        ("connection string", "AccountKey=abcd1234efgh5678==;EndpointSuffix=core".into(), "abcd1234efgh5678"),
        ("api key", "token => t0ps3cret,".into(), "t0ps3cret"),
        ("api key", "api-key: 0a1b2c3d4e5f".into(), "0a1b2c3d4e5f"),
        ("api key", "exec --auth-token=hunter2x".into(), "hunter2x"),
        ("encryption key", "encryption_key=\"bXkga2V5\"".into(), "bXkga2V5"),
        (
            "private key",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----".into(),
            "MIIEowIBAAKCAQEA",
        ),
        (
            "private key",
            "key: \"-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADAN\\n-----END PRIVATE KEY-----\\n\"".into(),
            "MIIEvQIBADAN",
        ),
    ]);
    rows.into_iter().map(|(kind, text, secret)| (kind, text, secret.to_owned())).collect()
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
    "pulled docker.io/library/redis@sha256:7c1ef4cbdf1e7b0a7dbf2f0b1d4f8c2f9d2ad2b1a1a6a0d6a1d3b9a4a5c6e7f8 in 2.1s",
    "HEAD is now at 90e02957 Merge branch 'main'",
    "etag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"",
    "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
    "request_id=01HF7YAT00QXW1S2T3V4W5X6Y7 took 12ms",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "avatar=/9j/4AAQSkZJRgABAQEAYABgAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT",
    "go: downloading github.com/prometheus/client_golang v1.19.0 h1:ygXvpU1AoN1MhdzckN+PyD9QJOSD4x7kmXYlnfbA6JU=",
    "\"integrity\": \"sha512-v2kDEe57lecTulaDIuNTPy3Ry4gLGJ6Z1O3vE1krgXZNrsQ+LFTGHVxVjcXPs17LhbZVGedAJv8XZ1tvj5FvSg==\"",
    "cache key-0123456789abcdef0123456789abcdef evicted",
    "disk-0123456789abcdef0123456789 attached",
    "listening on http://0.0.0.0:8080 and https://[::1]:8443",
    "Asia/Tokyo",
    "the basic idea of bearer bonds",
    "cookie: expired",
    "SELECT count(*) FROM tokens WHERE secret_id IS NULL",
    "resolved secretRef default/web in 3ms",
    "price is $5 and $62 per month",
    "MAC 02:42:ac:11:00:02, IPv6 fe80::42:acff:fe11:2",
    "2024-01-01T00:00:00.000000001Z 12345678:90 ratio 1.5e10",
    "node_modules/.bin/tsc --build --tokenize false",
];

#[test]
fn each_secret_of_the_corpus_is_gone_and_counted() {
    let redactor = Redactor::new().unwrap();
    let secrets = secrets();
    let kinds: std::collections::BTreeSet<&str> = secrets.iter().map(|(kind, _, _)| *kind).collect();
    assert!(secrets.len() >= 60 && kinds.len() >= 20, "{} of {} kinds", secrets.len(), kinds.len());
    let mut kept = Vec::new();
    for (_, text, secret) in &secrets {
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
    assert!(LOOK_ALIKES.len() >= 60);
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
