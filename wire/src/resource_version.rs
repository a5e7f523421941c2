//! Order of resourceVersions: decimal numbers of any length (KEP-5504, stable in Kubernetes 1.35).
//!
//! A resourceVersion of another shape is opaque: it compares with nothing, and callers take the slow and certain way.

use std::cmp::Ordering;

/// Which of two resourceVersions of one API server came first; `None` where one is not a decimal number without leading
/// zeros.
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    if !is_comparable(left) || !is_comparable(right) {
        return None;
    }
    Some(left.len().cmp(&right.len()).then_with(|| left.cmp(right)))
}

/// Whether `left` is certainly later than `right`. Nothing is certain of an empty or opaque one.
pub fn is_later(left: &str, right: &str) -> bool {
    compare(left, right) == Some(Ordering::Greater)
}

fn is_comparable(version: &str) -> bool {
    !version.is_empty() && !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
