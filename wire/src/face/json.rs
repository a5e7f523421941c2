//! A face's JSON, written straight: byte for byte what its `Serialize` writes, in a third of the time.
//!
//! Nearly no text of an event has anything that JSON escapes, which is seen for many bytes at once.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde::Serialize;

use super::{Face, InvolvedObject, OwnerReference};
use crate::event::scan::special;
use crate::event::{EventSource, ObjectReference, Pairs, Series, Text};

/// A member's name as it stands behind another member.
macro_rules! member {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Writes the JSON of a face onto the end of a buffer. Deaths, of which there are few, as `serde_json` does it.
pub(super) fn write(face: &Face<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    if face.container.is_some() {
        return serde_json::to_writer(out, face);
    }
    let metadata = &face.metadata;
    let mut object = Members::begin(out, "{\"metadata\":{");
    object.some(member!("name"), &metadata.name)?;
    object.some(member!("namespace"), &metadata.namespace)?;
    object.some(member!("uid"), &metadata.uid)?;
    object.some(member!("resourceVersion"), &metadata.resource_version)?;
    object.time(member!("creationTimestamp"), &metadata.creation_timestamp)?;
    for (name, pairs) in
        [(member!("labels"), &metadata.labels), (member!("annotations"), &metadata.annotations)]
    {
        if let Some(Pairs(pairs)) = pairs {
            object.map(name, pairs.iter().map(|(key, value)| (&**key, &**value)))?;
        }
    }
    object.end();

    let mut members = Members { out, is_first: false };
    members.some(member!("reason"), &face.reason)?;
    members.some(member!("message"), &face.message)?;
    members.source(&face.source)?;
    members.time(member!("firstTimestamp"), &face.first_timestamp)?;
    members.time(member!("lastTimestamp"), &face.last_timestamp)?;
    members.number(member!("count"), face.count, face.count == 0);
    members.some(member!("type"), &face.r#type)?;
    members.time(member!("eventTime"), &face.event_time)?;
    if let Some(series) = &face.series {
        members.series(series)?;
    }
    members.some(member!("action"), &face.action)?;
    if let Some(related) = &face.related {
        let mut related_members = members.object(member!("related"));
        related_members.reference(related)?;
        related_members.end();
    }
    members.text(member!("reportingComponent"), &face.reporting_component)?;
    members.text(member!("reportingInstance"), &face.reporting_instance)?;
    members.text(member!("clusterName"), face.cluster_name)?;
    members.involved_object(&face.involved_object)?;
    members.text(member!("id"), &face.id)?;
    members.number(member!("occurrences"), face.occurrences, false);
    members.end();
    Ok(())
}

/// The members of an object that is being written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

// === impl Members ===

impl<'a> Members<'a> {
    /// Behind an opening brace.
    fn begin(out: &'a mut Vec<u8>, opening: &str) -> Self {
        out.extend_from_slice(opening.as_bytes());
        Self { out, is_first: true }
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        let comma = usize::from(std::mem::take(&mut self.is_first));
        self.out.extend_from_slice(&name.as_bytes()[comma..]);
        self.out
    }

    fn object(&mut self, name: &str) -> Members<'_> {
        Members::begin(self.key(name), "{")
    }

    fn end(self) {
        self.out.push(b'}');
    }

    fn text(&mut self, name: &str, value: &str) -> Result<(), serde_json::Error> {
        text(value, self.key(name))
    }

    /// Where there is something in it.
    fn some(&mut self, name: &str, value: &str) -> Result<(), serde_json::Error> {
        if value.is_empty() { Ok(()) } else { self.text(name, value) }
    }

    /// As null where it is missing or Go's zero time.
    fn time(&mut self, name: &str, value: &Text<'_>) -> Result<(), serde_json::Error> {
        if super::is_unknown_time(value) {
            self.key(name).extend_from_slice(b"null");
            return Ok(());
        }
        self.text(name, value)
    }

    fn number(&mut self, name: &str, value: impl std::fmt::Display, is_left_out: bool) {
        if !is_left_out {
            // Writing to a Vec cannot fail.
            let _ = write!(self.key(name), "{value}");
        }
    }

    fn map<'t>(
        &mut self,
        name: &str,
        pairs: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Result<(), serde_json::Error> {
        let out = self.key(name);
        out.push(b'{');
        for (index, (key, value)) in pairs.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            text(key, out)?;
            out.push(b':');
            text(value, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn source(&mut self, source: &EventSource<'_>) -> Result<(), serde_json::Error> {
        let mut members = self.object(member!("source"));
        members.some(member!("component"), &source.component)?;
        members.some(member!("host"), &source.host)?;
        members.end();
        Ok(())
    }

    fn series(&mut self, series: &Series<'_>) -> Result<(), serde_json::Error> {
        let mut members = self.object(member!("series"));
        members.number(member!("count"), series.count, series.count == 0);
        members.time(member!("lastObservedTime"), &series.last_observed_time)?;
        members.end();
        Ok(())
    }

    fn reference(&mut self, reference: &ObjectReference<'_>) -> Result<(), serde_json::Error> {
        self.some(member!("kind"), &reference.kind)?;
        self.some(member!("namespace"), &reference.namespace)?;
        self.some(member!("name"), &reference.name)?;
        self.some(member!("uid"), &reference.uid)?;
        self.some(member!("apiVersion"), &reference.api_version)?;
        self.some(member!("resourceVersion"), &reference.resource_version)?;
        self.some(member!("fieldPath"), &reference.field_path)
    }

    fn involved_object(&mut self, object: &InvolvedObject<'_>) -> Result<(), serde_json::Error> {
        let mut members = self.object(member!("involvedObject"));
        members.reference(&object.reference)?;
        for (name, map) in
            [(member!("labels"), &object.labels), (member!("annotations"), &object.annotations)]
        {
            let map: &BTreeMap<String, String> = map;
            if !map.is_empty() {
                members.map(name, map.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
            }
        }
        if !object.owner_references.is_empty() {
            owners(&object.owner_references, members.key(member!("ownerReferences")))?;
        }
        members.key(member!("deleted")).extend_from_slice(if object.deleted { b"true" } else { b"false" });
        members.end();
        Ok(())
    }
}

fn owners(owners: &[OwnerReference<'_>], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    out.push(b'[');
    for (index, owner) in owners.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut members = Members::begin(out, "{");
        members.text(member!("apiVersion"), owner.api_version)?;
        members.text(member!("kind"), owner.kind)?;
        members.text(member!("name"), owner.name)?;
        members.text(member!("uid"), owner.uid)?;
        if owner.controller {
            members.key(member!("controller")).extend_from_slice(b"true");
        }
        members.end();
    }
    out.push(b']');
    Ok(())
}

/// Writes a text, quoted.
fn text(text: &str, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    if special(text.as_bytes(), 0).is_some() {
        return text.serialize(&mut serde_json::Serializer::new(out));
    }
    // Once for what follows.
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}
