//! A view where a table is named: its query takes the place, with its own clauses and names.

use std::mem;

use datafusion::sql::sqlparser::ast::{Ident, TableAlias, TableAliasColumnDef, TableFactor};

use super::hidden::HiddenNames;
use super::scope::Scope;
use super::{Columns, Rewriter};
use crate::dialect::unclaimed;
use crate::error::{Error, Result, SqlState};
use crate::views::{self, View};

/// Views within views at most.
const DEPTH_MAX: usize = 16;

impl Rewriter<'_> {
    /// Returns the sub-query that stands for a view, and its columns.
    pub(super) fn view(
        &mut self,
        view: &View,
        shown: &Ident,
        alias: Option<TableAlias>,
    ) -> Result<(TableFactor, Columns)> {
        if self.depth >= DEPTH_MAX {
            let message = format!("view \"{}\" is of views nested too deeply", view.name);
            return Err(Error::new(SqlState::StatementTooComplex, message)
                .with_hint("a view must not come back to itself"));
        }
        let within = |error: Error| error.within(&format!("in view \"{}\"", view.name));
        let mut parsed = view.parse().map_err(within)?;
        views::check(&parsed).map_err(within)?;
        for default in &self.clauses.settings.defaults {
            let own = &mut parsed.clauses.settings.defaults;
            if own.iter().all(|one| one.axis != default.axis) {
                own.push(default.clone());
            }
        }
        let hidden = HiddenNames::of(&parsed.query, &parsed.clauses);
        let outer_hidden = mem::replace(&mut self.hidden, hidden);
        let outer_clauses = mem::replace(&mut self.clauses, parsed.clauses);
        let outer_stored = mem::replace(&mut self.in_stored_view, !view.temporary);
        let outer_ordered = mem::take(&mut self.ordered);
        self.depth += 1;
        let columns = self.query(&mut parsed.query, &Scope::default());
        self.depth -= 1;
        self.ordered = outer_ordered;
        self.in_stored_view = outer_stored;
        let inner = mem::replace(&mut self.clauses, outer_clauses);
        self.hidden = outer_hidden;
        let mut columns = columns.map_err(within)?;
        if let Some(clause) = inner.list.first() {
            return Err(within(unclaimed(clause)));
        }
        let mut alias = alias.unwrap_or_else(|| TableAlias {
            explicit: true,
            name: shown.clone(),
            columns: Vec::new(),
            at: None,
        });
        if alias.columns.is_empty() && !view.columns.is_empty() {
            let named = |name: &String| TableAliasColumnDef {
                name: Ident::with_quote('"', name),
                data_type: None,
            };
            alias.columns = view.columns.iter().map(named).collect();
            columns = Some(view.columns.clone());
        }
        let subquery = parsed.query;
        let alias = Some(alias);
        Ok((TableFactor::Derived { lateral: false, subquery, alias, sample: None }, columns))
    }
}
