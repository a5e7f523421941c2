//! Timestamps as Kubernetes writes them: RFC 3339, null, absent, or Go's zero time.

use jiff::Timestamp;

/// Nanoseconds since 1970 of an RFC 3339 timestamp; `None` where it cannot be read, or lies before 1970, as Go's zero time
/// `0001-01-01T00:00:00Z` does.
pub fn parse_ns(text: &str) -> Option<i64> {
    if let Some(seconds) = usual_seconds(text.as_bytes()) {
        return Some(seconds * 1_000_000_000).filter(|ns| *ns > 0);
    }
    let timestamp: Timestamp = text.parse().ok()?;
    i64::try_from(timestamp.as_nanosecond()).ok().filter(|ns| *ns > 0)
}

/// Seconds since 1970 of a time as `metav1.Time` writes it, which nearly all are: `2026-07-01T12:00:00Z`. `None` for all others,
/// such as those with days that not every month has.
fn usual_seconds(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2, b'Z'] = text
    else {
        return None;
    };
    let number = |digits: &[&u8]| {
        digits.iter().try_fold(0, |number: i64, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(**digit - b'0'))
        })
    };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[i1, i2])?, number(&[s1, s2])?);
    let is_usual = (1970..2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_usual {
        return None;
    }
    // Years that begin in March, so that the leap day is the last: 719,468 days from the first of them to 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
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
