//! The query from scratch, by DataFusion: the check of every delta, and the fallback where none is.

use arrow::datatypes::Schema;
use datafusion::logical_expr::LogicalPlan;
use everwhen_query::plan::{Continuous, execute_plan};
use everwhen_query::session::StatementContext;
use everwhen_storage::{Basis, Store, Tenant};
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};

use super::zset::{ZSet, batch_of};
use crate::error::{Error, Result};

/// Runs whole queries from threads that may block.
#[derive(Debug, Clone)]
pub struct Full {
    runtime: Option<Handle>,
}

impl Full {
    /// Uses the runtime of the caller, or one of its own per query where there is none.
    pub fn new() -> Self {
        Self { runtime: Handle::try_current().ok() }
    }

    /// Shows that a query can be run, reading nothing. Blocking.
    ///
    /// # Errors
    /// 0A000 for what has no physical plan, or lacks an operation for its types.
    pub fn prove(&self, store: &Store, query: &Continuous) -> Result<()> {
        let context = StatementContext::new(store.clone(), store.latest(), Tenant::default());
        Ok(self.block_on(everwhen_query::prove(query, &context))??)
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        Ok(match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::internal(format!("no runtime: {error}")))?
                .block_on(work),
        })
    }

    /// Returns all rows of a planned query for one tenant at a basis. Blocking.
    pub fn rows(
        &self,
        store: &Store,
        plan: &LogicalPlan,
        basis: Basis,
        tenant: &Tenant,
    ) -> Result<ZSet> {
        // What an erasure takes is the difference to what was there.
        let context = StatementContext::new(store.clone(), basis, tenant.clone()).with_unerased();
        let batches = self.block_on(execute_plan(store.clone(), plan.clone(), context))??;
        let fields: Vec<_> = plan
            .schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let mut rows = ZSet::empty(&schema);
        for batch in batches {
            let count = batch.num_rows();
            let part = ZSet::once(batch_of(&schema, batch.columns().to_vec(), count)?);
            rows = rows.plus(part)?;
        }
        Ok(rows)
    }
}

impl Default for Full {
    fn default() -> Self {
        Self::new()
    }
}
