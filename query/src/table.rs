//! One table reference of a statement: which versions it reads and which columns it shows.
//!
//! A [`TemporalTable`] is bound to no basis and no tenant: those come from the
//! [`StatementContext`] in the session that runs the plan, so one plan can run at many.
//! Read next: [`crate::scan_exec`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use everwhen_storage::{
    ColumnId, ColumnType, KeyRange, Keys, Period, SystemBound, SystemTime, TableDef, TxId,
    ValidBound, ValidTime, Value, Version, View,
};

use crate::bounds;
use crate::columns::{ColumnBuilder, field_of, period_field, timestamp_type};
use crate::error::{Error, Result};
use crate::indexes::Lookup;
use crate::scan_exec::ScanExec;
use crate::session::StatementContext;

/// Which valid times a table reference reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidClause {
    /// As of the basis' now.
    Now,
    AsOf(ValidTime),
    /// Versions whose valid period overlaps, shown whole. All of valid time also stands for an
    /// as-of join, whose containment is a predicate over the raw bounds.
    Overlapping(Period<ValidTime>),
}

/// Which system times a table reference reads; never past the basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemClause {
    /// As believed at the basis.
    Basis,
    /// As believed at an instant.
    AsOf(SystemTime),
    /// Everything believed at some point in `[from, to)`.
    Between(SystemTime, SystemTime),
    /// Everything believed up to the basis that the table still keeps.
    All,
}

/// What a column of a table reference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableColumn {
    /// A column of the table, under its own name.
    Stored(ColumnId),
    /// `_valid_from`, NULL at an open start.
    ValidFrom,
    /// `_valid_to`, NULL at an open end.
    ValidTo,
    /// `_system_from`.
    SystemFrom,
    /// `_system_to`, NULL where still believed.
    SystemTo,
    /// `_tx`, the transaction that made the state.
    Tx,
    /// `_tenant`.
    Tenant,
    /// `__valid_from`: the least timestamp at an open start; never NULL.
    RawFrom,
    /// `__valid_to`: the greatest timestamp at an open end; never NULL.
    RawTo,
    /// `__system_from`.
    RawSystemFrom,
    /// `__system_to`: the greatest timestamp where still believed; never NULL.
    RawSystemTo,
    /// `_valid_time`, the period.
    ValidPeriod,
    /// `_system_time`, the period.
    SystemPeriod,
}

impl TableColumn {
    /// Returns the column's field; nothing for a stored column that the table does not have.
    fn field(self, def: &TableDef) -> Option<Field> {
        let instant = |name: &str, nullable| Field::new(name, timestamp_type(), nullable);
        Some(match self {
            Self::Stored(id) => {
                let column = def.column_by_id(id)?;
                field_of(&column.name, &column.kind).with_nullable(!def.is_key(id))
            }
            Self::ValidFrom => instant("_valid_from", true),
            Self::ValidTo => instant("_valid_to", true),
            Self::SystemFrom => instant("_system_from", false),
            Self::SystemTo => instant("_system_to", true),
            Self::Tx => Field::new("_tx", DataType::Int64, false),
            Self::Tenant => Field::new("_tenant", DataType::Utf8, false),
            Self::RawFrom => instant("__valid_from", false),
            Self::RawTo => instant("__valid_to", false),
            Self::RawSystemFrom => instant("__system_from", false),
            Self::RawSystemTo => instant("__system_to", false),
            Self::ValidPeriod => period_field("_valid_time").with_nullable(false),
            Self::SystemPeriod => period_field("_system_time").with_nullable(false),
        })
    }
}

/// One table reference of a statement, as DataFusion's table.
#[derive(Debug, Clone)]
pub struct TemporalTable {
    pub def: Arc<TableDef>,
    pub valid: ValidClause,
    pub system: SystemClause,
    /// What is shown, in the order of the schema.
    pub columns: Vec<TableColumn>,
    /// What valid bounds are shown within.
    cut: Period<ValidTime>,
    schema: SchemaRef,
}

impl TemporalTable {
    /// Builds a reference.
    ///
    /// # Errors
    /// XX000 where a column is none of the table's.
    pub fn new(
        def: Arc<TableDef>,
        valid: ValidClause,
        system: SystemClause,
        columns: Vec<TableColumn>,
    ) -> Result<Self> {
        let fields = columns.iter().map(|column| {
            column.field(&def).ok_or_else(|| {
                Error::internal(format!("table \"{}\" has no column {column:?}", def.name))
            })
        });
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        Ok(Self { def, valid, system, columns, cut: Period::ALL, schema })
    }

    /// Cuts the valid bounds that rows show to a window, where one is given.
    #[must_use]
    pub fn cut_to(self, window: Option<Period<ValidTime>>) -> Self {
        Self { cut: window.unwrap_or(self.cut), ..self }
    }

    /// Returns the schema of all columns.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the stored columns that a projection needs decoded, without the key's.
    pub fn stored_columns(&self, projection: Option<&[usize]>) -> Vec<ColumnId> {
        let mut ids: Vec<_> = self
            .projected(projection)
            .filter_map(|column| match column {
                TableColumn::Stored(id) if !self.def.is_key(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Returns the schema of a projection.
    pub fn projected_schema(&self, projection: Option<&[usize]>) -> Result<SchemaRef> {
        Ok(match projection {
            None => Arc::clone(&self.schema),
            Some(places) => Arc::new(self.schema.project(places)?),
        })
    }

    /// Returns the order that stored rows come in, as far as a projection shows it: by the columns of
    /// the key, then by the start of the valid period.
    pub fn key_order(&self, projection: Option<&[usize]>) -> Vec<PhysicalSortExpr> {
        let shown: Vec<TableColumn> = self.projected(projection).collect();
        let sorted = |column: TableColumn| {
            let at = shown.iter().position(|other| *other == column)?;
            let field = column.field(&self.def)?;
            Some(PhysicalSortExpr::new_default(Arc::new(Column::new(field.name(), at))))
        };
        let key = self.def.key.iter().map(|id| sorted(TableColumn::Stored(*id)));
        // The periods of one belief follow each other; those of several do not.
        let starts = match self.system {
            SystemClause::Basis | SystemClause::AsOf(_) if self.cut == Period::ALL => {
                sorted(TableColumn::RawFrom)
            }
            _ => None,
        };
        key.chain([starts]).map_while(|column| column).collect()
    }

    fn projected<'a>(
        &'a self,
        projection: Option<&'a [usize]>,
    ) -> Box<dyn Iterator<Item = TableColumn> + 'a> {
        match projection {
            None => Box::new(self.columns.iter().copied()),
            Some(places) => Box::new(places.iter().map(|at| self.columns[*at])),
        }
    }

    /// Returns the valid bound at a basis.
    pub fn valid_bound(&self, now: ValidTime) -> ValidBound {
        match self.valid {
            ValidClause::Now => ValidBound::AsOf(now),
            ValidClause::AsOf(at) => ValidBound::AsOf(at),
            ValidClause::Overlapping(period) => ValidBound::Overlapping(period),
        }
    }

    /// Returns the transaction to read at and the system bound, at a basis.
    pub fn system_bound(&self, ctx: &StatementContext) -> Result<(TxId, SystemBound)> {
        let last = ctx.basis.tx;
        let tx_at = |at: SystemTime| Ok::<_, Error>(ctx.store.tx_at(at)?.min(last));
        Ok(match self.system {
            SystemClause::Basis => (last, SystemBound::Latest),
            SystemClause::AsOf(at) => (tx_at(at)?, SystemBound::Latest),
            SystemClause::Between(from, to) => {
                let upper = tx_at(to.saturating_add(-1))?;
                (upper, SystemBound::Between(tx_at(from)?, upper))
            }
            SystemClause::All => (last, SystemBound::Kept),
        })
    }
}

#[async_trait]
impl TableProvider for TemporalTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let keys = match bounds::keys_of(&self.def, filters) {
            Some(keys) => Keys::Among(keys),
            None => Some(bounds::range_of(&self.def, filters))
                .filter(|range| *range != KeyRange::ALL)
                .map_or(Keys::All, Keys::Within),
        };
        // What earlier statements of a transaction wrote comes after what is stored.
        let ctx = state.config().get_extension::<StatementContext>();
        let alone = ctx.filter(|ctx| ctx.pending().keys(self.def.id).is_none());
        let lookup = match (&alone, &keys) {
            (None, _) | (_, Keys::Among(_)) => None,
            (Some(ctx), _) => Lookup::choose(&ctx.store.definitions(), &self.def, filters),
        };
        let (table, projection) = (Arc::new(self.clone()), projection.cloned());
        let scan = ScanExec::new(table, projection, keys, limit, alone.is_some())?;
        Ok(Arc::new(scan.with_lookup(lookup)))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // A key filter narrows what is read; it is checked again above, as types may differ.
        let push = |filter: &&Expr| match bounds::narrows(&self.def, filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(push).collect())
    }
}

/// Builds the batch of versions as a table reference shows them.
pub fn versions_to_batch(
    view: &View<'_>,
    table: &TemporalTable,
    projection: Option<&[usize]>,
    versions: &[Version],
) -> Result<RecordBatch> {
    versions_at(view, table, projection, versions, HashMap::new())
}

/// As [`versions_to_batch`], with system times that are known before the commit.
pub(crate) fn versions_at(
    view: &View<'_>,
    table: &TemporalTable,
    projection: Option<&[usize]>,
    versions: &[Version],
    known: HashMap<TxId, i64>,
) -> Result<RecordBatch> {
    let keys = decode_keys(table, projection, versions)?;
    let mut times = SystemTimes { view, known };
    let mut arrays = Vec::new();
    for column in table.projected(projection) {
        arrays.push(column_of(table, column, versions, &keys, &mut times)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(versions.len()));
    let schema = table.projected_schema(projection)?;
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}

/// Decodes the keys of versions where a column of the key is shown; equal ones in a row once.
fn decode_keys(
    table: &TemporalTable,
    projection: Option<&[usize]>,
    versions: &[Version],
) -> Result<Vec<Arc<Vec<Value>>>> {
    let shown = |column| matches!(column, TableColumn::Stored(id) if table.def.is_key(id));
    if !table.projected(projection).any(shown) {
        return Ok(Vec::new());
    }
    let kinds: Vec<&ColumnType> = table
        .def
        .key
        .iter()
        .filter_map(|id| table.def.column_by_id(*id).map(|column| &column.kind))
        .collect();
    let mut keys: Vec<Arc<Vec<Value>>> = Vec::with_capacity(versions.len());
    for (at, version) in versions.iter().enumerate() {
        let key = match (at.checked_sub(1).map(|before| &versions[before]), keys.last()) {
            (Some(before), Some(key)) if before.key == version.key => Arc::clone(key),
            _ => Arc::new(version.key.decode(&kinds)?),
        };
        keys.push(key);
    }
    Ok(keys)
}

fn column_of(
    table: &TemporalTable,
    column: TableColumn,
    versions: &[Version],
    keys: &[Arc<Vec<Value>>],
    times: &mut SystemTimes<'_, '_>,
) -> Result<ArrayRef> {
    let valid_from = |version: &Version| version.valid.from().max(table.cut.from()).micros();
    let valid_to = |version: &Version| version.valid.to().min(table.cut.to()).micros();
    let shown = |raw: i64| (raw != i64::MIN && raw != i64::MAX).then_some(raw);
    Ok(match column {
        TableColumn::Stored(id) => stored_column(table, id, versions, keys)?,
        TableColumn::ValidFrom => instants(versions.iter().map(|v| shown(valid_from(v)))),
        TableColumn::ValidTo => instants(versions.iter().map(|v| shown(valid_to(v)))),
        TableColumn::RawFrom => instants(versions.iter().map(|v| Some(valid_from(v)))),
        TableColumn::RawTo => instants(versions.iter().map(|v| Some(valid_to(v)))),
        TableColumn::ValidPeriod => period(
            instants(versions.iter().map(|v| shown(valid_from(v)))),
            instants(versions.iter().map(|v| shown(valid_to(v)))),
        )?,
        TableColumn::SystemFrom | TableColumn::RawSystemFrom => times.from(versions)?,
        TableColumn::SystemTo => times.to(versions, None)?,
        TableColumn::RawSystemTo => times.to(versions, Some(i64::MAX))?,
        TableColumn::SystemPeriod => period(times.from(versions)?, times.to(versions, None)?)?,
        TableColumn::Tx => {
            let mut ids = Int64Builder::with_capacity(versions.len());
            for version in versions {
                ids.append_value(i64::try_from(version.tx_from.get()).unwrap_or(i64::MAX));
            }
            Arc::new(ids.finish())
        }
        TableColumn::Tenant => {
            let mut names = StringBuilder::with_capacity(versions.len(), versions.len() * 8);
            versions.iter().for_each(|version| names.append_value(version.tenant.as_str()));
            Arc::new(names.finish())
        }
    })
}

fn stored_column(
    table: &TemporalTable,
    id: ColumnId,
    versions: &[Version],
    keys: &[Arc<Vec<Value>>],
) -> Result<ArrayRef> {
    let Some(column) = table.def.column_by_id(id) else {
        return Err(Error::internal(format!("table \"{}\" lost a column", table.def.name)));
    };
    let mut builder = ColumnBuilder::new(&column.kind, versions.len());
    match table.def.key.iter().position(|key| *key == id) {
        Some(place) => keys.iter().for_each(|key| builder.append(&key[place])),
        None => {
            for version in versions {
                builder.append(version.row.get(id).unwrap_or(&Value::Null));
            }
        }
    }
    Ok(builder.finish())
}

fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let mut column =
        TimestampMicrosecondBuilder::with_capacity(values.size_hint().0).with_timezone("UTC");
    values.for_each(|value| column.append_option(value));
    Arc::new(column.finish())
}

fn period(from: ArrayRef, to: ArrayRef) -> Result<ArrayRef> {
    let fields = Fields::from(vec![
        Field::new("from", timestamp_type(), true),
        Field::new("to", timestamp_type(), true),
    ]);
    Ok(Arc::new(StructArray::try_new(fields, vec![from, to], None::<NullBuffer>)?))
}

/// System times by transaction, read once each.
struct SystemTimes<'a, 'db> {
    view: &'a View<'db>,
    known: HashMap<TxId, i64>,
}

impl SystemTimes<'_, '_> {
    fn of(&mut self, tx: TxId) -> Result<i64> {
        if let Some(micros) = self.known.get(&tx) {
            return Ok(*micros);
        }
        let micros = self.view.system_time(tx)?.micros();
        self.known.insert(tx, micros);
        Ok(micros)
    }

    fn from(&mut self, versions: &[Version]) -> Result<ArrayRef> {
        let times: Result<Vec<_>> = versions.iter().map(|v| self.of(v.tx_from).map(Some)).collect();
        Ok(instants(times?.into_iter()))
    }

    fn to(&mut self, versions: &[Version], open: Option<i64>) -> Result<ArrayRef> {
        let times: Result<Vec<_>> =
            versions.iter().map(|v| v.tx_to.map_or(Ok(open), |tx| self.of(tx).map(Some))).collect();
        Ok(instants(times?.into_iter()))
    }
}
