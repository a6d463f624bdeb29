//! What makes a join one over periods: two comparisons that look in opposite directions.
//!
//! ```text
//! left.from <= right.at    AND right.at   < left.to       an instant within a version
//! left.from <  right.to    AND right.from < left.to       two periods that overlap
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::JoinSide;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::split_conjunction;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};

use super::index::Strict;

type Expr = Arc<dyn PhysicalExpr>;

/// The two comparisons of a join's condition, as expressions over the sides' own columns.
#[derive(Debug, Clone)]
pub struct Overlap {
    /// The lower bound of each side: what the other's upper bound lies after.
    pub left: Bounds,
    pub right: Bounds,
    /// Whether `left.from` must lie before `right.to`, or may be equal to it.
    pub left_before_right: bool,
    /// Whether `right.from` must lie before `left.to`, or may be equal to it.
    pub right_before_left: bool,
    /// The condition says nothing else.
    pub is_all: bool,
}

/// The bounds of a side's rows. Of an instant they are the same.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub from: Expr,
    pub to: Expr,
}

impl Bounds {
    /// True where both are one instant.
    pub fn is_instant(&self) -> bool {
        self.from.eq(&self.to)
    }
}

impl Overlap {
    /// Finds the comparisons in a join's condition; nothing where it has none such.
    ///
    /// # Errors
    /// Where the condition cannot be read.
    pub fn of(
        filter: &JoinFilter,
        left: &Schema,
        right: &Schema,
    ) -> DataFusionResult<Option<Self>> {
        let reader = Reader { filter, left, right };
        let (mut forth, mut back) = (None, None);
        let conjuncts = split_conjunction(filter.expression());
        for conjunct in &conjuncts {
            match reader.comparison(conjunct)? {
                Some(found) if found.lower_side == JoinSide::Left => forth = forth.or(Some(found)),
                Some(found) => back = back.or(Some(found)),
                None => {}
            }
        }
        let (Some(forth), Some(back)) = (forth, back) else { return Ok(None) };
        Ok(Some(Self {
            left: Bounds { from: forth.lower, to: back.upper },
            right: Bounds { from: back.lower, to: forth.upper },
            left_before_right: forth.strict,
            right_before_left: back.strict,
            is_all: conjuncts.len() == 2,
        }))
    }

    /// Returns what counts as inside where this side is indexed.
    pub const fn strict(&self, indexed: JoinSide) -> Strict {
        match indexed {
            JoinSide::Left => Strict { from: self.left_before_right, to: self.right_before_left },
            _ => Strict { from: self.right_before_left, to: self.left_before_right },
        }
    }
}

/// `lower < upper` or `lower <= upper`, with the sides apart.
struct Comparison {
    lower_side: JoinSide,
    lower: Expr,
    upper: Expr,
    strict: bool,
}

struct Reader<'a> {
    filter: &'a JoinFilter,
    left: &'a Schema,
    right: &'a Schema,
}

impl Reader<'_> {
    fn comparison(&self, expr: &Expr) -> DataFusionResult<Option<Comparison>> {
        let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Ok(None) };
        let (lower, upper, strict) = match binary.op() {
            Operator::Lt => (binary.left(), binary.right(), true),
            Operator::LtEq => (binary.left(), binary.right(), false),
            Operator::Gt => (binary.right(), binary.left(), true),
            Operator::GtEq => (binary.right(), binary.left(), false),
            _ => return Ok(None),
        };
        let kinds = [lower, upper].map(|side| side.data_type(self.filter.schema()));
        let [Ok(lower_kind), Ok(upper_kind)] = kinds else { return Ok(None) };
        if lower_kind != upper_kind || !is_counted(&lower_kind) {
            return Ok(None);
        }
        let (lower_side, upper_side) = (self.side(lower)?, self.side(upper)?);
        Ok(match (lower_side, upper_side) {
            (Some(lower_side), Some(upper_side)) if lower_side != upper_side => Some(Comparison {
                lower_side,
                lower: self.own(lower, lower_side)?,
                upper: self.own(upper, upper_side)?,
                strict,
            }),
            _ => None,
        })
    }

    /// Returns the one side that an expression is over.
    fn side(&self, expr: &Expr) -> DataFusionResult<Option<JoinSide>> {
        let (mut side, mut mixed) = (None, false);
        expr.apply(|part| {
            if let Some(column) = part.downcast_ref::<Column>() {
                let at = self.place(column).map(|place| place.side);
                mixed |= at.is_none() || side.is_some_and(|side| Some(side) != at);
                side = side.or(at);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(side.filter(|_| !mixed))
    }

    fn place(&self, column: &Column) -> Option<&ColumnIndex> {
        self.filter.column_indices().get(column.index())
    }

    /// Returns an expression over the columns of its side.
    fn own(&self, expr: &Expr, side: JoinSide) -> DataFusionResult<Expr> {
        let schema = if side == JoinSide::Left { self.left } else { self.right };
        let own = Arc::clone(expr).transform(|part| {
            let place = part.downcast_ref::<Column>().and_then(|column| self.place(column));
            Ok(match place {
                Some(place) => {
                    let name = schema.field(place.index).name();
                    Transformed::yes(Arc::new(Column::new(name, place.index)) as Expr)
                }
                None => Transformed::no(part),
            })
        })?;
        Ok(own.data)
    }
}

/// True for types whose order is that of the numbers that they are stored as.
fn is_counted(kind: &DataType) -> bool {
    matches!(kind, DataType::Timestamp(..) | DataType::Date32 | DataType::Int64 | DataType::Int32)
}
