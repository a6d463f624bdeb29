//! Bounds of a table, and instants that depend on other tables: as-of joins.
//!
//! `t FOR VALID_TIME AS OF o.at` reads all versions of `t` and keeps those whose period contains
//! the instant: `t.__valid_from <= o.at AND o.at < t.__valid_to`. Beside an equality of keys this
//! is a hash join with a residual filter, never a nested loop.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, VisitMut, VisitorMut};

use super::from::has_query;
use super::hidden::is_hidden;
use super::scope::{Found, Relation, Scope, find_column};
use super::{BoundSpec, ExposedColumn, Rewriter, and};
use crate::dialect::{Axis, BoundExpr, Clause, ClauseKind, Positions, first_column, normal};
use crate::error::{Error, Result, SqlState};

/// The predicate that an instant over other tables becomes.
pub struct Instant {
    pub predicate: Expr,
    /// The first table to the left that it uses, by its place in FROM.
    pub lowest: Option<usize>,
    /// True where it uses a table of a query around.
    pub uses_outer: bool,
    /// 1-based character of the instant.
    pub position: usize,
}

impl Rewriter<'_> {
    /// Returns a table's bounds on both axes, and the predicate of those that depend on others.
    pub(super) fn bounds(
        &self,
        mut clauses: Vec<Clause>,
        table: &Ident,
        scope: &Scope<'_>,
        left: &[Relation],
    ) -> Result<(BoundSpec, BoundSpec, Option<Instant>)> {
        let (mut valid, mut system) = (BoundSpec::Default, BoundSpec::Default);
        let mut instants: Option<Instant> = None;
        for default in &self.clauses.settings.defaults {
            if clauses.iter().all(|clause| clause.axis != default.axis) {
                clauses.push(default.clone());
            }
        }
        for clause in clauses {
            let spec = match clause.axis {
                Axis::Valid => &mut valid,
                Axis::System => &mut system,
            };
            if *spec != BoundSpec::Default {
                let message = format!("a table has one {} clause", clause.axis.word());
                return Err(Error::syntax(message).at(clause.position));
            }
            if clause.portion {
                return Err(Error::syntax("FOR PORTION OF belongs to UPDATE and DELETE")
                    .at(clause.position)
                    .with_hint("a query reads FOR VALID_TIME FROM a TO b"));
            }
            *spec = match clause.kind {
                ClauseKind::All => BoundSpec::All,
                ClauseKind::FromTo(_, None) => {
                    return Err(Error::syntax("FROM needs TO and an end")
                        .at(clause.position)
                        .with_hint("TO NULL is the end of time"));
                }
                ClauseKind::FromTo(from, Some(to)) => {
                    BoundSpec::FromTo(constant(from)?, constant(to)?)
                }
                ClauseKind::Between(from, to) => BoundSpec::Between(constant(from)?, constant(to)?),
                ClauseKind::Only(from, to) => BoundSpec::Only(constant(from)?, constant(to)?),
                ClauseKind::AsOf(at) if has_query(&at.expr) => return Err(sub_query(&at)),
                ClauseKind::AsOf(at) if first_column(&at.expr).is_none() => BoundSpec::AsOf(at),
                ClauseKind::AsOf(at) => {
                    let resolver = Resolver {
                        positions: &self.clauses.positions,
                        table,
                        left,
                        scope,
                        lowest: None,
                        uses_outer: false,
                    };
                    let instant = resolver.instant(at, clause.axis)?;
                    instants = Some(match instants {
                        None => instant,
                        Some(earlier) => earlier.and(instant),
                    });
                    BoundSpec::Correlated
                }
            };
        }
        Ok((valid, system, instants))
    }

    /// Refuses a system instant over other tables where rows would differ from those of a constant
    /// one: the history of beliefs is cut finer than each belief was.
    pub(super) fn check_system_instant(
        &self,
        system: &BoundSpec,
        valid: &BoundSpec,
        columns: &[ExposedColumn],
        table: &Ident,
        position: usize,
    ) -> Result<()> {
        if *system != BoundSpec::Correlated {
            return Ok(());
        }
        if !matches!(valid, BoundSpec::Default | BoundSpec::AsOf(_) | BoundSpec::Correlated) {
            let message =
                "SYSTEM_TIME AS OF another table's column needs one instant of VALID_TIME";
            return Err(Error::unsupported(message).at(position));
        }
        let bounds = [
            ExposedColumn::ValidFrom,
            ExposedColumn::ValidTo,
            ExposedColumn::SystemTo,
            ExposedColumn::ValidPeriod,
            ExposedColumn::SystemPeriod,
        ];
        let named = columns.iter().find(|column| bounds.contains(column));
        match named.and_then(|column| column.hidden_name()) {
            None => Ok(()),
            Some(name) => {
                let message =
                    format!("{table} cannot show {name} at a SYSTEM_TIME of another table");
                Err(Error::unsupported(message).at(position))
            }
        }
    }
}

impl Instant {
    fn and(self, other: Self) -> Self {
        Self {
            predicate: and(self.predicate, other.predicate),
            lowest: self.lowest.into_iter().chain(other.lowest).min(),
            uses_outer: self.uses_outer || other.uses_outer,
            position: self.position,
        }
    }
}

fn sub_query(bound: &BoundExpr) -> Error {
    Error::unsupported("a sub-query in a temporal clause is not supported")
        .at(bound.position)
        .with_hint("join to it and name its column")
}

fn constant(bound: BoundExpr) -> Result<BoundExpr> {
    if has_query(&bound.expr) {
        return Err(sub_query(&bound));
    }
    match first_column(&bound.expr) {
        None => Ok(bound),
        Some((name, _)) => {
            let message = format!("column {name} cannot stand in the bounds of a period");
            Err(Error::unsupported(message).at(bound.position).with_hint(
                "AS OF takes columns; for periods read FOR ALL VALID_TIME and compare \
                 _valid_from and _valid_to",
            ))
        }
    }
}

/// Finds the tables that an instant's columns belong to, to the left and around.
struct Resolver<'r, 's> {
    positions: &'r Positions,
    /// The table whose instant it is.
    table: &'r Ident,
    left: &'r [Relation],
    scope: &'r Scope<'s>,
    lowest: Option<usize>,
    uses_outer: bool,
}

impl Resolver<'_, '_> {
    fn instant(mut self, mut at: BoundExpr, axis: Axis) -> Result<Instant> {
        if let ControlFlow::Break(error) = at.expr.visit(&mut self) {
            return Err(error.at(at.position));
        }
        let (from, to) = match axis {
            Axis::Valid => (ExposedColumn::RawValidFrom, ExposedColumn::RawValidTo),
            Axis::System => (ExposedColumn::RawSystemFrom, ExposedColumn::RawSystemTo),
        };
        let raw = |column: ExposedColumn| {
            let name = Ident::with_quote('"', column.hidden_name().unwrap_or_default());
            Box::new(Expr::CompoundIdentifier(vec![self.table.clone(), name]))
        };
        let instant = || Box::new(Expr::Nested(Box::new(at.expr.clone())));
        let starts = Expr::BinaryOp { left: raw(from), op: BinaryOperator::LtEq, right: instant() };
        let ends = Expr::BinaryOp { left: instant(), op: BinaryOperator::Lt, right: raw(to) };
        let predicate = Expr::BinaryOp {
            left: Box::new(starts),
            op: BinaryOperator::And,
            right: Box::new(ends),
        };
        let Self { lowest, uses_outer, .. } = self;
        Ok(Instant { predicate, lowest, uses_outer, position: at.position })
    }

    fn used(&mut self, place: usize) {
        self.lowest = Some(self.lowest.map_or(place, |lowest| lowest.min(place)));
    }

    /// Returns the identifier of the table that has an unqualified column.
    fn owner(&mut self, column: &Ident) -> Result<Ident> {
        let name = normal(column);
        let position = self.positions.start(column.span);
        let ambiguous = || {
            let message = format!("column \"{name}\" is ambiguous");
            Error::new(SqlState::AmbiguousColumn, message).at(position).with_hint("name its table")
        };
        match find_column(self.left, &name) {
            Found::In(relation) => {
                let place = self.left.iter().position(|other| other.name == relation.name);
                self.used(place.unwrap_or_default());
                return Ok(relation.ident.clone());
            }
            Found::Ambiguous => return Err(ambiguous()),
            Found::Nowhere => {}
        }
        for scope in self.scope.outward() {
            match find_column(&scope.relations, &name) {
                Found::In(relation) => {
                    self.uses_outer = true;
                    return Ok(relation.ident.clone());
                }
                Found::Ambiguous => return Err(ambiguous()),
                Found::Nowhere => {}
            }
        }
        Err(Error::unknown_column(&name)
            .at(position)
            .with_hint("an instant takes the columns of tables to its left"))
    }

    /// Checks a qualified column; true where its first part names a table.
    fn check_qualified(&mut self, table: &Ident, column: &Ident) -> Result<bool> {
        let name = normal(table);
        let found = self.left.iter().position(|relation| relation.name == name);
        let outer = self.scope.outward().flat_map(|scope| &scope.relations);
        let relation = match found {
            Some(place) => {
                self.used(place);
                &self.left[place]
            }
            None if name == normal(self.table) => {
                let message = format!("the instant of \"{name}\" cannot depend on itself");
                return Err(Error::new(SqlState::InvalidColumnReference, message)
                    .at(self.positions.start(table.span)));
            }
            None => match outer.into_iter().find(|relation| relation.name == name) {
                Some(relation) => {
                    self.uses_outer = true;
                    relation
                }
                None => return Ok(false),
            },
        };
        let column_name = normal(column);
        let known = relation.columns.as_ref();
        if known.is_some_and(|known| !known.contains(&column_name))
            && !(relation.has_hidden && is_hidden(&column_name))
        {
            return Err(Error::unknown_column(&format!("{name}.{column_name}"))
                .at(self.positions.start(column.span)));
        }
        Ok(true)
    }

    fn qualify(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(column) => {
                let owner = self.owner(column)?;
                *expr = Expr::CompoundIdentifier(vec![owner, column.clone()]);
            }
            Expr::CompoundIdentifier(parts) => {
                let [table, column, ..] = parts.as_slice() else { return Ok(()) };
                let (table, column) = (table.clone(), column.clone());
                if !self.check_qualified(&table, &column)? {
                    // Not a table: the field of a struct column, or a table that is not there.
                    let owner = self.owner(&table).map_err(|_| {
                        let name = normal(&table);
                        let message = format!("table \"{name}\" is not to the left of the clause");
                        Error::new(SqlState::UndefinedTable, message)
                            .at(self.positions.start(table.span))
                    })?;
                    parts.insert(0, owner);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl VisitorMut for Resolver<'_, '_> {
    type Break = Error;

    /// After the children: what is made here is not looked at again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match self.qualify(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
