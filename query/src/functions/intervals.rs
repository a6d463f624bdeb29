//! Lengths of time in comparisons, as in `now() - at > INTERVAL '1 day'`.
//!
//! DataFusion compares intervals by their months, then days, then nanoseconds, and the difference
//! of two instants has nanoseconds alone: three days of those are less than one day to it. Here,
//! as in Postgres, a month counts as 30 days and a day as 24 hours.

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Between, BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::rules::map_expressions;

const LENGTH_TYPE: DataType = DataType::Decimal128(38, 0);

/// Runs after DataFusion has made the types of comparisons equal.
#[derive(Debug)]
pub struct IntervalsByLength;

impl AnalyzerRule for IntervalsByLength {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        map_expressions(plan, |expr, schema| expr.transform_up(|expr| Ok(comparison(expr, schema))))
    }

    fn name(&self) -> &'static str {
        "intervals_by_length"
    }
}

fn comparison(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let interval = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Interval(_)));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if compares(op) && interval(&left) && interval(&right) =>
        {
            let (left, right) = (Box::new(length(*left)), Box::new(length(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if interval(&expr) => {
            let [expr, low, high] = [expr, low, high].map(|side| Box::new(length(*side)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        other => Transformed::no(other),
    }
}

const fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn length(interval: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(Length { signature }).call(vec![interval])
}

/// The nanoseconds of an interval.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &'static str {
        "interval_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(LENGTH_TYPE)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let interval = args.args.first().map(|interval| interval.to_array(args.number_rows));
        let none = || arrow::array::new_null_array(&LENGTH_TYPE, args.number_rows);
        let lengths = interval.transpose()?.as_ref().map(lengths).transpose()?;
        Ok(ColumnarValue::Array(lengths.unwrap_or_else(none)))
    }
}

fn lengths(intervals: &ArrayRef) -> Result<ArrayRef> {
    let intervals = cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let lengths: Decimal128Array = intervals.iter().map(|value| value.map(nanoseconds)).collect();
    Ok(std::sync::Arc::new(lengths.with_data_type(LENGTH_TYPE)))
}

fn nanoseconds(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    days * 86_400_000_000_000 + i128::from(interval.nanoseconds)
}
