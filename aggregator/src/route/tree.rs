//! The routing tree: which receivers get a record, in which order, and how often.

use nodetap_wire::face::Face;

use super::rule::Rule;

/// Which receiver: its place in the list that the router was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverIndex(pub usize);

/// A node of the tree.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Any of them that matches ends it here, for the whole subtree.
    pub drop: Vec<Rule>,
    /// All are looked at.
    pub r#match: Vec<Match>,
    /// Visited where every rule of `match` matched, of which there may be none.
    pub routes: Vec<Route>,
}

/// A rule of `match`, and where what it matches goes.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The conditions.
    pub rule: Rule,
    /// The name of a receiver.
    pub receiver: Option<String>,
}

/// Routes records to receivers.
#[derive(Clone, Debug, Default)]
pub struct Router {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    drop: Vec<Rule>,
    matches: Vec<(Rule, Option<ReceiverIndex>)>,
    nodes: Vec<Node>,
}

// === impl Router ===

impl Router {
    /// A router over receivers of these names. A rule that names another delivers nothing, and matches all the same.
    pub fn new<S: AsRef<str>>(route: &Route, receivers: &[S]) -> Self {
        let index = |name: &str| receivers.iter().position(|known| known.as_ref() == name).map(ReceiverIndex);
        Self { root: Node::new(route, &index) }
    }

    /// The receivers of a record in the order decided; one that is named twice gets it twice. Allocates nothing where
    /// there are none.
    pub fn deliveries(&self, face: &Face<'_>) -> Vec<ReceiverIndex> {
        let mut deliveries = Vec::new();
        self.root.decide(face, &mut deliveries);
        deliveries
    }
}

// === impl Node ===

impl Node {
    fn new(route: &Route, index: &impl Fn(&str) -> Option<ReceiverIndex>) -> Self {
        Self {
            drop: route.drop.clone(),
            matches: route
                .r#match
                .iter()
                .map(|one| (one.rule.clone(), one.receiver.as_deref().and_then(index)))
                .collect(),
            nodes: route.routes.iter().map(|route| Self::new(route, index)).collect(),
        }
    }

    fn decide(&self, face: &Face<'_>, deliveries: &mut Vec<ReceiverIndex>) {
        if self.drop.iter().any(|rule| rule.matches(face)) {
            return;
        }
        let mut all = true;
        for (rule, receiver) in &self.matches {
            if rule.matches(face) {
                deliveries.extend(receiver);
            } else {
                all = false;
            }
        }
        if all {
            self.nodes.iter().for_each(|node| node.decide(face, deliveries));
        }
    }
}

#[cfg(test)]
mod tests;
