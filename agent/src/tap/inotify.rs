//! Tells at once that something happened below the pod log folder: a container started (a file is made) or ended (the runtime closes
//! the file).
//!
//! Optional by nature: a folder that is absent, or replaced, is looked for again; one watch too many is left out and counted, and the
//! poll still sees what it would have told.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::held::Held;
use super::ledger::LogSeen;
use super::metrics::Metrics;

/// A start makes a folder, a file and a link at once: they are told as one.
const COALESCE: Duration = Duration::from_millis(75);

/// An absent folder is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Folders watched: 250 pods of three containers each. The kernel's own bound for a user is 8,192 at the least.
const WATCHES: usize = 1024;

/// Stirs waiting for the runner: one is enough for it to look, and the kernel holds the rest.
const STIRS: usize = 4;

/// What happened below the pod log folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stir {
    /// Log files that were made, or found.
    pub logs: Vec<LogSeen>,
    /// A file was closed, made or removed: some container ended or started.
    pub changed: bool,
}

/// Where in the tree a watched folder stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Pod { uid: String, path: PathBuf },
    Container { uid: String, name: String, path: PathBuf },
}

struct Tree {
    inotify: AsyncFd<Descriptor>,
    root: PathBuf,
    held: Held,
    watched: HashMap<WatchDescriptor, Place>,
    unwatched: usize,
}

/// `AsyncFd` wants a raw descriptor, which `Inotify` shows as a borrowed one.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Follows `root` until the receiver is dropped. Logs of containers that end are put into `held`.
pub async fn follow(root: PathBuf, held: Held, stirs: mpsc::Sender<Stir>, metrics: Metrics) {
    let mut said = false;
    loop {
        match Tree::open(&root, held.clone()) {
            Ok((mut tree, stir)) => {
                tracing::info!(folder = %root.display(), folders = tree.watched.len(), "following the pod log folder");
                said = false;
                metrics.pod_log_folder(true);
                metrics.watched(tree.watched.len(), tree.unwatched);
                if stirs.send(stir).await.is_err() {
                    return;
                }
                match tree.follow(&stirs, &metrics).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(folder = %root.display(), %error, "the pod log folder is to be read anew")
                    }
                }
                metrics.rescanned();
            }
            Err(error) => {
                metrics.pod_log_folder(false);
                if !said {
                    tracing::warn!(
                        folder = %root.display(), %error,
                        "the pod log folder cannot be followed: deaths are seen at the next poll, deaths between two polls are counted but \
                         not seen, and records carry no log lines"
                    );
                    said = true;
                }
                tokio::select! {
                    () = sleep(LOOK_AGAIN) => {}
                    () = stirs.closed() => return,
                }
            }
        }
    }
}

/// Stirs of `root`, followed by a task that ends with the receiver.
pub fn spawn(root: PathBuf, held: Held, metrics: Metrics) -> mpsc::Receiver<Stir> {
    let (sender, receiver) = mpsc::channel(STIRS);
    tokio::spawn(follow(root, held, sender, metrics));
    receiver
}

// === impl Tree ===

impl Tree {
    fn open(root: &Path, held: Held) -> io::Result<(Self, Stir)> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut tree = Self {
            // Its successor is unsafe; `Descriptor` owns what it shows.
            #[allow(deprecated)]
            inotify: AsyncFd::new(Descriptor(inotify))?,
            root: root.to_owned(),
            held,
            watched: HashMap::new(),
            unwatched: 0,
        };
        let mut stir = Stir { changed: true, ..Stir::default() };
        // Watched before it is read: what comes in between is seen twice rather than not at all.
        tree.watch(root, Place::Root)?;
        for entry in std::fs::read_dir(root)?.flatten() {
            tree.pod(&entry.file_name(), &mut stir);
        }
        Ok((tree, stir))
    }

    async fn follow(&mut self, stirs: &mpsc::Sender<Stir>, metrics: &Metrics) -> io::Result<()> {
        loop {
            // Cleared before all is read: what comes later makes it ready again.
            tokio::select! {
                ready = self.inotify.readable() => ready?.clear_ready(),
                () = stirs.closed() => return Ok(()),
            }
            let mut stir = Stir::default();
            // Read at once, since a log can be gone in a moment, and again for what belongs to it.
            self.read(&mut stir)?;
            sleep(COALESCE).await;
            self.read(&mut stir)?;
            metrics.watched(self.watched.len(), self.unwatched);
            if stir.changed {
                metrics.stirred();
                if stirs.send(stir).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn read(&mut self, stir: &mut Stir) -> io::Result<()> {
        loop {
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => {
                    for event in events {
                        self.take(event, stir)?;
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, event: InotifyEvent, stir: &mut Stir) -> io::Result<()> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Err(io::Error::other("more happened than the kernel keeps"));
        }
        let Some(place) = self.watched.get(&event.wd) else { return Ok(()) };
        let ended = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        if event.mask.intersects(ended | AddWatchFlags::IN_UNMOUNT) {
            if *place == Place::Root {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the folder was removed or replaced"));
            }
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.watched.remove(&event.wd);
            }
            stir.changed = true;
            return Ok(());
        }
        let Some(name) = event.name else { return Ok(()) };
        let made = event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        stir.changed = true;
        match place.clone() {
            Place::Root if made => self.pod(&name, stir),
            Place::Pod { uid, path } if made => self.container(&uid, &path, &name, stir),
            Place::Container { uid, name: container, .. } if made => {
                stir.logs.extend(log(&uid, &container, &name))
            }
            Place::Container { uid, name: container, path }
                if event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) =>
            {
                if let Some(log) = log(&uid, &container, &name) {
                    self.held.closed(log, &path.join(&name));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes up a folder of the root. One that is gone again is no error.
    fn pod(&mut self, name: &OsStr, stir: &mut Stir) {
        // NAMESPACE_POD_UID: none of the three can hold an underscore.
        let Some(uid) = name.to_str().and_then(|name| name.rsplit_once('_')).map(|(_, uid)| uid.to_owned())
        else {
            return;
        };
        let path = self.root.join(name);
        if self.watch(&path, Place::Pod { uid: uid.clone(), path: path.clone() }).is_ok()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            for entry in entries.flatten() {
                self.container(&uid, &path, &entry.file_name(), stir);
            }
        }
    }

    fn container(&mut self, uid: &str, pod: &Path, name: &OsStr, stir: &mut Stir) {
        let Some(container) = name.to_str() else { return };
        let path = pod.join(name);
        if self
            .watch(
                &path,
                Place::Container { uid: uid.to_owned(), name: container.to_owned(), path: path.clone() },
            )
            .is_ok()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            for entry in entries.flatten() {
                stir.logs.extend(log(uid, container, &entry.file_name()));
            }
        }
    }

    fn watch(&mut self, path: &Path, place: Place) -> io::Result<()> {
        if self.watched.len() >= WATCHES {
            self.unwatched += 1;
            return Err(io::Error::other("too many folders"));
        }
        let mut flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        match place {
            // The runtime closes a container's log when the container has ended.
            Place::Container { .. } => flags |= AddWatchFlags::IN_CLOSE_WRITE,
            Place::Root => flags |= AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF,
            Place::Pod { .. } => {}
        }
        match self.inotify.get_ref().0.add_watch(path, flags) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, place);
                Ok(())
            }
            Err(error) => {
                if matches!(error, Errno::ENOSPC | Errno::ENOMEM) {
                    self.unwatched += 1;
                }
                Err(error.into())
            }
        }
    }
}

/// Whose log `3.log` is; a rotated predecessor tells nothing new.
fn log(uid: &str, container: &str, name: &OsStr) -> Option<LogSeen> {
    let ordinal = name.to_str()?.strip_suffix(".log")?.parse().ok()?;
    Some(LogSeen { pod_uid: uid.to_owned(), container: container.to_owned(), ordinal })
}

#[cfg(test)]
mod tests;
