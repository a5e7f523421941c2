//! A watch as a stream of lines: what is there at its start, then every change, as the real API server frames them.
//!
//! It reads the store's history at its own pace; one that falls behind the compaction is told 410, as by etcd.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{Cut, CutHow};
use super::object::{Object, Resource};
use super::selectors::Selector;
use super::state::{OpenWatch, State, WatchGuard};
use super::status::Status;
use super::store::{Change, Verb};

/// What a watch was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) resource: Resource,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    pub(super) start: Start,
    /// `timeoutSeconds`
    pub(super) timeout: Duration,
    /// `allowWatchBookmarks`
    pub(super) bookmarks: bool,
    pub(super) open: OpenWatch,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// After a revision.
    After(u64),
    /// With what is there.
    State,
    /// With what is there, then a bookmark (KEP-3157).
    StateAndBookmark,
}

/// The connection is to break.
#[derive(Debug, thiserror::Error)]
#[error("cut by request")]
pub(super) struct Broken;

struct Watch {
    state: Arc<State>,
    request: Request,
    initial: VecDeque<Arc<Object>>,
    initial_bookmark: bool,
    position: u64,
    deadline: Instant,
    next_bookmark: Option<Instant>,
    grown: watch::Receiver<u64>,
    cut: watch::Receiver<Cut>,
    stalled: watch::Receiver<bool>,
    dribbling: VecDeque<u8>,
    last_line: Bytes,
    end: End,
    _guard: WatchGuard,
}

enum End {
    Open,
    /// Nothing follows.
    Ended,
    /// The connection breaks, once what was written is out.
    Breaking,
}

/// Lines go out together up to so many bytes.
const CHUNK: usize = 64 * 1024;
/// What the last line of a chunk may take beyond it.
const ROOM: usize = 8 * 1024;
/// So many changes are likely to fill a chunk.
const MANY: u64 = 64;
/// Changes looked at under one lock.
const BATCH: usize = 512;
/// How long what is written before a break is given to leave the socket.
const FLUSH: Duration = Duration::from_millis(20);

/// The body of a watch.
pub(super) fn stream(
    state: Arc<State>,
    request: Request,
) -> impl Stream<Item = Result<Bytes, Broken>> + Send {
    let watch = Watch::new(state, request);
    futures_util::stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    })
}

// === impl Watch ===

impl Watch {
    fn new(state: Arc<State>, request: Request) -> Self {
        let mut initial = VecDeque::new();
        let position = match request.start {
            Start::After(revision) => revision,
            Start::State | Start::StateAndBookmark => {
                let store = state.store();
                let objects = store.objects(request.resource).values();
                initial.extend(objects.filter(|object| request.wants(object)).cloned());
                store.revision()
            }
        };
        let now = Instant::now();
        // The watch cache sends bookmarks; events are not in it (kubernetes/kubernetes#120348).
        let periodic = request.bookmarks && request.resource != Resource::Events;
        Self {
            initial,
            initial_bookmark: request.start == Start::StateAndBookmark && request.bookmarks,
            position,
            deadline: now + request.timeout,
            next_bookmark: periodic.then(|| now + state.bookmark_interval),
            grown: state.grown.subscribe(),
            cut: state.faults.cut.subscribe(),
            stalled: state.faults.stalled.subscribe(),
            dribbling: VecDeque::new(),
            last_line: Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Event\",\"apiVersion\":\"v1\",\"metadata\":{}}}\n"),
            end: End::Open,
            _guard: state.open_watch(request.open.clone()),
            state,
            request,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            match self.end {
                End::Open => {}
                End::Ended => return None,
                End::Breaking => {
                    sleep(FLUSH).await;
                    self.end = End::Ended;
                    return Some(Err(Broken));
                }
            }
            let of_events = self.request.resource == Resource::Events;
            if of_events && self.cut.has_changed().unwrap_or(false) {
                let how = self.cut.borrow_and_update().how;
                match how {
                    CutHow::Clean => self.end = End::Ended,
                    CutHow::Broken => self.end = End::Breaking,
                    CutHow::MiddleOfLine => {
                        self.end = End::Breaking;
                        return Some(Ok(self.last_line.slice(..self.last_line.len() / 2)));
                    }
                }
                continue;
            }
            if Instant::now() >= self.deadline {
                return None;
            }
            if let Some(byte) = self.dribbling.pop_front() {
                sleep(Duration::from_millis(1)).await;
                return Some(Ok(Bytes::copy_from_slice(&[byte])));
            }
            let stalled = of_events && *self.stalled.borrow_and_update();
            if !stalled {
                self.grown.borrow_and_update();
                match self.lines() {
                    Ok(lines) if lines.is_empty() => {}
                    Ok(lines) => {
                        let lines = Bytes::from(lines);
                        let start = lines[..lines.len() - 1]
                            .iter()
                            .rposition(|byte| *byte == b'\n')
                            .map_or(0, |at| at + 1);
                        self.last_line = lines.slice(start..);
                        if of_events && self.state.faults.take_dribble() {
                            self.dribbling.extend(lines);
                            continue;
                        }
                        return Some(Ok(lines));
                    }
                    Err(status) => {
                        self.end = End::Ended;
                        let quiet =
                            self.state.faults.empty_when_stale.load(std::sync::atomic::Ordering::Relaxed);
                        if quiet && of_events {
                            return None;
                        }
                        let frame = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.json());
                        return Some(Ok(Bytes::from(frame)));
                    }
                }
            }
            let bookmark = self.next_bookmark.unwrap_or(self.deadline);
            tokio::select! {
                _ = self.grown.changed(), if !stalled => {}
                _ = self.cut.changed(), if of_events => self.cut.mark_changed(),
                _ = self.stalled.changed() => {}
                () = sleep_until(self.deadline.min(bookmark)) => {}
            }
        }
    }

    /// What is to be said now; nothing where nothing is new.
    fn lines(&mut self) -> Result<Vec<u8>, Status> {
        let mut lines = Vec::new();
        let resource = self.request.resource;
        while let Some(object) = self.initial.pop_front() {
            frame(&mut lines, Verb::Added, resource, &object);
            if lines.len() >= CHUNK {
                return Ok(lines);
            }
        }
        if std::mem::take(&mut self.initial_bookmark) {
            bookmark(&mut lines, resource, self.position, true);
        }
        let store = self.state.store();
        let changes = store.changes_after(self.position, BATCH).map_err(|compacted| match resource {
            Resource::Events => Status::watch_too_old(),
            Resource::Pods | Resource::Namespaces => Status::cache_too_old(self.position, compacted.oldest),
        })?;
        let mut position = self.position;
        let many = store.revision().saturating_sub(position) > MANY;
        for change in changes {
            // Not within a burst that shares one revision: the position could not tell how far it came.
            if lines.len() >= CHUNK && change.revision != position {
                break;
            }
            position = change.revision;
            if change.resource == resource
                && let Some(verb) = self.request.verb(change)
            {
                if many && lines.is_empty() {
                    // Growing as far as a chunk copies it several times.
                    lines.reserve(CHUNK + ROOM);
                }
                frame(&mut lines, verb, resource, &change.object);
            }
        }
        let behind = position < store.revision();
        drop(store);
        self.position = position;
        if behind && lines.is_empty() {
            // A whole batch that was none of ours: go on at once.
            self.grown.mark_changed();
        }
        if self.next_bookmark.is_some_and(|due| Instant::now() >= due) {
            bookmark(&mut lines, resource, self.position, false);
            self.next_bookmark = Some(Instant::now() + self.state.bookmark_interval);
        }
        Ok(lines)
    }
}

// === impl Request ===

impl Request {
    fn in_namespace(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == namespace)
    }

    fn wants(&self, object: &Object) -> bool {
        self.in_namespace(object) && self.selector.matches(object)
    }

    /// How a change looks through the selector: an object that begins to match was added, one that ends to was deleted.
    fn verb(&self, change: &Change) -> Option<Verb> {
        if !self.in_namespace(&change.object) {
            return None;
        }
        let now = change.verb != Verb::Deleted && self.selector.matches(&change.object);
        let before = change.previous.as_deref().is_some_and(|previous| self.selector.matches(previous));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(Verb::Added),
            (true, true) => Some(Verb::Modified),
            (true, false) => Some(Verb::Deleted),
        }
    }
}

fn frame(lines: &mut Vec<u8>, verb: Verb, resource: Resource, object: &Object) {
    lines.extend_from_slice(b"{\"type\":\"");
    lines.extend_from_slice(verb.as_str().as_bytes());
    lines.extend_from_slice(b"\",\"object\":");
    object.write_whole(resource, lines);
    lines.extend_from_slice(b"}\n");
}

fn bookmark(lines: &mut Vec<u8>, resource: Resource, revision: u64, initial: bool) {
    let annotations = if initial { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
    let metadata = format!("{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}");
    let rest = match resource {
        Resource::Events => {
            ",\"involvedObject\":{},\"source\":{},\"firstTimestamp\":null,\"lastTimestamp\":null,\"eventTime\":null,\"reportingComponent\":\"\",\"reportingInstance\":\"\""
        }
        Resource::Pods => ",\"spec\":{\"containers\":null},\"status\":{}",
        Resource::Namespaces => "",
    };
    let line = format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata}{rest}}}}}\n",
        resource.kind(),
        resource.api_version(),
    );
    lines.extend_from_slice(line.as_bytes());
}
