//! Rows that come as Arrow batches: puts, as an INSERT of them would be.

use arrow::array::{Array as _, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use datafusion::sql::sqlparser::ast::{Ident, SetExpr};
use everwhen_storage::{Batch, Definitions, Tx};

use super::Writing;
use super::draft::Draft;
use super::insert::{Source, draft_rows};
use crate::columns::{cast_column, field_type, value_at};
use crate::dialect::{
    Clauses, ColumnName, Insert, InsertVerb, ParsedQuery, Portion, Positions, Settings, TableName,
    empty_select, query_of,
};
use crate::engine::WriteAnswer;
use crate::error::{Error, Result, SqlState};

impl Writing<'_> {
    /// Puts the rows of batches of one schema into a table, as one transaction.
    ///
    /// # Errors
    /// Whatever an INSERT of these rows would be refused with; nothing is written then.
    pub async fn append(&self, table: &str, batches: &[RecordBatch]) -> Result<WriteAnswer> {
        let definitions = self.store.definitions();
        let blind = Draft::new(&definitions, self.tenant, self.store.latest().now);
        if let Some((batch, rows)) = drafted(blind, &definitions, table, batches)? {
            match self.store.write(batch).await {
                // The table changed under it: what is right is decided in the writer's turn.
                Err(everwhen_storage::Error::Refused { .. }) => {}
                committed => return self.answer(&committed?, None, vec![rows]),
            }
        }
        let turn = self.store.turn().await?;
        let definitions = turn.definitions();
        let mut draft = Draft::new(&definitions, self.tenant, turn.basis().now);
        put_all(&mut draft, table, batches)?;
        let rows = draft.rows_since(0);
        self.answer(&turn.commit(batch_of(draft)).await?, None, vec![rows])
    }
}

/// Returns the batch to write where it depends on nothing that may change.
fn drafted(
    mut draft: Draft,
    definitions: &Definitions,
    table: &str,
    batches: &[RecordBatch],
) -> Result<Option<(Batch, u64)>> {
    if definitions.table(table).is_none() {
        return Ok(None);
    }
    put_all(&mut draft, table, batches)?;
    let is_blind = draft.changes.is_empty() && !draft.needs_turn;
    let rows = draft.rows_since(0);
    Ok(is_blind.then(|| (batch_of(draft), rows)))
}

fn batch_of(draft: Draft) -> Batch {
    Batch {
        definitions: draft.changes,
        txs: vec![Tx { writes: draft.writes, position: None }],
        ..Batch::default()
    }
}

fn put_all(draft: &mut Draft, table: &str, batches: &[RecordBatch]) -> Result<()> {
    for batch in batches {
        let source = source_of(batch)?;
        let insert = insert_into(table, source.names.clone());
        draft_rows(draft, &insert, source, None)?;
    }
    Ok(())
}

/// Returns the INSERT that the rows stand for; its own source is empty.
fn insert_into(table: &str, columns: Vec<ColumnName>) -> Insert {
    let query = Box::new(query_of(SetExpr::Select(Box::new(empty_select()))));
    let (list, settings) = (Vec::new(), Settings::default());
    let clauses = Clauses { list, positions: Positions::new(""), settings };
    let ident = Ident::with_quote('"', table);
    Insert {
        verb: InsertVerb::Put,
        table: TableName { name: table.to_owned(), position: 1, ident },
        columns,
        source: ParsedQuery { query, clauses },
        portion: Portion::Default,
        returning: None,
    }
}

fn source_of(batch: &RecordBatch) -> Result<Source> {
    let schema = batch.schema();
    let mut names: Vec<ColumnName> = Vec::with_capacity(batch.num_columns());
    let mut kinds = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let name = field.name();
        if names.iter().any(|earlier| earlier.name == *name) {
            let message = format!("column \"{name}\" is named twice");
            return Err(Error::new(SqlState::DuplicateColumn, message));
        }
        let Some(kind) = field_type(field) else {
            let message = format!("column \"{name}\" is of type {}", field.data_type());
            return Err(Error::unsupported(message).with_hint("cast it to another type"));
        };
        refuse_nanoseconds(name, array)?;
        let named = |error: Error| Error::new(error.state(), format!("column \"{name}\": {error}"));
        columns.push(cast_column(array, &kind).map_err(named)?);
        names.push(ColumnName { name: name.clone(), position: 1 });
        kinds.push(kind);
    }
    let row = |row| columns.iter().zip(&kinds).map(move |(array, kind)| value_at(array, row, kind));
    let rows = (0..batch.num_rows()).map(|at| row(at).collect()).collect::<Result<_>>()?;
    Ok(Source { names, kinds: Some(kinds), rows })
}

/// Times have microseconds: what is finer would be lost in silence.
fn refuse_nanoseconds(name: &str, array: &ArrayRef) -> Result<()> {
    let DataType::Timestamp(TimeUnit::Nanosecond, _) = array.data_type() else { return Ok(()) };
    let times = array.as_primitive::<TimestampNanosecondType>();
    let is_finer = |row| !times.is_null(row) && times.value(row) % 1_000 != 0;
    if (0..times.len()).any(is_finer) {
        let message = format!("column \"{name}\" has an instant finer than a microsecond");
        return Err(Error::new(SqlState::DatetimeOverflow, message));
    }
    Ok(())
}
