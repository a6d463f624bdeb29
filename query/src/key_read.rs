//! Rows of one key straight from the store: `SELECT columns FROM t [FOR ..] WHERE key = value`. It is what
//! statements ask most, and planning it takes many times as long as reading it.
//!
//! A statement of any other form is planned; both ways answer the same, which tests compare.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, ObjectName, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value as Literal, ValueWithSpan, WildcardAdditionalOptions,
};
use everwhen_storage::{ColumnType, Keys, RowKey, Value};
use futures::{StreamExt as _, stream};

use crate::answer::{RowsAnswer, Shape};
use crate::columns::text::parse_value;
use crate::constants::Constants;
use crate::diagnose::Diagnose;
use crate::dialect::{ParseLimits, ParsedQuery, Positions, equalities, normal, parse_query};
use crate::error::Result;
use crate::read::{Reading, temporal_table};
use crate::rewrite::{BoundSpec, Rewritten};
use crate::scan_exec::ScanExec;
use crate::session::StatementContext;
use crate::table::{SystemClause, TemporalTable, ValidClause};
use crate::write::literal;

/// The shape of a select with nothing but a list, a table and a condition.
static PLAIN: LazyLock<Option<(Query, Select)>> = LazyLock::new(|| {
    let parsed = parse_query("SELECT 1 FROM t WHERE true", &ParseLimits::default()).ok()?;
    let SetExpr::Select(select) = parsed.query.body.as_ref() else { return None };
    Some((Query::clone(&parsed.query), emptied(select)))
});

/// A read of one key.
pub(crate) struct KeyRead {
    scan: ScanExec,
    /// It has one row at most: the key is read at one instant of both times.
    is_one: bool,
    /// The answer's columns, under the names that the statement gives them.
    schema: SchemaRef,
    positions: Positions,
}

impl KeyRead {
    /// Starts the read; one row is read here and now, which costs less than another thread's attention.
    ///
    /// # Errors
    /// 0A000 for a column of a type that has no form outside, and whatever reading one row reports.
    pub(crate) fn start(self, ctx: StatementContext, basis: String) -> Result<RowsAnswer> {
        let Self { scan, is_one, schema, positions } = self;
        let shape = Shape::of(&schema)?;
        let Shape { schema, columns } = shape.clone();
        if is_one {
            let mut batches = Vec::new();
            scan.run(&ctx, &mut |batch| {
                batches.push(shape.cast(&batch));
                true
            })?;
            let stream = stream::iter(batches).boxed();
            return Ok(RowsAnswer { schema, columns, stream, basis });
        }
        let rows = scan.rows(Arc::new(ctx), 0);
        let stream = rows
            .map(move |batch| batch.diagnosed(&positions).and_then(|batch| shape.cast(&batch)))
            .boxed();
        Ok(RowsAnswer { schema, columns, stream, basis })
    }
}

impl Reading<'_> {
    /// Returns a query that [`may_read_one_key`] as such a read, where it is one.
    ///
    /// # Errors
    /// Whatever is wrong with its tables and their clauses, as planning it would tell.
    pub(crate) fn key_read(&self, parsed: &ParsedQuery) -> Result<Option<KeyRead>> {
        let Rewritten { query, mut tables, system_tables } = self.rewrite(parsed)?;
        let (Some(reference), true, true) =
            (tables.pop(), tables.is_empty(), system_tables.is_empty())
        else {
            return Ok(None);
        };
        let is_correlated = |bound: &BoundSpec| matches!(bound, BoundSpec::Correlated);
        let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
        let (Some((alias, condition)), false, true) = (
            parts(select),
            is_correlated(&reference.valid) || is_correlated(&reference.system),
            is_plain(&query, select),
        ) else {
            return Ok(None);
        };
        let table = temporal_table(&Constants::at(self.ctx), reference, self.defaults)?;
        let asked = || -> Option<_> {
            let key = key_of(&table, &alias, condition)?;
            let (places, names) = shown(&table, &alias, &select.projection)?;
            Some((key, places, names, limit_of(&query)?))
        };
        let Some((key, places, names, limit)) = asked() else { return Ok(None) };
        let fields = places
            .iter()
            .zip(names)
            .map(|(place, name)| Field::clone(table.arrow_schema().field(*place)).with_name(name));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let is_one = matches!(table.valid, ValidClause::Now | ValidClause::AsOf(_))
            && matches!(table.system, SystemClause::Basis | SystemClause::AsOf(_));
        let keys = Keys::Among(vec![key]);
        let scan = ScanExec::new(Arc::new(table), Some(places), keys, limit, true)?;
        let positions = parsed.clauses.positions().clone();
        Ok(Some(KeyRead { scan, is_one, schema, positions }))
    }
}

/// True for a query that might be a read of one key, told from its tree alone.
pub(crate) fn may_read_one_key(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let is_named = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }
        SelectItem::Wildcard(options) => *options == WildcardAdditionalOptions::default(),
        _ => false,
    };
    query.with.is_none()
        && query.order_by.is_none()
        && matches!(select.from.as_slice(), [one] if one.joins.is_empty())
        && select.selection.as_ref().is_some_and(is_conjunction)
        && select.projection.iter().all(is_named)
}

/// True for equalities, and nothing else, that are all to hold.
fn is_conjunction(condition: &Expr) -> bool {
    match condition {
        Expr::Nested(inner) => is_conjunction(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            is_conjunction(left) && is_conjunction(right)
        }
        Expr::BinaryOp { op: BinaryOperator::Eq, .. } => true,
        _ => false,
    }
}

/// True where a query has nothing beside its list, table, condition and limit.
fn is_plain(query: &Query, select: &Select) -> bool {
    let Some((plain, plain_select)) = &*PLAIN else { return false };
    let around = Query { body: plain.body.clone(), limit_clause: None, ..query.clone() };
    around == *plain && emptied(select) == *plain_select
}

fn emptied(select: &Select) -> Select {
    Select { projection: Vec::new(), from: Vec::new(), selection: None, ..select.clone() }
}

/// Returns the name that the one table has in the query, and the condition.
fn parts(select: &Select) -> Option<(String, &Expr)> {
    let [TableWithJoins { relation, joins }] = select.from.as_slice() else { return None };
    let TableFactor::Table { name: ObjectName(_), alias: Some(alias), args: None, .. } = relation
    else {
        return None;
    };
    let TableAlias { name, columns, .. } = alias;
    (joins.is_empty() && columns.is_empty()).then_some((normal(name), select.selection.as_ref()?))
}

/// Returns the place and the name of a column that an expression is.
fn column_of(table: &TemporalTable, alias: &str, expr: &Expr) -> Option<(usize, String)> {
    let name = match expr {
        Expr::Identifier(ident) => normal(ident),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [of, ident] if normal(of) == alias => normal(ident),
            _ => return None,
        },
        _ => return None,
    };
    Some((table.arrow_schema().index_of(&name).ok()?, name))
}

/// Returns the key that a condition names, where it says nothing else.
fn key_of(table: &TemporalTable, alias: &str, condition: &Expr) -> Option<RowKey> {
    let def = &table.def;
    let mut values: Vec<Option<Value>> = vec![None; def.key.len()];
    for (left, right) in equalities(condition) {
        let (column, value) = match column_of(table, alias, left) {
            Some(column) => (column, right),
            None => (column_of(table, alias, right)?, left),
        };
        let place = def
            .key
            .iter()
            .position(|id| def.column_by_id(*id).is_some_and(|key| key.name == column.1))?;
        let kind = &def.column_by_id(def.key[place])?.kind;
        let value = match (literal(value, None).ok()??, kind) {
            (Value::Text(text), ColumnType::Uuid) => parse_value(&text, kind).ok()?,
            (Value::Null, _) => return None,
            (value, kind) if kind.admits(&value) => value,
            _ => return None,
        };
        if values[place].replace(value).is_some() {
            return None;
        }
    }
    let values = values.into_iter().collect::<Option<Vec<_>>>()?;
    RowKey::encode(&values).ok()
}

/// Returns the places and names of the columns of a select list; nothing where a column stands twice.
fn shown(
    table: &TemporalTable,
    alias: &str,
    items: &[SelectItem],
) -> Option<(Vec<usize>, Vec<String>)> {
    let mut columns: Vec<(usize, String)> = Vec::with_capacity(items.len());
    for item in items {
        match item {
            SelectItem::Wildcard(_) => {
                let fields = table.arrow_schema().fields();
                columns.extend(fields.iter().map(|field| field.name().clone()).enumerate());
            }
            SelectItem::UnnamedExpr(expr) => columns.push(column_of(table, alias, expr)?),
            SelectItem::ExprWithAlias { expr, alias: name } => {
                columns.push((column_of(table, alias, expr)?.0, normal(name)));
            }
            _ => return None,
        }
    }
    let mut once = HashSet::new();
    let is_twice = columns.iter().any(|(place, _)| !once.insert(*place));
    (!is_twice).then(|| columns.into_iter().unzip())
}

/// Returns the limit, if there is one; nothing at all where there is more than a plain number.
#[expect(clippy::option_option, reason = "no limit is one answer, no plain limit another")]
fn limit_of(query: &Query) -> Option<Option<usize>> {
    match &query.limit_clause {
        None => Some(None),
        Some(LimitClause::LimitOffset {
            limit: Some(Expr::Value(ValueWithSpan { value: Literal::Number(digits, _), .. })),
            offset: None,
            limit_by,
        }) if limit_by.is_empty() => digits.parse().ok().map(Some),
        Some(_) => None,
    }
}
