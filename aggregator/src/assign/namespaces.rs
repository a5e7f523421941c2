//! The namespaces that there are, as the agent that watches them names them.

use std::collections::BTreeSet;

use nodetap_wire::NamespaceChanges;

/// Put together from frames. Bounded: ten times what Kubernetes supports.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Who names them, and under which epoch.
    by: (String, u64),
    names: BTreeSet<String>,
    /// All there are were named once.
    is_whole: bool,
}

/// Most namespaces.
const MOST: usize = 100_000;

// === impl Names ===

impl Names {
    /// Takes a frame of the holder's; answers all there are, once that is known.
    pub(super) fn take(&mut self, node: &str, changes: NamespaceChanges) -> Option<&BTreeSet<String>> {
        if changes.first {
            *self = Self { by: (node.to_owned(), changes.epoch), ..Self::default() };
        } else if (self.by.0.as_str(), self.by.1) != (node, changes.epoch) {
            // Changes of what was never named whole.
            return None;
        }
        for name in changes.added {
            if self.names.len() >= MOST {
                tracing::warn!(most = MOST, "more namespaces than are taken: the rest is not watched");
                break;
            }
            self.names.insert(name);
        }
        for name in &changes.removed {
            self.names.remove(name);
        }
        self.is_whole |= changes.complete;
        (self.is_whole && changes.complete).then_some(&self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(
        epoch: u64,
        first: bool,
        added: &[&str],
        removed: &[&str],
        complete: bool,
    ) -> NamespaceChanges {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NamespaceChanges { epoch, first, added: own(added), removed: own(removed), complete }
    }

    #[test]
    fn what_there_is_is_known_once_all_of_it_was_named() {
        let mut names = Names::default();
        assert!(names.take("a", changes(1, false, &["x"], &[], true)).is_none(), "nothing came before it");
        assert!(names.take("a", changes(1, true, &["x", "y"], &[], false)).is_none());
        let whole = names.take("a", changes(1, false, &["z"], &[], true)).cloned();
        assert_eq!(whole, Some(["x", "y", "z"].map(str::to_owned).into()));
        let next = names.take("a", changes(1, false, &["w"], &["y"], true)).cloned();
        assert_eq!(next, Some(["w", "x", "z"].map(str::to_owned).into()));
        assert!(names.take("b", changes(1, false, &["q"], &[], true)).is_none(), "another node");
        assert!(names.take("a", changes(2, false, &["q"], &[], true)).is_none(), "another epoch");
    }
}
