//! The relations between two periods: those of SQL:2011 (part 2, 8.20) and the thirteen of Allen,
//! "Maintaining knowledge about temporal intervals", CACM 26(11), 1983.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::parts::{End, arrays, common_of, raw};
use super::{Bounds, Instants, Periods, coerced_instant, coerced_period, is_period};
use crate::columns::timestamp_type;
use crate::error::Result;

/// How one period stands to another. Beside each, Allen's relations that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Relation {
    /// equals, contains, started by, finished by
    Contains,
    /// contains
    StrictlyContains,
    /// all but before, meets, met by, after
    Overlaps,
    /// equals
    Equals,
    /// before, meets
    Precedes,
    /// before
    StrictlyPrecedes,
    /// meets
    ImmediatelyPrecedes,
    /// after, met by
    Succeeds,
    /// after
    StrictlySucceeds,
    /// met by
    ImmediatelySucceeds,
    /// overlaps
    Leads,
    /// finished by
    ImmediatelyLeads,
    /// overlapped by
    Lags,
    /// started by
    ImmediatelyLags,
}

impl Relation {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Contains,
        Self::StrictlyContains,
        Self::Overlaps,
        Self::Equals,
        Self::Precedes,
        Self::StrictlyPrecedes,
        Self::ImmediatelyPrecedes,
        Self::Succeeds,
        Self::StrictlySucceeds,
        Self::ImmediatelySucceeds,
        Self::Leads,
        Self::ImmediatelyLeads,
        Self::Lags,
        Self::ImmediatelyLags,
    ];

    /// Returns the name of its function.
    pub(crate) const fn function(self) -> &'static str {
        match self {
            Self::Contains => "period_contains",
            Self::StrictlyContains => "period_strictly_contains",
            Self::Overlaps => "period_overlaps",
            Self::Equals => "period_equals",
            Self::Precedes => "period_precedes",
            Self::StrictlyPrecedes => "period_strictly_precedes",
            Self::ImmediatelyPrecedes => "period_immediately_precedes",
            Self::Succeeds => "period_succeeds",
            Self::StrictlySucceeds => "period_strictly_succeeds",
            Self::ImmediatelySucceeds => "period_immediately_succeeds",
            Self::Leads => "period_leads",
            Self::ImmediatelyLeads => "period_immediately_leads",
            Self::Lags => "period_lags",
            Self::ImmediatelyLags => "period_immediately_lags",
        }
    }

    /// True where it holds between two periods that each hold an instant.
    pub(super) const fn holds(self, one: Bounds, other: Bounds) -> bool {
        let ((a, b), (c, d)) = (one, other);
        match self {
            Self::Contains => a <= c && d <= b,
            Self::StrictlyContains => a < c && d < b,
            Self::Overlaps => a < d && c < b,
            Self::Equals => a == c && b == d,
            Self::Precedes => b <= c,
            Self::StrictlyPrecedes => b < c,
            Self::ImmediatelyPrecedes => b == c,
            Self::Succeeds => d <= a,
            Self::StrictlySucceeds => d < a,
            Self::ImmediatelySucceeds => d == a,
            Self::Leads => a < c && c < b && b < d,
            Self::ImmediatelyLeads => a < c && b == d,
            Self::Lags => c < a && a < d && d < b,
            Self::ImmediatelyLags => a == c && d < b,
        }
    }
}

/// Returns the function of a relation.
pub(super) fn function(relation: Relation) -> ScalarUDF {
    let aliases = match relation {
        Relation::Overlaps => vec!["overlaps".to_owned()],
        _ => Vec::new(),
    };
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(Related { relation, signature, aliases })
}

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for relation in Relation::ALL {
        state.register_udf(Arc::new(function(relation)))?;
    }
    Ok(())
}

/// A relation as a function of two periods. CONTAINS also takes an instant, OVERLAPS any number of
/// periods, which must have one in common. NULL in, NULL out.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Related {
    relation: Relation,
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Related {
    fn name(&self) -> &str {
        self.relation.function()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let name = self.name().trim_start_matches("period_").replace('_', " ").to_uppercase();
        let counted = match self.relation {
            Relation::Overlaps => given.len() >= 2,
            _ => given.len() == 2,
        };
        if !counted {
            return plan_err!("{name} takes two periods");
        }
        let coerced = |at: usize, one: &DataType| match (self.relation, at) {
            (Relation::Contains, 1) if !is_period(one) => coerced_instant(&name, one),
            _ => coerced_period(&name, one),
        };
        given.iter().enumerate().map(|(at, one)| coerced(at, one)).collect()
    }

    /// What joins are looked for in becomes comparisons of bounds, which joins and scans understand.
    fn simplify(
        &self,
        args: Vec<Expr>,
        context: &SimplifyContext,
    ) -> DataFusionResult<ExprSimplifyResult> {
        let [one, other] = args.as_slice() else { return Ok(ExprSimplifyResult::Original(args)) };
        let (from, to) = (|of: &Expr| raw(End::Lower, of), |of: &Expr| raw(End::Upper, of));
        let lowered = match self.relation {
            Relation::Overlaps => from(one).lt(to(other)).and(from(other).lt(to(one))),
            Relation::Contains if context.get_data_type(other)? == timestamp_type() => {
                from(one).lt_eq(other.clone()).and(other.clone().lt(to(one)))
            }
            _ => return Ok(ExprSimplifyResult::Original(args)),
        };
        Ok(ExprSimplifyResult::Simplified(lowered))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = args.number_rows;
        let related: BooleanArray = if is_period(&args.args[1].data_type()) {
            let periods = arrays(&args)?;
            match periods.as_slice() {
                [one, other] => {
                    let holds = |row| Some(self.relation.holds(one.get(row)?, other.get(row)?));
                    (0..rows).map(holds).collect()
                }
                many => {
                    let overlap = |row| common_of(many, row).map(|(from, to)| from < to);
                    (0..rows).map(overlap).collect()
                }
            }
        } else {
            let periods = Periods::of(&args.args[0].to_array(rows)?)?;
            let instants = Instants::of(&args.args[1].to_array(rows)?)?;
            let within = |row| {
                let ((from, to), at) = (periods.get(row)?, instants.get(row)?);
                Some(from <= at && at < to)
            };
            (0..rows).map(within).collect()
        };
        Ok(ColumnarValue::Array(Arc::new(related)))
    }
}
