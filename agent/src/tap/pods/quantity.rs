//! Kubernetes quantities, as far as bytes need them. Source: `k8s.io/apimachinery/pkg/api/resource/quantity.go`.

/// Decimal and binary suffixes; `m` is a thousandth.
const SUFFIXES: &[(&str, f64)] = &[
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("m", 1e-3),
];

/// The whole bytes of `text`, rounded up; `None` where it is none, or no quantity.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn parse(text: &str) -> Option<i64> {
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    if factor >= 1.0
        && let Ok(whole) = number.parse::<i64>()
        && let Some(bytes) = whole.checked_mul(factor as i64)
    {
        return Some(bytes);
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    let bytes = (number.parse::<f64>().ok()? * factor).ceil();
    (bytes.is_finite() && (0.0..9.2e18).contains(&bytes)).then_some(bytes as i64)
}

#[cfg(test)]
mod tests;
