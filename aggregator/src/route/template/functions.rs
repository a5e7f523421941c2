//! What templates may call: Go's own functions, and those of Sprig that need no environment, file, network, key or chance.

mod collection;
mod json;
mod number;
mod regex;
mod text;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use gotmpl::{FuncMap, Value};

use super::data::Kind;
use super::{MAX_OUTPUT, time};

/// Ours, put by the checker: a value as Go prints it.
pub(super) const SHOWN: &str = "\0shown";
/// Ours, put by the checker: `index` of a map of strings, where a missing key is empty.
pub(super) const INDEX: &str = "\0index";
/// Ours, put by the checker: a method of a time.
pub(super) const METHOD: &str = "\0time.";

/// Evaluates a call, of a checked number of arguments.
type Function = fn(&[Value]) -> Result<Value, String>;

/// A function: its name, the least and the most arguments that it takes, and what it does.
type Entry = (&'static str, usize, usize, Function);

const ANY: usize = usize::MAX;
const GO: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery",
    "eq", "ne", "lt", "le", "gt", "ge", "call",
];
const TIMES: &[Entry] = &[
    ("now", 0, 0, |_| Ok(time::now())),
    ("date", 2, 2, |args| dated(&args[0], &args[1])),
    ("dateInZone", 3, 3, |args| dated_in_zone(args)),
    ("date_in_zone", 3, 3, |args| dated_in_zone(args)),
    ("htmlDate", 1, 1, |args| dated(&Value::String("2006-01-02".into()), &args[0])),
    ("unixEpoch", 1, 1, |args| Ok(string(moment(&args[0])?.as_second().to_string()))),
    (SHOWN, 1, 1, |args| {
        Ok(match time::from_value(&args[0]) {
            Some(timestamp) => string(time::shown(timestamp)),
            None => args[0].clone(),
        })
    }),
    (INDEX, 2, 2, |args| {
        Ok(args[0].field(&text(&args[1])).cloned().unwrap_or_else(|| string(String::new())))
    }),
];

static ALL: LazyLock<FuncMap> = LazyLock::new(|| {
    let mut map = FuncMap::new();
    for (name, least, most, function) in
        [TIMES, text::FUNCTIONS, number::FUNCTIONS, collection::FUNCTIONS, json::FUNCTIONS, regex::FUNCTIONS]
            .into_iter()
            .flatten()
    {
        map.insert((*name).to_owned(), Arc::new(move |args| called(name, *least, *most, *function, args)));
    }
    for method in time::METHODS {
        let function = move |args: &[Value]| {
            let (time, rest) = args.split_first().ok_or_else(|| failed(method, "no time"))?;
            match time::from_value(time) {
                Some(timestamp) => {
                    time::call(method, timestamp, rest).map_err(|error| failed(method, &error))
                }
                None => Ok(Value::Nil),
            }
        };
        map.insert(format!("{METHOD}{method}"), Arc::new(function));
    }
    map
});
static NAMES: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| ALL.keys().map(String::as_str).chain(GO.iter().copied()).collect());

/// Those that Go does not have itself.
pub(super) fn all() -> FuncMap {
    ALL.clone()
}

/// Whether a template may call it.
pub(super) fn is_known(name: &str) -> bool {
    !name.starts_with('\0') && NAMES.contains(name)
}

/// Whether it may need the JSON of its arguments.
pub(super) fn wants_json(name: &str) -> bool {
    name.ends_with("Json")
}

/// Whether it takes times as times; for others they are written out.
pub(super) fn takes_times(name: &str) -> bool {
    wants_json(name)
        || TIMES.iter().any(|entry| entry.0 == name)
        || matches!(
            name,
            "and" | "or" | "not" | "default" | "coalesce" | "ternary" | "empty" | "list" | "dict"
        )
}

/// What is known of its result, from what is known of its arguments.
pub(super) fn result_kind(name: &str, args: &[Kind]) -> Kind {
    match (name, args) {
        ("now", _) => Kind::Time,
        ("index", [of, _]) | ("first" | "last", [of]) => of.item(),
        ("default", [default, value]) if default == value => *value,
        ("rest" | "initial" | "reverse", [of]) => *of,
        _ => Kind::Unknown,
    }
}

fn called(
    name: &str,
    least: usize,
    most: usize,
    function: Function,
    args: &[Value],
) -> Result<Value, gotmpl::TemplateError> {
    if args.len() < least || args.len() > most {
        let wanted = match (least, most) {
            (least, ANY) => format!("at least {least}"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        return Err(failed(name, &format!("takes {wanted} arguments, not {}", args.len())));
    }
    match function(args).map_err(|error| failed(name, &error))? {
        Value::String(text) if text.len() > MAX_OUTPUT => Err(failed(name, "its result is too long")),
        value => Ok(value),
    }
}

fn failed(name: &str, error: &str) -> gotmpl::TemplateError {
    gotmpl::TemplateError::Exec(format!("{}: {error}", name.trim_start_matches('\0')))
}

fn dated(layout: &Value, value: &Value) -> Result<Value, String> {
    Ok(string(time::format(moment(value)?, &text(layout))))
}

fn dated_in_zone(args: &[Value]) -> Result<Value, String> {
    match &*text(&args[2]) {
        "" | "UTC" | "GMT" | "Etc/UTC" => dated(&args[0], &args[1]),
        zone => Err(format!("times are in UTC here, not in {zone}")),
    }
}

/// A time, or seconds since 1970.
fn moment(value: &Value) -> Result<jiff::Timestamp, String> {
    let value = match value {
        Value::Int(seconds) => time::of_seconds(*seconds),
        other => other.clone(),
    };
    time::from_value(&value).ok_or_else(|| format!("{} is no time", shown(&value)))
}

fn string(text: String) -> Value {
    Value::String(text.into())
}

/// A value as the text that a function works on; nothing is empty.
fn text(value: &Value) -> Arc<str> {
    match value {
        Value::String(text) => Arc::clone(text),
        Value::Nil => "".into(),
        other => shown(other).into(),
    }
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match time::from_value(value) {
        Some(timestamp) => time::shown(timestamp),
        None => value.to_string(),
    }
}

/// A whole number, as Sprig reads one from anything.
fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).unwrap_or(i64::MAX),
        Value::Float(number) => *number as i64,
        Value::Bool(yes) => i64::from(*yes),
        Value::String(text) => {
            text.trim().parse().or_else(|_| text.trim().parse().map(|f: f64| f as i64)).unwrap_or(0)
        }
        _ => 0,
    }
}

/// A number, as Sprig reads one from anything.
fn real(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        Value::Uint(number) => *number as f64,
        Value::String(text) => text.trim().parse().unwrap_or(0.0),
        other => whole(other) as f64,
    }
}

/// A count of things to make, within what a rendering may hold.
fn bounded(value: &Value) -> Result<usize, String> {
    let count = whole(value);
    usize::try_from(count.max(0))
        .ok()
        .filter(|count| *count <= MAX_OUTPUT)
        .ok_or_else(|| format!("{count} is too many"))
}

fn items(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(items) => Ok(items),
        Value::Nil => Ok(&[]),
        other => Err(format!("a {} is no list", other.type_name())),
    }
}
