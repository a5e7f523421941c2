//! An object as the store keeps it: its JSON once, and the few fields that selectors ask for.

use std::sync::Arc;

use bytes::Bytes;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// core/v1 Events
    Events,
    /// core/v1 Pods
    Pods,
    /// core/v1 Namespaces, of which only the metadata is served.
    Namespaces,
}

/// Namespace and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// One state of an object.
#[derive(Debug)]
pub struct Object {
    /// Namespace and name.
    pub key: Key,
    /// metadata.uid
    pub uid: Arc<str>,
    /// metadata.resourceVersion
    pub revision: u64,
    /// What selectors may ask for.
    pub fields: Vec<(&'static str, String)>,
    /// Its JSON without `kind` and `apiVersion`, as a list's items have it. `metadata.resourceVersion` is the first key of
    /// that name in it.
    pub body: Bytes,
}

// === impl Resource ===

impl Resource {
    /// As in a path.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
        }
    }

    /// As in `kind`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Events => "Event",
            Self::Pods => "Pod",
            Self::Namespaces => "PartialObjectMetadata",
        }
    }

    /// As in `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Events | Self::Pods => "v1",
            Self::Namespaces => "meta.k8s.io/v1",
        }
    }
}

// === impl Object ===

impl Object {
    /// A selectable field; empty where it is not set.
    pub fn field(&self, label: &str) -> &str {
        match label {
            "metadata.namespace" => &self.key.0,
            "metadata.name" => &self.key.1,
            _ => self.fields.iter().find(|(known, _)| *known == label).map_or("", |(_, value)| value),
        }
    }

    /// Its JSON with `kind` and `apiVersion`, as a watch and a get have it.
    pub fn whole(&self, resource: Resource) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.body.len() + 40);
        self.write_whole(resource, &mut json);
        json
    }

    /// The same, onto the end of a buffer.
    pub fn write_whole(&self, resource: Resource, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"kind\":\"");
        json.extend_from_slice(resource.kind().as_bytes());
        json.extend_from_slice(b"\",\"apiVersion\":\"");
        json.extend_from_slice(resource.api_version().as_bytes());
        json.extend_from_slice(b"\",");
        json.extend_from_slice(self.body.get(1..).unwrap_or_default());
    }

    /// The same object with another resourceVersion, as a deletion's frame shows it.
    pub fn at(&self, revision: u64) -> Self {
        let now = format!("\"resourceVersion\":\"{}\"", self.revision);
        let body = match find(&self.body, now.as_bytes()) {
            Some(at) => {
                let mut body = Vec::with_capacity(self.body.len() + 4);
                body.extend_from_slice(&self.body[..at]);
                body.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
                body.extend_from_slice(&self.body[at + now.len()..]);
                Bytes::from(body)
            }
            None => self.body.clone(),
        };
        Self {
            key: self.key.clone(),
            uid: Arc::clone(&self.uid),
            revision,
            fields: self.fields.clone(),
            body,
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
