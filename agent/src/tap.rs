//! The kubelet tap: snapshots of this node's pods, the deaths between them, and the last lines of what died.

pub mod ledger;
pub mod pods;
