//! FROM: every table gets its unique name and bounds, and the instants of as-of joins their place.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Spanned, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use everwhen_storage::TableDef;

use super::correlate::Instant;
use super::scope::{Relation, Scope};
use super::{BoundSpec, ExposedColumn, Rewriter, TableRef, and};
use crate::dialect::{Clause, normal};
use crate::error::{Error, Result, SqlState};
use crate::views::{TEMPORARY, View};

/// What a FROM has brought so far.
#[derive(Default)]
pub struct FromList {
    pub relations: Vec<Relation>,
    /// Predicates of instants that belong into the WHERE.
    pub conditions: Vec<Expr>,
}

/// One factor, placed: its tables, and the predicate of an instant that depends on others.
struct Placed {
    relations: Vec<Relation>,
    instant: Option<Instant>,
}

/// A table's name in FROM, and what stands at it.
struct Named<'a> {
    name: &'a mut ObjectName,
    alias: &'a mut Option<TableAlias>,
    /// The name that the query knows it by.
    shown: Ident,
    /// Names that the alias gives to columns.
    declared: Option<Vec<String>>,
    clauses: Vec<Clause>,
    position: usize,
}

/// What a join does with the rows of its two sides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    /// Keeps the left side's rows, or asks them alone: the right side's conditions stand in ON.
    Left,
    LeftSemi,
    /// Keeps the right side's rows: they cannot depend on the left side's.
    Right,
    RightSemi,
    Full,
}

impl Rewriter<'_> {
    /// Places a table and what is joined to it.
    pub(super) fn tables_with_joins(
        &mut self,
        tables: &mut TableWithJoins,
        scope: &Scope<'_>,
        from: &mut FromList,
    ) -> Result<()> {
        let chain_start = from.relations.len();
        let kinds: Vec<Kind> =
            tables.joins.iter().map(|join| kind(&join.join_operator)).collect::<Result<_>>()?;
        let placed = self.factor(&mut tables.relation, scope, &from.relations)?;
        if let Some(instant) = placed.instant {
            refuse_null_extended(&kinds, &instant)?;
            from.conditions.push(instant.predicate);
        }
        self.push(placed.relations, from)?;
        for (at, join) in tables.joins.iter_mut().enumerate() {
            let Placed { mut relations, instant } =
                self.factor(&mut join.relation, scope, &from.relations)?;
            if let Some(instant) = instant {
                let later = kinds.get(at + 1..).unwrap_or_default();
                let condition = place_instant(join, kinds[at], later, chain_start, instant)?;
                from.conditions.extend(condition);
            }
            let left = from.relations.get_mut(chain_start..).unwrap_or_default();
            self.merge_columns(&join.join_operator, kinds[at], left, &mut relations)?;
            match kinds[at] {
                Kind::LeftSemi => relations.iter_mut().for_each(|r| r.is_shown = false),
                Kind::RightSemi => left.iter_mut().for_each(|r| r.is_shown = false),
                _ => {}
            }
            self.push(relations, from)?;
            self.join_condition(&mut join.join_operator, scope, from, chain_start)?;
        }
        Ok(())
    }

    fn push(&self, relations: Vec<Relation>, from: &mut FromList) -> Result<()> {
        for relation in relations {
            if from.relations.iter().any(|earlier| earlier.name == relation.name) {
                let message = format!("table name \"{}\" is given twice", relation.name);
                return Err(Error::new(SqlState::DuplicateAlias, message)
                    .at(self.clauses.positions.start(relation.ident.span))
                    .with_hint("give one of them an alias"));
            }
            from.relations.push(relation);
        }
        Ok(())
    }

    /// Walks the sub-queries of an ON.
    fn join_condition(
        &mut self,
        operator: &mut JoinOperator,
        scope: &Scope<'_>,
        from: &FromList,
        chain_start: usize,
    ) -> Result<()> {
        let Some(JoinConstraint::On(condition)) = constraint_mut(operator) else { return Ok(()) };
        if !has_query(condition) {
            return Ok(());
        }
        let relations = from.relations.get(chain_start..).unwrap_or_default().to_vec();
        let inner = Scope { parent: Some(scope), relations, ..Scope::default() };
        self.expressions(condition, &inner)
    }

    /// Notes which columns USING and NATURAL merge, so that `*` shows them once.
    fn merge_columns(
        &self,
        operator: &JoinOperator,
        kind: Kind,
        left: &mut [Relation],
        right: &mut [Relation],
    ) -> Result<()> {
        let has_hidden = left.iter().chain(right.iter()).any(|relation| relation.has_hidden);
        let position =
            || right.first().and_then(|first| self.clauses.positions.start(first.ident.span));
        let refuse = |what: &str| {
            Err(Error::unsupported(format!("{what} is not supported beside hidden columns"))
                .at(position())
                .with_hint("write ON"))
        };
        let names = match constraint(operator) {
            Some(JoinConstraint::Natural) if has_hidden => return refuse("NATURAL JOIN"),
            Some(JoinConstraint::Natural) => {
                let columns = left.iter().filter_map(|relation| relation.columns.as_ref());
                columns.flatten().cloned().collect()
            }
            Some(JoinConstraint::Using(_))
                if has_hidden && matches!(kind, Kind::Right | Kind::Full) =>
            {
                return refuse("USING in a right or full join");
            }
            Some(JoinConstraint::Using(names)) => names
                .iter()
                .filter_map(|name| Some(normal(name.0.last()?.as_ident()?)))
                .collect::<Vec<_>>(),
            _ => return Ok(()),
        };
        for relation in right {
            let owned = names.iter().filter(|name| match &relation.columns {
                Some(columns) => columns.contains(name),
                None => true,
            });
            let owned: Vec<_> = owned.cloned().collect();
            relation.merged.extend(owned);
        }
        Ok(())
    }

    fn factor(
        &mut self,
        factor: &mut TableFactor,
        scope: &Scope<'_>,
        left: &[Relation],
    ) -> Result<Placed> {
        let beside = || Scope { parent: Some(scope), relations: left.to_vec(), ..Scope::default() };
        match factor {
            TableFactor::Table { args: None, .. } => self.named(factor, scope, left),
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let mut columns = if *lateral {
                    self.query(subquery, &beside())?
                } else {
                    self.query(subquery, scope)?
                };
                let declared = alias.as_ref().map(column_aliases);
                if let Some(declared) = declared.filter(|declared| !declared.is_empty()) {
                    columns = Some(declared);
                }
                self.unversioned(alias.as_ref(), "a sub-query")?;
                Ok(aliased(alias.as_ref(), columns))
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                self.expressions(args, &beside())?;
                self.unversioned(alias.as_ref(), "a function")?;
                let alias = alias.as_ref().map(|alias| alias.name.clone());
                let ident = alias.or_else(|| name.0.last()?.as_ident().cloned());
                let relations =
                    ident.map(|ident| Relation::plain(ident.clone(), normal(&ident), None));
                Ok(Placed { relations: relations.into_iter().collect(), instant: None })
            }
            TableFactor::Function { args, alias, .. } => {
                self.expressions(args, &beside())?;
                self.unversioned(alias.as_ref(), "a function")?;
                Ok(aliased(alias.as_ref(), None))
            }
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                self.expressions(array_exprs, &beside())?;
                self.unversioned(alias.as_ref(), "UNNEST")?;
                Ok(aliased(alias.as_ref(), None))
            }
            TableFactor::TableFunction { expr, alias } => {
                self.expressions(expr, &beside())?;
                self.unversioned(alias.as_ref(), "a function")?;
                Ok(aliased(alias.as_ref(), None))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let mut inner = FromList::default();
                self.tables_with_joins(table_with_joins, scope, &mut inner)?;
                if !inner.conditions.is_empty() {
                    let message = "an instant from outside of the parentheses is not supported";
                    return Err(Error::unsupported(message)
                        .at(self.clauses.positions.start(table_with_joins.relation.span())));
                }
                Ok(Placed { relations: inner.relations, instant: None })
            }
            other => Err(Error::unsupported("this form of a table in FROM is not supported")
                .at(self.clauses.positions.start(other.span()))),
        }
    }

    /// Refuses a clause at what is no table.
    fn unversioned(&mut self, alias: Option<&TableAlias>, what: &str) -> Result<()> {
        let Some(alias) = alias else { return Ok(()) };
        let clauses = self.clauses.take(&[alias.name.span.end]);
        refuse_clauses(&clauses, &normal(&alias.name), what)
    }

    /// Returns the view of a name that is neither of WITH nor the system's, if there is one.
    fn view_of(&self, parts: &[Ident]) -> Option<View> {
        let definitions = self.input.definitions;
        let of_session = match parts {
            _ if self.in_stored_view => None,
            [name] => Some(name),
            [schema, name] if normal(schema) == TEMPORARY => Some(name),
            _ => None,
        };
        of_session
            .and_then(|name| View::temporary(definitions, &normal(name)))
            .or_else(|| View::named(definitions, &bare(parts)?))
    }

    /// Returns the table of a name that is neither of WITH nor the system's.
    fn table(&self, parts: &[Ident], full: &str) -> Result<Arc<TableDef>> {
        if let Some(def) = bare(parts).and_then(|bare| self.input.definitions.table(&bare)) {
            return Ok(Arc::clone(def));
        }
        let error = Error::unknown_table(full);
        Err(if (self.input.is_system_table)(&format!("everwhen.{full}")) {
            error.with_hint(format!("there is a system table everwhen.{full}"))
        } else {
            error
        })
    }

    /// Places what is named: a query of WITH, a system table or a table.
    fn named(
        &mut self,
        factor: &mut TableFactor,
        scope: &Scope<'_>,
        left: &[Relation],
    ) -> Result<Placed> {
        let TableFactor::Table { name, alias, sample, with_hints, with_ordinality, .. } = factor
        else {
            return Err(Error::internal("a factor that is no table"));
        };
        let parts: Vec<Ident> = name.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
        let Some(last) = parts.last().cloned() else {
            return Err(Error::unsupported("a computed table name is not supported"));
        };
        let position =
            parts.first().and_then(|ident| self.clauses.positions.start(ident.span)).unwrap_or(1);
        if sample.is_some() || !with_hints.is_empty() || *with_ordinality {
            let message = "TABLESAMPLE, hints and ORDINALITY are not supported";
            return Err(Error::unsupported(message).at(position));
        }
        let shown = alias.as_ref().map_or_else(|| last.clone(), |alias| alias.name.clone());
        let clauses = self.clauses.take(&anchors(&last, alias.as_ref()));
        let full = parts.iter().map(normal).collect::<Vec<_>>().join(".");
        let declared = alias.as_ref().map(column_aliases).filter(|names| !names.is_empty());

        if let ([_], Some(cte)) = (parts.as_slice(), scope.cte(&full)) {
            refuse_clauses(&clauses, &full, "a query of WITH")?;
            self.count_tables(cte.tables).map_err(|error| error.at(position))?;
            let columns = declared.or_else(|| cte.columns.clone());
            let relation = Relation::plain(shown.clone(), normal(&shown), columns);
            return Ok(Placed { relations: vec![relation], instant: None });
        }
        if self.view_of(&parts).is_none() {
            self.count_tables(1).map_err(|error| error.at(position))?;
        }
        if (self.input.is_system_table)(&full) {
            refuse_clauses(&clauses, &full, "a system table")?;
            self.system_tables.push(full);
            let relation = Relation::plain(shown.clone(), normal(&shown), declared);
            return Ok(Placed { relations: vec![relation], instant: None });
        }
        if let Some(view) = self.view_of(&parts) {
            refuse_clauses(&clauses, &full, "a view")?;
            let alias = alias.take();
            let (derived, columns) =
                self.view(&view, &shown, alias).map_err(|error| error.at(position))?;
            *factor = derived;
            let columns = declared.or(columns);
            let relation = Relation::plain(shown.clone(), normal(&shown), columns);
            return Ok(Placed { relations: vec![relation], instant: None });
        }
        if let [only] = parts.as_slice()
            && only.quote_style.is_none()
            && CLAUSE_WORDS.contains(&full.as_str())
        {
            return Err(Error::syntax(format!("expected a table, found \"{only}\"")).at(position));
        }
        let def = self.table(&parts, &full).map_err(|error| error.at(position))?;
        let named = Named { name, alias, shown, declared, clauses, position };
        self.versioned(def, named, scope, left)
    }

    /// Places a table: under a name of its own, with its bounds and the columns that it shows.
    fn versioned(
        &mut self,
        def: Arc<TableDef>,
        named: Named<'_>,
        scope: &Scope<'_>,
        left: &[Relation],
    ) -> Result<Placed> {
        let Named { name, alias, shown, declared, clauses, position } = named;
        let star: Vec<_> = def.star().into_iter().map(|c| (c.id, c.name.clone())).collect();
        let mut columns: Vec<_> = star.iter().map(|(id, _)| ExposedColumn::Stored(*id)).collect();
        columns.extend(self.hidden.exposed(&normal(&shown)));
        let (valid, system, instant) = self.bounds(clauses, &shown, scope, left)?;
        self.check_system_instant(&system, &valid, &columns, &shown, position)?;
        columns.extend(raw_columns(&valid, &system));

        let unique_name = format!("{}#{}", def.name, self.tables.len() + 1);
        let mut relation = Relation::plain(shown.clone(), normal(&shown), None);
        relation.has_hidden = columns.len() > star.len();
        let names = star.into_iter().map(|(_, name)| name);
        relation.columns = Some(declared.unwrap_or_else(|| names.collect()));
        *name = ObjectName::from(vec![Ident::with_quote('"', unique_name.as_str())]);
        name_columns(alias, shown, &columns);
        self.tables.push(TableRef { unique_name, def, valid, system, columns, position });
        Ok(Placed { relations: vec![relation], instant })
    }
}

/// Returns a name without the one schema that tables are in.
fn bare(parts: &[Ident]) -> Option<String> {
    match parts {
        [table] => Some(normal(table)),
        [schema, table] if normal(schema) == "public" => Some(normal(table)),
        _ => None,
    }
}

/// Words that the parser takes for a table where one is missing.
const CLAUSE_WORDS: [&str; 13] = [
    "where", "group", "order", "having", "limit", "offset", "union", "join", "on", "select",
    "from", "using", "set",
];

/// Sets the alias under which the query knows the table; where it names columns, it must go on to
/// name the hidden ones.
fn name_columns(alias: &mut Option<TableAlias>, shown: Ident, columns: &[ExposedColumn]) {
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: shown,
        columns: Vec::new(),
        at: None,
    });
    alias.explicit = true;
    if !alias.columns.is_empty() {
        let hidden = columns.iter().filter_map(|column| column.hidden_name());
        let idents = hidden.map(|name| Ident::with_quote('"', name));
        alias.columns.extend(idents.map(|name| TableAliasColumnDef { name, data_type: None }));
    }
}

fn raw_columns(valid: &BoundSpec, system: &BoundSpec) -> Vec<ExposedColumn> {
    let mut raw = Vec::new();
    if *valid == BoundSpec::Correlated {
        raw.extend([ExposedColumn::RawValidFrom, ExposedColumn::RawValidTo]);
    }
    if *system == BoundSpec::Correlated {
        raw.extend([ExposedColumn::RawSystemFrom, ExposedColumn::RawSystemTo]);
    }
    raw
}

/// Returns where the clauses of a table are anchored: after its name, and after its alias.
fn anchors(name: &Ident, alias: Option<&TableAlias>) -> Vec<Location> {
    let mut anchors = vec![name.span.end];
    anchors.extend(alias.map(|alias| alias.name.span.end));
    anchors
}

fn column_aliases(alias: &TableAlias) -> Vec<String> {
    alias.columns.iter().map(|column| normal(&column.name)).collect()
}

fn aliased(alias: Option<&TableAlias>, columns: super::Columns) -> Placed {
    let relations = alias.map(|alias| {
        let ident = alias.name.clone();
        let name = normal(&ident);
        Relation::plain(ident, name, columns)
    });
    Placed { relations: relations.into_iter().collect(), instant: None }
}

fn refuse_clauses(clauses: &[Clause], name: &str, what: &str) -> Result<()> {
    match clauses.first() {
        None => Ok(()),
        Some(clause) => {
            let message = format!("\"{name}\" is {what}: it takes no {}", clause.head());
            let error = Error::unsupported(message).at(clause.position);
            Err(if what == "a system table" {
                error
            } else {
                error.with_hint("put the clause on the tables inside")
            })
        }
    }
}

/// Puts an instant's predicate into the join's ON, or returns it for the WHERE.
fn place_instant(
    join: &mut Join,
    kind: Kind,
    later: &[Kind],
    chain_start: usize,
    instant: Instant,
) -> Result<Option<Expr>> {
    let is_local = !instant.uses_outer && instant.lowest.is_some_and(|at| at >= chain_start);
    let position = instant.position;
    let refuse =
        |message: &str, hint: &str| Err(Error::unsupported(message).at(position).with_hint(hint));
    let has_using = matches!(
        constraint(&join.join_operator),
        Some(JoinConstraint::Using(_) | JoinConstraint::Natural)
    );
    match kind {
        Kind::Right | Kind::RightSemi | Kind::Full => {
            refuse("the kept side of a join has no instant that depends on the other", "swap them")
        }
        Kind::Inner if has_using || !is_local => {
            refuse_null_extended(later, &instant)?;
            Ok(Some(instant.predicate))
        }
        Kind::Left | Kind::LeftSemi if has_using => {
            refuse("an as-of join that keeps unmatched rows takes no USING", "write ON")
        }
        Kind::Left | Kind::LeftSemi if !is_local && !instant.uses_outer => refuse(
            "an outer as-of join takes its instant from the tables it is joined to",
            "write JOIN instead of the comma before",
        ),
        Kind::Inner | Kind::Left | Kind::LeftSemi => {
            if let JoinOperator::CrossJoin(constraint) = &join.join_operator {
                join.join_operator = JoinOperator::Inner(constraint.clone());
            }
            if let Some(constraint) = constraint_mut(&mut join.join_operator) {
                let on = match std::mem::replace(constraint, JoinConstraint::None) {
                    JoinConstraint::On(condition) => and(condition, instant.predicate),
                    _ => instant.predicate,
                };
                *constraint = JoinConstraint::On(on);
            }
            Ok(None)
        }
    }
}

/// Refuses a predicate in WHERE over a table that a later join may extend with NULLs.
fn refuse_null_extended(later: &[Kind], instant: &Instant) -> Result<()> {
    if later.iter().any(|kind| matches!(kind, Kind::Right | Kind::Full | Kind::RightSemi)) {
        let message = "an as-of table here cannot stand before a right or full join";
        return Err(Error::unsupported(message)
            .at(instant.position)
            .with_hint("join it in a sub-query"));
    }
    Ok(())
}

fn kind(operator: &JoinOperator) -> Result<Kind> {
    Ok(match operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => Kind::Inner,
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => Kind::Left,
        JoinOperator::LeftSemi(_) | JoinOperator::LeftAnti(_) => Kind::LeftSemi,
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Kind::Right,
        JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => Kind::RightSemi,
        JoinOperator::FullOuter(_) => Kind::Full,
        JoinOperator::AsOf { .. } => {
            return Err(Error::unsupported("ASOF JOIN is not supported")
                .with_hint("use JOIN t FOR VALID_TIME AS OF other.column ON .."));
        }
        _ => return Err(Error::unsupported("this kind of join is not supported")),
    })
}

/// Returns the condition of a join.
pub fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// True where an expression has a sub-query.
pub fn has_query(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(
            &mut self,
            _query: &datafusion::sql::sqlparser::ast::Query,
        ) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expr.visit(&mut Finder).is_break()
}
