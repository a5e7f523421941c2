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
    /// The path and query for the events of a shard.
    pub fn to_uri(&self, path: &str) -> String {
        let mut uri = format!("{path}?");
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
        uri
    }
}

/// Where the events of a shard are; `None` for a share that this version does not know, or a name that is none.
pub fn path_of(shard: &Shard) -> Option<String> {
    match shard.share.as_ref()? {
        Share::Cluster(_) => Some("/api/v1/events".to_owned()),
        Share::Namespace(namespace) if is_namespace(namespace) => {
            Some(format!("/api/v1/namespaces/{namespace}/events"))
        }
        Share::Namespace(_) => None,
    }
}

/// A shard in words, for logs and keys.
pub fn name_of(shard: &Shard) -> String {
    match &shard.share {
        Some(Share::Cluster(_)) => "cluster".to_owned(),
        Some(Share::Namespace(namespace)) => format!("namespace/{namespace}"),
        None => "unknown".to_owned(),
    }
}

/// A DNS label (RFC 1123), as namespaces are: nothing else reaches a path.
fn is_namespace(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
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
