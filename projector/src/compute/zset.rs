//! Rows with weights: the one form in which rows and their changes travel between operators.
//!
//! A [`ZSet`] is a bag in which a row may also stand with a negative weight. A relation has only
//! positive weights; a delta has both: what came (+) and what went (-). See DBSP, section 2.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use everwhen_query::columns::cast_column;
use everwhen_storage::ColumnType;
use hashbrown::{HashMap, HashSet};

use crate::error::{Error, Result};

/// Rows, each with a weight.
#[derive(Debug, Clone)]
pub struct ZSet {
    batch: RecordBatch,
    weights: Vec<i64>,
}

impl ZSet {
    /// Returns no rows.
    pub fn empty(schema: &SchemaRef) -> Self {
        Self { batch: RecordBatch::new_empty(Arc::clone(schema)), weights: Vec::new() }
    }

    /// Returns every row of a batch once.
    pub fn once(batch: RecordBatch) -> Self {
        let weights = vec![1; batch.num_rows()];
        Self { batch, weights }
    }

    /// Returns the rows of a batch with a weight each.
    pub fn weighted(batch: RecordBatch, weights: Vec<i64>) -> Result<Self> {
        if batch.num_rows() == weights.len() {
            Ok(Self { batch, weights })
        } else {
            Err(Error::internal("a weight for every row"))
        }
    }

    /// Returns the rows.
    pub const fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Returns the weight of each row.
    pub fn weights(&self) -> &[i64] {
        &self.weights
    }

    /// True where there is no row.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Returns the number of rows that stand in the set, whatever their weights.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Returns the same rows with opposite weights.
    #[must_use]
    pub fn negated(mut self) -> Self {
        for weight in &mut self.weights {
            *weight = -*weight;
        }
        self
    }

    /// Returns the rows of both, weights added only by [`ZSet::consolidated`].
    pub fn plus(self, other: Self) -> Result<Self> {
        if self.is_empty() {
            return Ok(other);
        }
        if other.is_empty() {
            return Ok(self);
        }
        let schema = self.batch.schema();
        let batch = concat_batches(&schema, [&self.batch, &other.batch])?;
        let mut weights = self.weights;
        weights.extend(other.weights);
        Ok(Self { batch, weights })
    }

    /// Adds the weights of equal rows and drops rows of weight 0; keeps the order of first sight.
    pub fn consolidated(self) -> Result<Self> {
        if self.len() <= 1 {
            return self.without_zero();
        }
        let rows = row_bytes(self.batch.columns())?;
        let mut first: HashMap<&[u8], usize> = HashMap::with_capacity(self.len());
        let mut sums = vec![0_i64; self.len()];
        for at in 0..self.len() {
            let place = *first.entry(rows.row(at).data()).or_insert(at);
            sums[place] += self.weights[at];
        }
        drop(first);
        Self { batch: self.batch, weights: sums }.without_zero()
    }

    fn without_zero(self) -> Result<Self> {
        if self.weights.iter().all(|weight| *weight != 0) {
            return Ok(self);
        }
        let keep: BooleanArray = self.weights.iter().map(|weight| Some(*weight != 0)).collect();
        self.filtered(&keep)
    }

    /// Returns the rows for which `keep` is true (NULL is not).
    pub fn filtered(self, keep: &BooleanArray) -> Result<Self> {
        let batch = filter_record_batch(&self.batch, keep)?;
        let weights = self
            .weights
            .into_iter()
            .zip(keep.iter())
            .filter_map(|(weight, kept)| (kept == Some(true)).then_some(weight))
            .collect();
        Self::weighted(batch, weights)
    }

    /// Returns the rows at some places, in that order, places repeated where they repeat.
    pub fn taken(&self, places: &[u32]) -> Result<Self> {
        let batch = take_rows(&self.batch, places)?;
        let weights = places.iter().map(|at| self.weights[*at as usize]).collect();
        Self::weighted(batch, weights)
    }

    /// Returns some columns of every row under another schema.
    pub fn columns(self, schema: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let arrays = columns.iter().map(|at| Arc::clone(self.batch.column(*at))).collect();
        let batch = batch_of(schema, arrays, self.weights.len())?;
        Ok(Self { batch, weights: self.weights })
    }

    /// Returns every row as often as its weight says.
    ///
    /// # Errors
    /// [`Error::Internal`] for a negative weight: only relations can be expanded.
    pub fn expanded(self) -> Result<RecordBatch> {
        if self.weights.iter().all(|weight| *weight == 1) {
            return Ok(self.batch);
        }
        let mut places = Vec::with_capacity(self.len());
        for (at, weight) in (0_u32..).zip(&self.weights) {
            let times = usize::try_from(*weight)
                .map_err(|_| Error::internal("a relation has no negative weights"))?;
            places.extend(std::iter::repeat_n(at, times));
        }
        take_rows(&self.batch, &places)
    }
}

/// Builds a batch whose columns are cast to the schema's types where they differ in form.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let mut fitting = Vec::with_capacity(columns.len());
    for (column, field) in columns.into_iter().zip(schema.fields()) {
        if column.data_type() == field.data_type() {
            fitting.push(column);
        } else {
            // Forms of text may differ; a value that does not fit would be a wrong plan.
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            fitting.push(cast_with_options(&column, field.data_type(), &strict)?);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), fitting, &options)?)
}

/// Returns the rows of a batch at some places.
pub fn take_rows(batch: &RecordBatch, places: &[u32]) -> Result<RecordBatch> {
    let indices = UInt32Array::from(places.to_vec());
    let columns = take_columns(batch.columns(), &indices)?;
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// Returns the values of columns at some places; a NULL place gives NULL.
pub fn take_columns(columns: &[ArrayRef], places: &UInt32Array) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(take(column, places, None)?)).collect()
}

/// Returns each row's bytes over some columns: equal exactly where the rows are (NULL is NULL).
pub fn row_bytes(columns: &[ArrayRef]) -> Result<Rows> {
    // JSON values are unions, which have no bytes of their own; their text tells them apart.
    let plain: Result<Vec<ArrayRef>> = columns
        .iter()
        .map(|column| match column.data_type() {
            DataType::Union(..) => Ok(cast_column(column, &ColumnType::Json)?),
            _ => Ok(Arc::clone(column)),
        })
        .collect();
    let plain = plain?;
    let fields = plain.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&plain)?)
}

/// A set of value tuples for some columns of a node: what a restricted evaluation is held to.
///
/// NULL matches NULL.
#[derive(Debug, Clone)]
pub struct Only {
    columns: Vec<usize>,
    tuples: Vec<ArrayRef>,
    len: usize,
}

impl Only {
    /// Builds the distinct tuples of `rows` as values of `columns`; tuples with a NULL are left
    /// out unless `nulls`.
    pub fn new(columns: Vec<usize>, tuples: Vec<ArrayRef>, nulls: bool) -> Result<Self> {
        let count = tuples.first().map_or(0, |tuple| tuple.len());
        let rows = row_bytes(&tuples)?;
        let mut seen: HashSet<&[u8]> = HashSet::with_capacity(count);
        let mut places = Vec::with_capacity(count);
        for (at, place) in (0..count).zip(0_u32..) {
            let null = !nulls && tuples.iter().any(|tuple| tuple.is_null(at));
            if !null && seen.insert(rows.row(at).data()) {
                places.push(place);
            }
        }
        drop(seen);
        let len = places.len();
        let tuples =
            if len == count { tuples } else { take_columns(&tuples, &UInt32Array::from(places))? };
        Ok(Self { columns, tuples, len })
    }

    /// Returns the columns of the node that the tuples are values of.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Returns the values, one array a column.
    pub fn tuples(&self) -> &[ArrayRef] {
        &self.tuples
    }

    /// Returns the number of tuples.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True where nothing can match.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True where a tuple has a NULL.
    pub fn has_null(&self) -> bool {
        self.tuples.iter().any(|tuple| tuple.null_count() > 0)
    }

    /// Returns the tuples over those columns that `map` knows, under its numbers and types.
    pub fn mapped(&self, map: impl Fn(usize) -> Option<usize>) -> Result<Option<Self>> {
        let mut columns = Vec::new();
        let mut tuples = Vec::new();
        for (column, tuple) in self.columns.iter().zip(&self.tuples) {
            if let Some(to) = map(*column)
                && !columns.contains(&to)
            {
                columns.push(to);
                tuples.push(Arc::clone(tuple));
            }
        }
        if columns.is_empty() {
            return Ok(None);
        }
        if columns.len() == self.columns.len() {
            return Ok(Some(Self { columns, tuples, len: self.len }));
        }
        Self::new(columns, tuples, true).map(Some)
    }

    /// Returns the rows that match one of the tuples.
    pub fn keep(&self, rows: ZSet) -> Result<ZSet> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let fields: Vec<_> =
            self.tuples.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let wanted = converter.convert_columns(&self.tuples)?;
        let set: HashSet<&[u8]> = (0..self.len).map(|at| wanted.row(at).data()).collect();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, tuple) in self.columns.iter().zip(&self.tuples) {
            let array = rows.batch.column(*column);
            if array.data_type() == tuple.data_type() {
                columns.push(Arc::clone(array));
            } else {
                columns.push(arrow::compute::cast(array, tuple.data_type())?);
            }
        }
        let found = converter.convert_columns(&columns)?;
        let keep: BooleanArray =
            (0..rows.len()).map(|at| Some(set.contains(found.row(at).data()))).collect();
        if keep.true_count() == rows.len() {
            return Ok(rows);
        }
        drop(set);
        rows.filtered(&keep)
    }
}
