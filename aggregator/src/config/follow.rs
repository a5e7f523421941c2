//! The configuration file while the aggregator runs: what may change without a restart, and what is said of the rest.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::Config;
use crate::assign::choose::Wish;

/// Between two looks. A ConfigMap's volume follows within a minute or two by itself.
const POLL: Duration = Duration::from_secs(5);

/// A file that is followed, and what was last read of it.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    text: Option<Vec<u8>>,
    wishes: watch::Sender<Wish>,
}

// === impl Follow ===

impl Follow {
    /// Follows a file that was read before. What it says of `events` goes to `wishes`.
    pub fn new(path: PathBuf, wishes: watch::Sender<Wish>) -> Self {
        let text = std::fs::read(&path).ok();
        Self { path, text, wishes }
    }

    /// Looks again and again, for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(POLL).await;
            // Files of a hung mount must not hold up the runtime.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(follow) => self = follow,
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Takes what is new; a file that is wrong changes nothing.
    pub fn look(&mut self) {
        let text = std::fs::read(&self.path).ok();
        if text == self.text {
            return;
        }
        self.text = text;
        let path = self.path.display();
        let config = match Config::load(&self.path) {
            Ok((config, _)) => config,
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the changed configuration cannot be used: the one before goes on");
                }
                return;
            }
        };
        let changed =
            self.wishes.send_if_modified(|wish| std::mem::replace(wish, config.events) != config.events);
        if changed {
            tracing::info!(%path, events = ?config.events, "configuration changed: events is applied");
        } else {
            tracing::warn!(%path, "configuration changed, but not in events: the rest is applied at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::assign::choose::Watch;

    #[test]
    fn what_events_says_is_applied_and_a_wrong_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let write = |events: &str| std::fs::write(&path, format!("events: {events}\n")).unwrap();
        write("{watch: cluster}");
        let (wishes, mut wish) = watch::channel(Wish { watch: Watch::Cluster, ..Wish::default() });
        let mut follow = Follow::new(path.clone(), wishes);
        follow.look();
        assert!(!wish.has_changed().unwrap());
        write("{watch: namespaces, maxEventsPerWatch: 20}");
        follow.look();
        let wanted = Wish { watch: Watch::Namespaces, max_events_per_watch: 20, ..Wish::default() };
        assert_eq!(*wish.borrow_and_update(), wanted);
        write("{watch: everything}");
        follow.look();
        std::fs::remove_file(&path).unwrap();
        follow.look();
        assert!(!wish.has_changed().unwrap());
        write("{watch: auto}");
        follow.look();
        assert_eq!(*wish.borrow(), Wish::default());
    }
}
