//! `everwhen.erasures`: the tenant's keys that were erased, by keyed hash, and how far each is.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{ColumnType, Store, Tenant, Value};

use super::{SystemTable, batch_of, int, schema_of, text};
use crate::error::Result;

const COLUMNS: &[(&str, ColumnType)] = &[
    ("table", ColumnType::Text),
    ("key_hash", ColumnType::Text),
    ("erased_tx", ColumnType::Int64),
    ("requested_at", ColumnType::Timestamp),
    ("state", ColumnType::Text),
    ("purged_at", ColumnType::Timestamp),
];

/// See the module.
pub struct Erasures(pub Store);

impl SystemTable for Erasures {
    fn name(&self) -> &str {
        "erasures"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch> {
        let mut rows = Vec::new();
        for erasure in self.0.erasures()?.into_iter().filter(|one| one.tenant == *tenant) {
            // As the table was called then: it may be gone by now.
            let definitions = self.0.definitions_at(erasure.tx);
            let name = definitions.table_by_id(erasure.table).map(|table| text(&table.name));
            rows.push(vec![
                name.unwrap_or(Value::Null),
                text(format!("{:032x}", erasure.key_hash)),
                int(erasure.tx.get()),
                Value::Timestamp(erasure.requested_at.micros()),
                text(erasure.state.word()),
                erasure.purged_at.map_or(Value::Null, |at| Value::Timestamp(at.micros())),
            ]);
        }
        batch_of(COLUMNS, &rows)
    }
}
