//! What is asked of the API server, and the address that asks it.

use nodetap_wire::{Shard, shard::Share};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One page of a list.
    Page {
        /// Where it begins; empty: at the beginning.
        continue_token: String,
        /// Most items in it.
        limit: u32,
    },
    /// A list that streams through a watch, which then goes on (KEP-3157).
    StreamedList {
        /// When the server is to end it.
        timeout_seconds: u32,
    },
    /// A watch of what comes after a resourceVersion.
    Watch {
        /// Where it begins; never empty.
        resource_version: String,
        /// When the server is to end it.
        timeout_seconds: u32,
    },
}

// === impl Request ===

impl Request {
    /// The path and query for a shard's objects.
    pub fn to_uri(&self, target: &Target) -> String {
        let mut uri = format!("{}?", target.path);
        match self {
            Self::Page { continue_token, limit } => {
                uri.push_str(&format!("limit={limit}"));
                if !continue_token.is_empty() {
                    uri.push_str("&continue=");
                    encode(&mut uri, continue_token);
                }
            }
            Self::StreamedList { timeout_seconds } => uri.push_str(&format!(
                "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &timeoutSeconds={timeout_seconds}"
            )),
            Self::Watch { resource_version, timeout_seconds } => {
                uri.push_str("watch=true&allowWatchBookmarks=true&resourceVersion=");
                encode(&mut uri, resource_version);
                uri.push_str(&format!("&timeoutSeconds={timeout_seconds}"));
            }
        }
        if !target.selector.is_empty() {
            uri.push('&');
            uri.push_str(&target.selector);
        }
        uri
    }
}

/// Where a shard's objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path of the collection.
    pub path: String,
    /// A selector as part of a query; empty: everything.
    pub selector: String,
    /// What is watched.
    pub resource: Resource,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Whole events.
    Events,
    /// The metadata of namespaces.
    Namespaces,
}

// === impl Target ===

impl Target {
    /// Of a shard; `None` for a share that this version does not know, or a name that is none.
    pub fn of(shard: &Shard) -> Option<Self> {
        let events = |path: String, selector: String| Self { path, selector, resource: Resource::Events };
        let all = || "/api/v1/events".to_owned();
        match shard.share.as_ref()? {
            Share::Cluster(_) => Some(events(all(), String::new())),
            Share::Namespace(name) if is_label(name) => {
                Some(events(format!("/api/v1/namespaces/{name}/events"), String::new()))
            }
            Share::Host(node) if is_subdomain(node) => Some(events(all(), field("spec.source.host", node))),
            // Selected by the agent: no selector names all the nodes without an agent.
            Share::NoHost(_) => Some(events(all(), String::new())),
            Share::UidRange(range) => {
                let (from, to) = (range.from, range.end());
                let ranges = format!("shardRange(object.metadata.uid, '0x{from:016x}', '0x{to:016x}')");
                let mut selector = "shardSelector=".to_owned();
                encode(&mut selector, &ranges);
                Some(events(all(), selector))
            }
            Share::Namespaces(_) => Some(Self {
                path: "/api/v1/namespaces".to_owned(),
                selector: String::new(),
                resource: Resource::Namespaces,
            }),
            Share::Namespace(_) | Share::Host(_) => None,
        }
    }
}

// === impl Resource ===

impl Resource {
    /// As in a path, and as a label.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Namespaces => "namespaces",
        }
    }

    /// The media type to ask for. Of namespaces nothing is wanted but their names.
    pub fn accept(self, request: &Request) -> &'static str {
        match (self, request) {
            (Self::Events, _) => "application/json",
            (Self::Namespaces, Request::Page { .. }) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
            }
            (Self::Namespaces, _) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }
}

/// A field selector that an object's field equals a value without special characters.
pub(super) fn field(label: &str, value: &str) -> String {
    let mut selector = "fieldSelector=".to_owned();
    encode(&mut selector, &format!("{label}={value}"));
    selector
}

/// A DNS label (RFC 1123), as namespaces are: nothing else reaches a path.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A DNS subdomain (RFC 1123), as names of nodes are.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Percent-encodes all but what RFC 3986 leaves unreserved.
fn encode(uri: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            uri.push(byte.into());
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests;
