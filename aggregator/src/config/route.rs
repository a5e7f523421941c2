//! `route`: kubernetes-event-exporter's tree of rules.

use crate::route::pattern::Pattern;
use crate::route::rule::{Field, Rule};
use crate::route::tree::{Match, Route};

use super::nearest;
use super::problem::Findings;
use super::section::{Section, Unknown, join};
use super::tree::{Node, Place, Value};

/// How deeply routes may be nested.
const MAX_DEPTH: usize = 64;

/// A receiver that the tree names.
pub(super) struct Named {
    name: String,
    at: Place,
    path: String,
}

/// Reads the tree, and whom it names.
pub(super) fn route(node: &Node, findings: &mut Findings) -> (Route, Vec<Named>) {
    let mut named = Vec::new();
    let route = read(node, "route", 0, &mut named, findings);
    (route, named)
}

/// Reports receivers that are named and not there, and those that are there and never named.
pub(super) fn check_names(named: &[Named], receivers: &[(String, Place, String)], findings: &mut Findings) {
    let known: Vec<&str> = receivers.iter().map(|receiver| receiver.0.as_str()).collect();
    for Named { name, at, path } in named.iter().filter(|named| !known.contains(&named.name.as_str())) {
        let hint = match nearest(name, &known) {
            Some(near) => format!("; did you mean {near:?}?"),
            None if known.is_empty() => "; there are no receivers".to_owned(),
            None => format!("; there are {}", known.join(", ")),
        };
        findings.problem(*at, path, format!("unknown receiver {name:?}{hint}"));
    }
    for (name, at, path) in
        receivers.iter().filter(|receiver| !named.iter().any(|named| named.name == receiver.0))
    {
        findings.warning(*at, path, format!("no route names receiver {name:?}: nothing is delivered to it"));
    }
}

fn read(node: &Node, path: &str, depth: usize, named: &mut Vec<Named>, findings: &mut Findings) -> Route {
    let mut route = Route::default();
    if depth > MAX_DEPTH {
        findings.problem(node.at, path, format!("routes are at most {MAX_DEPTH} levels deep"));
        return route;
    }
    let Some(mut section) = Section::of(node, path, findings) else { return route };
    for (node, path) in section.list("drop", findings) {
        if let Some((rule, receiver)) = rule(node, &path, findings) {
            if rule.is_empty() {
                findings.warning(node.at, &path, "a rule without a condition: it drops everything");
            }
            if let Some(receiver) = receiver {
                findings.warning(receiver.at, &receiver.path, "a drop rule has no receiver: ignored");
            }
            route.drop.push(rule);
        }
    }
    for (node, path) in section.list("match", findings) {
        if let Some((rule, receiver)) = rule(node, &path, findings) {
            if rule.is_empty() && receiver.is_none() {
                findings.warning(
                    node.at,
                    &path,
                    "a rule with neither a condition nor a receiver: it does nothing",
                );
            }
            let name = receiver.as_ref().map(|receiver| receiver.name.clone());
            named.extend(receiver);
            route.r#match.push(Match { rule, receiver: name });
        }
    }
    for (node, path) in section.list("routes", findings) {
        if matches!(node.value, Value::Null) {
            findings.problem(node.at, &path, "a route without anything; remove the line, or write {}");
        } else {
            route.routes.push(read(node, &path, depth + 1, named, findings));
        }
    }
    section.finish(Unknown::Warned, findings);
    route
}

fn rule(node: &Node, path: &str, findings: &mut Findings) -> Option<(Rule, Option<Named>)> {
    if matches!(node.value, Value::Null) {
        findings.problem(
            node.at,
            path,
            "a rule without anything would match everything; remove the line, or write {}",
        );
        return None;
    }
    let mut section = Section::of(node, path, findings)?;
    let mut rule = Rule::default();
    for field in Field::ALL {
        let key = field.key();
        if let Some(text) = section.text(key, findings) {
            rule.add(field, pattern(&text, section.value_at(key), &section.path_of(key), findings));
        }
    }
    let labels = section.strings("labels", findings);
    for (key, (text, at)) in labels {
        let pattern = pattern(&text, at, &join(&section.path_of("labels"), &key), findings);
        rule.add_label(key, pattern);
    }
    let annotations = section.strings("annotations", findings);
    for (key, (text, at)) in annotations {
        let pattern = pattern(&text, at, &join(&section.path_of("annotations"), &key), findings);
        rule.add_annotation(key, pattern);
    }
    if let Some(count) = section.integer("minCount", i32::MIN.into(), i32::MAX.into(), findings) {
        rule.set_min_count(i32::try_from(count).unwrap_or(0));
    }
    let receiver = section.text("receiver", findings).filter(|name| !name.is_empty()).map(|name| Named {
        name,
        at: section.value_at("receiver"),
        path: section.path_of("receiver"),
    });
    for key in ["drop", "match", "routes"] {
        if section.has(key) {
            let message = "ignored here: it belongs beside the list of rules, not into a rule";
            findings.warning(section.key_at(key), &section.path_of(key), message);
            section.raw(key);
        }
    }
    section.finish(Unknown::Warned, findings);
    Some((rule, receiver))
}

/// A pattern; one that never matches is warned of.
fn pattern(text: &str, at: Place, path: &str, findings: &mut Findings) -> Pattern {
    let pattern = Pattern::new(text);
    if let Some(error) = pattern.error() {
        let message = format!("never matches, as it is no pattern of Go: {error}");
        findings.warning(at, path, message);
    }
    pattern
}
