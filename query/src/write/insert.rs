//! INSERT and PATCH: rows to put or patch assertions.

use everwhen_storage::{
    AssertedFrom, Assertion, ColumnDef, ColumnId, ColumnType, Definitions, Op, Period, Row, RowKey,
    TableDef, ValidTime, Value, Write, WriteKind,
};

use super::draft::{Draft, ID, column_or_new, not_null, value_for};
use super::literals;
use super::returning::{Affected, Returning};
use super::rows_of;
use super::values::{assign, kind_of, wider};
use crate::columns::{value_at, widen};
use crate::dialect::{ColumnName, Insert, InsertVerb, Portion};
use crate::error::{Error, Result, SqlState};
use crate::read::Reading;

/// The rows that a statement gives, by column.
pub struct Source {
    pub names: Vec<ColumnName>,
    /// Where a query tells them.
    pub kinds: Option<Vec<ColumnType>>,
    pub rows: Vec<Vec<Value>>,
}

/// True where the window of valid time does not need to be computed.
pub const fn is_blind(insert: &Insert) -> bool {
    matches!(insert.portion, Portion::Default)
}

/// Returns the rows of an INSERT of literals; nothing where they must be computed.
///
/// # Errors
/// 42601 where the columns are not known, 22P02 or 22008 for a literal that is none.
pub fn literal_source(insert: &Insert, definitions: &Definitions) -> Result<Option<Source>> {
    let table = definitions.table(&insert.table.name);
    let names = match (insert.columns.is_empty(), table) {
        (false, _) => insert.columns.clone(),
        (true, Some(table)) => star_names(table, insert.table.position),
        (true, None) => Vec::new(),
    };
    let kinds: Vec<_> = names
        .iter()
        .map(|name| table.and_then(|table| table.column(&name.name)).map(|c| c.kind.clone()))
        .collect();
    let Some(rows) = literals::rows(&insert.source.query, &kinds)? else { return Ok(None) };
    let width = rows.first().map_or(0, Vec::len);
    let names = names_of(insert, names, width)?;
    Ok(Some(Source { names, kinds: None, rows }))
}

/// Runs the query of an INSERT.
///
/// # Errors
/// Whatever the query reports.
pub async fn computed_source(
    reading: &Reading<'_>,
    draft: &Draft,
    insert: &Insert,
) -> Result<Source> {
    let mut query = insert.source.clone();
    literals::typed(&mut query.query, &kinds_of(insert, &draft.definitions));
    let (shape, batches) = rows_of(reading, draft, &query).await?;
    let width = shape.columns.len();
    let known = match (insert.columns.is_empty(), draft.definitions.table(&insert.table.name)) {
        (false, _) => insert.columns.clone(),
        (true, Some(table)) => star_names(table, insert.table.position),
        (true, None) => {
            let named = |(name, _): &(String, ColumnType)| ColumnName {
                name: name.clone(),
                position: insert.table.position,
            };
            shape.columns.iter().map(named).collect()
        }
    };
    let names = names_of(insert, known, width)?;
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let columns = batch.columns().iter().zip(&shape.columns);
            let values = columns.map(|(array, (_, kind))| decimal_or(array, row, kind));
            rows.push(values.collect::<Result<Vec<_>>>()?);
        }
    }
    let kinds = shape.columns.into_iter().map(|(_, kind)| kind).collect();
    Ok(Source { names, kinds: Some(kinds), rows })
}

/// Returns the types of the columns that a statement names, where they are known.
fn kinds_of(insert: &Insert, definitions: &Definitions) -> Vec<Option<ColumnType>> {
    let table = definitions.table(&insert.table.name);
    let kind = |name: &ColumnName| match name.name.as_str() {
        "_valid_from" | "_valid_to" => Some(ColumnType::Timestamp),
        name => table.and_then(|table| table.column(name)).map(|column| column.kind.clone()),
    };
    insert.columns.iter().map(kind).collect()
}

/// A computed decimal has its own scale; stored ones have nine digits.
fn decimal_or(array: &arrow::array::ArrayRef, row: usize, kind: &ColumnType) -> Result<Value> {
    if *kind == ColumnType::Decimal {
        let one = crate::columns::cast_column(&array.slice(row, 1), kind)?;
        return value_at(&one, 0, kind);
    }
    value_at(array, row, kind)
}

fn star_names(table: &TableDef, position: usize) -> Vec<ColumnName> {
    table
        .star()
        .into_iter()
        .map(|column| ColumnName { name: column.name.clone(), position })
        .collect()
}

fn names_of(insert: &Insert, mut names: Vec<ColumnName>, width: usize) -> Result<Vec<ColumnName>> {
    let position = insert.table.position;
    if names.is_empty() && width > 0 {
        let message = format!(
            "table \"{}\" does not exist yet: name the columns to insert into",
            insert.table.name
        );
        return Err(Error::syntax(message).at(position));
    }
    if width > names.len() || (!insert.columns.is_empty() && width < names.len() && width > 0) {
        let message = format!("{} columns are named and {width} values given", names.len());
        return Err(Error::syntax(message).at(position));
    }
    if width > 0 {
        names.truncate(width);
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].iter().any(|earlier| earlier.name == name.name) {
            let message = format!("column \"{}\" is named twice", name.name);
            return Err(Error::new(SqlState::DuplicateColumn, message).at(name.position));
        }
    }
    Ok(names)
}

/// Where a value of a row goes.
enum Target {
    ValidFrom,
    ValidTo,
    /// The place in the key.
    Key(usize, ColumnDef),
    Field(ColumnDef),
    /// A column of nothing but NULLs that the table does not have.
    Nowhere,
}

/// Adds the assertions of an INSERT's rows.
///
/// # Errors
/// 42703, 42804, 23502 and 22023 for rows that the table does not take.
pub fn draft_rows(
    draft: &mut Draft,
    insert: &Insert,
    source: Source,
    portion: Option<Period<ValidTime>>,
) -> Result<Option<Returning>> {
    let kinds: Vec<Option<ColumnType>> =
        (0..source.names.len()).map(|at| kind_in(&source, at)).collect();
    let id_kind = source
        .names
        .iter()
        .position(|name| name.name == ID)
        .and_then(|at| kinds[at].clone())
        .unwrap_or(ColumnType::Text);
    let mut table = draft.table_or_new(&insert.table, &id_kind)?;
    let unused = draft.definitions.next_column(table.id);
    let targets = targets(&mut table, &source, &kinds, unused)?;
    check_key(&table, &targets, insert)?;
    if insert.verb == InsertVerb::Put {
        check_not_null(&table, &targets, insert)?;
    }
    let op = match insert.verb {
        InsertVerb::Put => Op::Put,
        InsertVerb::Patch { set_nulls } => Op::Patch { set_nulls },
    };
    let mut returning = Returning::new(&insert.returning, &table, insert);
    draft.keep_table(&table);
    for values in source.rows {
        let row =
            RowTaker { table: &table, targets: &targets, names: &source.names, kinds: &kinds };
        let taken = row.take(values)?;
        let (from, to) = period(draft, &taken, portion, insert)?;
        if let Some(returning) = &mut returning {
            returning.push(Affected {
                key: taken.key.clone(),
                fields: taken.fields.clone(),
                from: match from {
                    AssertedFrom::At(at) => at,
                    AssertedFrom::SystemTime => draft.now,
                },
                to,
            });
        }
        let fields = Row::new(taken.fields);
        let assertion = Assertion { op, from, to, order: 0, fields, exact: false };
        let key = RowKey::encode(&taken.key)?;
        let kind = WriteKind::Assert { key, assertion, event: None };
        draft.push(table.precedence, Write { tenant: draft.tenant.clone(), table: table.id, kind });
    }
    Ok(returning)
}

/// Returns the type of a column's values together.
fn kind_in(source: &Source, at: usize) -> Option<ColumnType> {
    let values = source.rows.iter().filter_map(|row| row.get(at));
    match &source.kinds {
        Some(kinds) => {
            let any = values.into_iter().any(|value| !value.is_null());
            any.then(|| kinds.get(at).cloned()).flatten()
        }
        None => values.filter_map(kind_of).reduce(|a, b| wider(&a, &b)),
    }
}

fn targets(
    table: &mut TableDef,
    source: &Source,
    kinds: &[Option<ColumnType>],
    unused: ColumnId,
) -> Result<Vec<Target>> {
    let mut targets = Vec::with_capacity(source.names.len());
    for (at, name) in source.names.iter().enumerate() {
        let target = match name.name.as_str() {
            "_valid_from" => Target::ValidFrom,
            "_valid_to" => Target::ValidTo,
            _ => {
                let kind = kind_for(table, source, at, kinds[at].as_ref());
                match column_or_new(table, name, kind.as_ref(), unused)?.cloned() {
                    None => Target::Nowhere,
                    Some(column) => match table.key.iter().position(|id| *id == column.id) {
                        Some(place) => Target::Key(place, column),
                        None => Target::Field(column),
                    },
                }
            }
        };
        targets.push(target);
    }
    Ok(targets)
}

/// Text that reads as what the column holds already does not widen it.
fn kind_for(
    table: &TableDef,
    source: &Source,
    at: usize,
    kind: Option<&ColumnType>,
) -> Option<ColumnType> {
    let kind = kind?;
    let Some(column) = table.column(&source.names[at].name) else { return Some(kind.clone()) };
    let reads = |row: &Vec<Value>| {
        row.get(at).is_none_or(|value| assign(value.clone(), None, &column.kind).is_ok())
    };
    match kind == &ColumnType::Text && source.rows.iter().all(reads) {
        true => Some(column.kind.clone()),
        false => Some(kind.clone()),
    }
}

fn check_key(table: &TableDef, targets: &[Target], insert: &Insert) -> Result<()> {
    for (place, id) in table.key.iter().enumerate() {
        let given =
            targets.iter().any(|target| matches!(target, Target::Key(at, _) if *at == place));
        if !given {
            let name = table.column_by_id(*id).map_or(ID, |column| column.name.as_str());
            return Err(not_null(name).at(insert.table.position));
        }
    }
    Ok(())
}

fn check_not_null(table: &TableDef, targets: &[Target], insert: &Insert) -> Result<()> {
    let given = |column: &ColumnDef| {
        targets.iter().any(|target| matches!(target, Target::Field(of) if of.id == column.id))
    };
    let missing = table
        .columns
        .iter()
        .find(|column| !column.nullable && !table.is_key(column.id) && !given(column));
    missing.map_or(Ok(()), |column| Err(not_null(&column.name).at(insert.table.position)))
}

/// One row as the table takes it.
struct Taken {
    key: Vec<Value>,
    fields: Vec<(everwhen_storage::ColumnId, Value)>,
    valid_from: Option<ValidTime>,
    valid_to: Option<ValidTime>,
}

struct RowTaker<'a> {
    table: &'a TableDef,
    targets: &'a [Target],
    names: &'a [ColumnName],
    kinds: &'a [Option<ColumnType>],
}

impl RowTaker<'_> {
    fn take(&self, values: Vec<Value>) -> Result<Taken> {
        let mut taken = Taken {
            key: vec![Value::Null; self.table.key.len()],
            fields: Vec::with_capacity(values.len()),
            valid_from: None,
            valid_to: None,
        };
        for (at, value) in values.into_iter().enumerate() {
            let position = self.names[at].position;
            let kind = self.kinds[at].as_ref();
            match &self.targets[at] {
                Target::ValidFrom => taken.valid_from = instant(value, &self.names[at])?,
                Target::ValidTo => taken.valid_to = instant(value, &self.names[at])?,
                Target::Nowhere => {}
                Target::Key(place, column) => {
                    taken.key[*place] = value_for(column, value, kind, position)?;
                }
                Target::Field(column) => {
                    let value = match self.table.declared {
                        true => value_for(column, value, kind, position)?,
                        false => loose(column, value, kind),
                    };
                    taken.fields.push((column.id, value));
                }
            }
        }
        Ok(taken)
    }
}

/// Reads a value as an undeclared table's column does, which was widened to hold it.
fn loose(column: &ColumnDef, value: Value, from: Option<&ColumnType>) -> Value {
    let widened = widen(&value, &column.kind);
    assign(value, from, &column.kind).unwrap_or(widened)
}

fn instant(value: Value, name: &ColumnName) -> Result<Option<ValidTime>> {
    let value = assign(value, None, &ColumnType::Timestamp).map_err(|error| {
        Error::new(error.state(), format!("column \"{}\": {error}", name.name)).at(name.position)
    })?;
    Ok(match value {
        Value::Timestamp(micros) => Some(ValidTime::from_micros(micros)),
        _ => None,
    })
}

/// Returns the period of a row: its own, the statement's, or from now on.
fn period(
    draft: &mut Draft,
    taken: &Taken,
    portion: Option<Period<ValidTime>>,
    insert: &Insert,
) -> Result<(AssertedFrom, ValidTime)> {
    let position = insert.table.position;
    if let Some(portion) = portion {
        if taken.valid_from.is_some() || taken.valid_to.is_some() {
            let message = "the period is given twice: by FOR PORTION OF and by columns";
            return Err(Error::new(SqlState::InvalidParameter, message).at(position));
        }
        return Ok((AssertedFrom::At(portion.from()), portion.to()));
    }
    let to = taken.valid_to.unwrap_or(ValidTime::END);
    let from = match taken.valid_from {
        Some(from) => from,
        None => {
            draft.needs_turn |= to != ValidTime::END;
            draft.now
        }
    };
    if from >= to {
        let message = format!("valid_from {from} is not before valid_to {to}");
        return Err(Error::new(SqlState::InvalidParameter, message).at(position));
    }
    Ok((taken.valid_from.map_or(AssertedFrom::SystemTime, AssertedFrom::At), to))
}
