//! Layouts: the shape of what a sink sends, as any mapping whose strings are templates.

use std::collections::BTreeMap;

use nodetap_wire::face::Face;
use serde_json::Value as Json;

use super::data::{self, Needs};
use super::{Template, TemplateError};

/// How deeply a layout may be nested.
pub(super) const MAX_DEPTH: usize = 32;

/// A compiled `layout`. Keys come out sorted; what is no string, mapping or list comes out null, as upstream has it.
#[derive(Clone, Debug)]
pub struct Layout {
    root: BTreeMap<String, Part>,
    needs: Needs,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Template),
    Map(BTreeMap<String, Part>),
    List(Vec<Part>),
    Null,
}

// === impl Layout ===

impl Layout {
    /// Compiles a layout from its mapping.
    ///
    /// # Errors
    /// Where it is no mapping, or one of its templates does not compile: the first of them, with its place.
    pub fn compile(mapping: &Json) -> Result<Self, TemplateError> {
        let mut needs = Needs::default();
        match Part::compile(mapping, &mut String::new(), 0, &mut needs)? {
            Part::Map(root) => Ok(Self { root, needs }),
            _ => Err(TemplateError::NotMapping),
        }
    }

    /// Whether it is `{}`, with which every record is written as `{}`.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// Renders it for a record.
    ///
    /// # Errors
    /// The first template that does not render, with its place.
    pub fn render(&self, face: &Face<'_>) -> Result<Json, TemplateError> {
        let value = data::value(face, &self.needs);
        render_map(&self.root, &value, &mut String::new())
    }
}

fn render_map(
    map: &BTreeMap<String, Part>,
    value: &gotmpl::Value,
    place: &mut String,
) -> Result<Json, TemplateError> {
    map.iter()
        .map(|(key, part)| within(place, key, |place| Ok((key.clone(), part.render(value, place)?))))
        .collect::<Result<serde_json::Map<_, _>, _>>()
        .map(Json::Object)
}

/// Runs something with a key added to the place.
fn within<T>(place: &mut String, key: &str, run: impl FnOnce(&mut String) -> T) -> T {
    let length = place.len();
    if length > 0 && !key.starts_with('[') {
        place.push('.');
    }
    place.push_str(key);
    let result = run(place);
    place.truncate(length);
    result
}

// === impl Part ===

impl Part {
    fn compile(
        json: &Json,
        place: &mut String,
        depth: usize,
        needs: &mut Needs,
    ) -> Result<Self, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError::TooDeep.at(place));
        }
        match json {
            Json::String(source) => {
                let template = Template::compile(source).map_err(|error| error.at(place))?;
                if let Some(used) = template.needs() {
                    needs.add(used);
                }
                Ok(Self::Text(template))
            }
            Json::Object(map) => map
                .iter()
                .map(|(key, json)| {
                    within(place, key, |place| {
                        Ok((key.clone(), Self::compile(json, place, depth + 1, needs)?))
                    })
                })
                .collect::<Result<_, _>>()
                .map(Self::Map),
            Json::Array(list) => list
                .iter()
                .enumerate()
                .map(|(index, json)| {
                    within(place, &format!("[{index}]"), |place| Self::compile(json, place, depth + 1, needs))
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
            Json::Null | Json::Bool(_) | Json::Number(_) => Ok(Self::Null),
        }
    }

    fn render(&self, value: &gotmpl::Value, place: &mut String) -> Result<Json, TemplateError> {
        match self {
            Self::Text(template) => {
                template.render_value(value).map(Json::String).map_err(|error| error.at(place))
            }
            Self::Map(map) => render_map(map, value, place),
            Self::List(list) => list
                .iter()
                .enumerate()
                .map(|(index, part)| within(place, &format!("[{index}]"), |place| part.render(value, place)))
                .collect::<Result<_, _>>()
                .map(Json::Array),
            Self::Null => Ok(Json::Null),
        }
    }
}

// === impl TemplateError ===

impl TemplateError {
    fn at(self, place: &str) -> Self {
        if place.is_empty() { self } else { Self::At { place: place.to_owned(), error: Box::new(self) } }
    }
}
