//! Streams of one node one after the other: what is remembered of its ledger is read once the stream before has ended, so that
//! nothing of an earlier process is appended behind it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The last stream of each node. Clones share them; bounded by the streams that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Arc<str>, CancellationToken>>>);

/// A stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    node: Arc<str>,
    ended: CancellationToken,
    /// Of the stream before it.
    before: Option<CancellationToken>,
}

// === impl Turns ===

impl Turns {
    /// A stream of a node begins.
    pub(super) fn begin(&self, node: &Arc<str>) -> Turn {
        let ended = CancellationToken::new();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.insert(node.clone(), ended.clone());
        Turn { turns: self.clone(), node: node.clone(), ended, before }
    }
}

// === impl Turn ===

impl Turn {
    /// Waits until the stream before this one has ended.
    pub(super) async fn alone(&self) {
        if let Some(before) = &self.before {
            before.cancelled().await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.ended.cancel();
        let mut last = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that came after this has put its own in its place, and that one is not cancelled.
        if last.get(&self.node).is_some_and(CancellationToken::is_cancelled) {
            last.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests;
