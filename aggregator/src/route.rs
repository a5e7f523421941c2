//! Rules and the routing tree of kubernetes-event-exporter, and the templates of its layouts.

pub mod de_dot;
pub mod pattern;
pub mod rule;
pub mod template;
pub mod tree;

pub use tree::{ReceiverIndex, Router};
