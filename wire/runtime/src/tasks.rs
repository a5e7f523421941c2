//! Long tasks, each with a name. None may end before it is told to: the first that does ends the process, with its name.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::signal::Shutdown;

/// The long tasks of a process.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<Result<(), String>>,
    names: HashMap<Id, String>,
    stop: CancellationToken,
    /// Since when signals are heeded that come before somebody waits for them.
    shutdown: Option<std::io::Result<Shutdown>>,
}

/// A task that ended although nobody told it to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("task {name} ended: {reason}")]
pub struct UnexpectedEnd {
    /// The task's name.
    pub name: String,
    /// Its error or panic.
    pub reason: String,
}

// === impl Tasks ===

impl Tasks {
    /// Told when the tasks are to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// From now on a signal to end is kept for [`Tasks::run_until_told`]. Without it, one that comes before ends the process at once.
    pub fn heed_signals(&mut self) {
        self.shutdown.get_or_insert_with(Shutdown::listen);
    }

    /// Starts a task that runs until [`Tasks::stop_token`] is cancelled.
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Starts a task that may fail.
    pub fn spawn_fallible<F, E>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let handle = self.running.spawn(async move { task.await.map_err(|error| error.to_string()) });
        self.names.insert(handle.id(), name.into());
    }

    /// Takes in a task that was started elsewhere.
    pub fn adopt<E>(&mut self, name: impl Into<String>, task: JoinHandle<Result<(), E>>)
    where
        E: std::fmt::Display + Send + 'static,
    {
        self.spawn_fallible(name, async move {
            match task.await {
                Ok(ended) => ended.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Completes when a task ends that was not told to.
    pub async fn unexpected_end(&mut self) -> UnexpectedEnd {
        match self.running.join_next_with_id().await {
            Some(ended) => self.describe(ended),
            None => std::future::pending().await,
        }
    }

    /// Runs until a signal comes or a task ends by itself; then tells the rest to end, and waits for them at most for
    /// `deadline`.
    ///
    /// # Errors
    /// Where a task ended by itself: its name and why.
    pub async fn run_until_told(self, deadline: Duration) -> Result<(), String> {
        self.run_until_told_then(async {}, deadline).await
    }

    /// The same, with something to be done between the signal and the end of the tasks.
    ///
    /// # Errors
    /// Where a task ended by itself: its name and why.
    pub async fn run_until_told_then(
        mut self,
        farewell: impl Future<Output = ()>,
        deadline: Duration,
    ) -> Result<(), String> {
        let shutdown = self.shutdown.take().unwrap_or_else(Shutdown::listen);
        let told = async {
            let told = match shutdown {
                Ok(mut shutdown) => {
                    shutdown.asked().await;
                    Ok(())
                }
                Err(error) => Err(format!("cannot wait for signals: {error}")),
            };
            farewell.await;
            told
        };
        let end = tokio::select! {
            told = told => told,
            ended = self.unexpected_end() => Err(ended.to_string()),
        };
        let late = self.drain(deadline).await;
        if !late.is_empty() {
            tracing::warn!(tasks = late.join(", "), "stopping before these had ended");
        }
        end
    }

    /// Tells every task to end and waits for them, at most for `deadline`. Answers the names of those that did not.
    pub async fn drain(mut self, deadline: Duration) -> Vec<String> {
        self.stop.cancel();
        let _ = tokio::time::timeout(deadline, async {
            while let Some(ended) = self.running.join_next_with_id().await {
                let id = match &ended {
                    Ok((id, _)) => *id,
                    Err(error) => error.id(),
                };
                self.names.remove(&id);
            }
        })
        .await;
        self.names.into_values().collect()
    }

    fn describe(&self, ended: Result<(Id, Result<(), String>), JoinError>) -> UnexpectedEnd {
        let (id, reason) = match ended {
            Ok((id, Ok(()))) => (id, "without being told to".to_owned()),
            Ok((id, Err(error))) => (id, error),
            Err(error) => (error.id(), error.to_string()),
        };
        UnexpectedEnd { name: self.names.get(&id).cloned().unwrap_or_default(), reason }
    }
}

#[cfg(test)]
mod tests;
