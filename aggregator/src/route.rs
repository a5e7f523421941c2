//! Rules and the routing tree of kubernetes-event-exporter, and the templates of its layouts.

pub mod de_dot;
pub mod template;
