use proptest::prelude::*;

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

proptest! {
    #[test]
    fn numbers_compare_as_numbers(left in 1..=u128::MAX, right in 1..=u128::MAX, shift in 0..120_u32) {
        for (left, right) in [(left, right), (left >> shift | 1, right >> shift | 1), (left, left)] {
            let (left_text, right_text) = (left.to_string(), right.to_string());
            prop_assert_eq!(compare(&left_text, &right_text), Some(left.cmp(&right)));
            prop_assert_eq!(is_later(&left_text, &right_text), left > right);
        }
    }

    #[test]
    fn any_two_texts_are_compared_alike_from_both_sides(left in "[0-9]{0,3}|\\PC{0,5}", right in "[0-9]{0,3}|\\PC{0,5}") {
        prop_assert_eq!(compare(&left, &right), compare(&right, &left).map(Ordering::reverse));
    }
}
