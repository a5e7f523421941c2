//! Field selectors, accepted and refused as the real API server does it: a closed list of labels, `=`, `==` and `!=` only.

use nodetap_wire::UidRange;

use super::object::{Object, Resource};
use super::state::Accepts;
use super::status::Status;

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    terms: Vec<Term>,
    /// `shardSelector`, as it was asked for, and what it selects.
    shard: Option<(String, UidRange)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    label: &'static str,
    value: String,
    equal: bool,
}

/// k/k pkg/apis/core/v1/conversion.go, `AddFieldLabelConversionsForEvent`.
const EVENT_LABELS: &[&str] = &[
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
    "metadata.namespace",
    "metadata.name",
];

/// Of no released API server: switched on by an option.
const HOST: &str = "spec.source.host";

const NAMESPACE_LABELS: &[&str] = &["metadata.name", "status.phase"];

/// The same file, `addConversionFuncs` for pods.
const POD_LABELS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

// === impl Selector ===

impl Selector {
    /// Reads a selector; an empty one selects everything.
    pub(super) fn parse(text: &str, resource: Resource, accepts: Accepts) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (label, value, equal) = split_term(part).ok_or_else(|| cannot_understand(text, part))?;
            let value = unescape(value).ok_or_else(|| cannot_understand(text, part))?;
            terms.push(Term { label: known(label, resource, accepts)?, value, equal });
        }
        Ok(Self { terms, shard: None })
    }

    /// The same for one range of uids too, where this API server shards; others do not see the parameter.
    pub(super) fn sharded(mut self, text: &str, accepts: Accepts) -> Result<Self, Status> {
        if accepts.shard_selector && !text.is_empty() {
            let range = uid_range(text).ok_or_else(|| {
                Status::bad_request(format!(
                    "unable to parse shardSelector {text:?}: not one shardRange of uids"
                ))
            })?;
            self.shard = Some((text.to_owned(), range));
        }
        Ok(self)
    }

    /// `metadata.shardInfo.selector`
    pub(super) fn shard(&self) -> Option<&str> {
        self.shard.as_ref().map(|(text, _)| text.as_str())
    }

    /// Whether it selects everything.
    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.shard.is_none()
    }

    /// Whether an object is selected.
    pub(super) fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| (object.field(term.label) == term.value) == term.equal)
            && self.shard.as_ref().is_none_or(|(_, range)| range.has(object.uid()))
    }
}

/// `shardRange(object.metadata.uid, '0x0000000000000000', '0x10000000000000000')`: of what the real one parses, one range of uids.
fn uid_range(text: &str) -> Option<UidRange> {
    let inner = text.strip_prefix("shardRange(")?.strip_suffix(')')?;
    let mut parts = inner.split(',').map(str::trim);
    if parts.next()? != "object.metadata.uid" {
        return None;
    }
    let mut bound = || {
        let digits = parts.next()?.strip_prefix("'0x")?.strip_suffix('\'')?;
        u128::from_str_radix(digits, 16).ok().filter(|bound| *bound <= 1 << 64)
    };
    let (from, to) = (bound()?, bound()?);
    let from = u64::try_from(from).ok()?;
    // The end of all is 0 where it does not fit.
    Some(UidRange { from, to: u64::try_from(to).unwrap_or(0) })
}

fn known(label: &str, resource: Resource, accepts: Accepts) -> Result<&'static str, Status> {
    if label == HOST && resource == Resource::Events && accepts.host_selector {
        return Ok(HOST);
    }
    let labels = match resource {
        Resource::Events => EVENT_LABELS,
        Resource::Pods => POD_LABELS,
        Resource::Namespaces => NAMESPACE_LABELS,
    };
    // Pods keep an old spelling.
    let label = if resource == Resource::Pods && label == "spec.host" { "spec.nodeName" } else { label };
    labels
        .iter()
        .copied()
        .find(|known| *known == label)
        .ok_or_else(|| Status::bad_request(format!("field label not supported: {label}")))
}

/// At commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// At the first operator.
fn split_term(part: &str) -> Option<(&str, &str, bool)> {
    for (at, _) in part.char_indices() {
        let rest = &part[at..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&part[..at], value, equal));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

fn cannot_understand(selector: &str, part: &str) -> Status {
    Status::bad_request(format!("invalid selector: '{selector}'; can't understand '{part}'"))
}

#[cfg(test)]
mod tests;
