//! YAML as a tree that knows where each of its parts stands.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

/// A place in the file; lines and columns from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A part of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value, in the order of the file; a key may stand twice.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

/// The first document of a text, and whether there are more.
pub(super) struct Document {
    pub(super) root: Node,
    pub(super) more: bool,
}

/// Reads a text, the only place that knows by which crate.
///
/// # Errors
/// Where it is not YAML, an anchor is unknown, or it is nested or repeated beyond measure: with the place.
pub(super) fn read(text: &str) -> Result<Document, (Place, String)> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
    };
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let at = error.location().map_or(Place { line: 1, column: 1 }, Place::from);
            let message = error.to_string();
            let message = message.lines().next().unwrap_or("").trim_start_matches("error: ");
            // The place is said once, before the message.
            let place = format!(" at line {}, column {}", at.line, at.column);
            (at, message.replace(&place, ""))
        })?;
    let more = documents.len() > 1;
    let root = documents
        .into_iter()
        .next()
        .map_or(Node { at: Place { line: 1, column: 1 }, value: Value::Null }, Node::from);
    Ok(Document { root, more })
}

// === impl Place ===

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

// === impl Node ===

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { at: spanned.referenced.into(), value: spanned.value }
    }
}

// === impl Value ===

impl Value {
    /// As messages call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Real(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Null | Self::List(_) | Self::Map(_) => f.write_str(self.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
                Ok(Value::Bool(yes))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Integer(number.into()))
            }

            fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
                Ok(Value::Integer(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Real(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Spanned<Value>>()? {
                    items.push(item.into());
                }
                Ok(Value::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<Value>>()? {
                    let key = Node::from(key);
                    if matches!(key.value, Value::Map(_) | Value::List(_)) {
                        return Err(de::Error::custom("a key must be a string"));
                    }
                    let value = map.next_value::<Spanned<Value>>()?.into();
                    entries.push(Entry { key: key.value.to_string(), at: key.at, value });
                }
                Ok(Value::Map(entries))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

#[cfg(test)]
mod tests;
