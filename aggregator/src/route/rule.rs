//! Rules: conditions on a record, of which all must hold.

use nodetap_wire::face::Face;

use super::pattern::Pattern;

/// A rule of `match` or `drop`.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    conditions: Vec<(Field, Pattern)>,
    labels: Vec<(String, Pattern)>,
    annotations: Vec<(String, Pattern)>,
    min_count: i32,
}

/// A field that rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `message`
    Message,
    /// `apiVersion`, of the involved object
    ApiVersion,
    /// `kind`, of the involved object
    Kind,
    /// `namespace`, of the event itself
    Namespace,
    /// `reason`
    Reason,
    /// `type`
    Type,
    /// `component`, of the source
    Component,
    /// `host`, of the source
    Host,
}

// === impl Rule ===

impl Rule {
    /// Adds a condition on a field. An empty pattern is none.
    pub fn add(&mut self, field: Field, pattern: Pattern) {
        if !pattern.source().is_empty() {
            self.conditions.push((field, pattern));
        }
    }

    /// Adds a condition on a label of the involved object, which must be there even for an empty pattern.
    pub fn add_label(&mut self, key: String, pattern: Pattern) {
        self.labels.push((key, pattern));
    }

    /// As [`Self::add_label`], for an annotation.
    pub fn add_annotation(&mut self, key: String, pattern: Pattern) {
        self.annotations.push((key, pattern));
    }

    /// Sets the least `count`; 0 or less is no condition, as no count is below.
    pub fn set_min_count(&mut self, min_count: i32) {
        self.min_count = min_count;
    }

    /// Whether it has no condition, and so matches everything.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
            && self.labels.is_empty()
            && self.annotations.is_empty()
            && self.min_count <= 0
    }

    /// Whether every condition holds.
    pub fn matches(&self, face: &Face<'_>) -> bool {
        face.count >= i64::from(self.min_count)
            && self.conditions.iter().all(|(field, pattern)| pattern.is_match(field.of(face)))
            && holds(&self.labels, |key| face.involved_object.labels.get(key).map(String::as_str))
            && holds(&self.annotations, |key| face.involved_object.annotations.get(key).map(String::as_str))
    }
}

fn holds<'a>(conditions: &[(String, Pattern)], value: impl Fn(&str) -> Option<&'a str>) -> bool {
    conditions.iter().all(|(key, pattern)| value(key).is_some_and(|value| pattern.is_match(value)))
}

// === impl Field ===

impl Field {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Message,
        Self::ApiVersion,
        Self::Kind,
        Self::Namespace,
        Self::Reason,
        Self::Type,
        Self::Component,
        Self::Host,
    ];

    /// Its key in a rule.
    pub fn key(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::ApiVersion => "apiVersion",
            Self::Kind => "kind",
            Self::Namespace => "namespace",
            Self::Reason => "reason",
            Self::Type => "type",
            Self::Component => "component",
            Self::Host => "host",
        }
    }

    fn of<'a>(self, face: &'a Face<'_>) -> &'a str {
        match self {
            Self::Message => &face.message,
            Self::ApiVersion => &face.involved_object.reference.api_version,
            Self::Kind => &face.involved_object.reference.kind,
            Self::Namespace => &face.metadata.namespace,
            Self::Reason => &face.reason,
            Self::Type => &face.r#type,
            Self::Component => &face.source.component,
            Self::Host => &face.source.host,
        }
    }
}
