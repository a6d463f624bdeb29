//! `+`, `-`, `*` and the sign of integers, which tell where a result has no place in 64 bits:
//! DataFusion wraps.
//!
//! A whole expression of such operators becomes one call with a small program, so that a chain of a
//! thousand is no deeper than one.

use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

use super::rules::map_expressions;

/// Runs after DataFusion has made the types of both sides equal.
#[derive(Debug)]
pub struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        map_expressions(plan, within)
    }

    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }
}

/// Checks every operator on integers in an expression, from the outermost in.
fn within(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    expr.transform_down(|expr| {
        if !is_operator(&expr) {
            return Ok(Transformed::no(expr));
        }
        let mut program = Program::default();
        if !program.compile(&expr, schema) {
            return Ok(Transformed::no(expr));
        }
        let Program { steps, operands } = program;
        // Only now: an expression that is none of ours is looked at again from further in.
        let checked = |operand: &Expr| Ok(within(operand.clone(), schema)?.data);
        let operands = operands.into_iter().map(checked).collect::<DataFusionResult<Vec<_>>>()?;
        let signature = Signature::any(operands.len(), Volatility::Immutable);
        let call = ScalarUDF::from(Checked { steps, signature }).call(operands);
        Ok(Transformed::new(call, true, TreeNodeRecursion::Jump))
    })
}

fn is_operator(expr: &Expr) -> bool {
    match expr {
        Expr::Negative(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => {
            matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
        }
        _ => false,
    }
}

/// An expression in postfix form.
#[derive(Default)]
struct Program<'a> {
    steps: Vec<Step>,
    operands: Vec<&'a Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Takes the next operand.
    Operand,
    Negate,
    Apply(Operator),
}

impl<'a> Program<'a> {
    /// Appends an expression; false where some of it is no integer.
    fn compile(&mut self, expr: &'a Expr, schema: &DFSchema) -> bool {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_operator(expr) => {
                let both = self.compile(left, schema) && self.compile(right, schema);
                self.steps.push(Step::Apply(*op));
                both
            }
            Expr::Negative(inner) => {
                let is_int = self.compile(inner, schema);
                self.steps.push(Step::Negate);
                is_int
            }
            leaf => {
                self.operands.push(leaf);
                self.steps.push(Step::Operand);
                matches!(leaf.get_type(schema), Ok(DataType::Int64))
            }
        }
    }
}

/// Operators on columns of int64, in postfix form.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    steps: Vec<Step>,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        "checked"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn schema_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        let mut operands = args.iter();
        let mut shown: Vec<String> = Vec::new();
        for step in &self.steps {
            let text = match (step, shown.pop()) {
                (Step::Operand, before) => {
                    shown.extend(before);
                    operands.next().map(ToString::to_string).unwrap_or_default()
                }
                (Step::Negate, inner) => format!("(- {})", inner.unwrap_or_default()),
                (Step::Apply(op), right) => {
                    let (left, right) =
                        (shown.pop().unwrap_or_default(), right.unwrap_or_default());
                    format!("({left} {op} {right})")
                }
            };
            shown.push(text);
        }
        Ok(shown.pop().unwrap_or_default())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let mut operands = args.args.into_iter();
        let mut stack: Vec<ColumnarValue> = Vec::new();
        for step in &self.steps {
            let value = match (step, stack.pop()) {
                (Step::Operand, before) => {
                    stack.extend(before);
                    operands.next()
                }
                (Step::Negate, Some(inner)) => {
                    let zero = ColumnarValue::Scalar(Some(0_i64).into());
                    Some(apply(&zero, &inner, numeric::sub)?)
                }
                (Step::Apply(op), right) => match (op, stack.pop(), right) {
                    (Operator::Plus, Some(left), Some(right)) => {
                        Some(apply(&left, &right, numeric::add)?)
                    }
                    (Operator::Minus, Some(left), Some(right)) => {
                        Some(apply(&left, &right, numeric::sub)?)
                    }
                    (_, Some(left), Some(right)) => Some(apply(&left, &right, numeric::mul)?),
                    _ => None,
                },
                (Step::Negate, None) => None,
            };
            let Some(value) = value else {
                return internal_err!("an expression lacks operands");
            };
            stack.push(value);
        }
        match stack.pop() {
            Some(value) => Ok(value),
            None => internal_err!("an expression is empty"),
        }
    }
}
