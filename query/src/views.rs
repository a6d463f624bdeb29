//! Views: queries that stand under a name, put in its place where it is read.
//!
//! A view is a [`Definition`] whose body holds its text and the names of its columns.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, VisitMut, visit_expressions_mut, visit_relations};
use datafusion::sql::sqlparser::tokenizer::Span;
use everwhen_storage::{Definition, DefinitionKind, Definitions, TxId};
use serde_json::{Value as Json, json};

use crate::dialect::{ParseLimits, ParsedQuery, normal, parse_query};
use crate::error::{Error, Result};
use crate::statements::CreateView;

/// A view as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: String,
    /// Names of the columns, where the view gives them.
    pub columns: Vec<String>,
    pub query: String,
    /// The transaction that made it.
    pub tx: TxId,
}

impl View {
    /// Returns the view of a name.
    pub fn named(definitions: &Definitions, name: &str) -> Option<Self> {
        definitions.get(DefinitionKind::View, name).map(|definition| Self::of(definition))
    }

    /// Reads a definition.
    pub fn of(definition: &Definition) -> Self {
        let columns = definition.body.get("columns").and_then(Json::as_array);
        let columns = columns.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned);
        let query = definition.body.get("query").and_then(Json::as_str).unwrap_or_default();
        Self {
            name: definition.name.clone(),
            columns: columns.collect(),
            query: query.to_owned(),
            tx: definition.tx,
        }
    }

    /// Parses its query. Names in it have no place: they stand in another text than the statement's.
    ///
    /// # Errors
    /// Whatever is wrong with it, without a place.
    pub fn parse(&self) -> Result<ParsedQuery> {
        let mut parsed = parse_query(&self.query, &ParseLimits::default())?;
        unplace(&mut parsed.query);
        Ok(parsed)
    }

    /// True where its query names a table or view, outside of its own WITH.
    ///
    /// # Errors
    /// As [`View::parse`].
    pub fn names(&self, table: &str) -> Result<bool> {
        let parsed = self.parse()?;
        let found = visit_relations(&parsed.query, |name| {
            let last = name.0.last().and_then(|part| part.as_ident()).map(normal);
            match last.as_deref() == Some(table) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        Ok(found.is_break())
    }
}

/// Returns the definition that a statement makes.
pub fn definition_of(create: &CreateView) -> Definition {
    Definition {
        kind: DefinitionKind::View,
        name: create.name.clone(),
        body: json!({"query": create.query, "columns": create.columns}),
        tx: TxId::ZERO,
    }
}

/// Refuses what a view's query must not have.
///
/// # Errors
/// 0A000 for a basis of its own.
pub fn check(parsed: &ParsedQuery) -> Result<()> {
    let settings = &parsed.clauses.settings;
    if settings.snapshot_token.is_some() || settings.clock_time.is_some() {
        let message = "a view has no basis of its own";
        return Err(Error::unsupported(message).with_hint("SETTING takes DEFAULTs here"));
    }
    Ok(())
}

fn unplace(tree: &mut impl VisitMut) {
    let done = visit_expressions_mut(tree, |expr: &mut Expr| {
        match expr {
            Expr::Identifier(ident) => ident.span = Span::empty(),
            Expr::CompoundIdentifier(parts) => {
                parts.iter_mut().for_each(|part| part.span = Span::empty());
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    let _ = done;
}
