//! Timestamps as Kubernetes writes them: RFC 3339, null, absent, or Go's zero time.

use jiff::Timestamp;

/// Nanoseconds since 1970 of an RFC 3339 timestamp; `None` where it cannot be read, or lies before 1970, as Go's zero time
/// `0001-01-01T00:00:00Z` does.
pub fn parse_ns(text: &str) -> Option<i64> {
    let timestamp: Timestamp = text.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok().filter(|ns| *ns > 0)
}

/// An RFC 3339 timestamp in UTC, with as many decimals as it needs; `None` for 0, which stands for not known.
pub fn format_ns(ns: i64) -> Option<String> {
    if ns <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(ns)).ok().map(|timestamp| timestamp.to_string())
}

/// The present, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
