//! What is made of files and follows them: certificates, keys, tokens.
//!
//! What is new and good is taken; while the new is bad, the old is kept, and each look that finds it bad is counted.

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// How often the files are compared with what was read last: a kubelet takes up to a minute to update a Secret anyway.
const POLL: Duration = Duration::from_secs(30);

/// Files, and what is made of them.
pub trait Source: Debug + Send + Sync + 'static {
    /// What the files hold.
    type Contents: Debug + PartialEq + Send + Sync;
    /// What it becomes.
    type Made: Debug + Send + Sync;
    /// Why it does not.
    type Error: Display;

    /// Named in the log, such as `certificate`.
    const WHAT: &'static str;

    /// Reads the files as they are now.
    ///
    /// # Errors
    /// Where one cannot be read.
    fn read(&self) -> Result<Self::Contents, Self::Error>;

    /// Makes of their contents what is used.
    ///
    /// # Errors
    /// Where they hold something that cannot be.
    fn make(&self, contents: &Self::Contents) -> Result<Self::Made, Self::Error>;

    /// When what was made ends, in seconds since 1970; `None` where it does not.
    fn expires(_made: &Self::Made) -> Option<i64> {
        None
    }
}

/// What is counted of it.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// When it ends, in seconds since 1970.
    pub expires: Gauge,
    /// Times something new was taken.
    pub reloads: Counter,
    /// Looks that found something that cannot be used.
    pub failures: Counter,
}

/// What was made of files last. Clones share it.
#[derive(Debug)]
pub struct Reloading<S: Source>(Arc<Inner<S>>);

#[derive(Debug)]
struct Inner<S: Source> {
    source: S,
    made: ArcSwap<S::Made>,
    read: ArcSwap<S::Contents>,
    counts: Counts,
}

// === impl Reloading ===

impl<S: Source> Reloading<S> {
    /// Reads the files and makes of them what is used.
    ///
    /// # Errors
    /// As the source has them.
    pub fn load(source: S, counts: Counts) -> Result<Self, S::Error> {
        let contents = source.read()?;
        let made = source.make(&contents)?;
        if let Some(at) = S::expires(&made) {
            counts.expires.set(at);
        }
        let (made, read) = (ArcSwap::from_pointee(made), ArcSwap::from_pointee(contents));
        Ok(Self(Arc::new(Inner { source, made, read, counts })))
    }

    /// What is to be used now.
    pub fn get(&self) -> Arc<S::Made> {
        self.0.made.load_full()
    }

    /// The files.
    pub fn source(&self) -> &S {
        &self.0.source
    }

    /// Looks at the files. Answers whether something new was taken.
    pub fn refresh(&self) -> bool {
        let Inner { source, made, read, counts } = &*self.0;
        let taken = source.read().and_then(|contents| {
            if contents == **read.load() {
                return Ok(None);
            }
            let new = source.make(&contents)?;
            Ok(Some((contents, new)))
        });
        match taken {
            Ok(None) => false,
            Ok(Some((contents, new))) => {
                if let Some(at) = S::expires(&new) {
                    counts.expires.set(at);
                }
                made.store(Arc::new(new));
                read.store(Arc::new(contents));
                counts.reloads.inc();
                tracing::info!(what = S::WHAT, "taken anew from its files");
                true
            }
            Err(error) => {
                counts.failures.inc();
                tracing::warn!(what = S::WHAT, %error, "its new files cannot be used; what was read before is kept");
                false
            }
        }
    }

    /// Follows the files for ever.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let this = self.clone();
            // Files of a hung mount must not hold up the runtime.
            if tokio::task::spawn_blocking(move || this.refresh()).await.is_err() {
                return;
            }
        }
    }
}

impl<S: Source> Clone for Reloading<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
