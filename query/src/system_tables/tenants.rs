//! `everwhen.tenants`: the reader's own tenant, and what else it may know of it.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{ColumnType, Store, Tenant, Value};

use super::{SystemTable, batch_of, schema_of, text};
use crate::error::Result;

const COLUMNS: &[(&str, ColumnType)] =
    &[("tenant", ColumnType::Text), ("written", ColumnType::Bool)];

/// See the module.
pub struct Tenants(pub Store);

impl SystemTable for Tenants {
    fn name(&self) -> &str {
        "tenants"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch> {
        let written = self.0.tenants().contains(tenant);
        batch_of(COLUMNS, &[vec![text(tenant.as_str()), Value::Bool(written)]])
    }
}
