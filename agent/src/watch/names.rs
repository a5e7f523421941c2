//! The names of the namespaces, where this agent watches them for the plan.
//!
//! Gathered from a list or a watch of their metadata, and told in frames: all of them to each new stream, then what changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use nodetap_wire::NamespaceChanges;
use tokio::sync::watch;

/// Names in one frame: at most 64 KiB of them.
const NAMES_PER_FRAME: usize = 1_000;

/// Where the watch puts the names, and whoever tells them finds them.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<watch::Sender<Named>>);

/// All namespaces, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Under which epoch they are watched; 0: they are not.
    pub epoch: u64,
    /// Bounded by what the API server has.
    pub names: Arc<BTreeSet<String>>,
}

/// Names as they come. A list replaces what was known before, once it has come to its end.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    listed: Option<BTreeSet<String>>,
    known: BTreeSet<String>,
    is_whole: bool,
    changed: bool,
}

// === impl Names ===

impl Names {
    /// What there is, and what comes.
    pub fn subscribe(&self) -> watch::Receiver<Named> {
        self.0.subscribe()
    }

    pub(super) fn publish(&self, epoch: u64, gathering: &mut Gathering) {
        if gathering.is_whole && std::mem::take(&mut gathering.changed) {
            self.0.send_replace(Named { epoch, names: Arc::new(gathering.known.clone()) });
        }
    }

    pub(super) fn forget(&self) {
        self.0.send_replace(Named::default());
    }
}

// === impl Named ===

impl Named {
    /// The frames that tell who was told `before` what is now; `None`: he was told nothing.
    pub fn frames(&self, before: Option<&Self>) -> Vec<NamespaceChanges> {
        if self.epoch == 0 {
            return Vec::new();
        }
        let before = before.filter(|before| before.epoch == self.epoch);
        let nothing = BTreeSet::new();
        let known = before.map_or(&nothing, |before| &before.names);
        let added = self.names.difference(known).map(|name| (name, true));
        let removed = known.difference(&self.names).map(|name| (name, false));
        let changes: Vec<_> = added.chain(removed).collect();
        let mut frames: Vec<NamespaceChanges> = changes
            .chunks(NAMES_PER_FRAME)
            .map(|chunk| {
                let of = |kind| {
                    chunk
                        .iter()
                        .filter(|(_, added)| *added == kind)
                        .map(|(name, _)| (*name).clone())
                        .collect()
                };
                NamespaceChanges {
                    epoch: self.epoch,
                    added: of(true),
                    removed: of(false),
                    ..Default::default()
                }
            })
            .collect();
        if frames.is_empty() && before.is_none() {
            frames.push(NamespaceChanges { epoch: self.epoch, ..Default::default() });
        }
        if let Some(first) = frames.first_mut() {
            first.first = before.is_none();
        }
        if let Some(last) = frames.last_mut() {
            last.complete = true;
        }
        frames
    }
}

// === impl Gathering ===

impl Gathering {
    pub(super) fn begin(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    pub(super) fn add(&mut self, name: &str) {
        match &mut self.listed {
            Some(listed) => drop(listed.insert(name.to_owned())),
            None if !self.known.contains(name) => {
                self.known.insert(name.to_owned());
                self.changed = true;
            }
            None => {}
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(listed) = &mut self.listed {
            listed.remove(name);
        } else if self.known.remove(name) {
            self.changed = true;
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(listed) = self.listed.take() {
            self.changed |= !self.is_whole || listed != self.known;
            (self.known, self.is_whole) = (listed, true);
        }
    }

    pub(super) fn tell_again(&mut self) {
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(epoch: u64, names: &[&str]) -> Named {
        Named { epoch, names: Arc::new(names.iter().map(|name| (*name).to_owned()).collect()) }
    }

    #[test]
    fn all_names_are_told_first_and_then_what_changes() {
        let first = named(3, &["a", "b"]);
        let told = first.frames(None);
        assert_eq!(told.len(), 1);
        assert!(told[0].first && told[0].complete && told[0].added == ["a", "b"]);
        assert_eq!(first.frames(Some(&first)), []);
        let told = named(3, &["b", "c"]).frames(Some(&first));
        assert!(!told[0].first && told[0].complete);
        assert_eq!(
            (told[0].added.as_slice(), told[0].removed.as_slice()),
            (&["c".to_owned()][..], &["a".to_owned()][..])
        );
        assert!(named(4, &["b"]).frames(Some(&first))[0].first, "another epoch begins anew");
        assert_eq!(Named::default().frames(Some(&first)), [], "nothing is told of what is not watched");
        assert!(named(1, &[]).frames(None)[0].complete, "that there are none is told as well");
    }

    #[test]
    fn many_names_are_told_in_several_frames() {
        let names: Vec<String> = (0..2_500).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let told = named(1, &names).frames(None);
        assert_eq!(told.iter().map(|frame| frame.added.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(told.iter().filter(|frame| frame.first).count(), 1);
        assert!(told[2].complete && !told[0].complete);
    }

    #[test]
    fn a_list_replaces_what_was_known_once_it_is_whole() {
        let (names, mut gathering) = (Names::default(), Gathering::default());
        let known = names.subscribe();
        gathering.begin();
        gathering.add("a");
        names.publish(1, &mut gathering);
        assert_eq!(*known.borrow(), Named::default(), "it is not whole");
        gathering.add("b");
        gathering.end();
        names.publish(1, &mut gathering);
        assert_eq!(*known.borrow(), named(1, &["a", "b"]));
        gathering.remove("a");
        gathering.add("c");
        names.publish(1, &mut gathering);
        assert_eq!(*known.borrow(), named(1, &["b", "c"]));
        // As after 410.
        gathering.begin();
        gathering.add("d");
        names.publish(1, &mut gathering);
        assert_eq!(*known.borrow(), named(1, &["b", "c"]));
        gathering.end();
        names.publish(1, &mut gathering);
        assert_eq!(*known.borrow(), named(1, &["d"]));
    }
}
