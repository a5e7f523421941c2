//! The routes of the API: one table, by which a request finds its way and the OpenAPI document is written.

use super::metrics::RouteValue;
use super::parameters::{COUNTING, EXPORTING, FILTERS, PAGING, Parameter, TAILING};

/// What is at a path.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) route: RouteValue,
    pub(super) path: &'static str,
    /// For people: what it answers.
    pub(super) about: &'static str,
    /// Content type of a good answer.
    pub(super) kind: &'static str,
    groups: &'static [&'static [Parameter]],
}

/// All there are.
pub(super) static ENDPOINTS: [Endpoint; 7] = [
    Endpoint {
        route: RouteValue::page,
        path: "/",
        about: "A page for people.",
        kind: "text/html",
        groups: &[],
    },
    Endpoint {
        route: RouteValue::openapi,
        path: "/openapi.json",
        about: "This document.",
        kind: "application/json",
        groups: &[],
    },
    Endpoint {
        route: RouteValue::records,
        path: "/api/v1/records",
        about: "Records that the filters let through, newest first, a page at a time.",
        kind: "application/json",
        groups: &[FILTERS, PAGING],
    },
    Endpoint {
        route: RouteValue::record,
        path: "/api/v1/records/{position}",
        about: "One record.",
        kind: "application/json",
        groups: &[],
    },
    Endpoint {
        route: RouteValue::counts,
        path: "/api/v1/counts",
        about: "How many records, and how many occurrences, the filters let through, by field and time.",
        kind: "application/json",
        groups: &[FILTERS, COUNTING],
    },
    Endpoint {
        route: RouteValue::tail,
        path: "/api/v1/tail",
        about: "Records as they are journalled, as server-sent events whose id is the position.",
        kind: "text/event-stream",
        groups: &[FILTERS, TAILING],
    },
    Endpoint {
        route: RouteValue::export,
        path: "/api/v1/export",
        about: "All records that the filters let through, one a line. A connection that breaks off was not all.",
        kind: "application/x-ndjson",
        groups: &[FILTERS, EXPORTING],
    },
];

/// What is at a path, and what stands in it for a name in braces.
pub(super) fn find(path: &str) -> Option<(&'static Endpoint, Option<&str>)> {
    ENDPOINTS.iter().find_map(|endpoint| match endpoint.path.split_once('{') {
        None => (endpoint.path == path).then_some((endpoint, None)),
        Some((before, _)) => {
            let argument =
                path.strip_prefix(before).filter(|rest| !rest.is_empty() && !rest.contains('/'))?;
            Some((endpoint, Some(argument)))
        }
    })
}

// === impl Endpoint ===

impl Endpoint {
    /// The parameters that it takes in its query.
    pub(super) fn parameters(&self) -> Vec<&'static Parameter> {
        self.groups.iter().copied().flatten().collect()
    }
}
