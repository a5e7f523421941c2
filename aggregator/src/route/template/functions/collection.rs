//! Choices, lists and dictionaries. Values never change: what Sprig does in place (`set`, `unset`) is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value;

use super::{ANY, Entry, items, shown, string, text};
use crate::route::template::MAX_SOURCE;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("default", 1, 2, |args| {
        Ok(match args {
            [_, value] if value.is_truthy() => value.clone(),
            _ => args[0].clone(),
        })
    }),
    ("empty", 1, 1, |args| Ok(Value::Bool(!args[0].is_truthy()))),
    ("coalesce", 0, ANY, |args| Ok(args.iter().find(|arg| arg.is_truthy()).cloned().unwrap_or(Value::Nil))),
    ("ternary", 3, 3, |args| Ok(if args[2].is_truthy() { args[0].clone() } else { args[1].clone() })),
    ("all", 0, ANY, |args| Ok(Value::Bool(args.iter().all(Value::is_truthy)))),
    ("any", 0, ANY, |args| Ok(Value::Bool(args.iter().any(Value::is_truthy)))),
    ("fail", 1, 1, |args| Err(text(&args[0]).to_string())),
    ("list", 0, ANY, |args| Ok(Value::List(args.into()))),
    ("tuple", 0, ANY, |args| Ok(Value::List(args.into()))),
    ("first", 1, 1, |args| Ok(items(&args[0])?.first().cloned().unwrap_or(Value::Nil))),
    ("last", 1, 1, |args| Ok(items(&args[0])?.last().cloned().unwrap_or(Value::Nil))),
    ("rest", 1, 1, |args| Ok(Value::List(items(&args[0])?.iter().skip(1).cloned().collect()))),
    ("initial", 1, 1, |args| {
        let all = items(&args[0])?;
        Ok(Value::List(all.iter().take(all.len().saturating_sub(1)).cloned().collect()))
    }),
    ("append", 2, 2, |args| list(items(&args[0])?.iter().chain([&args[1]]))),
    ("prepend", 2, 2, |args| list(std::iter::once(&args[1]).chain(items(&args[0])?))),
    ("concat", 0, ANY, |args| {
        let lists: Vec<&[Value]> = args.iter().map(items).collect::<Result<_, _>>()?;
        list(lists.into_iter().flatten())
    }),
    ("reverse", 1, 1, |args| list(items(&args[0])?.iter().rev())),
    ("uniq", 1, 1, |args| {
        let mut seen: Vec<&Value> = Vec::new();
        for item in items(&args[0])? {
            if !seen.contains(&item) {
                seen.push(item);
            }
        }
        list(seen.into_iter())
    }),
    ("has", 2, 2, |args| Ok(Value::Bool(items(&args[1])?.contains(&args[0])))),
    ("without", 1, ANY, |args| list(items(&args[0])?.iter().filter(|item| !args[1..].contains(item)))),
    ("compact", 1, 1, |args| list(items(&args[0])?.iter().filter(|item| item.is_truthy()))),
    ("dict", 0, ANY, |args| {
        let pair =
            |pair: &[Value]| (text(&pair[0]), pair.get(1).cloned().unwrap_or_else(|| string(String::new())));
        Ok(Value::Map(Arc::new(args.chunks(2).map(pair).collect())))
    }),
    ("get", 2, 2, |args| {
        Ok(args[0].field(&text(&args[1])).cloned().unwrap_or_else(|| string(String::new())))
    }),
    ("hasKey", 2, 2, |args| Ok(Value::Bool(args[0].field(&text(&args[1])).is_some()))),
    ("keys", 0, ANY, |args| {
        let maps: Vec<_> = args.iter().map(entries).collect::<Result<_, _>>()?;
        Ok(Value::List(maps.into_iter().flatten().map(|(key, _)| Value::String(Arc::clone(key))).collect()))
    }),
    ("values", 1, 1, |args| list(entries(&args[0])?.map(|(_, value)| value))),
    ("pick", 1, ANY, |args| chosen(args, true)),
    ("omit", 1, ANY, |args| chosen(args, false)),
    ("merge", 1, ANY, |args| {
        let mut merged = BTreeMap::new();
        for map in args {
            for (key, value) in entries(map)? {
                merged.entry(Arc::clone(key)).or_insert_with(|| value.clone());
            }
        }
        Ok(Value::Map(Arc::new(merged)))
    }),
    ("deepEqual", 2, 2, |args| Ok(Value::Bool(args[0] == args[1]))),
    ("kindOf", 1, 1, |args| Ok(string(kind(&args[0]).to_owned()))),
    ("kindIs", 2, 2, |args| Ok(Value::Bool(*text(&args[0]) == *kind(&args[1])))),
    ("typeOf", 1, 1, |args| Ok(string(kind(&args[0]).to_owned()))),
];

fn list<'a>(all: impl Iterator<Item = &'a Value>) -> Result<Value, String> {
    let all: Arc<[Value]> = all.take(MAX_SOURCE + 1).cloned().collect();
    if all.len() > MAX_SOURCE { Err("its result is too long".to_owned()) } else { Ok(Value::List(all)) }
}

/// The entries of a map, less what is not for templates to see.
fn entries(value: &Value) -> Result<impl Iterator<Item = (&Arc<str>, &Value)>, String> {
    match value {
        Value::Map(map) => Ok(map.iter().filter(|(key, _)| !key.starts_with('\0'))),
        other => Err(format!("{} is no dictionary", shown(other))),
    }
}

fn chosen(args: &[Value], named: bool) -> Result<Value, String> {
    let names: Vec<Arc<str>> = args.iter().skip(1).map(text).collect();
    let map = entries(&args[0])?
        .filter(|(key, _)| names.contains(key) == named)
        .map(|(key, value)| (Arc::clone(key), value.clone()))
        .collect();
    Ok(Value::Map(Arc::new(map)))
}

/// As Go's `reflect.Kind` calls it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::List(_) => "slice",
        other => other.type_name(),
    }
}
