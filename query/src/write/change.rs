//! UPDATE and DELETE: the rows that a query finds, to patches and deletes over their periods.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArgumentList, FunctionArguments, Ident, ObjectName, SelectItem,
};
use everwhen_storage::{
    AssertedFrom, Assertion, ColumnDef, ColumnType, Op, Period, Row, RowKey, TableDef, ValidTime,
    Value, Write, WriteKind,
};

use super::draft::{Draft, column_or_new, value_for};
use super::returning::{Affected, Returning};
use super::{Writing, rows_of};
use crate::answer::Shape;
use crate::columns::{cast_column, value_at};
use crate::constants::Constants;
use crate::dialect::{BoundExpr, ClauseKind, Delete, Insert, ParsedQuery, Portion, Update};
use crate::error::{Error, Result, SqlState};
use crate::session::StatementContext;

/// Returns the window that a PATCH states, if it does.
///
/// # Errors
/// 22023 for an empty one, 22008 and 42804 for what are no instants.
pub fn insert_window(ctx: &StatementContext, insert: &Insert) -> Result<Option<Period<ValidTime>>> {
    match &insert.portion {
        Portion::Default => Ok(None),
        portion => window(ctx, portion).map(Some),
    }
}

fn window(ctx: &StatementContext, portion: &Portion) -> Result<Period<ValidTime>> {
    let (from, to) = match portion {
        Portion::Default => return Ok(Period::new(ctx.basis.now, ValidTime::END)?),
        Portion::All => return Ok(Period::ALL),
        Portion::Between { from, to } => (from, to),
    };
    let constants = Constants::at(ctx);
    let start = constants.instant(from)?.unwrap_or(ValidTime::BEGIN);
    let end = match to {
        None => ValidTime::END,
        Some(to) => constants.instant(to)?.unwrap_or(ValidTime::END),
    };
    Period::nonempty(start, end).ok_or_else(|| {
        let message = format!("the portion is empty: {start} is not before {end}");
        Error::new(SqlState::InvalidParameter, message).at(from.position)
    })
}

/// Returns the clause under which the table is read: the same window.
fn clause(portion: &Portion, position: usize) -> ClauseKind {
    match portion {
        Portion::All => ClauseKind::All,
        Portion::Between { from, to } => ClauseKind::FromTo(from.clone(), to.clone()),
        Portion::Default => ClauseKind::FromTo(BoundExpr { expr: now_call(), position }, None),
    }
}

/// Returns the expression `now()`.
pub fn now_call() -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("now")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: Vec::new(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Adds the patches of an UPDATE.
pub async fn update(
    writing: &Writing<'_>,
    ctx: &StatementContext,
    draft: &mut Draft,
    update: &Update,
) -> Result<Option<Returning>> {
    let mut table = TableDef::clone(draft.table(&update.table)?.as_ref());
    let window = window(ctx, &update.portion)?;
    check_assigned(&table, update)?;
    let target = update.alias.as_ref().unwrap_or(&update.table.ident);
    let mut items = Found::items(&table, target, update.returning.is_some());
    let first = items.len();
    for (at, (_, value)) in update.assignments.iter().enumerate() {
        items.push(aliased(value.clone(), &format!("set {at}")));
    }
    let query = update.reading(items, clause(&update.portion, update.table.position));
    let found = Found::read(writing, ctx, draft, &query).await?;
    let mut columns: Vec<Option<ColumnDef>> = Vec::new();
    for (at, (name, _)) in update.assignments.iter().enumerate() {
        let kind = found.kind_in(first + at);
        let unused = draft.definitions.next_column(table.id);
        columns.push(column_or_new(&mut table, name, kind.as_ref(), unused)?.cloned());
    }
    draft.keep_table(&table);
    let mut returning = Returning::new(&update.returning, &table, update);
    let mut rows = found.rows(&table)?;
    while let Some(row) = rows.next_row()? {
        let Some(period) = row.period.intersect(&window) else { continue };
        let mut fields = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let Some(column) = column else { continue };
            let (value, kind) = found.value(row.place, first + at)?;
            let position = update.assignments[at].0.position;
            fields.push((column.id, value_for(column, value, Some(kind), position)?));
        }
        if let Some(returning) = &mut returning {
            returning.push(found.affected(&table, &row, period, &fields)?);
        }
        let op = Op::Patch { set_nulls: true };
        draft.push(table.precedence, write(draft, &table, &row.key, op, period, Row::new(fields))?);
    }
    Ok(returning)
}

fn check_assigned(table: &TableDef, update: &Update) -> Result<()> {
    for (name, _) in &update.assignments {
        if name.name == "_valid_from" || name.name == "_valid_to" {
            let message = format!("UPDATE does not set \"{}\"", name.name);
            return Err(Error::new(SqlState::InvalidColumnReference, message)
                .at(name.position)
                .with_hint("name the period with FOR PORTION OF VALID_TIME FROM .. TO .."));
        }
        if table.column(&name.name).is_some_and(|column| table.is_key(column.id)) {
            let message = format!("UPDATE does not set \"{}\" of the key", name.name);
            return Err(Error::unsupported(message)
                .at(name.position)
                .with_hint("delete the row and insert it under its new key"));
        }
    }
    Ok(())
}

/// Adds the deletes of a DELETE.
pub async fn delete(
    writing: &Writing<'_>,
    ctx: &StatementContext,
    draft: &mut Draft,
    delete: &Delete,
) -> Result<Option<Returning>> {
    let table = draft.table(&delete.table)?;
    let window = window(ctx, &delete.portion)?;
    let target = delete.alias.as_ref().unwrap_or(&delete.table.ident);
    let items = Found::items(&table, target, delete.returning.is_some());
    let query = delete.reading(items, clause(&delete.portion, delete.table.position));
    let found = Found::read(writing, ctx, draft, &query).await?;
    let mut returning = Returning::new(&delete.returning, &table, delete);
    let mut rows = found.rows(&table)?;
    while let Some(row) = rows.next_row()? {
        let Some(period) = row.period.intersect(&window) else { continue };
        if let Some(returning) = &mut returning {
            returning.push(found.affected(&table, &row, period, &[])?);
        }
        draft.push(
            table.precedence,
            write(draft, &table, &row.key, Op::Delete, period, Row::default())?,
        );
    }
    Ok(returning)
}

fn write(
    draft: &Draft,
    table: &TableDef,
    key: &[Value],
    op: Op,
    period: Period<ValidTime>,
    fields: Row,
) -> Result<Write> {
    let from = AssertedFrom::At(period.from());
    let assertion = Assertion { op, from, to: period.to(), order: 0, fields, exact: true };
    let kind = WriteKind::Assert { key: RowKey::encode(key)?, assertion, event: None };
    Ok(Write { tenant: draft.tenant.clone(), table: table.id, kind })
}

fn aliased(expr: Expr, alias: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) }
}

/// The rows that an UPDATE or DELETE found: the key's columns, the period, then the others.
struct Found {
    shape: Shape,
    batches: Vec<RecordBatch>,
}

/// One row that was found.
struct FoundRow {
    key: Vec<Value>,
    period: Period<ValidTime>,
    place: (usize, usize),
}

impl Found {
    /// Returns what to select of the table that is written.
    fn items(table: &TableDef, target: &Ident, whole: bool) -> Vec<SelectItem> {
        let of = |column: &str| {
            Expr::CompoundIdentifier(vec![target.clone(), Ident::with_quote('"', column)])
        };
        let names = |column: &ColumnDef| column.name.clone();
        let key = table.key.iter().filter_map(|id| table.column_by_id(*id)).map(names);
        let mut columns: Vec<String> = key.collect();
        columns.extend(["_valid_from".to_owned(), "_valid_to".to_owned()]);
        if whole {
            let rest = table.columns.iter().filter(|column| !table.is_key(column.id));
            columns.extend(rest.map(names));
        }
        let items = columns.iter().enumerate();
        items.map(|(at, name)| aliased(of(name), &format!("found {at}"))).collect()
    }

    async fn read(
        writing: &Writing<'_>,
        ctx: &StatementContext,
        draft: &Draft,
        query: &ParsedQuery,
    ) -> Result<Self> {
        let reading = writing.reading(ctx, &draft.definitions);
        let (shape, batches) = rows_of(&reading, draft, query).await?;
        Ok(Self { shape, batches })
    }

    /// Returns the type of a column, where it has any value.
    fn kind_in(&self, column: usize) -> Option<ColumnType> {
        let any = self.batches.iter().any(|batch| {
            let array = batch.column(column);
            array.null_count() < array.len()
        });
        any.then(|| self.shape.columns[column].1.clone())
    }

    fn value(&self, (batch, row): (usize, usize), column: usize) -> Result<(Value, &ColumnType)> {
        let kind = &self.shape.columns[column].1;
        let array = self.batches[batch].column(column);
        let value = match kind {
            ColumnType::Decimal => value_at(&cast_column(&array.slice(row, 1), kind)?, 0, kind)?,
            _ => value_at(array, row, kind)?,
        };
        Ok((value, kind))
    }

    fn rows<'a>(&'a self, table: &'a TableDef) -> Result<FoundRows<'a>> {
        Ok(FoundRows { found: self, width: table.key.len(), at: (0, 0), seen: HashSet::new() })
    }

    /// Returns a row as RETURNING shows it: what was found, with what was set.
    fn affected(
        &self,
        table: &TableDef,
        row: &FoundRow,
        period: Period<ValidTime>,
        set: &[(everwhen_storage::ColumnId, Value)],
    ) -> Result<Affected> {
        let mut fields = Vec::new();
        let stored = table.columns.iter().filter(|column| !table.is_key(column.id));
        let first = table.key.len() + 2;
        let selected = self.shape.columns.iter().filter(|(name, _)| name.starts_with("found"));
        let last = selected.count();
        for (column, at) in stored.zip(first..last) {
            fields.push((column.id, self.value(row.place, at)?.0));
        }
        fields.extend(set.iter().cloned());
        Ok(Affected { key: row.key.clone(), fields, from: period.from(), to: period.to() })
    }
}

struct FoundRows<'a> {
    found: &'a Found,
    width: usize,
    at: (usize, usize),
    seen: HashSet<(RowKey, Period<ValidTime>)>,
}

impl FoundRows<'_> {
    /// Returns the next version; one that a join found several times, once.
    fn next_row(&mut self) -> Result<Option<FoundRow>> {
        while let Some(batch) = self.found.batches.get(self.at.0) {
            if self.at.1 >= batch.num_rows() {
                self.at = (self.at.0 + 1, 0);
                continue;
            }
            let place = self.at;
            self.at.1 += 1;
            let key: Result<Vec<_>> =
                (0..self.width).map(|at| self.found.value(place, at).map(|(v, _)| v)).collect();
            let key = key?;
            let bound = |at, open| match self.found.value(place, at)? {
                (Value::Timestamp(micros), _) => Ok(ValidTime::from_micros(micros)),
                _ => Ok::<_, Error>(open),
            };
            let from = bound(self.width, ValidTime::BEGIN)?;
            let period = Period::new(from, bound(self.width + 1, ValidTime::END)?)?;
            if self.seen.insert((RowKey::encode(&key)?, period)) {
                return Ok(Some(FoundRow { key, period, place }));
            }
        }
        Ok(None)
    }
}
