use super::*;

#[test]
fn quantities_are_read_as_kubernetes_writes_them() {
    let rows = [
        ("64Mi", Some(64 << 20)),
        ("1.5Gi", Some(3 << 29)),
        ("128974848", Some(128_974_848)),
        ("129e6", Some(129_000_000)),
        ("129M", Some(129_000_000)),
        ("128974848000m", Some(128_974_848)),
        ("1E", Some(1_000_000_000_000_000_000)),
        ("", None),
        ("Mi", None),
        ("inf", None),
        ("lots", None),
        ("99999999Ei", None),
    ];
    for (text, bytes) in rows {
        assert_eq!(parse(text), bytes, "{text}");
    }
}
