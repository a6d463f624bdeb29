//! `+`, `-` and `*` of integers, which tell where a result has no place in 64 bits: DataFusion wraps.

use arrow::array::ArrayRef;
use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// Runs after DataFusion has made the types of both sides equal.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| Ok(checked(expr, &schema)))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_int = |side: &Expr| matches!(side.get_type(schema), Ok(DataType::Int64));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && is_int(&left)
                && is_int(&right) =>
        {
            let signature = Signature::any(2, Volatility::Immutable);
            let call = ScalarUDF::from(Checked { op, signature }).call(vec![*left, *right]);
            Transformed::yes(call)
        }
        other => Transformed::no(other),
    }
}

/// An operation on two columns of int64.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let side = |at: usize| args.args[at].to_array(args.number_rows);
        let (left, right): (ArrayRef, ArrayRef) = (side(0)?, side(1)?);
        let computed = match self.op {
            Operator::Plus => numeric::add(&left, &right)?,
            Operator::Minus => numeric::sub(&left, &right)?,
            _ => numeric::mul(&left, &right)?,
        };
        Ok(ColumnarValue::Array(computed))
    }
}
