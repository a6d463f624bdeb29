//! `pg_stat_activity`: a line for each statement of the reader's tenant that runs.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::Names;
use crate::session::StatementContext;
use crate::system_tables::SystemTable;

/// The running statements, read when they are asked for.
pub struct Activity(Arc<dyn SystemTable>);

/// The name that [`sessions`] reads them by.
pub const TABLE: &str = "everwhen_activity";

impl Activity {
    /// Shows the rows of `everwhen.queries`.
    pub fn new(queries: Arc<dyn SystemTable>) -> Self {
        Self(queries)
    }
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Activity").finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Activity {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let Some(ctx) = state.config().get_extension::<StatementContext>() else {
            let message = "the running statements were read outside a statement".to_owned();
            return Err(DataFusionError::Internal(message));
        };
        let rows = self.0.rows(&ctx.tenant)?;
        let table = MemTable::try_new(self.schema(), vec![vec![rows]])?;
        table.scan(state, projection, filters, limit).await
    }
}

/// Returns the query that shows them in Postgres' columns.
pub fn sessions(names: &Names) -> String {
    let [database, user] = [&names.database, &names.user].map(|name| name.replace('\'', "''"));
    let none = |name: &str, kind: &str| format!("CAST(NULL AS {kind}) AS {name}");
    let columns = [
        "CAST(0 AS INT) AS datid".to_owned(),
        format!("'{database}' AS datname"),
        "CAST(row_number() OVER (ORDER BY started, query_id) AS INT) AS pid".to_owned(),
        none("leader_pid", "INT"),
        "CAST(10 AS INT) AS usesysid".to_owned(),
        format!("'{user}' AS usename"),
        "'' AS application_name".to_owned(),
        none("client_addr", "TEXT"),
        none("client_hostname", "TEXT"),
        none("client_port", "INT"),
        "started AS backend_start".to_owned(),
        "started AS xact_start".to_owned(),
        "started AS query_start".to_owned(),
        "started AS state_change".to_owned(),
        none("wait_event_type", "TEXT"),
        none("wait_event", "TEXT"),
        "'active' AS state".to_owned(),
        none("backend_xid", "INT"),
        none("backend_xmin", "INT"),
        none("query_id", "BIGINT"),
        "sql AS query".to_owned(),
        "'client backend' AS backend_type".to_owned(),
    ];
    format!("SELECT {} FROM pg_catalog.{TABLE}", columns.join(", "))
}
