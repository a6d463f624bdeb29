//! `generate_series` and `range` as tables: they count instants in nanoseconds, SQL here in
//! microseconds.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;

/// Puts ours in front of DataFusion's.
pub(super) fn register(state: &mut SessionState) {
    for name in ["generate_series", "range"] {
        let Some(function) = state.table_functions().get(name) else { continue };
        let inner = Arc::clone(function.function());
        state.register_udtf(name, Arc::new(Series { inner }));
    }
}

#[derive(Debug)]
struct Series {
    inner: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Series {
    fn call_with_args(
        &self,
        args: TableFunctionArgs<'_, '_>,
    ) -> DataFusionResult<Arc<dyn TableProvider>> {
        let exprs: Vec<Expr> = args.exprs().iter().map(in_nanoseconds).collect();
        self.inner.call_with_args(TableFunctionArgs::new(&exprs, args.session()))
    }
}

fn in_nanoseconds(expr: &Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), zone), metadata) => {
            match micros.checked_mul(1_000) {
                Some(nanos) => Expr::Literal(
                    ScalarValue::TimestampNanosecond(Some(nanos), zone.clone()),
                    metadata.clone(),
                ),
                None => expr.clone(),
            }
        }
        _ => expr.clone(),
    }
}
