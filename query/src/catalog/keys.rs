//! Primary keys in the catalogs: rows of `pg_index`, `pg_constraint` and `pg_class` for each
//! table's key, which the catalogs' crate knows nothing of.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int16Array, RecordBatch, StringArray};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::SessionContext;
use everwhen_storage::Definitions;

use super::Names;
use super::activity::{self, Activity};
use crate::error::{Error, Result};

const SCHEMA: &str = "pg_catalog";

/// Which key columns a table has, in their order.
const KEYED: &str = "FROM pg_catalog.everwhen_class c \
     JOIN pg_catalog.everwhen_keys k ON k.relname = c.relname \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public' \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = k.attname \
     GROUP BY c.oid, c.relname, c.relnamespace";

/// Object ids of keys' indexes and constraints are those of their tables and this.
const INDEX: &str = "CAST(c.oid + 1000000 AS INT)";
const CONSTRAINT: &str = "CAST(c.oid + 2000000 AS INT)";
const COLUMNS: &str = "array_agg(a.attnum ORDER BY k.place)";
const NONE: &str = "CAST(NULL AS TEXT)";

const VIEWS: &str = "SELECT v.table_schema AS schemaname, v.table_name AS viewname, \
     s.schema_owner AS viewowner, v.view_definition AS definition \
     FROM information_schema.views v \
     JOIN information_schema.schemata s ON s.schema_name = v.table_schema";

/// Shows the tables' keys in a catalog session.
///
/// # Errors
/// XX000 where something cannot be registered.
pub fn register(
    session: &SessionContext,
    names: &Names,
    definitions: &Definitions,
    activity: Option<Activity>,
) -> Result<()> {
    let missing = || Error::internal("a catalog session has no catalog");
    let catalog = session.catalog(&names.database).ok_or_else(missing)?;
    let inner = catalog.schema(SCHEMA).ok_or_else(missing)?;
    // The session's tables are at hand, so nothing here waits.
    let class = futures::executor::block_on(inner.table("pg_class"))?.ok_or_else(missing)?;
    let columns: Vec<String> =
        class.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut tables: BTreeMap<&str, Arc<dyn TableProvider>> = BTreeMap::new();
    tables.insert("everwhen_keys", Arc::new(keys(definitions)?));
    tables.insert("everwhen_class", class);
    let with = |tables: &BTreeMap<&'static str, Arc<dyn TableProvider>>| {
        let (inner, tables) = (Arc::clone(&inner), tables.clone());
        catalog.register_schema(SCHEMA, Arc::new(WithKeys { inner, tables }))
    };
    let mut views = vec![
        ("pg_index", indexes()),
        ("pg_constraint", constraints()),
        ("pg_class", classes(&columns)),
        ("pg_views", VIEWS.to_owned()),
    ];
    if let Some(activity) = activity {
        views.push(("pg_stat_activity", activity::sessions(names)));
        tables.insert(activity::TABLE, Arc::new(activity));
    }
    with(&tables)?;
    for (name, sql) in views {
        let state = session.state();
        let plan = futures::executor::block_on(state.create_logical_plan(&sql))?;
        tables.insert(name, Arc::new(ViewTable::new(plan, None)));
    }
    with(&tables)?;
    Ok(())
}

fn keys(definitions: &Definitions) -> Result<MemTable> {
    let (mut tables, mut columns, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for table in definitions.tables.values() {
        let key = table.key.iter().filter_map(|id| table.column_by_id(*id));
        for (column, place) in key.zip(1_i16..) {
            tables.push(table.name.clone());
            columns.push(column.name.clone());
            places.push(place);
        }
    }
    let arrays: [(&str, ArrayRef); 3] = [
        ("relname", Arc::new(StringArray::from(tables))),
        ("attname", Arc::new(StringArray::from(columns))),
        ("place", Arc::new(Int16Array::from(places))),
    ];
    let batch = RecordBatch::try_from_iter(arrays)?;
    Ok(MemTable::try_new(batch.schema(), vec![vec![batch]])?)
}

fn indexes() -> String {
    format!(
        "SELECT {INDEX} AS indexrelid, c.oid AS indrelid, CAST(count(*) AS SMALLINT) AS indnatts, \
         CAST(count(*) AS SMALLINT) AS indnkeyatts, true AS indisunique, \
         false AS indnullsnotdistinct, true AS indisprimary, false AS indisexclusion, \
         true AS indimmediate, false AS indisclustered, true AS indisvalid, \
         false AS indcheckxmin, true AS indisready, true AS indislive, false AS indisreplident, \
         {COLUMNS} AS indkey, array_agg(CAST(0 AS INT)) AS indcollation, \
         array_agg(CAST(3124 AS INT)) AS indclass, \
         array_agg(CAST(k.place - k.place AS SMALLINT)) AS indoption, {NONE} AS indexprs, \
         {NONE} AS indpred {KEYED}"
    )
}

fn constraints() -> String {
    format!(
        "SELECT {CONSTRAINT} AS oid, c.relname || '_pkey' AS conname, \
         c.relnamespace AS connamespace, 'p' AS contype, false AS condeferrable, \
         false AS condeferred, true AS convalidated, c.oid AS conrelid, CAST(0 AS INT) AS contypid, \
         {INDEX} AS conindid, CAST(0 AS INT) AS conparentid, CAST(0 AS INT) AS confrelid, \
         ' ' AS confupdtype, ' ' AS confdeltype, ' ' AS confmatchtype, true AS conislocal, \
         CAST(0 AS SMALLINT) AS coninhcount, true AS connoinherit, {COLUMNS} AS conkey, \
         arrow_cast(NULL, 'List(Int16)') AS confkey, {NONE} AS conpfeqop, {NONE} AS conppeqop, \
         {NONE} AS conffeqop, {NONE} AS confdelsetcols, {NONE} AS conexclop, {NONE} AS conbin {KEYED}"
    )
}

/// The classes as they are, and one for each key's index.
fn classes(columns: &[String]) -> String {
    let mut all: Vec<_> = columns.iter().map(|name| format!("\"{name}\"")).collect();
    let index = columns.iter().map(|name| match name.as_str() {
        "oid" => "CAST(c.oid + 1000000 AS INT) AS oid".to_owned(),
        "relname" => "c.relname || '_pkey' AS relname".to_owned(),
        "relkind" => "'i' AS relkind".to_owned(),
        name => format!("c.\"{name}\""),
    });
    let mut index: Vec<_> = index.collect();
    if !columns.iter().any(|name| name == "reloptions") {
        all.push("arrow_cast(NULL, 'List(Utf8)') AS reloptions".to_owned());
        index.push("arrow_cast(NULL, 'List(Utf8)') AS reloptions".to_owned());
    }
    format!(
        "SELECT {} FROM pg_catalog.everwhen_class UNION ALL SELECT {} \
         FROM pg_catalog.everwhen_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public' \
         WHERE c.relname IN (SELECT relname FROM pg_catalog.everwhen_keys)",
        all.join(", "),
        index.join(", ")
    )
}

/// The catalogs' schema with some tables in place of its own.
#[derive(Debug)]
struct WithKeys {
    inner: Arc<dyn SchemaProvider>,
    tables: BTreeMap<&'static str, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for WithKeys {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        match self.tables.get(name) {
            Some(table) => Ok(Some(Arc::clone(table))),
            None => self.inner.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name) || self.inner.table_exist(name)
    }
}

/// Writes what JDBC asks for keys by in words that there are: its `_pg_expandarray` answers rows
/// of a value and its place.
pub fn without_expandarray(sql: &str) -> String {
    sql.replace(
        "(information_schema._pg_expandarray(i.indkey)).n",
        "generate_subscripts(i.indkey, 1)",
    )
    .replace("information_schema._pg_expandarray(i.indkey)", "unnest(i.indkey)")
    .replace("(result.KEYS).x", "result.KEYS")
    .replace("(i.keys).x", "i.keys")
    .replace("(i.keys).n", "generate_subscripts(i.keys, 1)")
}
