//! Hidden columns: every table has them, and shows those alone that the statement names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, Query, Select, TableWithJoins, Visit, Visitor,
};

use super::ExposedColumn;
use super::from::constraint;
use crate::dialect::{Clauses, normal};

/// The hidden columns, by name.
const HIDDEN: [(&str, ExposedColumn); 7] = [
    ("_valid_from", ExposedColumn::ValidFrom),
    ("_valid_to", ExposedColumn::ValidTo),
    ("_system_from", ExposedColumn::SystemFrom),
    ("_system_to", ExposedColumn::SystemTo),
    ("_tx", ExposedColumn::Tx),
    ("_valid_time", ExposedColumn::ValidPeriod),
    ("_system_time", ExposedColumn::SystemPeriod),
];

impl ExposedColumn {
    /// Returns the name of a column that is not stored; `None` for those that are.
    pub const fn hidden_name(self) -> Option<&'static str> {
        Some(match self {
            Self::Stored(_) => return None,
            Self::ValidFrom => "_valid_from",
            Self::ValidTo => "_valid_to",
            Self::SystemFrom => "_system_from",
            Self::SystemTo => "_system_to",
            Self::Tx => "_tx",
            Self::ValidPeriod => "_valid_time",
            Self::SystemPeriod => "_system_time",
            Self::RawValidFrom => "__valid_from",
            Self::RawValidTo => "__valid_to",
            Self::RawSystemFrom => "__system_from",
            Self::RawSystemTo => "__system_to",
        })
    }
}

/// Returns true for the name of a column that every table has but `*` does not show.
pub fn is_hidden(name: &str) -> bool {
    HIDDEN.iter().any(|(hidden, _)| *hidden == name)
}

/// The hidden columns that a statement names, each with the table it names them of.
#[derive(Debug, Default)]
pub struct HiddenNames {
    named: BTreeSet<(Option<String>, String)>,
}

impl HiddenNames {
    /// Collects them from a query and its clauses.
    pub fn of(query: &Query, clauses: &Clauses) -> Self {
        let mut names = Self::default();
        let ControlFlow::Continue(()) = query.visit(&mut names);
        for bound in clauses.all().flat_map(|clause| clause.kind.bounds()) {
            let ControlFlow::Continue(()) = bound.expr.visit(&mut names);
        }
        names
    }

    /// Returns the hidden columns that a table of this name must show.
    pub fn exposed(&self, table: &str) -> impl Iterator<Item = ExposedColumn> {
        HIDDEN.into_iter().filter_map(move |(name, column)| {
            let is_named = self
                .named
                .iter()
                .any(|(of, hidden)| hidden == name && of.as_deref().is_none_or(|of| of == table));
            is_named.then_some(column)
        })
    }

    fn add(&mut self, table: Option<&Ident>, column: &Ident) {
        let name = normal(column);
        if is_hidden(&name) {
            self.named.insert((table.map(normal), name));
        }
    }

    fn add_using(&mut self, tables: &TableWithJoins) {
        for join in &tables.joins {
            if let Some(JoinConstraint::Using(columns)) = constraint(&join.join_operator) {
                for column in columns {
                    if let Some(ident) = column.0.last().and_then(|part| part.as_ident()) {
                        self.add(None, ident);
                    }
                }
            }
        }
    }
}

impl Visitor for HiddenNames {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Identifier(ident) => self.add(None, ident),
            Expr::CompoundIdentifier(parts) => {
                // Also the field of a hidden column: `_valid_time.from`.
                for (at, part) in parts.iter().enumerate() {
                    self.add(at.checked_sub(1).and_then(|before| parts.get(before)), part);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        select.from.iter().for_each(|tables| self.add_using(tables));
        ControlFlow::Continue(())
    }
}
