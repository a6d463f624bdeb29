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
