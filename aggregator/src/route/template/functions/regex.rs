//! Patterns, in Go's syntax.

use std::collections::BTreeMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use gotmpl::Value;
use regex::{NoExpand, Regex};

use super::{Entry, string, text, whole};
use crate::route::pattern;

pub(super) const FUNCTIONS: &[Entry] = &[
    ("regexMatch", 2, 2, |args| Ok(Value::Bool(compiled(&args[0])?.is_match(&text(&args[1]))))),
    ("mustRegexMatch", 2, 2, |args| Ok(Value::Bool(compiled(&args[0])?.is_match(&text(&args[1]))))),
    ("regexFind", 2, 2, |args| {
        Ok(string(
            compiled(&args[0])?
                .find(&text(&args[1]))
                .map_or(String::new(), |found| found.as_str().to_owned()),
        ))
    }),
    ("regexFindAll", 3, 3, |args| {
        let most = usize::try_from(whole(&args[2])).unwrap_or(usize::MAX);
        let all = text(&args[1]);
        let found: Vec<Value> = compiled(&args[0])?
            .find_iter(&all)
            .take(most)
            .map(|one| string(one.as_str().to_owned()))
            .collect();
        Ok(Value::List(found.into()))
    }),
    ("regexReplaceAll", 3, 3, |args| {
        Ok(string(compiled(&args[0])?.replace_all(&text(&args[1]), &*text(&args[2])).into_owned()))
    }),
    ("regexReplaceAllLiteral", 3, 3, |args| {
        Ok(string(compiled(&args[0])?.replace_all(&text(&args[1]), NoExpand(&text(&args[2]))).into_owned()))
    }),
    ("regexQuoteMeta", 1, 1, |args| Ok(string(regex_syntax::escape(&text(&args[0]))))),
];

/// How many patterns are kept compiled: templates name few, and may make up any number.
const KEPT: usize = 128;

static PATTERNS: LazyLock<RwLock<BTreeMap<String, Regex>>> = LazyLock::new(RwLock::default);

fn compiled(source: &Value) -> Result<Regex, String> {
    let source = text(source);
    if let Some(regex) = PATTERNS.read().unwrap_or_else(PoisonError::into_inner).get(&*source) {
        return Ok(regex.clone());
    }
    let regex = pattern::compile(&source).map_err(|error| format!("invalid pattern: {error}"))?;
    let mut kept = PATTERNS.write().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(source.to_string(), regex.clone());
    Ok(regex)
}
