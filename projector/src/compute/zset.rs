//! Rows with weights: the one form in which rows and their changes travel between operators.
//!
//! A [`ZSet`] is a bag in which a row may also stand with a negative weight. A relation has only
//! positive weights; a delta has both: what came (+) and what went (-). See DBSP, section 2. A row
//! of which a value could not be computed has a fault beside it ([`super::fault`]).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::array::{Float32Array, Float64Array, UInt32Array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches, filter_record_batch, take};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use everwhen_query::columns::cast_column;
use everwhen_storage::ColumnType;
use hashbrown::HashMap;

use super::fault::{Fault, Faults};
use crate::error::{Error, Result};

/// Takes rows part by part.
pub type Each<'a> = &'a mut dyn FnMut(ZSet) -> Result<()>;

/// Rows, each with a weight.
#[derive(Debug, Clone)]
pub struct ZSet {
    batch: RecordBatch,
    weights: Vec<i64>,
    faults: Faults,
}

impl ZSet {
    /// Returns no rows.
    pub fn empty(schema: &SchemaRef) -> Self {
        let batch = RecordBatch::new_empty(Arc::clone(schema));
        Self { batch, weights: Vec::new(), faults: Faults::default() }
    }

    /// Returns every row of a batch once.
    pub fn once(batch: RecordBatch) -> Self {
        let weights = vec![1; batch.num_rows()];
        Self { batch, weights, faults: Faults::default() }
    }

    /// Returns the rows of a batch with a weight each.
    pub fn weighted(batch: RecordBatch, weights: Vec<i64>) -> Result<Self> {
        if batch.num_rows() == weights.len() {
            Ok(Self { batch, weights, faults: Faults::default() })
        } else {
            Err(Error::internal("a weight for every row"))
        }
    }

    /// Returns the rows with these faults.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// Returns the rows.
    pub const fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Returns the weight of each row.
    pub fn weights(&self) -> &[i64] {
        &self.weights
    }

    /// Returns what could not be computed of each row.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// True where there is no row.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Returns the number of rows that stand in the set, whatever their weights.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Returns about how many bytes the rows take.
    pub fn bytes(&self) -> usize {
        let columns = self.batch.columns().iter();
        let values: usize = columns.map(|column| column.get_array_memory_size()).sum();
        values + self.weights.len() * size_of::<i64>()
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
        Self::concatenated(&schema, vec![self, other])
    }

    /// Returns the rows of all parts.
    pub fn concatenated(schema: &SchemaRef, mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let batch = concat_batches(schema, parts.iter().map(|part| &part.batch))?;
        let mut weights = Vec::with_capacity(batch.num_rows());
        let mut faults = Faults::default();
        for part in parts {
            faults = faults.followed_by(weights.len(), part.faults, part.weights.len());
            weights.extend(part.weights);
        }
        Ok(Self { batch, weights, faults })
    }

    /// Adds the weights of equal rows and drops rows of weight 0; keeps the order of first sight.
    pub fn consolidated(self) -> Result<Self> {
        if self.len() <= 1 {
            return self.nonzero();
        }
        let rows = row_bytes(self.batch.columns())?;
        let mut first: HashMap<(&[u8], Option<&Fault>), usize> = HashMap::with_capacity(self.len());
        let mut sums = vec![0_i64; self.len()];
        for at in 0..self.len() {
            let row = (rows.row(at).data(), self.faults.at(at));
            let place = *first.entry(row).or_insert(at);
            sums[place] += self.weights[at];
        }
        drop(first);
        Self { weights: sums, ..self }.nonzero()
    }

    /// Returns the rows without those of weight 0.
    pub fn nonzero(self) -> Result<Self> {
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
        Ok(Self::weighted(batch, weights)?.with_faults(self.faults.filtered(keep)))
    }

    /// Returns the rows at some places, in that order, places repeated where they repeat.
    pub fn taken(&self, places: &[u32]) -> Result<Self> {
        let batch = take_rows(&self.batch, places)?;
        let weights = places.iter().map(|at| self.weights[*at as usize]).collect();
        let faults = self.faults.taken(places.iter().map(|at| *at as usize));
        Ok(Self::weighted(batch, weights)?.with_faults(faults))
    }

    /// Returns a run of the rows.
    #[must_use]
    pub fn slice(&self, start: usize, length: usize) -> Self {
        Self {
            batch: self.batch.slice(start, length),
            weights: self.weights[start..start + length].to_vec(),
            faults: self.faults.slice(start, length),
        }
    }

    /// Returns some columns of every row under another schema.
    pub fn columns(self, schema: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let arrays = columns.iter().map(|at| Arc::clone(self.batch.column(*at))).collect();
        let batch = batch_of(schema, arrays, self.weights.len())?;
        Ok(Self { batch, ..self })
    }

    /// Returns every row as often as its weight says, with weight 1.
    ///
    /// # Errors
    /// [`Error::Internal`] for a negative weight: only relations can be expanded.
    pub fn expanded(self) -> Result<Self> {
        if self.weights.iter().all(|weight| *weight == 1) {
            return Ok(self);
        }
        let rows = self.repeated(&self.weights)?;
        let weights = vec![1; rows.len()];
        Ok(Self { weights, ..rows })
    }

    /// Returns every row as often as `times` says.
    ///
    /// # Errors
    /// [`Error::Internal`] for a negative number.
    pub fn repeated(&self, times: &[i64]) -> Result<Self> {
        let mut places = Vec::with_capacity(self.len());
        for (at, times) in (0_u32..).zip(times) {
            let times = usize::try_from(*times)
                .map_err(|_| Error::internal("a relation has no negative weights"))?;
            places.extend(std::iter::repeat_n(at, times));
        }
        self.taken(&places)
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
    let plain = columns.iter().map(plain).collect::<Result<Vec<_>>>()?;
    let fields = plain.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&plain)?)
}

/// Returns each row's bytes over some columns as keys: equal where SQL calls the values equal or both
/// are NULL. Both zeros are one key, and all NaNs.
pub fn key_bytes(columns: &[ArrayRef]) -> Result<Rows> {
    let columns: Vec<ArrayRef> = columns.iter().map(|column| one_zero(column)).collect();
    row_bytes(&columns)
}

/// JSON values are unions, which have no bytes of their own; their text tells them apart.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Union(..) => Ok(cast_column(column, &ColumnType::Json)?),
        _ => Ok(Arc::clone(column)),
    }
}

/// Returns floats with one zero and one NaN; all else as it is.
pub fn one_zero(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let of = column.as_primitive::<Float64Type>();
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            let ones: Float64Array = of.unary(one);
            Arc::new(ones)
        }
        DataType::Float32 => {
            let of = column.as_primitive::<Float32Type>();
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            let ones: Float32Array = of.unary(one);
            Arc::new(ones)
        }
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rows(of: &[(i64, i64)]) -> ZSet {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(of.iter().map(|(v, _)| *v)));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        ZSet::weighted(batch, of.iter().map(|(_, weight)| *weight).collect()).unwrap()
    }

    fn shown(set: &ZSet) -> Vec<(i64, i64)> {
        let column = set.batch().column(0).as_primitive::<arrow::datatypes::Int64Type>();
        column.values().iter().copied().zip(set.weights().iter().copied()).collect()
    }

    #[test]
    fn weights_of_equal_rows_add_up() {
        let set = rows(&[(1, 1), (2, 1), (1, 2), (2, -1), (3, -1)]).consolidated().unwrap();
        assert_eq!(shown(&set), [(1, 3), (3, -1)]);
        let twice = rows(&[(1, 2), (2, 1)]).expanded().unwrap();
        assert_eq!(shown(&twice), [(1, 1), (1, 1), (2, 1)]);
        assert!(rows(&[(1, -1)]).expanded().is_err());
    }

    #[test]
    fn a_row_that_failed_is_not_one_that_did_not() {
        let failed = rows(&[(1, 1)]).with_faults(Faults::new(vec![Some("no".into())]));
        let set = failed.plus(rows(&[(1, 1), (1, 1)])).unwrap().consolidated().unwrap();
        assert_eq!(shown(&set), [(1, 1), (1, 2)]);
        assert!(set.faults().at(0).is_some() && set.faults().at(1).is_none());
    }

    #[test]
    fn keys_have_one_zero_and_one_nan() {
        let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let column: ArrayRef =
            Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -odd_nan, 1.0]));
        let keys = key_bytes(std::slice::from_ref(&column)).unwrap();
        assert_eq!(keys.row(0), keys.row(1));
        assert_eq!(keys.row(2), keys.row(3));
        assert!(keys.row(0) < keys.row(4) && keys.row(4) < keys.row(2));
        let whole = row_bytes(&[column]).unwrap();
        assert_ne!(whole.row(0), whole.row(1));
    }
}
