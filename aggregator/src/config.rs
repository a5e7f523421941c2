//! The configuration file: a superset of kubernetes-event-exporter's, checked as a whole before anything is opened.
