//! Go templates over a record's face, as kubernetes-event-exporter's layouts and headers use them.
//!
//! A template is compiled once, at load: syntax, the functions it calls and the fields it reads are checked then. Rendering
//! builds only the fields that are read, is bounded in output and loops, and reaches no network, environment or file.

mod check;
mod data;
mod functions;
mod layout;
mod time;

use std::fmt;
use std::sync::Arc;

use gotmpl::Value;
use gotmpl::parse::{ListNode, Node, Parser, TextNode};
use nodetap_wire::face::Face;

pub use layout::Layout;

use check::Checker;
use data::Needs;

/// What one template may write, in bytes.
pub const MAX_OUTPUT: usize = 1 << 20;
/// What one template may be long, in bytes.
pub const MAX_SOURCE: usize = 1 << 18;
/// How often all loops of one rendering may turn.
const MAX_TURNS: u64 = 100_000;
const MAIN: &str = "\0main";

/// A compiled Go template.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    /// Nothing in it to evaluate.
    Literal(Arc<str>),
    Program {
        template: Arc<gotmpl::Template>,
        needs: Arc<Needs>,
    },
}

/// Why a template cannot be compiled or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not a Go template.
    #[error("template: line {line}, column {column}: {message}")]
    Syntax {
        /// From 1, in the template.
        line: usize,
        /// From 1, in the template.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It calls a function that there is not.
    #[error(
        "template: line {line}: there is no function {name:?} (there are Go's own and those of Sprig that need no environment, file, network, key or chance)"
    )]
    UnknownFunction {
        /// From 1, in the template.
        line: usize,
        /// Its name.
        name: String,
    },
    /// It invokes a template that it does not define.
    #[error("template: line {line}: no template {name:?} is defined")]
    UnknownTemplate {
        /// From 1, in the template.
        line: usize,
        /// Its name.
        name: String,
    },
    /// It reads a field that there is not.
    #[error("template: line {line}: {of} has no field {field:?}{hint}")]
    UnknownField {
        /// From 1, in the template.
        line: usize,
        /// Its name.
        field: String,
        /// What was asked for it.
        of: &'static str,
        /// A name that was perhaps meant, as a clause, or nothing.
        hint: String,
    },
    /// It is longer than a template may be.
    #[error("template: longer than {MAX_SOURCE} bytes")]
    TooLong,
    /// It wrote more than a template may.
    #[error("template: its output is longer than {MAX_OUTPUT} bytes")]
    OutputTooLong,
    /// It could not be evaluated for this record.
    #[error("template: {0}")]
    Evaluation(String),
    /// A layout is something else than a mapping.
    #[error("a layout is a mapping of keys to templates")]
    NotMapping,
    /// A layout is nested too deeply.
    #[error("a layout is at most {} levels deep", layout::MAX_DEPTH)]
    TooDeep,
    /// In a layout, the template at this place.
    #[error("{place}: {error}")]
    At {
        /// Such as `details.labels[2]`.
        place: String,
        /// What is wrong with it.
        error: Box<TemplateError>,
    },
}

/// Output up to its limit.
struct Bounded {
    text: String,
    full: bool,
}

// === impl Template ===

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Where it is not a Go template, calls a function or reads a field that there is not.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::TooLong);
        }
        if !source.contains("{{") {
            return Ok(Self::literal(source));
        }
        let (mut tree, mut defines) = Parser::new(source, "{{", "}}").and_then(Parser::parse)?;
        if let Some(text) = only_text(&tree) {
            return Ok(Self { source: source.into(), body: Body::Literal(text) });
        }
        let names = defines.iter().map(|define| define.name.to_string()).collect();
        let mut checker = Checker::new(names);
        checker.body(&mut tree)?;
        let mut template = gotmpl::Template::new("").funcs(functions::all()).max_range_iters(MAX_TURNS);
        for define in &mut defines {
            checker.definition(&mut define.body)?;
            template = template.add_parse_tree(&define.name, define.body.clone());
        }
        template = template.add_parse_tree(MAIN, tree);
        let body = Body::Program { template: Arc::new(template), needs: Arc::new(checker.into_needs()) };
        Ok(Self { source: source.into(), body })
    }

    /// A template that renders this very text.
    pub fn literal(text: &str) -> Self {
        let text: Arc<str> = text.into();
        Self { source: Arc::clone(&text), body: Body::Literal(text) }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it renders the same whatever the record.
    pub fn is_literal(&self) -> bool {
        matches!(self.body, Body::Literal(_))
    }

    /// Renders it for a record.
    ///
    /// # Errors
    /// Where it cannot be evaluated for this record, or writes too much.
    pub fn render(&self, face: &Face<'_>) -> Result<String, TemplateError> {
        match &self.body {
            Body::Literal(text) => Ok(text.to_string()),
            Body::Program { needs, .. } => self.render_value(&data::value(face, needs)),
        }
    }

    fn needs(&self) -> Option<&Needs> {
        match &self.body {
            Body::Literal(_) => None,
            Body::Program { needs, .. } => Some(needs),
        }
    }

    fn render_value(&self, value: &Value) -> Result<String, TemplateError> {
        match &self.body {
            Body::Literal(text) => Ok(text.to_string()),
            Body::Program { template, .. } => {
                let mut output = Bounded { text: String::new(), full: false };
                match template.execute_template_fmt(&mut output, MAIN, value) {
                    Ok(()) => Ok(output.text),
                    Err(_) if output.full => Err(TemplateError::OutputTooLong),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source).finish()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.is_literal() == other.is_literal()
    }
}

/// The text of a template that has nothing else, such as after a comment was taken out.
fn only_text(tree: &ListNode) -> Option<Arc<str>> {
    match tree.nodes.as_slice() {
        [] => Some("".into()),
        [Node::Text(TextNode { text, .. })] => Some(Arc::clone(text)),
        _ => None,
    }
}

// === impl TemplateError ===

impl From<gotmpl::TemplateError> for TemplateError {
    fn from(error: gotmpl::TemplateError) -> Self {
        match error {
            gotmpl::TemplateError::Parse { line, col, message, .. }
            | gotmpl::TemplateError::Lex { line, col, message, .. } => {
                Self::Syntax { line, column: col, message }
            }
            other => Self::Evaluation(other.to_string()),
        }
    }
}

// === impl Bounded ===

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > MAX_OUTPUT {
            self.full = true;
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
