//! core/v1 Events as the API server decodes and encodes them: unknown fields fall away, and some empty ones are written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::object::Object;

/// A core/v1 Event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// `metadata`
    pub metadata: Metadata,
    /// `involvedObject`
    pub involved_object: Reference,
    /// `reason`
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub reason: String,
    /// `message`
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub message: String,
    /// `source`
    #[serde(deserialize_with = "or_default")]
    pub source: Source,
    /// `firstTimestamp`, in seconds
    pub first_timestamp: Option<String>,
    /// `lastTimestamp`, in seconds
    pub last_timestamp: Option<String>,
    /// `count`
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "or_default")]
    pub count: i64,
    /// `type`
    #[serde(rename = "type", skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub r#type: String,
    /// `eventTime`, in microseconds
    pub event_time: Option<String>,
    /// `series`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// `action`
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub action: String,
    /// `related`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Reference>,
    /// `reportingComponent`
    #[serde(deserialize_with = "or_default")]
    pub reporting_component: String,
    /// `reportingInstance`
    #[serde(deserialize_with = "or_default")]
    pub reporting_instance: String,
}

/// `metadata` of any object, as far as events and pods have it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// `name`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `generateName`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// `namespace`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `uid`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `resourceVersion`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// `creationTimestamp`
    pub creation_timestamp: Option<String>,
    /// `deletionTimestamp`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// `deletionGracePeriodSeconds`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// `labels`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `annotations`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `ownerReferences`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<Value>,
    /// `managedFields`
    #[serde(skip_serializing_if = "ManagedFields::is_empty")]
    pub managed_fields: ManagedFields,
}

/// `managedFields`, as JSON.
#[derive(Clone, Debug, Default)]
pub struct ManagedFields(Option<Arc<RawValue>>);

/// The newer of the two groups that events are written by.
pub(super) const EVENTS_API: &str = "events.k8s.io/v1";

/// What selectors may ask for, in the order that `Event::store` has the values in.
const SELECTABLE: &[&str; 12] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "spec.source.host",
];

/// An ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// `kind`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `namespace`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `name`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `uid`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `apiVersion`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `resourceVersion`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// `fieldPath`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

/// `source`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// `component`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub component: String,
    /// `host`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// `series`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Series {
    /// `count`
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i64,
    /// `lastObservedTime`, in microseconds
    pub last_observed_time: Option<String>,
}

// === impl Event ===

impl Event {
    /// The stored object, at a revision.
    pub fn store(&mut self, revision: u64) -> Object {
        thread_local! {
            static JSON: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        self.metadata.resource_version = revision.to_string();
        let Self { metadata, involved_object: object, source, reporting_component, .. } = &*self;
        let component = if source.component.is_empty() { reporting_component } else { &source.component };
        let values: [&str; _] = [
            &object.kind,
            &object.namespace,
            &object.name,
            &object.uid,
            &object.api_version,
            &object.resource_version,
            &object.field_path,
            &self.reason,
            reporting_component,
            component,
            &self.r#type,
            &source.host,
        ];
        let key = (metadata.namespace.as_str(), metadata.name.as_str());
        // Written where the one before was: a buffer that grows with every event costs more than the copy of what is in it.
        JSON.with_borrow_mut(|json| {
            json.clear();
            if serde_json::to_writer(&mut *json, &*self).is_err() {
                json.clear();
            }
            Object::new(key, &metadata.uid, revision, json, SELECTABLE, values)
        })
    }

    /// The API that it is written through.
    pub(super) fn api_version(&self) -> &'static str {
        if self.event_time.is_some() { EVENTS_API } else { "v1" }
    }
}

// === impl ManagedFields ===

impl ManagedFields {
    /// What the API server notes of who wrote which field of an event, and when.
    pub(super) fn of(manager: &str, api_version: &str, at: Timestamp) -> Self {
        let mut owned = serde_json::Map::new();
        let mut own = |name: &str| owned.insert(format!("f:{name}"), json!({}));
        for name in ["count", "firstTimestamp", "lastTimestamp", "message", "reason", "type"] {
            own(name);
        }
        if api_version == EVENTS_API {
            own("eventTime");
            own("action");
        }
        own("reportingComponent");
        own("reportingInstance");
        owned.insert("f:involvedObject".to_owned(), json!({}));
        owned.insert("f:source".to_owned(), json!({"f:component": {}, "f:host": {}}));
        let fields = json!([{
            "manager": manager,
            "operation": "Update",
            "apiVersion": api_version,
            "time": seconds(at),
            "fieldsType": "FieldsV1",
            "fieldsV1": owned,
        }]);
        Self(serde_json::value::to_raw_value(&fields).ok().map(Arc::from))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Serialize for ManagedFields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ManagedFields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<Box<RawValue>>::deserialize(deserializer)?.map(Arc::from)))
    }
}

impl PartialEq for ManagedFields {
    fn eq(&self, other: &Self) -> bool {
        let text = |fields: &Self| fields.0.as_deref().map(|fields| fields.get().to_owned());
        text(self) == text(other)
    }
}

/// A time as `metav1.Time` writes it. The text of the last second is kept: a load writes thousands of events in one.
pub(super) fn seconds(at: Timestamp) -> String {
    thread_local! {
        static LAST: RefCell<Option<(i64, String)>> = const { RefCell::new(None) };
    }
    let second = at.as_second();
    LAST.with_borrow_mut(|last| match last {
        Some((known, text)) if *known == second => text.clone(),
        _ => {
            let text = Timestamp::from_second(second).unwrap_or_default().to_string();
            last.insert((second, text)).1.clone()
        }
    })
}

/// A time as `metav1.MicroTime` writes it.
pub(super) fn micros(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Applies a merge patch, as a strategic one does on an Event too, which has no lists to merge but managedFields.
pub(super) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(&name);
                } else {
                    merge(target.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
