use super::*;

#[test]
fn versions_compare_as_numbers_not_as_text() {
    assert_eq!(compare("9", "10"), Some(Ordering::Less));
    assert_eq!(compare("123456789012345678901234567890", "99"), Some(Ordering::Greater));
    assert_eq!(compare("42", "42"), Some(Ordering::Equal));
}

#[test]
fn an_opaque_version_compares_with_nothing() {
    for opaque in ["", "0", "007", "4x", "-1", "４"] {
        assert_eq!(compare(opaque, "5"), None, "{opaque:?}");
        assert!(!is_later("5", opaque), "{opaque:?}");
    }
}
