//! `now()`, `current_date` and `current_time`: the basis' present instant, in microseconds UTC.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use everwhen_storage::{ColumnType, ValidTime};

use crate::columns::text::MICROS_PER_DAY;
use crate::columns::{timestamp_scalar, timestamp_type};
use crate::error::Result;

pub(super) fn register(state: &mut SessionState, now: Option<ValidTime>) -> Result<()> {
    for reads in [Reads::Instant, Reads::Date, Reads::Time] {
        state.register_udf(Arc::new(ScalarUDF::from(Clock::new(reads, now))))?;
    }
    Ok(())
}

/// Gives every call of the clock in a plan its instant.
///
/// # Errors
/// XX000 where the plan cannot be rebuilt.
pub fn pin(plan: LogicalPlan, now: ValidTime) -> Result<LogicalPlan> {
    let pinned = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| expr.transform_up(|expr| Ok(pin_call(expr, now))))
    })?;
    Ok(pinned.data)
}

fn pin_call(expr: Expr, now: ValidTime) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(mut call) => match call.func.inner().downcast_ref::<Clock>() {
            Some(clock) if clock.now.is_none() => {
                call.func = Arc::new(ScalarUDF::from(Clock::new(clock.reads, Some(now))));
                Transformed::yes(Expr::ScalarFunction(call))
            }
            _ => Transformed::no(Expr::ScalarFunction(call)),
        },
        other => Transformed::no(other),
    }
}

/// True for a call of `now()`, `current_date` or `current_time`.
pub fn is_clock(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref::<Clock>().is_some(),
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reads {
    Instant,
    Date,
    Time,
}

/// One of the clock's functions; without an instant it can be planned but not run.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    reads: Reads,
    now: Option<ValidTime>,
    signature: Signature,
    aliases: Vec<String>,
}

impl Clock {
    fn new(reads: Reads, now: Option<ValidTime>) -> Self {
        let aliases: &[&str] = match reads {
            Reads::Instant => &["current_timestamp", "localtimestamp", "transaction_timestamp"],
            Reads::Date => &["today"],
            Reads::Time => &["localtime"],
        };
        Self {
            reads,
            now,
            signature: Signature::nullary(Volatility::Stable),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        }
    }

    fn value(&self) -> Option<ScalarValue> {
        let now = self.now?;
        let (days, micros) =
            (now.micros().div_euclid(MICROS_PER_DAY), now.micros().rem_euclid(MICROS_PER_DAY));
        Some(match self.reads {
            Reads::Instant => timestamp_scalar(now),
            Reads::Date => ScalarValue::Date32(i32::try_from(days).ok()),
            Reads::Time => ScalarValue::Time64Microsecond(Some(micros)),
        })
    }
}

impl ScalarUDFImpl for Clock {
    fn name(&self) -> &str {
        match self.reads {
            Reads::Instant => "now",
            Reads::Date => "current_date",
            Reads::Time => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match self.reads {
            Reads::Instant => timestamp_type(),
            Reads::Date => ColumnType::Date.data_type(),
            Reads::Time => ColumnType::Time.data_type(),
        })
    }

    fn simplify(
        &self,
        args: Vec<Expr>,
        _context: &SimplifyContext,
    ) -> DataFusionResult<ExprSimplifyResult> {
        Ok(match self.value() {
            Some(value) => ExprSimplifyResult::Simplified(Expr::Literal(value, None)),
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        match self.value() {
            Some(value) => Ok(ColumnarValue::Scalar(value)),
            None => internal_err!("the clock was read outside a statement"),
        }
    }
}
