//! An object as the store keeps it: its JSON once, and the few fields that selectors ask for.

use std::sync::Arc;

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
///
/// All of its text is in one piece: with a piece a field, making and freeing them took a load longer than everything else.
#[derive(Debug)]
pub struct Object {
    /// metadata.resourceVersion
    pub revision: u64,
    /// What selectors may ask for.
    labels: &'static [&'static str],
    /// Its parts one after the other: `BODY`, `UID`, `NAMESPACE`, `NAME`, and a value for each label.
    text: Box<[u8]>,
    /// Where each part ends.
    ends: [u32; OWN + MOST_LABELS],
}

const BODY: usize = 0;
const UID: usize = 1;
const NAMESPACE: usize = 2;
const NAME: usize = 3;
/// The parts that every object has.
const OWN: usize = 4;
const MOST_LABELS: usize = 12;

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
    /// Of a namespace and a name, with the values that selectors may ask for.
    pub(super) fn new<const LABELS: usize>(
        (namespace, name): (&str, &str),
        uid: &str,
        revision: u64,
        body: &[u8],
        labels: &'static [&'static str; LABELS],
        values: [&str; LABELS],
    ) -> Self {
        const { assert!(LABELS <= MOST_LABELS) };
        let own = [body, uid.as_bytes(), namespace.as_bytes(), name.as_bytes()];
        Self::of(revision, labels, own.into_iter().chain(values.into_iter().map(str::as_bytes)))
    }

    fn of<'a>(
        revision: u64,
        labels: &'static [&'static str],
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Self {
        let mut text = Vec::with_capacity(parts.clone().map(<[u8]>::len).sum());
        let mut ends = [0; OWN + MOST_LABELS];
        for (end, part) in ends.iter_mut().zip(parts) {
            text.extend_from_slice(part);
            *end = text.len() as u32;
        }
        Self { revision, labels, text: text.into_boxed_slice(), ends }
    }

    fn part(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.text[start as usize..self.ends[number] as usize]
    }

    fn text(&self, number: usize) -> &str {
        std::str::from_utf8(self.part(number)).unwrap_or_default()
    }

    /// Its JSON without `kind` and `apiVersion`, as a list's items have it. `metadata.resourceVersion` is the first key of
    /// that name in it.
    pub fn body(&self) -> &[u8] {
        self.part(BODY)
    }

    /// metadata.uid
    pub fn uid(&self) -> &str {
        self.text(UID)
    }

    /// metadata.namespace
    pub fn namespace(&self) -> &str {
        self.text(NAMESPACE)
    }

    /// metadata.name
    pub fn name(&self) -> &str {
        self.text(NAME)
    }

    pub(super) fn key(&self) -> Key {
        (Arc::from(self.namespace()), Arc::from(self.name()))
    }

    /// A selectable field; empty where it is not set.
    pub fn field(&self, label: &str) -> &str {
        match label {
            "metadata.namespace" => self.namespace(),
            "metadata.name" => self.name(),
            _ => {
                let number = self.labels.iter().position(|known| *known == label);
                number.map_or("", |number| self.text(OWN + number))
            }
        }
    }

    /// Its JSON with `kind` and `apiVersion`, as a watch and a get have it.
    pub fn whole(&self, resource: Resource) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.body().len() + 40);
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
        json.extend_from_slice(self.body().get(1..).unwrap_or_default());
    }

    /// The same object with another resourceVersion, as a deletion's frame shows it.
    pub fn at(&self, revision: u64) -> Self {
        let now = format!("\"resourceVersion\":\"{}\"", self.revision);
        let mut body = self.body().to_vec();
        if let Some(at) = find(&body, now.as_bytes()) {
            body.splice(at..at + now.len(), format!("\"resourceVersion\":\"{revision}\"").into_bytes());
        }
        let rest = (UID..OWN + self.labels.len()).map(|number| self.part(number));
        Self::of(revision, self.labels, std::iter::once(body.as_slice()).chain(rest))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        let body = br#"{"metadata":{"name":"web","resourceVersion":"99"},"x":1}"#;
        let values = ["", "läuft", "web-1"];
        Object::new(("shop", "web"), "u-1", 99, body, &["reason", "message", "source"], values)
    }

    #[test]
    fn what_was_put_in_comes_out() {
        let object = object();
        assert_eq!((object.namespace(), object.name(), object.uid()), ("shop", "web", "u-1"));
        assert_eq!(object.body(), br#"{"metadata":{"name":"web","resourceVersion":"99"},"x":1}"#);
        let fields = ["metadata.namespace", "metadata.name", "reason", "message", "source", "type"]
            .map(|label| object.field(label));
        assert_eq!(fields, ["shop", "web", "", "läuft", "web-1", ""]);
        assert_eq!(object.key(), (Arc::from("shop"), Arc::from("web")));
    }

    #[test]
    fn at_another_revision_all_else_stays() {
        let later = object().at(100);
        assert_eq!(later.revision, 100);
        assert_eq!(later.body(), br#"{"metadata":{"name":"web","resourceVersion":"100"},"x":1}"#);
        assert_eq!((later.namespace(), later.name(), later.uid()), ("shop", "web", "u-1"));
        assert_eq!((later.field("message"), later.field("source")), ("läuft", "web-1"));
    }
}
