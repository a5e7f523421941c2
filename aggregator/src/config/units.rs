//! Durations and amounts of bytes, as people write them.

use std::time::Duration;

/// `168h`, `30s`, `7d`, `1h30m`, `500ms`.
///
/// # Errors
/// A message that says how one is written.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration: write a number and ms, s, m, h or d, such as 30s, 168h or 7d");
    let (mut rest, mut total) = (text.trim(), 0f64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = next;
    }
    if total > 100.0 * 366.0 * 86400.0 {
        return Err(format!("{text:?} is longer than a hundred years"));
    }
    Ok(Duration::from_secs_f64(total))
}

/// `10GiB`, `512Mi`, `1.5GB`, `4096`.
///
/// # Errors
/// A message that says how one is written.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no amount of bytes: write a number and KiB, MiB, GiB or TiB, such as 10GiB");
    let (number, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "K" | "KB" | "kB" | "k" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number * unit as f64;
    if bytes > i64::MAX as f64 {
        return Err(format!("{text:?} is more than there can be"));
    }
    Ok(bytes as u64)
}

fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    number.parse().ok().filter(|number: &f64| number.is_finite()).map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("168h", 604_800.0), ("30s", 30.0), ("7d", 604_800.0), ("1h30m", 5400.0), ("500ms", 0.5)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5y", "1e9d", "."] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_read() {
        for (text, expected) in [
            ("10GiB", 10 << 30),
            ("512Mi", 512 << 20),
            ("1.5GB", 1_500_000_000),
            ("4096", 4096),
            ("1 KiB", 1024),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "GiB", "-1", "5 apples", "99999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
