//! What a statement takes and answers, found without running it: for front ends that must say so
//! before they have the parameters' values.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, Ident, LimitClause, Query, SelectItem, SetExpr, Value as Literal,
    ValueWithSpan, Visit, VisitMut, visit_expressions, visit_expressions_mut,
};
use everwhen_storage::{
    ColumnDef, ColumnId, ColumnType, Definitions, Precedence, TableDef, TableId, Value,
};

use crate::answer::Shape;
use crate::columns::{field_of, field_type};
use crate::diagnose::Diagnose;
use crate::dialect::{
    BoundExpr, ClauseKind, ColumnName, Delete, Insert, InsertVerb, ParsedQuery, ParsedStatement,
    Portion, Show, TableName, Update, call, first_column,
};
use crate::engine::{Inner, Request};
use crate::error::{Error, Result, SqlState};
use crate::params::{Params, expr_of, name_parameters};
use crate::read::Planned;
use crate::write::{Returning, Writes};

/// Parameters of a statement at most: what the Postgres protocol can count.
const PARAMETERS_MAX: usize = 65_535;

/// What a statement takes and answers.
#[derive(Debug, Clone)]
pub struct Described {
    /// The types of `$1`, `$2`, ..; nothing where the statement does not tell: text will do.
    pub parameters: Vec<Option<ColumnType>>,
    /// The columns of its rows; nothing where it answers none.
    pub columns: Option<Shape>,
    /// How many rows an INSERT of values states.
    pub rows: Option<u64>,
    pub kind: StatementKind,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    Query,
    Explain,
    Show,
    Insert,
    Patch,
    Update,
    Delete,
    Erase,
    Assert,
    /// A definition of a table or of what other parts of the server own.
    Define,
    Begin {
        read_only: Option<bool>,
    },
    Commit,
    Rollback,
}

impl StatementKind {
    /// Returns the kind of a parsed statement.
    pub const fn of(statement: &ParsedStatement) -> Self {
        match statement {
            ParsedStatement::Query(_) => Self::Query,
            ParsedStatement::Explain { .. } => Self::Explain,
            ParsedStatement::Show(_) => Self::Show,
            ParsedStatement::Insert(insert) => match insert.verb {
                InsertVerb::Put => Self::Insert,
                InsertVerb::Patch { .. } => Self::Patch,
            },
            ParsedStatement::Update(_) => Self::Update,
            ParsedStatement::Delete(_) => Self::Delete,
            ParsedStatement::Erase(_) => Self::Erase,
            ParsedStatement::Assert(_) => Self::Assert,
            ParsedStatement::Begin { read_only, .. } => Self::Begin { read_only: *read_only },
            ParsedStatement::Commit => Self::Commit,
            ParsedStatement::Rollback => Self::Rollback,
            _ => Self::Define,
        }
    }

    /// True for statements that write rows.
    pub const fn writes(self) -> bool {
        matches!(
            self,
            Self::Insert | Self::Patch | Self::Update | Self::Delete | Self::Erase | Self::Assert
        )
    }
}

/// Describes one statement at a request's basis.
pub async fn describe(
    inner: &Inner,
    request: &Request,
    statement: ParsedStatement,
) -> Result<Described> {
    let kind = StatementKind::of(&statement);
    let mut types = Types::declared(&request.params);
    let describing = Describing { inner, request };
    let rows = match &statement {
        ParsedStatement::Insert(insert) => match insert.source.query.body.as_ref() {
            SetExpr::Values(values) => u64::try_from(values.rows.len()).ok(),
            _ => None,
        },
        _ => None,
    };
    let columns = match statement {
        ParsedStatement::Query(query) => Some(describing.query(&mut types, query).await?.shape()?),
        ParsedStatement::Explain { query, .. } => {
            describing.query(&mut types, query).await?;
            Some(Shape::of(LogicalPlan::explain_schema().as_ref())?)
        }
        ParsedStatement::Insert(insert) => describing.insert(&mut types, insert).await?,
        ParsedStatement::Update(update) => describing.update(&mut types, update).await?,
        ParsedStatement::Delete(delete) | ParsedStatement::Erase(delete) => {
            describing.delete(&mut types, delete).await?
        }
        ParsedStatement::Show(show) => Some(shown(show)?),
        ParsedStatement::Assert(assert) => {
            describing.query(&mut types, assert.query).await?;
            None
        }
        _ => None,
    };
    Ok(Described { parameters: types.known, columns, rows, kind })
}

/// Returns the column of a SHOW.
fn shown(show: Show) -> Result<Shape> {
    Shape::of(&Schema::new(vec![field_of(show.column(), &ColumnType::Text)]))
}

/// The types of the parameters as far as they are known.
#[derive(Debug)]
struct Types {
    known: Vec<Option<ColumnType>>,
}

impl Types {
    fn declared(params: &Params) -> Self {
        let known = match params {
            Params::Typed(declared) => declared.iter().map(|(_, kind)| kind.clone()).collect(),
            _ => Vec::new(),
        };
        Self { known }
    }

    /// Takes note of a parameter, and of its type where nothing is known of it.
    fn note(&mut self, name: &str, kind: Option<ColumnType>) -> Result<()> {
        let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
        let Some(at) = number.and_then(|number| number.checked_sub(1)) else {
            let message = format!("parameter {name} is not of the form $1");
            return Err(Error::new(SqlState::UndefinedParameter, message));
        };
        if at >= PARAMETERS_MAX {
            let message = format!("there can be {PARAMETERS_MAX} parameters at most");
            return Err(Error::new(SqlState::LimitExceeded, message));
        }
        if at >= self.known.len() {
            self.known.resize(at + 1, None);
        }
        if self.known[at].is_none() {
            self.known[at] = kind;
        }
        Ok(())
    }

    /// Notes every parameter of a tree: with its type where it is cast to one at its place.
    fn note_all(&mut self, tree: &impl Visit) -> Result<()> {
        let outcome = visit_expressions(tree, |expr| {
            let noted = match expr {
                Expr::Cast { expr, data_type, .. } => match placeholder(expr) {
                    Some(name) => self.note(name, kind_of_sql(data_type)),
                    None => Ok(()),
                },
                expr => placeholder(expr).map_or(Ok(()), |name| self.note(name, None)),
            };
            match noted {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        outcome.break_value().map_or(Ok(()), Err)
    }

    /// Notes the parameters of an instant.
    fn note_instant(&mut self, bound: &BoundExpr) -> Result<()> {
        match instant_of(&bound.expr) {
            Some(name) => self.note(name, Some(ColumnType::Timestamp)),
            None => self.note_all(&bound.expr),
        }
    }

    /// Notes the parameters of a write's window.
    fn note_portion(&mut self, portion: &Portion) -> Result<()> {
        if let Portion::Between { from, to } = portion {
            self.note_instant(from)?;
            to.as_ref().map_or(Ok(()), |to| self.note_instant(to))?;
        }
        Ok(())
    }

    /// Puts NULLs of their types in the place of parameters whose type is known, and of all
    /// parameters where `all` is given.
    fn fill(&self, tree: &mut impl VisitMut, all: bool) {
        let _ = visit_expressions_mut(tree, |expr| {
            if let Some(kind) = placeholder(expr).and_then(|name| self.kind_of(name, all)) {
                *expr = expr_of(&Value::Null, &kind);
            }
            ControlFlow::<()>::Continue(())
        });
    }

    fn kind_of(&self, name: &str, all: bool) -> Option<ColumnType> {
        let at = name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?;
        let known = self.known.get(at).cloned().flatten();
        known.or_else(|| all.then_some(ColumnType::Text))
    }

    /// True where all parameters of a tree have a type.
    fn cover(&self, tree: &impl Visit) -> bool {
        visit_expressions(tree, |expr| match placeholder(expr) {
            Some(name) if self.kind_of(name, false).is_none() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_continue()
    }

    /// Takes over the types that planning found.
    fn take(&mut self, plan: &LogicalPlan) -> Result<()> {
        let mut found: BTreeMap<String, ColumnType> = BTreeMap::new();
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if let PlanExpr::Placeholder(placeholder) = part
                        && let Some(kind) = placeholder.field.as_ref().and_then(|f| field_type(f))
                    {
                        found.entry(placeholder.id.clone()).or_insert(kind);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        for (name, kind) in found {
            self.note(&name, Some(kind))?;
        }
        Ok(())
    }
}

/// What statements are described with.
struct Describing<'a> {
    inner: &'a Inner,
    request: &'a Request,
}

/// A query planned with typed NULLs for its parameters.
struct PlannedQuery {
    planned: Planned,
    positions: crate::dialect::Positions,
}

impl PlannedQuery {
    /// Returns the columns, with the types that running it gives.
    fn shape(self) -> Result<Shape> {
        let Planned { state, plan } = self.planned;
        let analysed = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {});
        Shape::of(analysed.diagnosed(&self.positions)?.schema().as_arrow())
    }
}

impl Describing<'_> {
    async fn query(&self, types: &mut Types, mut query: ParsedQuery) -> Result<PlannedQuery> {
        name_parameters(&mut query.query);
        note_clauses(types, &mut query)?;
        note_limit(types, &query.query)?;
        types.note_all(&query.query)?;
        self.lists(types, &query).await?;
        types.fill(&mut query.query, false);
        if !types.cover(&query.query) {
            // What planning cannot make sense of without a type is text in the second round.
            if let Ok((planned, _)) = self.inner.plan(self.request, &query).await {
                types.take(&planned.plan)?;
            }
            types.fill(&mut query.query, true);
        }
        let (planned, _) = self.inner.plan(self.request, &query).await?;
        Ok(PlannedQuery { planned, positions: query.clauses.positions().clone() })
    }

    /// Finds the types of lists in `x = ANY($1)` and `x <> ALL($1)`: of what stands before them.
    async fn lists(&self, types: &mut Types, query: &ParsedQuery) -> Result<()> {
        let mut query = query.clone();
        let mut names = Vec::new();
        let _ = visit_expressions_mut(&mut query.query, |expr| {
            let (Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. }) = expr else {
                return ControlFlow::Continue(());
            };
            if let Some(name) = placeholder(right)
                && types.kind_of(name, false).is_none()
            {
                names.push(name.to_owned());
                let (item, list) = (left.clone(), vec![right.as_ref().clone()]);
                *expr = Expr::InList { expr: item, list, negated: false };
            }
            ControlFlow::<()>::Continue(())
        });
        if names.is_empty() {
            return Ok(());
        }
        types.fill(&mut query.query, false);
        let mut items = Types { known: Vec::new() };
        if let Ok((planned, _)) = self.inner.plan(self.request, &query).await {
            items.take(&planned.plan)?;
        }
        for name in names {
            let item = items.kind_of(&name, true).unwrap_or(ColumnType::Text);
            types.note(&name, Some(ColumnType::List(Box::new(item))))?;
        }
        Ok(())
    }

    async fn insert(&self, types: &mut Types, mut insert: Insert) -> Result<Option<Shape>> {
        let definitions = self.definitions().await?;
        let table = definitions.table(&insert.table.name).map(|table| TableDef::clone(table));
        let names = match (insert.columns.is_empty(), &table) {
            (true, Some(table)) => table.star().into_iter().map(|c| c.name.clone()).collect(),
            _ => insert.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>(),
        };
        let kinds: Vec<_> = names.iter().map(|name| kind_in(table.as_ref(), name)).collect();
        types.note_portion(&insert.portion)?;
        note_source(types, &insert.source.query.body, &kinds)?;
        types.note_all(&insert.source.query)?;
        note_clauses(types, &mut insert.source)?;
        if !types.cover(&insert.source.query) && !is_plain(&insert.source.query.body) {
            self.query(types, insert.source.clone()).await?;
        }
        let Some(items) = &mut insert.returning else { return Ok(None) };
        types.note_all(items)?;
        types.fill(items, true);
        let table = table.unwrap_or_else(|| new_table(&insert.table.name));
        let table = with_columns(table, &insert.columns, &insert, types);
        self.returning(&insert.returning, &table, &insert).await
    }

    async fn update(&self, types: &mut Types, mut update: Update) -> Result<Option<Shape>> {
        let definitions = self.definitions().await?;
        let table = self.table(&definitions, &update.table)?;
        types.note_portion(&update.portion)?;
        for (name, value) in &update.assignments {
            if let Some(parameter) = placeholder(value) {
                types.note(parameter, kind_in(Some(&table), &name.name))?;
            }
        }
        let mut items = vec![one()];
        // A bare parameter tells planning nothing, and would be counted as unknown by it.
        let computed = update.assignments.iter().filter(|(_, value)| placeholder(value).is_none());
        items.extend(computed.map(|(_, value)| SelectItem::UnnamedExpr(value.clone())));
        let window = window(&update.portion, update.table.position);
        self.query(types, update.reading(items, window)).await?;
        let Some(returning) = &mut update.returning else { return Ok(None) };
        types.note_all(returning)?;
        types.fill(returning, true);
        let table = TableDef::clone(&table);
        self.returning(&update.returning, &table, &update).await
    }

    async fn delete(&self, types: &mut Types, mut delete: Delete) -> Result<Option<Shape>> {
        let definitions = self.definitions().await?;
        let table = self.table(&definitions, &delete.table)?;
        types.note_portion(&delete.portion)?;
        let window = window(&delete.portion, delete.table.position);
        self.query(types, delete.reading(vec![one()], window)).await?;
        let Some(returning) = &mut delete.returning else { return Ok(None) };
        types.note_all(returning)?;
        types.fill(returning, true);
        let table = TableDef::clone(&table);
        self.returning(&delete.returning, &table, &delete).await
    }

    async fn returning(
        &self,
        items: &Option<Vec<SelectItem>>,
        table: &TableDef,
        statement: &impl Writes,
    ) -> Result<Option<Shape>> {
        let Some(returning) = Returning::new(items, table, statement) else { return Ok(None) };
        let basis = self.inner.basis_of(self.request).await?;
        let ctx = self.inner.context(basis, &self.request.tenant);
        returning.shape(&ctx).await.map(Some)
    }

    /// Returns the definitions in force.
    async fn definitions(&self) -> Result<std::sync::Arc<Definitions>> {
        let basis = self.inner.basis_of(self.request).await?;
        Ok(self.request.seen(&self.inner.store.definitions_at(basis.tx)))
    }

    fn table(
        &self,
        definitions: &Definitions,
        name: &TableName,
    ) -> Result<std::sync::Arc<TableDef>> {
        let table = definitions.table(&name.name).cloned();
        table.ok_or_else(|| Error::unknown_table(&name.name).at(name.position))
    }
}

/// Notes the parameters of a query's temporal clauses. A clause of constants with parameters is
/// read as another that has none: which instants it names makes no difference to any type.
fn note_clauses(types: &mut Types, query: &mut ParsedQuery) -> Result<()> {
    if let Some(now) = query.clauses.settings.clock_time.take() {
        types.note_instant(&now)?;
    }
    for clause in query.clauses.all_mut() {
        let bounds: Vec<&BoundExpr> = clause.kind.bounds().collect();
        let mut variable = false;
        for bound in &bounds {
            types.note_instant(bound)?;
            variable |= has_placeholder(&bound.expr);
        }
        if !variable {
            continue;
        }
        let correlated = bounds.iter().any(|bound| first_column(&bound.expr).is_some());
        match &mut clause.kind {
            ClauseKind::AsOf(at) if correlated => types.fill(&mut at.expr, true),
            ClauseKind::AsOf(at) => at.expr = call("now", Vec::new()),
            kind => *kind = ClauseKind::All,
        }
    }
    Ok(())
}

/// Notes the parameters of LIMIT and OFFSET.
fn note_limit(types: &mut Types, query: &Query) -> Result<()> {
    let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause else {
        return Ok(());
    };
    for expr in limit.iter().chain(offset.as_ref().map(|offset| &offset.value)) {
        if let Some(name) = placeholder(expr) {
            types.note(name, Some(ColumnType::Int64))?;
        }
    }
    Ok(())
}

/// Notes parameters that stand alone for a column of an INSERT.
fn note_source(types: &mut Types, body: &SetExpr, kinds: &[Option<ColumnType>]) -> Result<()> {
    match body {
        SetExpr::Values(values) => {
            for row in &values.rows {
                for (expr, kind) in row.content.iter().zip(kinds) {
                    if let Some(name) = placeholder(expr) {
                        types.note(name, kind.clone())?;
                    }
                }
            }
        }
        SetExpr::Select(select) => {
            for (item, kind) in select.projection.iter().zip(kinds) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && let Some(name) = placeholder(expr)
                {
                    types.note(name, kind.clone())?;
                }
            }
        }
        SetExpr::Query(query) => note_source(types, &query.body, kinds)?,
        _ => {}
    }
    Ok(())
}

/// True for VALUES of nothing but parameters and literals: planning would tell nothing more.
fn is_plain(body: &SetExpr) -> bool {
    match body {
        SetExpr::Values(values) => values
            .rows
            .iter()
            .flat_map(|row| &row.content)
            .all(|expr| matches!(expr, Expr::Value(_))),
        _ => false,
    }
}

/// Returns the type that a column takes; an undeclared table's columns take any, but for its key.
fn kind_in(table: Option<&TableDef>, name: &str) -> Option<ColumnType> {
    if matches!(name, "_valid_from" | "_valid_to") {
        return Some(ColumnType::Timestamp);
    }
    let table = table?;
    let column = table.column(name)?;
    (table.declared || table.is_key(column.id)).then(|| column.kind.clone())
}

/// A table as its first write makes it.
fn new_table(name: &str) -> TableDef {
    let key =
        ColumnDef { id: ColumnId(0), name: "_id".into(), kind: ColumnType::Text, nullable: false };
    TableDef {
        id: TableId(0),
        name: name.to_owned(),
        precedence: Precedence::Recorded,
        key: vec![key.id],
        columns: vec![key],
        declared: false,
    }
}

/// Adds the columns that an INSERT is about to add, with the types of their parameters.
fn with_columns(
    mut table: TableDef,
    names: &[ColumnName],
    insert: &Insert,
    types: &Types,
) -> TableDef {
    for (at, name) in names.iter().enumerate() {
        if table.column(&name.name).is_some() || name.name.starts_with("_valid_") {
            continue;
        }
        let first = match insert.source.query.body.as_ref() {
            SetExpr::Values(values) => values.rows.first().and_then(|row| row.content.get(at)),
            _ => None,
        };
        let kind = match first {
            Some(Expr::Value(ValueWithSpan { value: Literal::Number(digits, _), .. })) => {
                digits.parse::<i64>().map_or(ColumnType::Float64, |_| ColumnType::Int64)
            }
            Some(Expr::Value(ValueWithSpan { value: Literal::Boolean(_), .. })) => ColumnType::Bool,
            Some(expr) => placeholder(expr)
                .and_then(|name| types.kind_of(name, false))
                .unwrap_or(ColumnType::Text),
            None => ColumnType::Text,
        };
        let id = table.columns.iter().map(|column| column.id.0 + 1).max().unwrap_or_default();
        let (id, name) = (ColumnId(id), name.name.clone());
        table.columns.push(ColumnDef { id, name, kind, nullable: true });
    }
    table
}

/// Returns the window that a write is described over: bounds make no difference to any type.
fn window(portion: &Portion, position: usize) -> ClauseKind {
    match portion {
        Portion::Default => {
            ClauseKind::FromTo(BoundExpr { expr: call("now", Vec::new()), position }, None)
        }
        Portion::All | Portion::Between { .. } => ClauseKind::All,
    }
}

fn one() -> SelectItem {
    SelectItem::ExprWithAlias {
        expr: Expr::value(Literal::Number("1".to_owned(), false)),
        alias: Ident::with_quote('"', "one"),
    }
}

fn placeholder(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Literal::Placeholder(name), .. }) => Some(name),
        Expr::Nested(inner) => placeholder(inner),
        _ => None,
    }
}

/// Returns the parameter that an instant rests on: itself, or with an interval added or taken off.
fn instant_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::BinaryOp { left, right, .. } if !has_placeholder(right) => instant_of(left),
        expr => placeholder(expr),
    }
}

fn has_placeholder(tree: &impl Visit) -> bool {
    visit_expressions(tree, |expr| match placeholder(expr) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Returns the type that a cast names, for the names that clients use.
fn kind_of_sql(sql: &SqlType) -> Option<ColumnType> {
    Some(match sql {
        SqlType::Boolean | SqlType::Bool => ColumnType::Bool,
        SqlType::SmallInt(_)
        | SqlType::Int2(_)
        | SqlType::Int(_)
        | SqlType::Int4(_)
        | SqlType::Integer(_)
        | SqlType::Int8(_)
        | SqlType::BigInt(_) => ColumnType::Int64,
        SqlType::Real
        | SqlType::Float4
        | SqlType::Float8
        | SqlType::Float(_)
        | SqlType::Double(_)
        | SqlType::DoublePrecision => ColumnType::Float64,
        SqlType::Decimal(_) | SqlType::Numeric(_) => ColumnType::Decimal,
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::CharacterVarying(_)
        | SqlType::Char(_)
        | SqlType::Character(_) => ColumnType::Text,
        SqlType::Uuid => ColumnType::Uuid,
        SqlType::Bytea => ColumnType::Bytes,
        SqlType::Date => ColumnType::Date,
        SqlType::Time(..) => ColumnType::Time,
        SqlType::Timestamp(..) | SqlType::Datetime(_) => ColumnType::Timestamp,
        SqlType::JSON | SqlType::JSONB => ColumnType::Json,
        _ => return None,
    })
}
