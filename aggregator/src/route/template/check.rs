//! What can be known of a template before there is a record: whether its functions and fields are there, which fields it
//! reads, and where it calls methods of times, which are put as function calls.

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, PipeNode, Pos, SmolStr};

use super::TemplateError;
use super::data::{Kind, Needs};
use super::{functions, time};

/// Walks a template's tree once.
pub(super) struct Checker {
    needs: Needs,
    templates: Vec<String>,
    variables: Vec<(SmolStr, Kind)>,
    dot: Kind,
}

/// An expression, and what is known of its value.
struct Typed {
    expr: Expr,
    kind: Kind,
    /// A method that still lacks its arguments; `expr` is what it is called on.
    method: Option<&'static str>,
}

// === impl Checker ===

impl Checker {
    /// A checker of a template that defines others of these names.
    pub(super) fn new(templates: Vec<String>) -> Self {
        Self { needs: Needs::default(), templates, variables: Vec::new(), dot: Kind::Event }
    }

    pub(super) fn into_needs(self) -> Needs {
        self.needs
    }

    /// The template itself: dot and `$` are the event.
    pub(super) fn body(&mut self, tree: &mut ListNode) -> Result<(), TemplateError> {
        self.dot = Kind::Event;
        self.variables = vec![("$".into(), Kind::Event)];
        self.list(tree)
    }

    /// A template that it defines: dot is whatever it is invoked with.
    pub(super) fn definition(&mut self, tree: &mut ListNode) -> Result<(), TemplateError> {
        self.dot = Kind::Unknown;
        self.variables = vec![("$".into(), Kind::Unknown)];
        self.list(tree)
    }

    fn list(&mut self, list: &mut ListNode) -> Result<(), TemplateError> {
        list.nodes.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &mut Node) -> Result<(), TemplateError> {
        match node {
            Node::List(list) => self.list(list),
            Node::Action(action) => {
                let kind = self.pipe(&mut action.pipe)?;
                if action.pipe.decl.is_empty() && matches!(kind, Kind::Time | Kind::Unknown) {
                    action.pipe.commands.push(call(action.pos, functions::SHOWN, Vec::new()));
                }
                Ok(())
            }
            Node::If(branch) => self.branch(branch, |_, dot| dot),
            Node::With(branch) => self.branch(branch, |kind, _| kind),
            Node::Range(branch) => self.branch(branch, |kind, _| kind.item()),
            Node::Template(template) => {
                if let Some(pipe) = &mut template.pipe {
                    self.pipe(pipe)?;
                }
                match self.templates.iter().any(|name| *name == template.name.as_str()) {
                    true => Ok(()),
                    false => Err(TemplateError::UnknownTemplate {
                        line: template.pos.line.max(1),
                        name: template.name.to_string(),
                    }),
                }
            }
            Node::Define(_) | Node::Text(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
        }
    }

    /// A branch whose body has the dot that `dot` makes of the pipeline's kind and the dot around it.
    fn branch(
        &mut self,
        branch: &mut BranchNode,
        dot: impl Fn(Kind, Kind) -> Kind,
    ) -> Result<(), TemplateError> {
        let (around, known) = (self.dot, self.variables.len());
        let kind = self.pipe(&mut branch.pipe)?;
        let inside = dot(kind, around);
        if let [_, value] = branch.pipe.decl.as_slice() {
            // Only a loop declares two.
            self.declare(value.clone(), inside);
        } else if let ([one], true) = (branch.pipe.decl.as_slice(), inside != kind && inside != around) {
            self.declare(one.clone(), inside);
        }
        self.dot = inside;
        let inner = self.list(&mut branch.body);
        self.dot = around;
        inner?;
        self.variables.truncate(known);
        if let Some(body) = &mut branch.else_body {
            self.list(body)?;
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn declare(&mut self, name: SmolStr, kind: Kind) {
        self.variables.push((name, kind));
    }

    fn pipe(&mut self, pipe: &mut PipeNode) -> Result<Kind, TemplateError> {
        let mut kind = Kind::Unknown;
        for (index, command) in pipe.commands.iter_mut().enumerate() {
            kind = self.command(command, (index > 0).then_some(kind))?;
        }
        for name in &pipe.decl {
            if pipe.is_assign {
                // Which branch assigns is not known: from here on nothing is known of it.
                self.variables
                    .iter_mut()
                    .filter(|known| known.0 == *name)
                    .for_each(|known| known.1 = Kind::Unknown);
            } else {
                self.declare(name.clone(), if pipe.decl.len() == 1 { kind } else { Kind::Unknown });
            }
        }
        Ok(kind)
    }

    fn command(&mut self, command: &mut CommandNode, piped: Option<Kind>) -> Result<Kind, TemplateError> {
        let mut args = std::mem::take(&mut command.args).into_iter();
        let Some(first) = args.next() else { return Ok(Kind::Unknown) };
        if let Expr::Identifier(pos, name) = first {
            self.function(pos, &name)?;
            let mut kinds = Vec::new();
            command.args.push(Expr::Identifier(pos, name.clone()));
            for arg in args {
                let Typed { expr, kind, method } = self.expr(arg)?;
                if let Some(method) = method {
                    return Err(self.unknown(pos, Kind::Time, method));
                }
                kinds.push(kind);
                command.args.push(if kind == Kind::Time && !functions::takes_times(&name) {
                    piped_to(pos, expr, functions::SHOWN)
                } else {
                    expr
                });
            }
            kinds.extend(piped);
            if let ("index", [Kind::Map, Kind::Scalar]) = (name.as_str(), kinds.as_slice()) {
                // Go gives the empty string for a missing key of a map of strings.
                command.args[0] = Expr::Identifier(pos, functions::INDEX.into());
            }
            return Ok(functions::result_kind(&name, &kinds));
        }
        let pos = first.pos();
        let Typed { expr, kind, method } = self.expr(first)?;
        match method {
            Some(method) => {
                command.args = vec![Expr::Identifier(pos, method_function(method)), expr];
                for arg in args {
                    command.args.push(self.expr(arg)?.expr);
                }
                Ok(Kind::Scalar)
            }
            None => {
                command.args.push(expr);
                for arg in args {
                    command.args.push(self.expr(arg)?.expr);
                }
                Ok(kind)
            }
        }
    }

    fn expr(&mut self, expr: Expr) -> Result<Typed, TemplateError> {
        let pos = expr.pos();
        match expr {
            Expr::Dot(pos) => Ok(self.used(Expr::Dot(pos), self.dot)),
            Expr::Field(pos, names) => self.fields(pos, Expr::Dot(pos), self.dot, names),
            Expr::Variable(pos, name, names) => {
                let kind =
                    self.variables.iter().rev().find(|known| known.0 == name).map_or(Kind::Unknown, |k| k.1);
                self.fields(pos, Expr::Variable(pos, name, Vec::new()), kind, names)
            }
            Expr::Identifier(pos, name) => {
                self.function(pos, &name)?;
                let kind = functions::result_kind(&name, &[]);
                Ok(Typed { expr: Expr::Identifier(pos, name), kind, method: None })
            }
            Expr::Pipe(pos, mut pipe) => {
                let kind = self.pipe(&mut pipe)?;
                Ok(Typed { expr: Expr::Pipe(pos, pipe), kind, method: None })
            }
            Expr::Chain(pos, inner, names) => {
                let Typed { expr, kind, method } = self.expr(*inner)?;
                match method {
                    Some(method) => Err(self.unknown(pos, Kind::Time, method)),
                    None => self.fields(pos, expr, kind, names),
                }
            }
            Expr::String(..) | Expr::Number(..) | Expr::Bool(..) => {
                Ok(Typed { expr, kind: Kind::Scalar, method: None })
            }
            Expr::Nil(_) => Ok(Typed { expr: Expr::Nil(pos), kind: Kind::Unknown, method: None }),
        }
    }

    /// Fields, and methods of times, of a value.
    fn fields(
        &mut self,
        pos: Pos,
        base: Expr,
        kind: Kind,
        names: Vec<SmolStr>,
    ) -> Result<Typed, TemplateError> {
        let (mut expr, mut kind, mut plain) = (base, kind, Vec::new());
        let mut names = names.into_iter().peekable();
        while let Some(name) = names.next() {
            if kind.embeds(&name) {
                continue;
            }
            if kind == Kind::Time {
                let Some(method) = time::METHODS.iter().find(|method| **method == name.as_str()) else {
                    return Err(self.unknown(pos, kind, &name));
                };
                expr = chain(pos, expr, std::mem::take(&mut plain));
                if time::needs_argument(method) {
                    return match names.peek() {
                        None => Ok(Typed { expr, kind: Kind::Scalar, method: Some(method) }),
                        Some(_) => Err(self.unknown(pos, Kind::Scalar, &name)),
                    };
                }
                expr = piped_to(pos, expr, &method_function(method));
                kind = time::method_kind(method);
                continue;
            }
            let Some((known, next)) = kind.field(&name) else {
                return Err(self.unknown(pos, kind, &name));
            };
            if kind == Kind::Event {
                self.needs.fields.insert(known);
            }
            kind = next;
            plain.push(name);
        }
        Ok(self.used(chain(pos, expr, plain), kind))
    }

    /// A value used as a whole.
    fn used(&mut self, expr: Expr, kind: Kind) -> Typed {
        self.needs.all |= kind == Kind::Event;
        Typed { expr, kind, method: None }
    }

    fn function(&mut self, pos: Pos, name: &str) -> Result<(), TemplateError> {
        if !functions::is_known(name) {
            return Err(TemplateError::UnknownFunction { line: pos.line.max(1), name: name.to_owned() });
        }
        self.needs.json |= functions::wants_json(name);
        Ok(())
    }

    fn unknown(&self, pos: Pos, of: Kind, field: &str) -> TemplateError {
        let near = crate::config::nearest(field, &of.fields());
        TemplateError::UnknownField {
            line: pos.line.max(1),
            field: field.to_owned(),
            of: of.name(),
            hint: near.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default(),
        }
    }
}

fn chain(pos: Pos, base: Expr, names: Vec<SmolStr>) -> Expr {
    match (base, names.is_empty()) {
        (base, true) => base,
        (Expr::Dot(pos), false) => Expr::Field(pos, names),
        (Expr::Variable(pos, name, mut before), false) => {
            before.extend(names);
            Expr::Variable(pos, name, before)
        }
        (base, false) => Expr::Chain(pos, Box::new(base), names),
    }
}

fn call(pos: Pos, function: &str, args: Vec<Expr>) -> CommandNode {
    let mut all = vec![Expr::Identifier(pos, function.into())];
    all.extend(args);
    CommandNode { pos, args: all }
}

fn piped_to(pos: Pos, expr: Expr, function: &str) -> Expr {
    let commands = vec![call(pos, function, vec![expr])];
    Expr::Pipe(pos, PipeNode { pos, decl: Vec::new(), commands, is_assign: false })
}

fn method_function(method: &str) -> SmolStr {
    format!("{}{method}", functions::METHOD).into()
}
