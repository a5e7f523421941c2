#![allow(clippy::unwrap_used)]

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// 2021-01-01T00:00:00Z
const END_NS: i64 = 1_609_459_200 * 1_000_000_000;

#[test]
fn a_client_certificate_grants_until_it_ends_and_no_longer() {
    let mut params = CertificateParams::new(["grafana".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let clients = vec![Client::Dns("grafana".to_owned())];
    let access = Access::load(Vec::new(), clients, Metrics::default()).unwrap();
    let judge = |now_ns| access.judge(&HeaderMap::new(), Some(certificate.der()), now_ns);

    let grant = judge(END_NS - 1).unwrap();
    assert!(access.still_grants(&grant, END_NS - 1));
    let later = END_NS + 1_000_000_000;
    assert!(!access.still_grants(&grant, later));
    // A connection that was made before may ask again.
    assert_eq!(judge(later).unwrap_err().status, StatusCode::FORBIDDEN);
}
