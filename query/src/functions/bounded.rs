//! Functions whose answers can be far larger than their arguments: what they would make is counted
//! before they make it, so that no statement takes the memory of the process past all budgets.
//!
//! The engine's memory budget counts what operators hold, not what one expression makes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Schema,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::rules::map_expressions;
use super::wrapped::{Wrapped, Wrapping};
use crate::columns::text::MICROS_PER_DAY;
use crate::columns::timestamp_type;
use crate::error::{Error, Result, SqlState};

/// What one call may take and make for a batch of rows, in bytes.
const MADE_MAX: u128 = 256 << 20;
/// What one call of constants may make: it is repeated for every row where it is used.
const CONSTANT_MAX: u128 = 16 << 20;
/// What an item of a list takes at least.
const ITEM_BYTES: u128 = 8;

/// Returns how many bytes a call would make of a row.
type Estimate = fn(&Args, usize) -> u128;

const ESTIMATES: [(&str, Estimate); 13] = [
    ("repeat", |args, row| args.text(0, row) * args.number(1, row)),
    ("lpad", |args, row| args.text(0, row).max(args.number(1, row) * 4)),
    ("rpad", |args, row| args.text(0, row).max(args.number(1, row) * 4)),
    ("replace", replaced),
    ("regexp_replace", |args, row| (args.text(0, row) + 1) * (args.text(2, row) + 1)),
    ("translate", |args, row| args.text(0, row) * 4),
    ("concat", |args, row| (0..args.0.len()).map(|at| args.text(at, row)).sum()),
    ("concat_ws", |args, row| {
        (1..args.0.len()).map(|at| args.text(at, row) + args.text(0, row)).sum()
    }),
    ("array_to_string", |args, row| {
        args.items(0, row) * (args.text(1, row) + ITEM_BYTES) + args.text(0, row)
    }),
    ("array_repeat", |args, row| args.text(0, row).max(ITEM_BYTES) * args.number(1, row)),
    ("array_resize", |args, row| args.text(2, row).max(ITEM_BYTES) * args.number(1, row)),
    ("range", series),
    ("generate_series", series),
];

/// Puts the guard in front of each of these functions.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for (name, estimate) in ESTIMATES {
        // Some are in the build by feature.
        let Ok(inner) = state.udf(name) else { continue };
        let how = Bounded(estimate);
        state.register_udf(Arc::new(ScalarUDF::from(Wrapped { inner, how })))?;
    }
    Ok(())
}

/// Refuses calls that would make too much. Two guards of one function are equal.
#[derive(Clone, Copy)]
struct Bounded(Estimate);

impl std::fmt::Debug for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bounded")
    }
}

impl PartialEq for Bounded {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, _state: &mut H) {}
}

impl Wrapping for Bounded {
    fn call(
        &self,
        inner: &dyn ScalarUDFImpl,
        args: ScalarFunctionArgs,
    ) -> DataFusionResult<ColumnarValue> {
        check(inner.name(), self.0, &args.args, args.number_rows)?;
        inner.invoke_with_args(args)
    }
}

/// Refuses a call that would make too much.
fn check(
    name: &str,
    estimate: Estimate,
    args: &[ColumnarValue],
    rows: usize,
) -> DataFusionResult<()> {
    let args = Args::of(args)?;
    let is_constant = args.0.iter().all(|arg| arg.is_constant);
    let (rows, most) = if is_constant { (1, CONSTANT_MAX) } else { (rows, MADE_MAX) };
    let mut made = 0_u128;
    for row in 0..rows {
        // Arguments count too: constants are repeated for each row.
        let taken: u128 = (0..args.0.len()).map(|at| args.text(at, row)).sum();
        made = made.saturating_add(estimate(&args, row)).saturating_add(taken);
        if made > most {
            return Err(too_much(name, most).into());
        }
    }
    Ok(())
}

fn too_much(what: &str, most: u128) -> Error {
    let message = format!("{what} would make more than {} MiB of one batch of rows", most >> 20);
    Error::new(SqlState::LimitExceeded, message)
}

/// The arguments of a call.
struct Args(Vec<Arg>);

struct Arg {
    values: ArrayRef,
    /// One value for all rows.
    is_constant: bool,
}

impl Args {
    fn of(args: &[ColumnarValue]) -> DataFusionResult<Self> {
        let arg = |value: &ColumnarValue| {
            Ok(match value {
                ColumnarValue::Array(array) => {
                    Arg { values: Arc::clone(array), is_constant: false }
                }
                ColumnarValue::Scalar(scalar) => {
                    Arg { values: scalar.to_array()?, is_constant: true }
                }
            })
        };
        Ok(Self(args.iter().map(arg).collect::<DataFusionResult<_>>()?))
    }

    fn kind(&self, at: usize) -> Option<&DataType> {
        self.0.get(at).map(|arg| arg.values.data_type())
    }

    /// Returns an argument's column and the place of its value, unless that is NULL.
    fn value(&self, at: usize, row: usize) -> Option<(&ArrayRef, usize)> {
        let arg = self.0.get(at)?;
        let row = if arg.is_constant { 0 } else { row };
        arg.values.is_valid(row).then_some((&arg.values, row))
    }

    /// Returns the length of a text, or about what another value takes.
    fn text(&self, at: usize, row: usize) -> u128 {
        let Some((array, row)) = self.value(at, row) else { return 0 };
        let length = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row).len(),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row).len(),
            DataType::Utf8View => array.as_string_view().value(row).len(),
            DataType::Binary => array.as_binary::<i32>().value(row).len(),
            // Lists and structs: their share of the column.
            kind if kind.is_nested() => array.get_array_memory_size() / array.len().max(1),
            _ => 8,
        };
        length as u128
    }

    /// Returns a count: of what is below nothing, nothing.
    fn number(&self, at: usize, row: usize) -> u128 {
        u128::try_from(self.whole(at, row).unwrap_or(0)).unwrap_or(0)
    }

    fn whole(&self, at: usize, row: usize) -> Option<i128> {
        let (array, row) = self.value(at, row)?;
        if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
            return Some(i128::from(numbers.value(row)));
        }
        whole_of(&cast(&array.slice(row, 1), &DataType::Int64).ok()?)
    }

    /// Returns how many items a list has.
    fn items(&self, at: usize, row: usize) -> u128 {
        let Some((array, row)) = self.value(at, row) else { return 0 };
        match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value(row).len() as u128,
            DataType::LargeList(_) => array.as_list::<i64>().value(row).len() as u128,
            _ => 1,
        }
    }

    fn micros(&self, at: usize, row: usize) -> Option<i128> {
        let (array, row) = self.value(at, row)?;
        let instant = cast(&array.slice(row, 1), &timestamp_type()).ok()?;
        whole_of(&cast(&instant, &DataType::Int64).ok()?)
    }

    /// Returns the least length of an interval, in microseconds.
    fn interval(&self, at: usize, row: usize) -> i128 {
        let Some((array, row)) = self.value(at, row) else { return 1 };
        let kind = DataType::Interval(IntervalUnit::MonthDayNano);
        let Ok(value) = cast(&array.slice(row, 1), &kind) else { return 1 };
        let value = value.as_primitive::<IntervalMonthDayNanoType>().value(0);
        let days = i128::from(value.months) * 28 + i128::from(value.days);
        days * i128::from(MICROS_PER_DAY) + i128::from(value.nanoseconds) / 1_000
    }
}

fn whole_of(numbers: &ArrayRef) -> Option<i128> {
    let numbers = numbers.as_primitive_opt::<Int64Type>()?;
    numbers.is_valid(0).then(|| i128::from(numbers.value(0)))
}

/// At each place where the pattern can stand, the replacement may.
fn replaced(args: &Args, row: usize) -> u128 {
    let (whole, pattern, with) = (args.text(0, row), args.text(1, row), args.text(2, row));
    whole + (whole / pattern.max(1) + 1) * with
}

/// The items between two ends, a step apart; one end alone counts from nothing.
fn series(args: &Args, row: usize) -> u128 {
    let end = |at: usize| match args.kind(at) {
        Some(DataType::Timestamp(..)) => args.micros(at, row),
        Some(DataType::Date32) => args.whole(at, row).map(|days| days * i128::from(MICROS_PER_DAY)),
        _ => args.whole(at, row),
    };
    let (start, stop) = if args.0.len() == 1 { (Some(0), end(0)) } else { (end(0), end(1)) };
    let (Some(start), Some(stop)) = (start, stop) else { return 0 };
    let step = match args.kind(2) {
        None => 1,
        Some(DataType::Interval(_)) => args.interval(2, row),
        Some(_) => args.whole(2, row).unwrap_or(1),
    };
    (stop - start).unsigned_abs() / step.unsigned_abs().max(1) * ITEM_BYTES
}

/// Brings `a || b` behind the same guard, once the types of both are known.
#[derive(Debug)]
pub struct BoundedConcatenation;

impl AnalyzerRule for BoundedConcatenation {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        map_expressions(plan, |expr, _| expr.transform_up(|expr| Ok(guarded(expr))))
    }

    fn name(&self) -> &'static str {
        "bounded_concatenation"
    }
}

fn guarded(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let call = ScalarUDF::from(Concatenation::new()).call(vec![*left, *right]);
            Transformed::yes(call)
        }
        other => Transformed::no(other),
    }
}

/// `a || b` of two texts; NULL where one is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    fn new() -> Self {
        use datafusion::logical_expr::Volatility;
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match arguments {
            [left, right] if left == right => left.clone(),
            [DataType::LargeUtf8, _] | [_, DataType::LargeUtf8] => DataType::LargeUtf8,
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let sum: Estimate = |args, row| args.text(0, row) + args.text(1, row);
        check(self.name(), sum, &args.args, args.number_rows)?;
        let kind = args.return_type().clone();
        let side = |at: usize| -> DataFusionResult<ArrayRef> {
            Ok(cast(&args.args[at].to_array(args.number_rows)?, &kind)?)
        };
        let joined = arrow::compute::kernels::concat_elements::concat_elements_dyn(
            side(0)?.as_ref(),
            side(1)?.as_ref(),
        )?;
        Ok(ColumnarValue::Array(joined))
    }
}

/// Returns a projection in which long constants are counted before they are repeated for every row;
/// nothing for another operator.
///
/// # Errors
/// XX000 where the operator cannot be rebuilt.
pub fn bounded_projection(
    node: &Arc<dyn ExecutionPlan>,
) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(None) };
    let mut changed = false;
    let mut expressions = Vec::with_capacity(projection.expr().len());
    for ProjectionExpr { expr, alias } in projection.expr() {
        let bounded = Arc::clone(expr).transform(|part| {
            let length = part.downcast_ref::<Literal>().map_or(0, |one| one.value().size());
            Ok(match length > LONG_CONSTANT {
                true => Transformed::yes(Arc::new(LongConstant { inner: part, length }) as _),
                false => Transformed::no(part),
            })
        })?;
        changed |= bounded.transformed;
        expressions.push(ProjectionExpr { expr: bounded.data, alias: alias.clone() });
    }
    if !changed {
        return Ok(None);
    }
    let input = Arc::clone(projection.input());
    Ok(Some(Arc::new(ProjectionExec::try_new(expressions, input)?)))
}

/// Bytes of a constant from which on it is counted.
const LONG_CONSTANT: usize = 16 << 10;

/// A constant that is counted for the rows it is repeated for.
#[derive(Debug)]
struct LongConstant {
    inner: Arc<dyn PhysicalExpr>,
    length: usize,
}

impl PartialEq for LongConstant {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for LongConstant {}

impl std::hash::Hash for LongConstant {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl std::fmt::Display for LongConstant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for LongConstant {
    fn data_type(&self, input_schema: &Schema) -> DataFusionResult<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> DataFusionResult<bool> {
        self.inner.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> DataFusionResult<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        let made = self.length as u128 * batch.num_rows() as u128;
        if made > MADE_MAX {
            return Err(too_much("a constant", MADE_MAX).into());
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt_sql(f)
    }
}
