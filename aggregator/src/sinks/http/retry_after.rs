//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::Duration;

use jiff::fmt::rfc2822;

/// How long to wait, seen at `now_ns` since 1970; none: it cannot be read.
pub(super) fn parse(text: &str, now_ns: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    // An HTTP date says GMT, which RFC 2822 knows as an obsolete zone.
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = at.as_nanosecond() - i128::from(now_ns);
    Some(Duration::from_nanos(u64::try_from(wait.max(0)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_a_date_gone_by_means_now() {
        let now = nodetap_wire::time::parse_ns("2015-10-21T07:27:30Z").unwrap_or(0);
        assert_eq!(parse("120", now), Some(Duration::from_secs(120)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse("soon", now), None);
        assert_eq!(parse("-1", now), None);
    }
}
