//! One table reference of a statement: which versions it reads and which columns it shows.
//!
//! A [`TemporalTable`] is bound to no basis and no tenant: those come from the
//! [`StatementContext`] in the session that runs the plan, so one plan can run at many.
//! Read next: [`crate::scan_exec`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use everwhen_storage::{
    ColumnId, KeyRange, Keys, Period, SystemBound, SystemTime, TableDef, TxId, ValidBound,
    ValidTime,
};

use crate::bounds;
use crate::columns::{field_of, period_field, timestamp_type};
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

    /// Returns what valid bounds are shown within.
    pub const fn cut(&self) -> Period<ValidTime> {
        self.cut
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

    /// True where a projection shows a bound of valid time.
    pub fn shows_valid_time(&self, projection: Option<&[usize]>) -> bool {
        let mut shown = self.projected(projection);
        shown.any(|column| {
            matches!(
                column,
                TableColumn::ValidFrom
                    | TableColumn::ValidTo
                    | TableColumn::RawFrom
                    | TableColumn::RawTo
                    | TableColumn::ValidPeriod
            )
        })
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

    /// Returns what a projection shows, in its order.
    pub fn projected<'a>(
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

    /// Returns about how many keys there are at the transaction that is read at: the same whenever the
    /// same is asked again, as plans follow it and rows come in the order of plans.
    fn size(&self, ctx: &StatementContext) -> Result<Option<u64>> {
        let (tx, _) = self.system_bound(ctx)?;
        Ok(ctx.store.keys_at(self.def.id, &ctx.tenant, tx)?)
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
        let alone = ctx.as_ref().filter(|ctx| ctx.pending().keys(self.def.id).is_none());
        let lookup = match (&alone, &keys) {
            (None, _) | (_, Keys::Among(_)) => None,
            (Some(ctx), _) => Lookup::choose(&ctx.store.definitions(), &self.def, filters),
        };
        let size = ctx.as_ref().map(|ctx| self.size(ctx)).transpose()?.flatten();
        let (table, projection) = (Arc::new(self.clone()), projection.cloned());
        let scan = ScanExec::new(table, projection, keys, limit, alone.is_some())?;
        Ok(Arc::new(scan.with_lookup(lookup).with_size(size)))
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
