//! `everwhen.dead_letters`: the tenant's records that could not be processed.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{ColumnType, Store, Tenant, Value};

use super::{SystemTable, batch_of, int, schema_of, text};
use crate::error::Result;

/// Letters read from the store at once.
const PAGE: usize = 1_000;
/// Bytes of values that one statement takes at most; the newest letters beyond are left out.
const BYTES_MAX: usize = 64 << 20;

const COLUMNS: &[(&str, ColumnType)] = &[
    ("id", ColumnType::Int64),
    ("stream", ColumnType::Text),
    ("topic", ColumnType::Text),
    ("partition", ColumnType::Int64),
    ("offset", ColumnType::Int64),
    ("reason", ColumnType::Text),
    ("value", ColumnType::Bytes),
    ("size", ColumnType::Int64),
    ("at", ColumnType::Timestamp),
];

/// See the module.
pub struct DeadLetters(pub Store);

impl SystemTable for DeadLetters {
    fn name(&self) -> &str {
        "dead_letters"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch> {
        let mut rows = Vec::new();
        let (mut after, mut bytes) = (0, 0);
        loop {
            let page = self.0.dead_letters(after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for letter in page.into_iter().filter(|letter| letter.tenant == tenant.as_str()) {
                bytes += letter.value.len();
                rows.push(vec![
                    int(letter.id),
                    text(letter.stream),
                    letter.topic.map_or(Value::Null, text),
                    letter.partition.map_or(Value::Null, int),
                    letter.offset.map_or(Value::Null, int),
                    text(letter.reason),
                    Value::Bytes(letter.value),
                    int(letter.size),
                    Value::Timestamp(letter.at),
                ]);
            }
            if bytes > BYTES_MAX {
                break;
            }
        }
        batch_of(COLUMNS, &rows)
    }
}
