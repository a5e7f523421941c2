//! Rules and the routing tree of kubernetes-event-exporter.
