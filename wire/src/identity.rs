//! What makes a record the same record: deterministic, however often, in whatever order and from whatever source it is
//! seen.
//!
//! An identity goes out as text, as a sink's document id, message key or CloudEvents `id`, so its form is a promise.

use std::fmt;

use crate::{ContainerDied, EventSeen};

/// The stable id of an event's state or of a container's death.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(String);

// === impl Identity ===

impl Identity {
    /// Identity of one state of one Event: cluster, uid and resourceVersion.
    pub fn of_event(cluster: &str, event: &EventSeen) -> Self {
        Self::of_event_state(cluster, &event.uid, &event.resource_version)
    }

    /// The same, from its parts.
    pub fn of_event_state(cluster: &str, uid: &str, resource_version: &str) -> Self {
        let mut id = String::with_capacity(8 + cluster.len() + uid.len() + resource_version.len());
        id.push_str("event/");
        if cluster.contains(['/', '%']) {
            id += &Segment(cluster).to_string();
        } else {
            id += cluster;
        }
        for part in ["/", uid, "/", resource_version] {
            id.push_str(part);
        }
        Self(id)
    }

    /// Identity of one death: cluster, pod uid, container and container id; the restart ordinal stands in where the
    /// container id is not known.
    pub fn of_death(cluster: &str, death: &ContainerDied) -> Self {
        let ContainerDied { pod_uid, container, container_id, ordinal, .. } = death;
        let cluster = Segment(cluster);
        if container_id.is_empty() {
            Self(format!("death/{cluster}/{pod_uid}/{container}/{ordinal}"))
        } else {
            // The runtime's name before `://` adds nothing: an id is unique without it.
            let id = container_id.rsplit_once("://").map_or(container_id.as_str(), |(_, id)| id);
            Self(format!("death/{cluster}/{pod_uid}/{container}/{id}"))
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cluster's name as one segment of a path: it is free text, so its slashes and percent signs are escaped.
struct Segment<'a>(&'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['/', '%']) {
            match part.as_bytes().last() {
                Some(b'/') => write!(f, "{}%2F", &part[..part.len() - 1])?,
                Some(b'%') => write!(f, "{}%25", &part[..part.len() - 1])?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
