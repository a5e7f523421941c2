//! Go's times in templates: what their methods give, and Go's way to write and to lay out a time. All of it in UTC.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use gotmpl::Value;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nodetap_wire::face::Face;

use super::data::Kind;

/// The methods that templates may call.
pub(super) const METHODS: &[&str] = &[
    "Format",
    "Unix",
    "UnixMilli",
    "UnixMicro",
    "UnixNano",
    "UTC",
    "Local",
    "IsZero",
    "Year",
    "Day",
    "Hour",
    "Minute",
    "Second",
    "Nanosecond",
    "YearDay",
    "String",
];

/// As Go's `time.Time.String` writes it.
const STRING: &str = "2006-01-02 15:04:05.999999999 -0700 MST";
/// The second at which Go's zero time stands: 1 January of the year 1.
const ZERO: i64 = -62_135_596_800;
const SECONDS: &str = "\0seconds";
const NANOSECONDS: &str = "\0nanoseconds";

/// A time as a value of a template; Go's zero time where it is not known.
pub(super) fn of_text(text: &str) -> Value {
    of(text.parse().ok())
}

/// The present.
pub(super) fn now() -> Value {
    of(Some(Timestamp::now()))
}

/// A time from seconds since 1970.
pub(super) fn of_seconds(seconds: i64) -> Value {
    of(Timestamp::from_second(seconds).ok())
}

fn of(timestamp: Option<Timestamp>) -> Value {
    let (seconds, nanoseconds) = timestamp.map_or((ZERO, 0), |t| (t.as_second(), t.subsec_nanosecond()));
    Value::Map(Arc::new(BTreeMap::from([
        (SECONDS.into(), Value::Int(seconds)),
        (NANOSECONDS.into(), Value::Int(nanoseconds.into())),
    ])))
}

/// The time that a value of a template is.
pub(super) fn from_value(value: &Value) -> Option<Timestamp> {
    let (Some(Value::Int(seconds)), Some(Value::Int(nanoseconds))) =
        (value.field(SECONDS), value.field(NANOSECONDS))
    else {
        return None;
    };
    Timestamp::new(*seconds, i32::try_from(*nanoseconds).ok()?).ok()
}

/// As Go writes it.
pub(super) fn shown(timestamp: Timestamp) -> String {
    format(timestamp, STRING)
}

/// Whether a method needs an argument.
pub(super) fn needs_argument(method: &str) -> bool {
    method == "Format"
}

/// What a method gives.
pub(super) fn method_kind(method: &str) -> Kind {
    if matches!(method, "UTC" | "Local") { Kind::Time } else { Kind::Scalar }
}

/// Calls a method.
pub(super) fn call(method: &str, timestamp: Timestamp, args: &[Value]) -> Result<Value, String> {
    let civil = civil(timestamp);
    let whole = |value: i128| Value::Int(i64::try_from(value).unwrap_or(0));
    Ok(match method {
        "Format" => match args {
            [Value::String(layout)] => Value::String(format(timestamp, layout).into()),
            _ => return Err("Format takes a layout, such as \"2006-01-02T15:04:05Z07:00\"".to_owned()),
        },
        "Unix" => Value::Int(timestamp.as_second()),
        "UnixMilli" => Value::Int(timestamp.as_millisecond()),
        "UnixMicro" => Value::Int(timestamp.as_microsecond()),
        "UnixNano" => whole(timestamp.as_nanosecond()),
        "UTC" | "Local" => of(Some(timestamp)),
        "IsZero" => Value::Bool(timestamp.as_second() == ZERO),
        "Year" => Value::Int(civil.year().into()),
        "Day" => Value::Int(civil.day().into()),
        "Hour" => Value::Int(civil.hour().into()),
        "Minute" => Value::Int(civil.minute().into()),
        "Second" => Value::Int(civil.second().into()),
        "Nanosecond" => Value::Int(civil.subsec_nanosecond().into()),
        "YearDay" => Value::Int(civil.day_of_year().into()),
        "String" => Value::String(shown(timestamp).into()),
        other => return Err(format!("a time has no method {other}")),
    })
}

/// `GetTimestampMs`: first seen, else the event's own time; where both are missing, when it last happened.
pub(super) fn event_ms(face: &Face<'_>) -> i64 {
    event_time(face).map_or(0, Timestamp::as_millisecond)
}

/// `GetTimestampISO8601`.
pub(super) fn event_iso8601(face: &Face<'_>) -> String {
    event_time(face).map(|timestamp| format(timestamp, "2006-01-02T15:04:05.000Z")).unwrap_or_default()
}

fn event_time(face: &Face<'_>) -> Option<Timestamp> {
    [&*face.first_timestamp, &*face.event_time]
        .into_iter()
        .filter_map(|text| text.parse::<Timestamp>().ok())
        .find(|timestamp| timestamp.as_second() != ZERO)
        .or_else(|| (face.time_ns > 0).then(|| Timestamp::from_nanosecond(face.time_ns.into()).ok())?)
}

fn civil(timestamp: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(timestamp)
}

/// Lays a time out in UTC as Go's `time.Time.Format` does.
pub(super) fn format(timestamp: Timestamp, layout: &str) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

    let time = civil(timestamp);
    let month =
        usize::try_from(time.month() - 1).ok().and_then(|index| MONTHS.get(index)).copied().unwrap_or("");
    let day = usize::try_from(time.weekday().to_monday_zero_offset())
        .ok()
        .and_then(|index| DAYS.get(index))
        .copied()
        .unwrap_or("");
    let hour12 = if time.hour() % 12 == 0 { 12 } else { time.hour() % 12 };

    let mut out = String::with_capacity(layout.len() + 16);
    let mut rest = layout;
    'next: while let Some(first) = rest.chars().next() {
        // In Go's own order: a longer form before the one that it begins with.
        for form in [
            "January",
            "Jan",
            "Monday",
            "Mon",
            "MST",
            "2006",
            "_2006",
            "__2",
            "_2",
            "002",
            "01",
            "02",
            "03",
            "04",
            "05",
            "06",
            "15",
            "PM",
            "pm",
            "-07:00:00",
            "-070000",
            "-07:00",
            "-0700",
            "-07",
            "Z07:00:00",
            "Z070000",
            "Z07:00",
            "Z0700",
            "Z07",
            "1",
            "2",
            "3",
            "4",
            "5",
        ] {
            let Some(after) = rest.strip_prefix(form) else { continue };
            // `Jan` and `Mon` within a word, such as `Janet`, are that word.
            if matches!(form, "Jan" | "Mon") && after.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            let _ = match form {
                "January" => write!(out, "{month}"),
                "Jan" => write!(out, "{}", month.get(..3).unwrap_or("")),
                "Monday" => write!(out, "{day}"),
                "Mon" => write!(out, "{}", day.get(..3).unwrap_or("")),
                "MST" => write!(out, "UTC"),
                "2006" => write!(out, "{:04}", time.year()),
                "_2006" => write!(out, "_{:04}", time.year()),
                "__2" => write!(out, "{:3}", time.day_of_year()),
                "_2" => write!(out, "{:2}", time.day()),
                "002" => write!(out, "{:03}", time.day_of_year()),
                "01" => write!(out, "{:02}", time.month()),
                "02" => write!(out, "{:02}", time.day()),
                "03" => write!(out, "{hour12:02}"),
                "04" => write!(out, "{:02}", time.minute()),
                "05" => write!(out, "{:02}", time.second()),
                "06" => write!(out, "{:02}", time.year().rem_euclid(100)),
                "15" => write!(out, "{:02}", time.hour()),
                "PM" => write!(out, "{}", if time.hour() < 12 { "AM" } else { "PM" }),
                "pm" => write!(out, "{}", if time.hour() < 12 { "am" } else { "pm" }),
                "1" => write!(out, "{}", time.month()),
                "2" => write!(out, "{}", time.day()),
                "3" => write!(out, "{hour12}"),
                "4" => write!(out, "{}", time.minute()),
                "5" => write!(out, "{}", time.second()),
                zone if zone.starts_with('Z') => write!(out, "Z"),
                zone => write!(out, "{}", zone.replace('7', "0").replacen('-', "+", 1)),
            };
            rest = after;
            continue 'next;
        }
        if let Some((shown, after)) = fraction(rest, time.subsec_nanosecond()) {
            out.push_str(&shown);
            rest = after;
            continue;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// `.000`, `,000`, `.999`: decimals of the second.
fn fraction(layout: &str, nanosecond: i32) -> Option<(String, &str)> {
    let point = layout.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digits = &layout[1..];
    let kind = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let count = digits.len() - digits.trim_start_matches(kind).len();
    let after = &digits[count..];
    if after.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let all = format!("{nanosecond:09}");
    let mut shown = all.get(..count.min(9)).unwrap_or(&all).to_owned();
    shown.extend(std::iter::repeat_n('0', count.saturating_sub(9)));
    if kind == '9' {
        shown.truncate(shown.trim_end_matches('0').len());
    }
    if !shown.is_empty() {
        shown.insert(0, point);
    }
    Some((shown, after))
}

/// As JSON has it; none for Go's zero time, which is null there.
pub(super) fn rfc3339(timestamp: Timestamp) -> Option<String> {
    (timestamp.as_second() != ZERO).then(|| timestamp.to_string())
}
