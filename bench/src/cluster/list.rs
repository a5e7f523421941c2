//! Lists: pages with opaque tokens that expire, and the resourceVersion of a consistent state.

use std::sync::Arc;

use super::object::{Object, Resource};
use super::selectors::Selector;
use super::state::State;
use super::status::Status;
use super::store::Snapshot;

/// What a list was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    /// 0: all at once.
    pub(super) limit: usize,
    /// `continue`; empty: from the start.
    pub(super) token: String,
    /// `resourceVersion`
    pub(super) revision: Option<u64>,
    /// `resourceVersionMatch=Exact`
    pub(super) exact: bool,
}

/// Where a list goes on: a revision and the key of the last item.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    revision: u64,
    namespace: String,
    name: String,
}

/// Answers a list with its JSON.
pub(super) fn list(state: &State, request: &Request) -> Result<Vec<u8>, Status> {
    let token = (!request.token.is_empty()).then(|| Token::decode(&request.token)).transpose()?;
    let mut store = state.store();
    let current = store.revision();
    let revision = match (&token, request.revision) {
        (Some(token), _) => token.revision,
        (None, Some(asked)) if asked > current => return Err(Status::too_large(asked, current)),
        (None, Some(asked)) if asked > 0 && request.exact => asked,
        (None, _) => current,
    };
    let snapshot = if token.is_none() && request.limit == 0 && revision == current {
        // Read once and not again: no need to keep it.
        Snapshot::new(store.objects(request.resource).values().cloned().collect())
    } else {
        let too_old = || if token.is_some() { Status::continue_too_old() } else { Status::list_too_old() };
        store.snapshot(request.resource, revision).map_err(|_| too_old())?
    };
    drop(store);
    Ok(page(request, &snapshot, revision, token.as_ref()))
}

fn page(request: &Request, snapshot: &Snapshot, revision: u64, token: Option<&Token>) -> Vec<u8> {
    let start = token.map_or(0, |token| {
        snapshot.partition_point(|object| {
            (object.namespace(), object.name()) <= (token.namespace.as_str(), token.name.as_str())
        })
    });
    let of_namespace = |object: &&Arc<Object>| {
        request.namespace.as_deref().is_none_or(|namespace| object.namespace() == namespace)
    };
    let wanted = |object: &&Arc<Object>| of_namespace(object) && request.selector.matches(object);
    let mut rest = snapshot.iter().skip(start).filter(wanted).peekable();
    let limit = if request.limit == 0 { usize::MAX } else { request.limit };
    let mut items = Vec::new();
    let mut last: Option<&Arc<Object>> = None;
    for object in rest.by_ref().take(limit) {
        if !items.is_empty() {
            items.push(b',');
        }
        items.extend_from_slice(object.body());
        last = Some(object);
    }
    let mut metadata = format!("\"resourceVersion\":\"{revision}\"");
    if let Some(selector) = request.selector.shard() {
        metadata += &format!(",\"shardInfo\":{{\"selector\":{}}}", serde_json::Value::from(selector));
    }
    if rest.peek().is_some()
        && let Some(last) = last
    {
        let token = Token { revision, namespace: last.namespace().to_owned(), name: last.name().to_owned() };
        metadata += &format!(",\"continue\":\"{}\"", token.encode());
        // With a selector the real one cannot know how many are left.
        if request.selector.is_empty() {
            metadata += &format!(",\"remainingItemCount\":{}", rest.count());
        }
    }
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{{{metadata}}},\"items\":[",
        request.resource.kind(),
        request.resource.api_version(),
    );
    let mut body = Vec::with_capacity(head.len() + items.len() + 4);
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&items);
    body.extend_from_slice(b"]}\n");
    body
}

// === impl Token ===

impl Token {
    fn encode(&self) -> String {
        let plain = format!("{}\n{}\n{}", self.revision, self.namespace, self.name);
        plain.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let invalid = || Status::bad_request("continue key is not valid: it was not given by this server");
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        let plain = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(invalid)?;
        let mut parts = plain.splitn(3, '\n');
        let revision = parts.next().and_then(|part| part.parse().ok()).ok_or_else(invalid)?;
        let namespace = parts.next().ok_or_else(invalid)?.to_owned();
        let name = parts.next().ok_or_else(invalid)?.to_owned();
        Ok(Self { revision, namespace, name })
    }
}
