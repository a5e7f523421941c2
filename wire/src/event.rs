//! An Event's JSON, read in place: core/v1 as well as events.k8s.io/v1, with everything in it optional but its identity.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::seen::Fields;
use crate::{Change, EventSeen, time};

pub use self::outline::Outline;

mod outline;
pub(crate) mod scan;

/// An Event, borrowed from its JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Event<'a> {
    /// `metadata`
    #[serde(borrow)]
    pub metadata: Metadata<'a>,
    /// `involvedObject`; `regarding` in events.k8s.io.
    #[serde(borrow, alias = "regarding", deserialize_with = "nullable")]
    pub involved_object: ObjectReference<'a>,
    /// `reason`
    #[serde(borrow)]
    pub reason: Text<'a>,
    /// `message`; `note` in events.k8s.io.
    #[serde(borrow, alias = "note")]
    pub message: Text<'a>,
    /// `source`; `deprecatedSource` in events.k8s.io.
    #[serde(borrow, alias = "deprecatedSource", deserialize_with = "nullable")]
    pub source: EventSource<'a>,
    /// `firstTimestamp`; `deprecatedFirstTimestamp` in events.k8s.io.
    #[serde(borrow, alias = "deprecatedFirstTimestamp")]
    pub first_timestamp: Text<'a>,
    /// `lastTimestamp`; `deprecatedLastTimestamp` in events.k8s.io.
    #[serde(borrow, alias = "deprecatedLastTimestamp")]
    pub last_timestamp: Text<'a>,
    /// `count`; `deprecatedCount` in events.k8s.io.
    #[serde(alias = "deprecatedCount", deserialize_with = "nullable")]
    pub count: i64,
    /// `type`
    #[serde(borrow)]
    pub r#type: Text<'a>,
    /// `eventTime`
    #[serde(borrow)]
    pub event_time: Text<'a>,
    /// `series`
    #[serde(borrow)]
    pub series: Option<Series<'a>>,
    /// `action`
    #[serde(borrow)]
    pub action: Text<'a>,
    /// `related`
    #[serde(borrow)]
    pub related: Option<ObjectReference<'a>>,
    /// `reportingComponent`; `reportingController` in events.k8s.io.
    #[serde(borrow, alias = "reportingController")]
    pub reporting_component: Text<'a>,
    /// `reportingInstance`
    #[serde(borrow)]
    pub reporting_instance: Text<'a>,
    /// What [`time_ns`](Self::time_ns) answered before.
    #[serde(skip)]
    pub(crate) known_time_ns: Option<i64>,
}

/// What of an Event's `metadata` is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// `metadata.name`
    #[serde(borrow)]
    pub name: Text<'a>,
    /// `metadata.namespace`
    #[serde(borrow)]
    pub namespace: Text<'a>,
    /// `metadata.uid`
    #[serde(borrow)]
    pub uid: Text<'a>,
    /// `metadata.resourceVersion`
    #[serde(borrow)]
    pub resource_version: Text<'a>,
    /// `metadata.creationTimestamp`
    #[serde(borrow)]
    pub creation_timestamp: Text<'a>,
    /// `metadata.labels`
    #[serde(borrow)]
    pub labels: Option<Pairs<'a>>,
    /// `metadata.annotations`
    #[serde(borrow)]
    pub annotations: Option<Pairs<'a>>,
    #[serde(borrow, deserialize_with = "raw")]
    managed_fields: Option<&'a str>,
}

/// A reference to the object that an Event is about.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectReference<'a> {
    /// `kind`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub kind: Text<'a>,
    /// `namespace`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub namespace: Text<'a>,
    /// `name`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub name: Text<'a>,
    /// `uid`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub uid: Text<'a>,
    /// `apiVersion`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub api_version: Text<'a>,
    /// `resourceVersion`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub resource_version: Text<'a>,
    /// `fieldPath`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub field_path: Text<'a>,
}

/// `source` of a core/v1 Event.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct EventSource<'a> {
    /// `source.component`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub component: Text<'a>,
    /// `source.host`
    #[serde(borrow, skip_serializing_if = "Text::is_empty")]
    pub host: Text<'a>,
}

/// `series`: occurrences of an Event that goes on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Series<'a> {
    /// `series.count`
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub count: i64,
    /// `series.lastObservedTime`
    #[serde(borrow, serialize_with = "null_if_unknown_time")]
    pub last_observed_time: Text<'a>,
}

/// A string that may be null or absent, both of which are empty; borrowed unless it has escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(pub Cow<'a, str>);

/// A map of strings in the order it came, such as labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs<'a>(pub Vec<(Text<'a>, Text<'a>)>);

/// Reads one Event after another. What stands in nearly all of them in the same words it looks through once.
#[derive(Debug, Default)]
pub struct Reader {
    known: scan::Known,
}

/// What an [`EventSeen`] says of an Event, borrowed from its JSON: to be written into a batch, it needs no memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    event: &'a Event<'a>,
    change: Change,
    count: u64,
    time_ns: i64,
    /// The JSON less `managedFields`, in pieces that follow each other.
    raw: [&'a str; 3],
}

/// Why an Event could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is not JSON, or a field is of the wrong type.
    #[error("not an Event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It lacks what identifies it.
    #[error("not an Event: {0} is missing or empty")]
    NoIdentity(&'static str),
}

// === impl Reader ===

impl Reader {
    /// As [`Event::parse`], into an Event that is empty: it is large, and to move it costs a tenth of what it costs to read it.
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn read<'a>(&mut self, json: &'a str, event: &mut Event<'a>) -> Result<(), EventError> {
        if scan::event(json, event, &mut self.known).is_none() {
            *event = serde_json::from_str(json)?;
        }
        if event.metadata.uid.is_empty() {
            return Err(EventError::NoIdentity("metadata.uid"));
        }
        if event.metadata.resource_version.is_empty() {
            return Err(EventError::NoIdentity("metadata.resourceVersion"));
        }
        Ok(())
    }
}

// === impl Event ===

impl<'a> Event<'a> {
    /// The Event of some bytes, or else of their outline, where somebody read them before.
    ///
    /// # Errors
    /// As `parse`, where there is no outline.
    pub fn read(json: &'a [u8], outline: Option<&'a Outline>) -> Result<Self, EventError> {
        if let Some(outline) = outline {
            return Ok(outline.event());
        }
        Self::parse(std::str::from_utf8(json).map_err(|_| EventError::NoIdentity("UTF-8"))?)
    }

    /// Reads an Event.
    ///
    /// # Errors
    /// Where `json` is not one JSON object with a uid and a resourceVersion, or a known field has a wrong type or stands
    /// twice.
    pub fn parse(json: &'a str) -> Result<Self, EventError> {
        let mut event = Self::default();
        Reader::default().read(json, &mut event)?;
        Ok(event)
    }

    /// The occurrences that the Event counts itself: the largest of `count` and `series.count`, at least 1.
    pub fn occurrences(&self) -> u64 {
        let series = self.series.as_ref().map_or(0, |series| series.count);
        u64::try_from(self.count.max(series).max(1)).unwrap_or(1)
    }

    /// When it last happened, in nanoseconds since 1970; 0 where nothing in it says.
    pub fn time_ns(&self) -> i64 {
        if let Some(known) = self.known_time_ns {
            return known;
        }
        let series = self.series.as_ref().map_or("", |series| &series.last_observed_time);
        // The same in an event that happened once: read once.
        let first = if self.first_timestamp == self.last_timestamp { "" } else { &*self.first_timestamp };
        [series, &self.last_timestamp, &self.event_time, first]
            .into_iter()
            // Most have but one or two of them, and to find out why nothing is no time takes longer than to read one.
            .filter(|time| !time.is_empty())
            .filter_map(time::parse_ns)
            .max()
            .or_else(|| time::parse_ns(&self.metadata.creation_timestamp))
            .unwrap_or(0)
    }

    /// The node whose component wrote it; empty where it names none.
    pub fn node(&self) -> &str {
        if !self.source.host.is_empty() {
            &self.source.host
        } else if &*self.reporting_component == "kubelet" {
            // Since client-go 0.28 the kubelet's recorder writes the node's name here.
            &self.reporting_instance
        } else {
            ""
        }
    }
}

// === impl EventSeen ===

impl EventSeen {
    /// Takes a state of an Event from the JSON that the API server sent.
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn from_json(json: &str, change: Change) -> Result<Self, EventError> {
        let event = Event::parse(json)?;
        let sighting = Sighting::of(&event, json, change);
        Ok(Self {
            uid: (&*event.metadata.uid).into(),
            resource_version: (&*event.metadata.resource_version).into(),
            namespace: (&*event.metadata.namespace).into(),
            count: sighting.count,
            time_ns: sighting.time_ns,
            change: change.into(),
            kind: (&*event.involved_object.kind).into(),
            object: (&*event.involved_object.name).into(),
            reason: (&*event.reason).into(),
            r#type: (&*event.r#type).into(),
            node: event.node().into(),
            object_uid: (&*event.involved_object.uid).into(),
            object_namespace: (&*event.involved_object.namespace).into(),
            raw: sighting.raw.concat().into(),
        })
    }
}

// === impl Sighting ===

impl<'a> Sighting<'a> {
    /// Of an Event that was read from `json`.
    pub fn of(event: &'a Event<'a>, json: &'a str, change: Change) -> Self {
        Self {
            event,
            change,
            count: event.occurrences(),
            time_ns: event.time_ns(),
            raw: without_managed_fields(json, event.metadata.managed_fields),
        }
    }

    /// When the Event last happened, in nanoseconds since 1970; 0 where nothing in it says.
    pub fn time_ns(&self) -> i64 {
        self.time_ns
    }

    pub(crate) fn fields(&self) -> Fields<'a> {
        let Event { metadata, involved_object: object, reason, r#type, .. } = self.event;
        let texts = [
            &*metadata.uid,
            &*metadata.resource_version,
            &*metadata.namespace,
            &*object.kind,
            &*object.name,
            &**reason,
            &**r#type,
            self.event.node(),
            &*object.uid,
            &*object.namespace,
        ];
        Fields {
            texts: texts.map(str::as_bytes),
            count: self.count,
            time_ns: self.time_ns,
            change: self.change.into(),
            raw: self.raw.map(str::as_bytes),
        }
    }
}

/// `json` less the `managedFields` that `value`, borrowed from it, is the value of.
fn without_managed_fields<'a>(json: &'a str, value: Option<&str>) -> [&'a str; 3] {
    let Some((before, after)) = value.and_then(|value| around(json, value)) else {
        return [json, "", ""];
    };
    let key = before
        .trim_end()
        .strip_suffix(':')
        .and_then(|before| before.trim_end().strip_suffix("\"managedFields\""));
    match key.map(str::trim_end) {
        Some(before) => match before.strip_suffix(',') {
            Some(before) => [before, "", after],
            None => {
                let after = after.trim_start();
                [before, "", after.strip_prefix(',').unwrap_or(after)]
            }
        },
        // The key is spelled with escapes: leave it, with nothing in it.
        None => [before, "[]", after],
    }
}

/// What stands before and after a piece of `json`.
fn around<'a>(json: &'a str, piece: &str) -> Option<(&'a str, &'a str)> {
    let start = (piece.as_ptr() as usize).wrapping_sub(json.as_ptr() as usize);
    Some((json.get(..start)?, json.get(start.checked_add(piece.len())?..)?))
}

// === impl Text ===

impl<'a> Text<'a> {
    /// Whether there is nothing in it, or it is not there at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or null")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

// === impl Pairs ===

impl<'a> Pairs<'a> {
    /// The value of a key; of the last one where it stands twice.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Pairs<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

fn raw<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a str>, D::Error> {
    Ok(Option::<&RawValue>::deserialize(deserializer)?.map(RawValue::get))
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// As null where the time is missing or Go's zero time: no record leaves with the year 1.
pub(crate) fn null_if_unknown_time<S: Serializer>(text: &Text<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    match is_unknown_time(text) {
        true => serializer.serialize_none(),
        false => serializer.serialize_str(text),
    }
}

pub(crate) fn is_unknown_time(text: &str) -> bool {
    text.starts_with("0001-01-01") || text.is_empty()
}

#[cfg(test)]
mod tests;
