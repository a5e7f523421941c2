//! Where the fields of an Event lie in its JSON: with that, an Event that was read once is had again without reading it.

use std::borrow::Cow;

use crate::SharedStr;

use super::{Event, EventSource, Metadata, ObjectReference, Pairs, Series, Text};

/// What was read of an Event's JSON, which it shares. A quarter of a kilobyte, and what has escapes.
#[derive(Clone, Debug)]
pub struct Outline {
    json: SharedStr,
    /// As [`Event::time_ns`] has it.
    time_ns: i64,
    texts: [Place; TEXTS],
    count: i64,
    /// The texts that have escapes in the JSON, one after another.
    unescaped: Box<str>,
    more: Option<Box<More>>,
}

const TEXTS: usize = 23;
const REFERENCE: usize = 7;

/// What few events have.
#[derive(Clone, Debug, Default)]
struct More {
    series: Option<(i64, Place)>,
    related: Option<[Place; REFERENCE]>,
    labels: Option<Vec<(Place, Place)>>,
    annotations: Option<Vec<(Place, Place)>>,
}

/// A text in the JSON, or among those that were unescaped.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: u32,
    length: u32,
}

/// In `start`: among those that were unescaped.
const UNESCAPED: u32 = 1 << 31;

/// Finds places.
struct Finder<'a> {
    json: &'a str,
    unescaped: String,
}

// === impl Outline ===

impl Outline {
    /// The outline of an Event that was read from `json`. `None` for what is too long to be taken anywhere.
    pub fn of(event: &Event<'_>, json: &SharedStr) -> Option<Self> {
        if json.len() >= UNESCAPED as usize {
            return None;
        }
        let mut finder = Finder { json, unescaped: String::new() };
        let Event { metadata, involved_object, source, .. } = event;
        let [kind, namespace, name, uid, api_version, resource_version, field_path] = texts(involved_object);
        let all: [&Text<'_>; TEXTS] = [
            &metadata.name,
            &metadata.namespace,
            &metadata.uid,
            &metadata.resource_version,
            &metadata.creation_timestamp,
            kind,
            namespace,
            name,
            uid,
            api_version,
            resource_version,
            field_path,
            &event.reason,
            &event.message,
            &source.component,
            &source.host,
            &event.first_timestamp,
            &event.last_timestamp,
            &event.r#type,
            &event.event_time,
            &event.action,
            &event.reporting_component,
            &event.reporting_instance,
        ];
        let texts = all.map(|text| finder.place(text));
        let Event { series, related, .. } = event;
        let is_more = series.is_some()
            || related.is_some()
            || metadata.labels.is_some()
            || metadata.annotations.is_some();
        let more = is_more.then(|| {
            Box::new(More {
                series: series
                    .as_ref()
                    .map(|series| (series.count, finder.place(&series.last_observed_time))),
                related: related.as_ref().map(|related| self::texts(related).map(|text| finder.place(text))),
                labels: metadata.labels.as_ref().map(|pairs| finder.pairs(pairs)),
                annotations: metadata.annotations.as_ref().map(|pairs| finder.pairs(pairs)),
            })
        });
        let unescaped = finder.unescaped.into();
        Some(Self {
            json: json.clone(),
            time_ns: event.time_ns(),
            texts,
            count: event.count,
            unescaped,
            more,
        })
    }

    /// The Event again, less `managedFields`.
    pub fn event(&self) -> Event<'_> {
        let json: &str = &self.json;
        let text = |place| self.text(place, json);
        let pairs = |pairs: &Vec<(Place, Place)>| {
            Pairs(pairs.iter().map(|(key, value)| (text(*key), text(*value))).collect())
        };
        let more = self.more.as_deref();
        let [
            name,
            namespace,
            uid,
            resource_version,
            creation_timestamp,
            object_kind,
            object_namespace,
            object_name,
            object_uid,
            object_api_version,
            object_resource_version,
            object_field_path,
            reason,
            message,
            component,
            host,
            first_timestamp,
            last_timestamp,
            r#type,
            event_time,
            action,
            reporting_component,
            reporting_instance,
        ] = self.texts.map(text);
        Event {
            metadata: Metadata {
                name,
                namespace,
                uid,
                resource_version,
                creation_timestamp,
                labels: more.and_then(|more| more.labels.as_ref()).map(pairs),
                annotations: more.and_then(|more| more.annotations.as_ref()).map(pairs),
                managed_fields: None,
            },
            involved_object: ObjectReference {
                kind: object_kind,
                namespace: object_namespace,
                name: object_name,
                uid: object_uid,
                api_version: object_api_version,
                resource_version: object_resource_version,
                field_path: object_field_path,
            },
            reason,
            message,
            source: EventSource { component, host },
            first_timestamp,
            last_timestamp,
            count: self.count,
            r#type,
            event_time,
            series: more
                .and_then(|more| more.series)
                .map(|(count, time)| Series { count, last_observed_time: text(time) }),
            action,
            related: more.and_then(|more| more.related).map(|places| {
                let [kind, namespace, name, uid, api_version, resource_version, field_path] =
                    places.map(text);
                ObjectReference { kind, namespace, name, uid, api_version, resource_version, field_path }
            }),
            reporting_component,
            reporting_instance,
            known_time_ns: Some(self.time_ns),
        }
    }

    fn text<'a>(&'a self, place: Place, json: &'a str) -> Text<'a> {
        let (source, start) = match place.start & UNESCAPED {
            0 => (json, place.start as usize),
            _ => (&*self.unescaped, (place.start & !UNESCAPED) as usize),
        };
        Text(Cow::Borrowed(source.get(start..start + place.length as usize).unwrap_or_default()))
    }
}

fn texts<'e, 'a>(reference: &'e ObjectReference<'a>) -> [&'e Text<'a>; REFERENCE] {
    let ObjectReference { kind, namespace, name, uid, api_version, resource_version, field_path } = reference;
    [kind, namespace, name, uid, api_version, resource_version, field_path]
}

// === impl Finder ===

impl Finder<'_> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "both are shorter than 2^31 bytes: what is unescaped is no longer than the JSON"
    )]
    fn place(&mut self, text: &Text<'_>) -> Place {
        let text: &str = text;
        if text.is_empty() {
            return Place::default();
        }
        let start = (text.as_ptr() as usize).wrapping_sub(self.json.as_ptr() as usize);
        let is_within = start.checked_add(text.len()).is_some_and(|end| end <= self.json.len());
        if is_within {
            return Place { start: start as u32, length: text.len() as u32 };
        }
        let start = self.unescaped.len() as u32 | UNESCAPED;
        self.unescaped.push_str(text);
        Place { start, length: text.len() as u32 }
    }

    fn pairs(&mut self, pairs: &Pairs<'_>) -> Vec<(Place, Place)> {
        pairs.0.iter().map(|(key, value)| (self.place(key), self.place(value))).collect()
    }
}
