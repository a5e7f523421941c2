//! The API server's refusals: `Status` objects of `meta/v1`.

use serde::Serialize;

/// A refusal, as JSON and as an HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    /// In words.
    pub message: String,
    /// One word of a closed list.
    pub reason: &'static str,
    /// More about some reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status.
    pub code: u16,
}

/// `status.details`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The resource, in plural.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What was wrong, each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// An entry of `status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// One word of a closed list.
    pub reason: &'static str,
    /// In words.
    pub message: String,
    /// The field in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Empty {}

// === impl Status ===

impl Status {
    /// Any refusal.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: message.into(),
            reason,
            details: None,
            code,
        }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403, as the RBAC authorizer says it.
    pub fn forbidden(user: &str, verb: &str, resource: &'static str, namespace: Option<&str>) -> Self {
        let place = namespace
            .map_or_else(|| "at the cluster scope".to_owned(), |name| format!("in the namespace \"{name}\""));
        let message = format!(
            "{resource} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"\" {place}"
        );
        let details = Details { kind: Some(resource), ..Details::default() };
        Self { details: Some(Box::new(details)), ..Self::new(403, "Forbidden", message) }
    }

    /// 404 of an object.
    pub fn not_found(resource: &'static str, name: &str) -> Self {
        let details = Details { name: Some(name.to_owned()), kind: Some(resource), ..Details::default() };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
        }
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// 409 of a create.
    pub fn already_exists(resource: &'static str, name: &str) -> Self {
        let details = Details { name: Some(name.to_owned()), kind: Some(resource), ..Details::default() };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists"))
        }
    }

    /// 409 of an update with an old resourceVersion.
    pub fn conflict(resource: &'static str, name: &str) -> Self {
        let details = Details { name: Some(name.to_owned()), kind: Some(resource), ..Details::default() };
        let message = format!(
            "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
        );
        Self { details: Some(Box::new(details)), ..Self::new(409, "Conflict", message) }
    }

    /// 410 of a watch from etcd: in a frame, within a 200.
    pub fn watch_too_old() -> Self {
        Self::new(410, "Expired", "The resourceVersion for the provided watch is too old.")
    }

    /// 410 of a list at a revision that is compacted.
    pub fn list_too_old() -> Self {
        Self::new(
            410,
            "Expired",
            "The provided resource version is too old: the requested revision has been compacted",
        )
    }

    /// 410 of a watch from the watch cache: in a frame, within a 200.
    pub fn cache_too_old(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410 of a page.
    pub fn continue_too_old() -> Self {
        Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        )
    }

    /// 422 of list options that contradict each other.
    pub fn invalid_options(field: &'static str, why: &str) -> Self {
        let cause =
            Cause { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: Some(field) };
        let details = Details { kind: Some("ListOptions"), causes: vec![cause], ..Details::default() };
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}");
        Self { details: Some(Box::new(details)), ..Self::new(422, "Invalid", message) }
    }

    /// 504 of a resourceVersion that is still to come.
    pub fn too_large(asked: u64, current: u64) -> Self {
        let cause = Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: None,
        };
        let details = Details { causes: vec![cause], retry_after_seconds: Some(1), ..Details::default() };
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self { details: Some(Box::new(details)), ..Self::new(504, "Timeout", message) }
    }

    /// 500
    pub fn internal(message: &str) -> Self {
        let cause = Cause { reason: "InternalError", message: message.to_owned(), field: None };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self {
            details: Some(Box::new(details)),
            ..Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
