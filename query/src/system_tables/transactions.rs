//! `everwhen.transactions`: what was committed when, and where it came from.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{ColumnType, Origin, Store, Tenant, TxId, Value};

use super::{SystemTable, batch_of, int, schema_of, text};
use crate::error::Result;

/// The newest transactions that are shown.
const SHOWN_MAX: u64 = 100_000;

const COLUMNS: &[(&str, ColumnType)] = &[
    ("tx", ColumnType::Int64),
    ("system_time", ColumnType::Timestamp),
    ("source", ColumnType::Text),
    ("stream", ColumnType::Text),
    ("topic", ColumnType::Text),
    ("partition", ColumnType::Int64),
    ("offset", ColumnType::Int64),
];

/// See the module.
pub struct Transactions(pub Store);

impl SystemTable for Transactions {
    fn name(&self) -> &str {
        "transactions"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, _tenant: &Tenant) -> Result<RecordBatch> {
        let last = self.0.latest().tx;
        let first = TxId::new(last.get().saturating_sub(SHOWN_MAX - 1).max(1));
        let mut rows = Vec::new();
        for entry in self.0.journal(first, last)? {
            let (source, stream) = match &entry.origin {
                Origin::Client => ("client", Value::Null),
                Origin::Events { stream } => ("events", text(stream)),
                Origin::Kafka { stream } => ("kafka", text(stream)),
                Origin::Import => ("import", Value::Null),
            };
            for step in 0..entry.count {
                let tx = entry.first_tx.plus(step);
                if tx < first || tx > last {
                    continue;
                }
                let later = i64::try_from(step).unwrap_or(i64::MAX);
                let at = entry.system_time.saturating_add(later);
                let place = entry.positions.iter().find(|(of, _)| *of == tx).map(|(_, p)| p);
                rows.push(vec![
                    int(tx.get()),
                    Value::Timestamp(at.micros()),
                    text(source),
                    stream.clone(),
                    place.map_or(Value::Null, |place| text(&place.topic)),
                    place.map_or(Value::Null, |place| int(place.partition)),
                    place.map_or(Value::Null, |place| int(place.offset)),
                ]);
            }
        }
        batch_of(COLUMNS, &rows)
    }
}
