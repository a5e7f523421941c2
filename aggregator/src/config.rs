//! The configuration file: a superset of kubernetes-event-exporter's, checked as a whole before anything is opened.

mod nearest;
pub mod receivers;

pub(crate) use nearest::nearest;
