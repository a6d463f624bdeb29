//! `everwhen.audit`: what was ever defined, changed, dropped or erased, by which transaction and when. Rows
//! written are in the tables' own histories.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::{
    ColumnDef, ColumnType, Definition, DefinitionKind, Definitions, Store, TableDef, Tenant, TxId,
    Value,
};

use super::{SystemTable, batch_of, int, retention_text, schema_of, text};
use crate::error::Result;

const COLUMNS: &[(&str, ColumnType)] = &[
    ("tx", ColumnType::Int64),
    ("system_time", ColumnType::Timestamp),
    ("action", ColumnType::Text),
    ("kind", ColumnType::Text),
    ("name", ColumnType::Text),
    ("detail", ColumnType::Text),
];

/// See the module.
pub struct Audit(pub Store);

/// One act.
#[derive(Debug, PartialEq, Eq)]
struct Act {
    action: &'static str,
    kind: &'static str,
    name: String,
    detail: Option<String>,
}

impl SystemTable for Audit {
    fn name(&self) -> &str {
        "audit"
    }

    fn schema(&self) -> SchemaRef {
        schema_of(COLUMNS)
    }

    fn rows(&self, tenant: &Tenant) -> Result<RecordBatch> {
        let mut acts: Vec<(TxId, Act)> = Vec::new();
        let mut before = Arc::<Definitions>::default();
        for after in self.0.definitions_history() {
            acts.extend(changes(&before, &after).into_iter().map(|act| (after.tx, act)));
            before = after;
        }
        for erasure in self.0.erasures()?.into_iter().filter(|one| one.tenant == *tenant) {
            let definitions = self.0.definitions_at(erasure.tx);
            let name = definitions.table_by_id(erasure.table).map(|table| table.name.clone());
            let detail = Some(format!("key hash {:032x}", erasure.key_hash));
            let name = name.unwrap_or_default();
            acts.push((erasure.tx, Act { action: "erase", kind: "table", name, detail }));
        }
        acts.sort_by_key(|(tx, _)| *tx);
        let mut rows = Vec::with_capacity(acts.len());
        let mut at = (TxId::ZERO, Value::Null);
        for (tx, act) in acts {
            if at.0 != tx {
                at = (tx, Value::Timestamp(self.0.system_time(tx)?.micros()));
            }
            rows.push(vec![
                int(tx.get()),
                at.1.clone(),
                text(act.action),
                text(act.kind),
                text(act.name),
                act.detail.map_or(Value::Null, text),
            ]);
        }
        batch_of(COLUMNS, &rows)
    }
}

/// Returns what was done between two versions of the definitions, by kind and name.
fn changes(before: &Definitions, after: &Definitions) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut note = |action, kind, name: &str, detail| {
        acts.push(Act { action, kind, name: name.to_owned(), detail });
    };
    for table in before.tables.values().filter(|table| after.table_by_id(table.id).is_none()) {
        note("drop", "table", &table.name, None);
    }
    for table in after.tables.values() {
        match before.table_by_id(table.id) {
            None => note("create", "table", &table.name, Some(made(table))),
            Some(was) if was == table => {}
            Some(was) => note("alter", "table", &table.name, Some(altered(was, table))),
        }
        let kept = retention_text(after, table.id);
        if kept != retention_text(before, table.id) {
            note("alter", "table", &table.name, Some(format!("history_retention = {kept}")));
        }
    }
    for kind in [
        DefinitionKind::Stream,
        DefinitionKind::Mapping,
        DefinitionKind::Projection,
        DefinitionKind::View,
        DefinitionKind::Index,
    ] {
        for one in before.all(kind).filter(|one| after.get(kind, &one.name).is_none()) {
            note("drop", kind.word(), &one.name, None);
        }
        for one in after.all(kind) {
            let said = |one: &Definition| (one.tx, one.body.clone());
            match before.get(kind, &one.name) {
                None => note("create", kind.word(), &one.name, None),
                Some(was) if said(was) == said(one) => {}
                Some(was) if altered_to(was) != altered_to(one) && altered_to(one).is_some() => {
                    let detail = altered_to(one).and_then(|to| to["text"].as_str());
                    note("alter", kind.word(), &one.name, detail.map(str::to_owned));
                }
                Some(_) => note("replace", kind.word(), &one.name, None),
            }
        }
    }
    acts
}

/// Returns what the last ALTER STREAM said.
fn altered_to(definition: &Definition) -> Option<&serde_json::Value> {
    definition.body.get("reading")?.get("altered")
}

fn shown(column: &ColumnDef) -> String {
    format!("{} {}{}", column.name, column.kind, if column.nullable { "" } else { " not null" })
}

fn made(table: &TableDef) -> String {
    let columns: Vec<_> = table.columns.iter().map(shown).collect();
    format!("{}; precedence = {}", columns.join(", "), table.precedence.word())
}

fn altered(before: &TableDef, after: &TableDef) -> String {
    let mut steps = Vec::new();
    if before.name != after.name {
        steps.push(format!("rename {} to {}", before.name, after.name));
    }
    if !before.declared && after.declared {
        steps.push("declare".to_owned());
    }
    for column in before.columns.iter().filter(|one| after.column_by_id(one.id).is_none()) {
        steps.push(format!("drop {}", column.name));
    }
    for column in &after.columns {
        match before.column_by_id(column.id) {
            None => steps.push(format!("add {}", shown(column))),
            Some(was) if was.name != column.name => {
                steps.push(format!("rename {} to {}", was.name, column.name));
            }
            Some(_) => {}
        }
        if let Some(was) = before.column_by_id(column.id)
            && (was.kind != column.kind || was.nullable != column.nullable)
        {
            steps.push(format!("change {} to {}", was.name, shown(column)));
        }
    }
    steps.join("; ")
}
