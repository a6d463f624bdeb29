//! One key of a table: its state at a point of both axes, or everything ever believed of it.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices};
use arrow::error::ArrowError;
use everwhen_query::columns::json_of;
use everwhen_query::{Params, parse_basis};
use everwhen_storage::{ColumnType, SystemTime, TableDef, ValidTime};
use serde_json::{Map, Value, json};

use super::Services;
use super::query::{Answer, Statement, run};
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Which entity, read how.
#[derive(Debug, Clone)]
pub struct EntityRequest {
    pub table: String,
    /// The key: its text, or a JSON array of the values of a composite key.
    pub id: String,
    pub tenant: Option<String>,
    pub valid_time: Option<ValidTime>,
    pub system_time: Option<SystemTime>,
    pub basis: Option<String>,
}

/// The columns that stand beside a row, in the order they are asked for.
const TIMES: [&str; 4] = ["_valid_from", "_valid_to", "_system_from", "_system_to"];

/// Returns `{"table", "id", "row", "valid_from", "valid_to", "system_from", "system_to", "basis"}`.
///
/// # Errors
/// `not_found` where the table or a version at that point does not exist.
pub async fn state(services: &Services, request: EntityRequest) -> Answered<Value> {
    let table = table_of(services, &request)?;
    let id = id_values(&table, &request.id)?;
    let (versions, basis) = read(services, &table, &id, &request, "").await?;
    let Some(version) = versions.into_iter().next() else {
        let detail = format!("table \"{}\" has no such row at that time", table.name);
        return Err(Failure::new(Code::NotFound, detail));
    };
    let mut answer = json!({"table": table.name, "id": shown_id(&id)});
    if let (Some(answer), Value::Object(version)) = (answer.as_object_mut(), version) {
        answer.extend(version);
        answer.insert("basis".to_owned(), basis.into());
    }
    Ok(answer)
}

/// Returns `{"versions": [..], "basis"}`, ordered by system time, then valid time.
///
/// # Errors
/// `not_found` where the table does not exist.
pub async fn history(services: &Services, request: EntityRequest) -> Answered<Value> {
    let table = table_of(services, &request)?;
    let id = id_values(&table, &request.id)?;
    let all = "FOR ALL SYSTEM_TIME FOR ALL VALID_TIME";
    let (versions, basis) = read(services, &table, &id, &request, all).await?;
    Ok(json!({"versions": versions, "basis": basis}))
}

/// Returns the table as declared at the request's basis.
fn table_of(services: &Services, request: &EntityRequest) -> Answered<Arc<TableDef>> {
    let (store, name) = (&services.store, &request.table);
    let definitions = match &request.basis {
        None => store.definitions(),
        Some(token) => store.definitions_at(parse_basis(store, token)?.tx),
    };
    definitions.table(name).cloned().ok_or_else(|| {
        let detail = format!("table \"{name}\" does not exist");
        Failure::of_sqlstate("42P01", detail).as_code(Code::NotFound)
    })
}

async fn read(
    services: &Services,
    table: &TableDef,
    id: &[Value],
    request: &EntityRequest,
    clauses: &str,
) -> Answered<(Vec<Value>, String)> {
    let keys = table.key.iter().filter_map(|key| table.column_by_id(*key));
    let tests: Vec<_> = keys
        .enumerate()
        .map(|(place, column)| format!("{} = ${}", quoted(&column.name), place + 1))
        .collect();
    let mut statement = Statement::new(format!(
        "SELECT {}, * FROM {} {clauses} WHERE {}",
        TIMES.join(", "),
        quoted(&table.name),
        tests.join(" AND "),
    ));
    statement.params = Params::Positional(id.to_vec());
    statement.tenant.clone_from(&request.tenant);
    statement.valid_time = request.valid_time;
    statement.system_time = request.system_time;
    statement.basis.clone_from(&request.basis);
    let Answer::Rows(rows) = run(services, statement).await? else {
        return Err(Failure::internal(&"a read of an entity was taken for a write"));
    };
    let (columns, basis) = (rows.columns.clone(), rows.basis.clone());
    let schema = Arc::clone(&rows.schema);
    let found = concat_batches(&schema, &rows.collect().await?);
    let found = found.map_err(|error| Failure::internal(&error))?;
    let versions = in_order(&found).map_err(|error| Failure::internal(&error))?;
    let version = |row: &u32| version_of(&columns, &found, *row as usize);
    Ok((versions.values().iter().map(version).collect(), basis))
}

/// Returns the places of versions in the order of their system time, then of their valid time.
fn in_order(found: &RecordBatch) -> Result<UInt32Array, ArrowError> {
    let by = |place: usize| SortColumn {
        values: Arc::clone(found.column(place)),
        options: Some(SortOptions { descending: false, nulls_first: true }),
    };
    // Where they stand among the times that are asked for.
    let (valid_from, system_from) = (0, 2);
    lexsort_to_indices(&[by(system_from), by(valid_from)], None)
}

fn version_of(columns: &[(String, ColumnType)], batch: &RecordBatch, row: usize) -> Value {
    let mut version = Map::new();
    let mut fields = Map::new();
    for (place, ((name, kind), array)) in columns.iter().zip(batch.columns()).enumerate() {
        let value = json_of(array, row, kind);
        match TIMES.get(place) {
            Some(time) => {
                let name = time.trim_start_matches('_');
                version.insert(name.to_owned(), value);
            }
            None => {
                fields.insert(name.clone(), value);
            }
        }
    }
    let mut answer = Map::new();
    answer.insert("row".to_owned(), Value::Object(fields));
    answer.extend(version);
    Value::Object(answer)
}

/// Takes a key apart: the text itself for one column, a JSON array for several.
fn id_values(table: &TableDef, id: &str) -> Answered<Vec<Value>> {
    let kinds: Vec<_> = table.key.iter().filter_map(|key| table.column_by_id(*key)).collect();
    let texts: Vec<Value> = match kinds.as_slice() {
        [_] => vec![Value::String(id.to_owned())],
        _ => serde_json::from_str::<Vec<Value>>(id)
            .ok()
            .filter(|values| values.len() == kinds.len())
            .ok_or_else(|| {
                let names: Vec<_> = kinds.iter().map(|column| column.name.as_str()).collect();
                Failure::request(format!(
                    "the key of table \"{}\" is ({}): give a JSON array of {} values as id",
                    table.name,
                    names.join(", "),
                    names.len()
                ))
            })?,
    };
    kinds
        .iter()
        .zip(texts)
        .map(|(column, value)| typed(&column.name, &column.kind, value))
        .collect()
}

/// Reads text from a path as a value of a key column's type.
fn typed(name: &str, kind: &ColumnType, value: Value) -> Answered<Value> {
    let Value::String(text) = &value else { return Ok(value) };
    let typed = match kind {
        ColumnType::Int64 => text.parse::<i64>().ok().map(Value::from),
        ColumnType::Bool => text.parse::<bool>().ok().map(Value::from),
        _ => return Ok(value),
    };
    typed.ok_or_else(|| {
        let detail = format!("\"{text}\" is no {kind} for key column \"{name}\"");
        Failure::of_sqlstate("22P02", detail)
    })
}

fn shown_id(id: &[Value]) -> Value {
    match id {
        [one] => one.clone(),
        several => Value::Array(several.to_vec()),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use everwhen_storage::{ColumnDef, ColumnId, Precedence, TableId};

    use super::*;

    fn table(kinds: &[(&str, ColumnType)]) -> TableDef {
        let columns = (0..)
            .zip(kinds)
            .map(|(id, (name, kind))| ColumnDef {
                id: ColumnId(id),
                name: (*name).to_owned(),
                kind: kind.clone(),
                nullable: false,
            })
            .collect::<Vec<_>>();
        TableDef {
            id: TableId(1),
            name: "t".to_owned(),
            precedence: Precedence::Recorded,
            key: columns.iter().map(|column| column.id).collect(),
            columns,
            declared: true,
        }
    }

    #[test]
    fn id_takes_the_type_of_the_key() {
        let text = table(&[("_id", ColumnType::Text)]);
        assert_eq!(id_values(&text, "7").unwrap(), [json!("7")]);
        let int = table(&[("_id", ColumnType::Int64)]);
        assert_eq!(id_values(&int, "7").unwrap(), [json!(7)]);
        assert_eq!(id_values(&int, "x").unwrap_err().sqlstate, "22P02");
    }

    #[test]
    fn composite_id_is_a_json_array_of_the_right_length() {
        let both = table(&[("a", ColumnType::Text), ("b", ColumnType::Int64)]);
        assert_eq!(id_values(&both, "[\"x\", 2]").unwrap(), [json!("x"), json!(2)]);
        let error = id_values(&both, "x").unwrap_err();
        assert!(error.detail.contains("(a, b)"), "{}", error.detail);
        assert!(id_values(&both, "[\"x\"]").is_err());
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
