//! The catalogs that Postgres keeps of itself, as tools ask for them.

use serde_json::{Value as Json, json};

use super::kit::{Kit, collect};
use crate::{Error, Names, Params, Request};

async fn ask(kit: &Kit, request: Request) -> Result<Json, Error> {
    let names = Names { database: "shop".to_owned(), user: "ada".to_owned() };
    collect(kit.engine.catalog(request, names).await?).await
}

async fn rows(kit: &Kit, sql: &str) -> Json {
    ask(kit, Request::new(sql)).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

async fn with_tables() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE desks (_id TEXT PRIMARY KEY, room TEXT NOT NULL, height INT)").await;
    kit.write("CREATE TABLE shifts (site TEXT, day DATE, lead TEXT, PRIMARY KEY (site, day))")
        .await;
    kit
}

#[tokio::test]
async fn it_says_who_and_where_one_is() {
    let kit = with_tables().await;
    let sql = "SELECT current_database(), current_schema(), current_user";
    assert_eq!(rows(&kit, sql).await, json!([["shop", "public", "ada"]]));
    let version = rows(&kit, "SELECT pg_catalog.version()").await[0][0].clone();
    assert!(version.as_str().unwrap().starts_with("PostgreSQL 16.6 (Everwhen "), "{version}");
    assert_eq!(rows(&kit, "SELECT current_setting('server_version')").await, json!([["16.6"]]));
}

#[tokio::test]
async fn tables_and_columns_are_listed() {
    let kit = with_tables().await;
    let sql = "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = 'public' AND c.relkind = 'r' ORDER BY 1";
    assert_eq!(rows(&kit, sql).await, json!([["desks"], ["shifts"]]));
    let sql = "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute \
               WHERE attrelid = 'desks'::regclass AND attnum > 0 ORDER BY attnum";
    let expected =
        json!([["_id", "text", true], ["room", "text", true], ["height", "bigint", false]]);
    assert_eq!(rows(&kit, sql).await, expected);
    let sql = "SELECT column_name FROM information_schema.columns \
               WHERE table_name = 'shifts' ORDER BY ordinal_position";
    assert_eq!(rows(&kit, sql).await, json!([["site"], ["day"], ["lead"]]));
    let ids = "SELECT oid FROM pg_class WHERE relname = 'desks'";
    assert_eq!(rows(&kit, ids).await, rows(&kit, ids).await, "object ids stay");
}

#[tokio::test]
async fn keys_are_listed_in_their_order() {
    let kit = with_tables().await;
    let sql = "SELECT a.attname FROM pg_index i \
               JOIN (SELECT indexrelid, unnest(indkey) AS num, generate_subscripts(indkey, 1) AS ord \
                     FROM pg_index) k ON k.indexrelid = i.indexrelid \
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num \
               JOIN pg_class c ON c.oid = i.indrelid \
               WHERE c.relname = 'shifts' AND i.indisprimary ORDER BY k.ord";
    assert_eq!(rows(&kit, sql).await, json!([["site"], ["day"]]));
    let sql = "SELECT conname, contype FROM pg_constraint ORDER BY 1";
    assert_eq!(rows(&kit, sql).await, json!([["desks_pkey", "p"], ["shifts_pkey", "p"]]));
}

#[tokio::test]
async fn parameters_are_bound_and_nothing_but_queries_runs() {
    let kit = with_tables().await;
    let params = Params::Typed(vec![(json!("desks"), None), (json!(["r", "v"]), None)]);
    let sql = "SELECT relname FROM pg_class WHERE relname = $1";
    let request = Request { params, ..Request::new(sql) };
    assert_eq!(ask(&kit, request).await.unwrap(), json!([["desks"]]));
    for sql in [
        "CREATE TABLE pg_x AS SELECT 1",
        "COPY (SELECT * FROM pg_class) TO '/tmp/x'",
        "SET x = pg_class",
        "CREATE EXTERNAL TABLE pg_y STORED AS CSV LOCATION '/etc/passwd'",
    ] {
        let error = ask(&kit, Request::new(sql)).await.expect_err(sql);
        assert!(["0A000", "42601"].contains(&error.sqlstate()), "{sql}: {error:?}");
    }
    for sql in
        ["SELECT current_user, count(*) FROM desks", "SELECT * FROM everwhen.tables, pg_class"]
    {
        let error = ask(&kit, Request::new(sql)).await.expect_err(sql);
        assert_eq!(error.sqlstate(), "0A000", "tables have no rows here: {error:?}");
    }
    let error = ask(&kit, Request::new("SELECT * FROM pg_nothing")).await.unwrap_err();
    assert_eq!(error.sqlstate(), "42P01", "{error:?}");
}

#[tokio::test]
async fn the_information_schema_is_that_of_postgres() {
    let kit = with_tables().await;
    let types = "CREATE TABLE kinds (_id UUID PRIMARY KEY, b BOOL, i INT, f FLOAT, d DECIMAL, t TEXT, \
                 y BYTEA, day DATE, at TIMESTAMPTZ, j JSON, l BIGINT[])";
    kit.write(types).await;
    kit.write("CREATE VIEW high AS SELECT room, height * 2 AS twice FROM desks").await;
    let sql = "SELECT column_name, data_type, udt_name, numeric_precision, datetime_precision \
               FROM information_schema.columns WHERE table_name = 'kinds' ORDER BY ordinal_position";
    let expected = json!([
        ["_id", "uuid", "uuid", null, null],
        ["b", "boolean", "bool", null, null],
        ["i", "bigint", "int8", 64, null],
        ["f", "double precision", "float8", 53, null],
        ["d", "numeric", "numeric", 38, null],
        ["t", "text", "text", null, null],
        ["y", "bytea", "bytea", null, null],
        ["day", "date", "date", null, 0],
        ["at", "timestamp with time zone", "timestamptz", null, 6],
        ["j", "json", "json", null, null],
        ["l", "ARRAY", "_int8", null, null]
    ]);
    assert_eq!(rows(&kit, sql).await, expected);
    let sql = "SELECT table_name, table_type, is_insertable_into FROM information_schema.tables \
               WHERE table_schema = 'public' ORDER BY 1";
    let expected = json!([
        ["desks", "BASE TABLE", "YES"],
        ["high", "VIEW", "NO"],
        ["kinds", "BASE TABLE", "YES"],
        ["shifts", "BASE TABLE", "YES"]
    ]);
    assert_eq!(rows(&kit, sql).await, expected);
    let sql = "SELECT column_name, data_type FROM information_schema.columns \
               WHERE table_name = 'high' ORDER BY ordinal_position";
    assert_eq!(rows(&kit, sql).await, json!([["room", "text"], ["twice", "bigint"]]));
    let sql = "SELECT tc.table_name, kc.column_name, kc.ordinal_position \
               FROM information_schema.table_constraints tc \
               JOIN information_schema.key_column_usage kc USING (constraint_schema, constraint_name) \
               WHERE tc.constraint_type = 'PRIMARY KEY' ORDER BY 1, 3";
    let expected = json!([
        ["desks", "_id", 1],
        ["kinds", "_id", 1],
        ["shifts", "site", 1],
        ["shifts", "day", 2]
    ]);
    assert_eq!(rows(&kit, sql).await, expected);
    // Views stand among the relations of pg_catalog too.
    let sql = "SELECT c.relname, c.relkind, v.definition FROM pg_class c \
               JOIN pg_views v ON v.viewname = c.relname ORDER BY 1";
    let text = "SELECT room, height * 2 AS twice FROM desks";
    assert_eq!(rows(&kit, sql).await, json!([["high", "v", text]]));
    let sql = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = 'high'::regclass ORDER BY attnum";
    assert_eq!(rows(&kit, sql).await, json!([["room", "text"], ["twice", "bigint"]]));
    let nothing = "SELECT count(*) FROM information_schema.triggers, information_schema.routines";
    assert_eq!(rows(&kit, nothing).await, json!([[0]]));
}

#[tokio::test]
async fn functions_in_from_are_tables_of_one_row() {
    let kit = with_tables().await;
    // What Grafana asks for the tables of the search path and for a table's columns.
    let path = "SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END \
                FROM generate_series(array_lower(string_to_array(current_setting('search_path'), ','), 1), \
                array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i, \
                string_to_array(current_setting('search_path'), ',') s";
    let sql = format!(
        "SELECT CASE WHEN quote_ident(table_schema) IN ({path}) THEN quote_ident(table_name) \
         ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" \
         FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('everwhen') ORDER BY 1"
    );
    assert_eq!(rows(&kit, &sql).await, json!([["desks"], ["shifts"]]));
    let sql = format!(
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" \
         FROM information_schema.columns WHERE CASE WHEN array_length(parse_ident('desks'), 1) = 2 \
         THEN quote_ident(table_schema) = (parse_ident('desks'))[1] \
         AND quote_ident(table_name) = (parse_ident('desks'))[2] \
         ELSE quote_ident(table_name) = 'desks' AND quote_ident(table_schema) IN ({path}) END"
    );
    let expected = json!([["_id", "text"], ["room", "text"], ["height", "bigint"]]);
    assert_eq!(rows(&kit, &sql).await, expected);
}

#[tokio::test]
async fn the_fields_of_a_table_are_found_as_metabase_looks_for_them() {
    let kit = with_tables().await;
    let sql = "SELECT c.column_name AS name, CASE WHEN c.udt_schema IN ('public', 'pg_catalog') \
               THEN format('%s', c.udt_name) ELSE format('\"%s\".\"%s\"', c.udt_schema, c.udt_name) END AS kind, \
               pk.column_name IS NOT NULL AS \"pk?\", \
               col_description(CAST(CAST(format('%I.%I', CAST(c.table_schema AS text), \
               CAST(c.table_name AS text)) AS regclass) AS oid), c.ordinal_position) AS comment \
               FROM information_schema.columns AS c LEFT JOIN (SELECT tc.table_schema, tc.table_name, \
               kc.column_name FROM information_schema.table_constraints AS tc \
               INNER JOIN information_schema.key_column_usage AS kc \
               ON tc.constraint_name = kc.constraint_name AND tc.table_schema = kc.table_schema \
               AND tc.table_name = kc.table_name WHERE tc.constraint_type = 'PRIMARY KEY') AS pk \
               ON c.table_schema = pk.table_schema AND c.table_name = pk.table_name \
               AND c.column_name = pk.column_name \
               WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' \
               AND c.table_name = 'desks' ORDER BY c.ordinal_position";
    let expected = json!([
        ["_id", "text", true, null],
        ["room", "text", false, null],
        ["height", "int8", false, null]
    ]);
    assert_eq!(rows(&kit, sql).await, expected);
    let sql = "SELECT format('%s %% %I %L %I %L', 1, 'a b', 'it''s', 'ab', NULL)";
    assert_eq!(rows(&kit, sql).await, json!([["1 % \"a b\" 'it''s' ab NULL"]]));
}
