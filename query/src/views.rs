//! Views: queries that stand under a name, put in its place where it is read.
//!
//! A view is a [`Definition`] whose body holds its text and the names of its columns.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::sql::sqlparser::ast::{Expr, VisitMut, visit_expressions_mut, visit_relations};
use datafusion::sql::sqlparser::tokenizer::Span;
use everwhen_storage::{Definition, DefinitionChange, DefinitionKind, Definitions, TxId};
use serde_json::{Value as Json, json};

use crate::dialect::{ParseLimits, ParsedQuery, normal, parse_query};
use crate::error::{Error, Result, SqlState};
use crate::statements::CreateView;

/// Where the temporary views of a session stand, as in Postgres.
pub(crate) const TEMPORARY: &str = "pg_temp";

/// A view as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub name: String,
    /// It is of the session that reads it.
    pub temporary: bool,
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
            temporary: false,
            columns: columns.collect(),
            query: query.to_owned(),
            tx: definition.tx,
        }
    }

    /// Returns the session's view of a name, of definitions that its views were put over.
    pub fn temporary(definitions: &Definitions, name: &str) -> Option<Self> {
        Self::named(definitions, &temporary_name(name)).map(|view| Self {
            name: name.to_owned(),
            temporary: true,
            ..view
        })
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

/// The temporary views of a session: nobody else sees them, and they are gone with it. A name that stands
/// alone means them before anything stored, as in Postgres; within a stored view it never does.
///
/// A copy is another handle to the same views.
#[derive(Debug, Clone, Default)]
pub struct TemporaryViews(Arc<Mutex<BTreeMap<String, Definition>>>);

impl TemporaryViews {
    /// Views of a session at most, and bytes of their texts together.
    const VIEWS_MAX: usize = 1_000;
    const BYTES_MAX: usize = 4 << 20;

    fn views<T>(&self, of: impl FnOnce(&mut BTreeMap<String, Definition>) -> T) -> T {
        // A panic leaves the map whole: each change of it is one call.
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.views(BTreeMap::clear);
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.views(|views| views.is_empty())
    }

    /// Puts them over the stored definitions.
    pub(crate) fn over(&self, definitions: &Arc<Definitions>) -> Arc<Definitions> {
        let changes: Vec<_> =
            self.views(|views| views.values().cloned().map(DefinitionChange::Put).collect());
        match changes.is_empty() {
            true => Arc::clone(definitions),
            false => Arc::new(definitions.with(&changes, definitions.tx)),
        }
    }

    /// Returns these views and another one.
    pub(crate) fn with(&self, create: &CreateView) -> Self {
        let added = Self(Arc::new(Mutex::new(self.views(|views| views.clone()))));
        added.put(create);
        added
    }

    fn put(&self, create: &CreateView) {
        let name = temporary_name(&create.name);
        let definition = Definition { name: name.clone(), ..definition_of(create) };
        self.views(|views| views.insert(name, definition));
    }

    /// Takes a view in.
    ///
    /// # Errors
    /// 54000 where the session has too many.
    pub(crate) fn add(&self, create: &CreateView) -> Result<()> {
        let replaced = temporary_name(&create.name);
        let (count, held) = self.views(|views| {
            let others = views.iter().filter(|(name, _)| **name != replaced);
            others.fold((0, 0), |(count, bytes), (_, view)| {
                (count + 1, bytes + view.body.to_string().len())
            })
        });
        if count >= Self::VIEWS_MAX || held + create.query.len() > Self::BYTES_MAX {
            let message = format!(
                "a session holds at most {} temporary views with {} MiB of text",
                Self::VIEWS_MAX,
                Self::BYTES_MAX >> 20
            );
            return Err(Error::new(SqlState::LimitExceeded, message).at(create.position));
        }
        self.put(create);
        Ok(())
    }

    /// Drops a view; false where there is none of the name.
    pub(crate) fn remove(&self, name: &str) -> bool {
        self.views(|views| views.remove(&temporary_name(name))).is_some()
    }
}

fn temporary_name(name: &str) -> String {
    format!("{TEMPORARY}.{name}")
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
