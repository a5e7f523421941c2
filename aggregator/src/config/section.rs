//! A mapping of the file, read key by key. What was not asked for is unknown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::Findings;
use super::tree::{Entry, Node, Place, Value};
use super::{nearest, units};

/// A mapping, its place in the file, and what of it is known.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) at: Place,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

/// What becomes of unknown keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// In our own sections.
    Refused,
    /// In kubernetes-event-exporter's, which ignores them.
    Warned,
}

/// A key of a path.
pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// A mapping, or nothing, which is an empty one.
    pub(super) fn of(node: &'a Node, path: &str, findings: &mut Findings) -> Option<Self> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                findings.problem(node.at, path, format!("must be a mapping, not {}", other.name()));
                return None;
            }
        };
        Some(Self { path: path.to_owned(), at: node.at, entries, known: Vec::new() })
    }

    /// The path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value of a key, which may be null; of the last, where it stands several times.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.entries.iter().rev().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value of a key; null is as if it were not there.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.raw(key).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where a key stands.
    pub(super) fn key_at(&self, key: &str) -> Place {
        self.entries.iter().rev().find(|entry| entry.key == key).map_or(self.at, |entry| entry.at)
    }

    /// Whether a key stands there, be it with nothing.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// A string; numbers and booleans are taken as they would be written.
    pub(super) fn text(&mut self, key: &'static str, findings: &mut Findings) -> Option<String> {
        let node = self.get(key)?;
        scalar(node, &self.path_of(key), findings)
    }

    pub(super) fn path_buf(&mut self, key: &'static str, findings: &mut Findings) -> Option<PathBuf> {
        self.text(key, findings).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn boolean(&mut self, key: &'static str, findings: &mut Findings) -> Option<bool> {
        let node = self.get(key)?;
        match &node.value {
            Value::Bool(yes) => Some(*yes),
            other => {
                findings.problem(
                    node.at,
                    &self.path_of(key),
                    format!("must be true or false, not {}", other.name()),
                );
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        least: i128,
        most: i128,
        findings: &mut Findings,
    ) -> Option<i128> {
        let node = self.get(key)?;
        let path = self.path_of(key);
        let number = match node.value {
            Value::Integer(number) => number,
            Value::Real(real) if real.is_finite() && real.abs() < 1e18 => {
                if real.fract() != 0.0 {
                    findings.warning(node.at, &path, format!("{real} is cut to {}", real.trunc()));
                }
                real as i128
            }
            ref other => {
                findings.problem(node.at, &path, format!("must be a whole number, not {}", other.name()));
                return None;
            }
        };
        if number < least || number > most {
            findings.problem(node.at, &path, format!("{number} is out of range: {least} to {most}"));
            return None;
        }
        Some(number)
    }

    pub(super) fn duration(&mut self, key: &'static str, findings: &mut Findings) -> Option<Duration> {
        let text = self.text(key, findings)?;
        let read = units::duration(&text).and_then(|duration| match duration.is_zero() {
            true => Err("must be longer than nothing".to_owned()),
            false => Ok(duration),
        });
        self.checked(key, read, findings)
    }

    pub(super) fn bytes(&mut self, key: &'static str, least: u64, findings: &mut Findings) -> Option<u64> {
        let text = self.text(key, findings)?;
        let read = units::bytes(&text).and_then(|bytes| match bytes < least {
            true => Err(format!("{text} is too little: at least {least} bytes")),
            false => Ok(bytes),
        });
        self.checked(key, read, findings)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        findings: &mut Findings,
    ) -> Option<T> {
        let text = self.text(key, findings)?;
        let found = choices.iter().find(|choice| choice.0 == text).map(|choice| choice.1);
        let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
        self.checked(key, found.ok_or_else(|| format!("{text:?} is none of {}", names.join(", "))), findings)
    }

    /// What was made of a key's value, or its problem.
    pub(super) fn checked<T>(
        &mut self,
        key: &'static str,
        result: Result<T, String>,
        findings: &mut Findings,
    ) -> Option<T> {
        result.map_err(|message| findings.problem(self.value_at(key), &self.path_of(key), message)).ok()
    }

    /// Where the value of a key stands.
    pub(super) fn value_at(&self, key: &str) -> Place {
        self.entries.iter().rev().find(|entry| entry.key == key).map_or(self.at, |entry| entry.value.at)
    }

    /// A mapping of strings, sorted by key, with the place of each value.
    pub(super) fn strings(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> BTreeMap<String, (String, Place)> {
        let path = self.path_of(key);
        let Some(entries) = self.get(key).and_then(|node| Section::of(node, &path, findings)) else {
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for entry in entries.entries {
            let text = match entry.value.value {
                Value::Null => Some(String::new()),
                _ => scalar(&entry.value, &join(&path, &entry.key), findings),
            };
            if let Some(text) = text {
                map.insert(entry.key.clone(), (text, entry.value.at));
            }
        }
        map
    }

    /// A list's items, each with its path; null is an empty list.
    pub(super) fn list(&mut self, key: &'static str, findings: &mut Findings) -> Vec<(&'a Node, String)> {
        let path = self.path_of(key);
        match self.get(key).map(|node| (node, &node.value)) {
            None => Vec::new(),
            Some((_, Value::List(items))) => {
                items.iter().enumerate().map(|(index, item)| (item, format!("{path}[{index}]"))).collect()
            }
            Some((node, other)) => {
                findings.problem(node.at, &path, format!("must be a list, not {}", other.name()));
                Vec::new()
            }
        }
    }

    /// Reports what nobody asked for, and what stands twice.
    pub(super) fn finish(self, unknown: Unknown, findings: &mut Findings) {
        let mut seen: Vec<&str> = Vec::new();
        for entry in self.entries {
            let path = self.path_of(&entry.key);
            if seen.contains(&entry.key.as_str()) {
                let message = "stands here for the second time";
                match unknown {
                    Unknown::Refused => findings.problem(entry.at, &path, message),
                    Unknown::Warned => {
                        findings.warning(entry.at, &path, format!("{message}: the last one is taken"))
                    }
                }
            }
            seen.push(&entry.key);
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let hint = nearest(&entry.key, &self.known).map(|near| format!("; did you mean {near}?"));
            match unknown {
                Unknown::Refused => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    let hint = hint.unwrap_or_else(|| format!("; there are {}", known.join(", ")));
                    findings.problem(entry.at, &path, format!("unknown key{hint}"));
                }
                Unknown::Warned => {
                    let hint = hint.unwrap_or_default();
                    findings.warning(entry.at, &path, format!("unknown key, ignored{hint}"));
                }
            }
        }
    }

    /// Its entries.
    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }
}

/// A string, a number or a boolean as text.
pub(super) fn scalar(node: &Node, path: &str, findings: &mut Findings) -> Option<String> {
    match &node.value {
        Value::List(_) | Value::Map(_) | Value::Null => {
            findings.problem(node.at, path, format!("must be a string, not {}", node.value.name()));
            None
        }
        value => Some(value.to_string()),
    }
}
