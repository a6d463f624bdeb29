//! Versions as the columns of a table reference, built while they are read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, StructArray,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Fields, SchemaRef};
use everwhen_storage::{
    ColumnId, ColumnType, Period, RowKey, Tenant, TxId, ValidTime, Value, Version, VersionRef, View,
};

use crate::columns::{ColumnBuilder, timestamp_type};
use crate::error::{Error, Result};
use crate::table::{TableColumn, TemporalTable};

/// Builds the batch of versions as a table reference shows them.
///
/// # Errors
/// XX001 where a key is damaged.
pub fn versions_to_batch(
    view: &View<'_>,
    table: &TemporalTable,
    projection: Option<&[usize]>,
    versions: &[Version],
) -> Result<RecordBatch> {
    let mut columns = VersionColumns::new(table, projection, versions.len())?;
    for version in versions {
        columns.push_owned(version)?;
    }
    columns.finish(view, HashMap::new())
}

/// The columns of a table reference, row by row.
pub struct VersionColumns<'t> {
    table: &'t TemporalTable,
    schema: SchemaRef,
    shown: Vec<TableColumn>,
    /// Stored columns that are shown, without the key's, in order.
    stored: Vec<ColumnId>,
    /// What was read of each of them.
    values: Vec<ColumnBuilder>,
    key: Option<KeyColumns<'t>>,
    /// Names, where they are shown.
    tenants: Option<StringBuilder>,
    valid: Vec<Period<ValidTime>>,
    tx_from: Vec<TxId>,
    tx_to: Vec<Option<TxId>>,
}

/// The key's columns that are shown.
struct KeyColumns<'t> {
    kinds: Vec<&'t ColumnType>,
    /// By place in the key.
    columns: Vec<(usize, ColumnId, ColumnBuilder)>,
    /// The last key, and what it decodes to: versions of one key follow each other.
    bytes: Vec<u8>,
    values: Vec<Value>,
}

impl KeyColumns<'_> {
    fn push(&mut self, key: &[u8]) -> Result<()> {
        if self.values.is_empty() || self.bytes != key {
            RowKey::decode_into(&mut self.values, key, &self.kinds)?;
            self.bytes.clear();
            self.bytes.extend_from_slice(key);
        }
        for (place, _, column) in &mut self.columns {
            column.append(&self.values[*place]);
        }
        Ok(())
    }
}

impl<'t> VersionColumns<'t> {
    /// Starts a batch with room for `capacity` versions.
    ///
    /// # Errors
    /// XX000 where a column is none of the table's.
    pub fn new(
        table: &'t TemporalTable,
        projection: Option<&[usize]>,
        capacity: usize,
    ) -> Result<Self> {
        let def = &table.def;
        let shown: Vec<TableColumn> = table.projected(projection).collect();
        let builder = |id: ColumnId| match def.column_by_id(id) {
            Some(column) => Ok(ColumnBuilder::new(&column.kind, capacity)),
            None => Err(Error::internal(format!("table \"{}\" lost a column", def.name))),
        };
        let stored = table.stored_columns(projection);
        let values = stored.iter().map(|id| builder(*id)).collect::<Result<_>>()?;
        let of_key = def.key.iter().enumerate();
        let of_key = of_key.filter(|(_, id)| shown.contains(&TableColumn::Stored(**id)));
        let columns: Vec<_> =
            of_key.map(|(place, id)| Ok((place, *id, builder(*id)?))).collect::<Result<_>>()?;
        let key = (!columns.is_empty()).then(|| KeyColumns {
            kinds: def
                .key
                .iter()
                .filter_map(|id| def.column_by_id(*id).map(|column| &column.kind))
                .collect(),
            columns,
            bytes: Vec::new(),
            values: Vec::new(),
        });
        let tenants = shown.contains(&TableColumn::Tenant);
        Ok(Self {
            table,
            schema: table.projected_schema(projection)?,
            shown,
            stored,
            values,
            key,
            tenants: tenants.then(|| StringBuilder::with_capacity(capacity, capacity * 8)),
            valid: Vec::with_capacity(capacity),
            tx_from: Vec::with_capacity(capacity),
            tx_to: Vec::with_capacity(capacity),
        })
    }

    /// Returns how many versions there are.
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.valid.is_empty()
    }

    /// Adds a version where it lies.
    ///
    /// # Errors
    /// XX001 where it is damaged.
    pub fn push(&mut self, version: &VersionRef<'_>) -> Result<()> {
        let Self { stored, values, .. } = self;
        version.each(stored, |place, value| values[place].append_ref(value))?;
        self.push_times(version.tenant, version.valid, version.tx_from, version.tx_to);
        self.key.as_mut().map_or(Ok(()), |key| key.push(version.key_bytes()))
    }

    /// Adds a version.
    ///
    /// # Errors
    /// XX001 where its key is damaged.
    pub fn push_owned(&mut self, version: &Version) -> Result<()> {
        for (id, column) in self.stored.iter().zip(&mut self.values) {
            column.append(version.row.get(*id).unwrap_or(&Value::Null));
        }
        self.push_times(&version.tenant, version.valid, version.tx_from, version.tx_to);
        self.key.as_mut().map_or(Ok(()), |key| key.push(version.key.as_bytes()))
    }

    fn push_times(
        &mut self,
        tenant: &Tenant,
        valid: Period<ValidTime>,
        tx_from: TxId,
        tx_to: Option<TxId>,
    ) {
        if let Some(tenants) = &mut self.tenants {
            tenants.append_value(tenant.as_str());
        }
        self.valid.push(valid);
        self.tx_from.push(tx_from);
        self.tx_to.push(tx_to);
    }

    /// Ends the batch. `known` has system times from before the commit.
    ///
    /// # Errors
    /// Those of reading system times.
    pub fn finish(self, view: &View<'_>, known: HashMap<TxId, i64>) -> Result<RecordBatch> {
        let rows = self.len();
        let mut times = Times {
            cut: self.table.cut(),
            valid: self.valid,
            tx_from: self.tx_from,
            tx_to: self.tx_to,
            system: SystemTimes { view, known },
        };
        let of_key = self.key.into_iter().flat_map(|key| key.columns);
        let mut built: HashMap<ColumnId, ArrayRef> = self
            .stored
            .into_iter()
            .zip(self.values)
            .chain(of_key.map(|(_, id, column)| (id, column)))
            .map(|(id, column)| (id, column.finish()))
            .collect();
        let mut tenants = self.tenants;
        let mut arrays = Vec::with_capacity(self.shown.len());
        for column in self.shown {
            arrays.push(match column {
                TableColumn::Stored(id) => built.remove(&id).ok_or_else(|| twice(column))?,
                TableColumn::Tenant => {
                    let names = tenants.take().ok_or_else(|| twice(column))?.finish();
                    Arc::new(names)
                }
                column => times.column(column)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema, arrays, &options)?)
    }
}

fn twice(column: TableColumn) -> Error {
    Error::internal(format!("{column:?} is shown twice"))
}

/// The times of versions.
struct Times<'a, 'db> {
    /// What valid bounds are shown within.
    cut: Period<ValidTime>,
    valid: Vec<Period<ValidTime>>,
    tx_from: Vec<TxId>,
    tx_to: Vec<Option<TxId>>,
    system: SystemTimes<'a, 'db>,
}

impl Times<'_, '_> {
    fn column(&mut self, column: TableColumn) -> Result<ArrayRef> {
        let shown = |raw: i64| (raw != i64::MIN && raw != i64::MAX).then_some(raw);
        let cut = self.cut;
        let valid_from = |valid: &Period<ValidTime>| valid.from().max(cut.from()).micros();
        let valid_to = |valid: &Period<ValidTime>| valid.to().min(cut.to()).micros();
        let valid = &self.valid;
        let shown_from = || instants(valid.iter().map(|valid| shown(valid_from(valid))));
        let shown_to = || instants(valid.iter().map(|valid| shown(valid_to(valid))));
        Ok(match column {
            TableColumn::ValidFrom => shown_from(),
            TableColumn::ValidTo => shown_to(),
            TableColumn::RawFrom => all_instants(valid.iter().map(valid_from)),
            TableColumn::RawTo => all_instants(valid.iter().map(valid_to)),
            TableColumn::ValidPeriod => period(shown_from(), shown_to())?,
            TableColumn::SystemFrom | TableColumn::RawSystemFrom => self.from()?,
            TableColumn::SystemTo => self.to(None)?,
            TableColumn::RawSystemTo => self.to(Some(i64::MAX))?,
            TableColumn::SystemPeriod => period(self.from()?, self.to(None)?)?,
            TableColumn::Tx => {
                let ids = self.tx_from.iter();
                let ids = ids.map(|tx| i64::try_from(tx.get()).unwrap_or(i64::MAX));
                Arc::new(Int64Array::from_iter_values(ids))
            }
            TableColumn::Stored(_) | TableColumn::Tenant => {
                return Err(Error::internal("a column of values was taken for one of times"));
            }
        })
    }

    fn from(&mut self) -> Result<ArrayRef> {
        let times: Result<Vec<i64>> = self.tx_from.iter().map(|tx| self.system.of(*tx)).collect();
        Ok(all_instants(times?.into_iter()))
    }

    fn to(&mut self, open: Option<i64>) -> Result<ArrayRef> {
        let times: Result<Vec<Option<i64>>> = self
            .tx_to
            .iter()
            .map(|tx| tx.map_or(Ok(open), |tx| self.system.of(tx).map(Some)))
            .collect();
        Ok(instants(times?.into_iter()))
    }
}

fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let mut column =
        TimestampMicrosecondBuilder::with_capacity(values.size_hint().0).with_timezone("UTC");
    values.for_each(|value| column.append_option(value));
    Arc::new(column.finish())
}

fn all_instants(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
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
}
