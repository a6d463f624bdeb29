//! Expressions that fail on a row: the failure belongs to that row, not to the batch it came in.
//!
//! A row whose value cannot be computed goes on with NULL in its place and a [`Fault`] beside it.
//! Operators hand faults on to the rows that they make of it, so that in the end just the output
//! keys that rest on the row are held.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::concat;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::fmt_sql;

use crate::error::{Error, Result};

/// Why a value of a row could not be computed.
pub type Fault = Arc<str>;

/// The faults of some rows, by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Empty where no row has one.
    of: Vec<Option<Fault>>,
}

impl Faults {
    /// Builds the faults of rows, one entry a row.
    pub fn new(of: Vec<Option<Fault>>) -> Self {
        if of.iter().all(Option::is_none) { Self::default() } else { Self { of } }
    }

    /// True where no row has a fault.
    pub const fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Returns the fault of a row.
    pub fn at(&self, row: usize) -> Option<&Fault> {
        self.of.get(row).and_then(Option::as_ref)
    }

    /// Returns the first fault of all.
    pub fn first(&self) -> Option<&Fault> {
        self.of.iter().flatten().next()
    }

    /// Returns the faults of `rows` rows followed by those of `more` others.
    pub fn followed_by(self, rows: usize, other: Self, more: usize) -> Self {
        if self.is_empty() && other.is_empty() {
            return self;
        }
        let mut of = self.of;
        of.resize(rows, None);
        of.extend(other.of);
        of.resize(rows + more, None);
        Self { of }
    }

    /// Returns, for each of `rows` rows, its fault, or that of `other` where it has none.
    pub fn or(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let of = self.of.into_iter().zip(other.of).map(|(one, other)| one.or(other)).collect();
        Self { of }
    }

    /// Returns the faults of the rows that are kept.
    pub fn filtered(self, keep: &BooleanArray) -> Self {
        let kept = self.of.into_iter().zip(keep.iter());
        Self::new(kept.filter_map(|(fault, keep)| (keep == Some(true)).then_some(fault)).collect())
    }

    /// Returns the faults of the rows at some places.
    pub fn taken(&self, places: impl Iterator<Item = usize>) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        Self::new(places.map(|at| self.at(at).cloned()).collect())
    }

    /// Returns the faults of a run of rows.
    pub fn slice(&self, start: usize, length: usize) -> Self {
        self.taken(start..start + length)
    }
}

/// Evaluates an expression to one value a row. Rows on which it fails have NULL and a fault.
///
/// # Errors
/// Where it fails for a reason that is not the row's.
pub fn values_of(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<(ArrayRef, Faults)> {
    let error = match evaluated(expr, rows) {
        Ok(values) => return Ok((values, Faults::default())),
        Err(error) => error,
    };
    if !is_of_rows(&error) {
        return Err(error.into());
    }
    let count = rows.num_rows();
    if count <= 1 {
        let kind = expr.data_type(rows.schema_ref())?;
        let fault = fault_of(error, &fmt_sql(expr.as_ref()));
        return Ok((new_null_array(&kind, count), Faults::new(vec![Some(fault); count])));
    }
    // Which rows it is, is found by halving: a few bad ones among many cost little.
    let half = count / 2;
    let (first, faults) = values_of(expr, &rows.slice(0, half))?;
    let (second, others) = values_of(expr, &rows.slice(half, count - half))?;
    let values = concat(&[first.as_ref(), second.as_ref()])?;
    Ok((values, faults.followed_by(half, others, count - half)))
}

/// Evaluates a predicate: true, false or NULL a row.
///
/// # Errors
/// As [`values_of`].
pub fn truth_of(
    expr: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
) -> Result<(BooleanArray, Faults)> {
    let (values, faults) = values_of(expr, rows)?;
    match arrow::array::AsArray::as_boolean_opt(&values) {
        Some(truth) => Ok((truth.clone(), faults)),
        None => Err(Error::internal("a predicate is true, false or NULL")),
    }
}

/// Evaluates an expression to one value a row.
pub fn evaluated(
    expr: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
) -> std::result::Result<ArrayRef, DataFusionError> {
    match expr.evaluate(rows)? {
        ColumnarValue::Array(array) => Ok(array),
        ColumnarValue::Scalar(value) => value.to_array_of_size(rows.num_rows()),
    }
}

/// True for an error that values of a row bring about.
pub fn is_of_rows(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_) => false,
        DataFusionError::ArrowError(error, _) => {
            !matches!(error.as_ref(), arrow::error::ArrowError::MemoryError(_))
        }
        _ => true,
    }
}

/// Says what failed and where. Never with the values: the text is kept, and shown to others than may see
/// the row.
pub fn fault_of(error: DataFusionError, within: &dyn std::fmt::Display) -> Fault {
    let error = everwhen_query::Error::from(error);
    let state = error.sqlstate();
    let what = match state {
        "22012" => "division by zero",
        "22003" => "value out of range",
        "22008" => "date or time out of range",
        "22P02" => "invalid input syntax",
        "22023" => "argument out of range",
        _ => "evaluation failed",
    };
    format!("{what} in {within} (SQLSTATE {state})").into()
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;

    fn quotient(of: &[Option<i64>]) -> (ArrayRef, Faults) {
        let schema = Arc::new(Schema::new(vec![Field::new("qty", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from(of.to_vec()));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        let expr = binary(lit(100_i64), Operator::Divide, col("qty", &schema).unwrap(), &schema);
        values_of(&expr.unwrap(), &rows).unwrap()
    }

    #[test]
    fn only_the_rows_that_fail_have_a_fault() {
        let (values, faults) = quotient(&[Some(5), Some(0), None, Some(4), Some(0)]);
        let values: Vec<Option<i64>> = values.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(values, [Some(20), None, None, Some(25), None]);
        let failed: Vec<bool> = (0..5).map(|row| faults.at(row).is_some()).collect();
        assert_eq!(failed, [false, true, false, false, true]);
        let text = "division by zero in 100 / qty (SQLSTATE 22012)";
        assert_eq!(faults.at(1).unwrap().as_ref(), text);
    }

    #[test]
    fn no_fault_costs_nothing() {
        assert!(quotient(&[Some(1), None]).1.is_empty());
        assert!(quotient(&[]).1.is_empty());
    }

    #[test]
    fn faults_follow_their_rows() {
        let fault: Fault = "x".into();
        let one = Faults::new(vec![None, Some(Arc::clone(&fault))]);
        let two = one.clone().followed_by(2, Faults::default(), 2).followed_by(4, one.clone(), 2);
        let at = |faults: &Faults| (0..6).map(|row| faults.at(row).is_some()).collect::<Vec<_>>();
        assert_eq!(at(&two), [false, true, false, false, false, true]);
        let keep = BooleanArray::from(vec![true, false, true, false, true, true]);
        assert_eq!(at(&two.clone().filtered(&keep))[..4], [false, false, false, true]);
        assert!(two.taken([0, 2].into_iter()).is_empty());
        assert_eq!(at(&two.taken([1, 0].into_iter()))[..2], [true, false]);
    }
}
