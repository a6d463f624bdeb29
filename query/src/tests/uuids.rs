//! UUIDs: sixteen bytes in the store, one text for all of its spellings in SQL.

use everwhen_storage::{ColumnType, RowKey, Tenant, Value};
use serde_json::json;

use super::kit::Kit;
use crate::{Params, Request};

const A: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
const B: &str = "b1ffc99a-0000-4000-8000-0000000000ff";

async fn orders() -> Kit {
    let kit = Kit::new();
    kit.write("CREATE TABLE orders (_id UUID PRIMARY KEY, buyer UUID, n INT)").await;
    let (a, b) = (A.to_uppercase(), B.replace('-', ""));
    let insert = format!("INSERT INTO orders VALUES ('{a}', '{b}', 1), ('{{{B}}}', NULL, 2)");
    kit.write(&insert).await;
    kit
}

#[tokio::test]
async fn every_spelling_is_one_value() {
    let kit = orders().await;
    let all = json!([[A, B, 1], [B, null, 2]]);
    assert_eq!(kit.rows("SELECT * FROM orders ORDER BY _id").await, all);
    let (upper, plain) = (A.to_uppercase(), A.replace('-', ""));
    for condition in [
        format!("_id = '{upper}'"),
        format!("'{plain}' = _id"),
        format!("_id IN ('{upper}', '{upper}')"),
        format!("_id = '{upper}'::uuid"),
        format!("_id = CAST('{plain}' AS UUID)"),
        format!("_id <> '{}'", B.to_uppercase()),
        format!("_id < '{}'", B.to_uppercase()),
        format!("_id BETWEEN '{plain}' AND '{upper}'"),
        format!("buyer = '{}'", B.to_uppercase()),
        format!("buyer IS NOT DISTINCT FROM '{}'", B.replace('-', "")),
        "_id LIKE 'a0ee%'".to_owned(),
        "_id = (SELECT min(_id) FROM orders)".to_owned(),
        format!("_id = ANY(ARRAY['{A}']::uuid[])"),
    ] {
        let sql = format!("SELECT n FROM orders WHERE {condition}");
        assert_eq!(kit.rows(&sql).await, json!([[1]]), "{sql}");
    }
    let plan = format!("EXPLAIN SELECT n FROM orders WHERE _id = '{upper}'");
    let plan = kit.rows(&plan).await.to_string();
    assert!(plan.contains("keys=1"), "{plan}");
    kit.write(&format!("UPDATE orders SET n = 7 WHERE _id = '{upper}'")).await;
    kit.write(&format!("DELETE FROM orders WHERE _id = '{}'", B.to_uppercase())).await;
    assert_eq!(kit.rows("SELECT _id, n FROM orders").await, json!([[A, 7]]));
    kit.write("INSERT INTO orders (_id, n) SELECT buyer, 8 FROM orders").await;
    let joined = "SELECT o.n FROM orders o JOIN orders p ON o._id = p.buyer";
    assert_eq!(kit.rows(joined).await, json!([[8]]));
}

#[tokio::test]
async fn what_is_no_uuid_is_refused() {
    let kit = orders().await;
    for (sql, state) in [
        ("INSERT INTO orders (_id) VALUES ('rubbish')", "22P02"),
        ("INSERT INTO orders (_id) VALUES (5)", "42804"),
        ("INSERT INTO orders (_id) VALUES (NULL)", "23502"),
        ("INSERT INTO orders (_id) SELECT 'rub' || 'bish'", "22P02"),
        ("UPDATE orders SET buyer = 'rubbish'", "22P02"),
        ("SELECT * FROM orders WHERE _id = 'rubbish'", "22P02"),
        ("SELECT * FROM orders WHERE buyer IN ('rubbish')", "22P02"),
        ("SELECT 'rubbish'::uuid", "22P02"),
        ("SELECT CAST(n AS UUID) FROM orders", "22P02"),
        ("ALTER TABLE orders ALTER COLUMN n TYPE UUID", "42846"),
    ] {
        let error = match sql.starts_with("ALTER") {
            true => kit.alter(sql).await.err().unwrap(),
            false => kit.error(sql).await,
        };
        assert_eq!(error.sqlstate(), state, "{sql}: {error}");
    }
    let sql = "SELECT TRY_CAST('rubbish' AS UUID), CAST(NULL AS UUID)";
    assert_eq!(kit.rows(sql).await, json!([[null, null]]));
}

#[tokio::test]
async fn parameters_are_read_and_described_as_uuids() {
    let kit = orders().await;
    let mut request = Request::new("SELECT n FROM orders WHERE _id = $1 AND n = $2");
    let described = kit.engine.describe(request.clone()).await.unwrap();
    assert_eq!(described.parameters, [Some(ColumnType::Uuid), Some(ColumnType::Int64)]);
    let plain = json!(A.replace('-', "").to_uppercase());
    request.params = Params::Typed(vec![
        (plain.clone(), Some(ColumnType::Uuid)),
        (json!(1), Some(ColumnType::Int64)),
    ]);
    assert_eq!(kit.rows_of(request.clone()).await, json!([[1]]));
    request.params = Params::Positional(vec![plain, json!(1)]);
    assert_eq!(kit.rows_of(request).await, json!([[1]]));
    let insert = Request::new("INSERT INTO orders (_id, buyer) VALUES ($1, $2)");
    let described = kit.engine.describe(insert).await.unwrap();
    assert_eq!(described.parameters, [Some(ColumnType::Uuid), Some(ColumnType::Uuid)]);
    let columns = kit.engine.describe(Request::new("SELECT _id FROM orders")).await.unwrap();
    assert_eq!(columns.columns.unwrap().columns[0].1, ColumnType::Uuid);
}

#[tokio::test]
async fn they_widen_to_text_and_take_sixteen_bytes() {
    let kit = orders().await;
    kit.alter("CREATE INDEX by_buyer ON orders (buyer)").await.unwrap();
    let sql = format!("SELECT n FROM orders WHERE buyer = '{}'", B.to_uppercase());
    assert_eq!(kit.rows(&sql).await, json!([[1]]));
    let table = kit.store.definitions().table("orders").cloned().unwrap();
    let basis = kit.store.latest();
    let key = RowKey::encode(&[Value::Uuid(A.parse().unwrap())]).unwrap();
    assert_eq!(key.as_bytes().len(), 16);
    let tenant = Tenant::default();
    let row = kit.store.read(basis.tx, |view| view.row_at(&table, &tenant, &key, basis.now, None));
    let (_, row) = row.unwrap().unwrap();
    assert!(row.fields().iter().any(|(_, value)| matches!(value, Value::Uuid(_))), "{row:?}");
    kit.alter("DROP INDEX by_buyer").await.unwrap();
    kit.alter("ALTER TABLE orders ALTER COLUMN buyer TYPE TEXT").await.unwrap();
    assert_eq!(kit.rows("SELECT buyer FROM orders WHERE n = 1").await, json!([[B]]));
    kit.write("INSERT INTO orders VALUES ('c0000000-0000-4000-8000-000000000000', 'anyone', 3)")
        .await;
    let sql = "SELECT buyer FROM orders WHERE n = 3";
    assert_eq!(kit.rows(sql).await, json!([["anyone"]]));
    // A uuid may stand where text is asked for.
    kit.write("CREATE TABLE notes (_id TEXT, of TEXT)").await;
    kit.write("INSERT INTO notes SELECT 'n', _id FROM orders WHERE n = 1").await;
    let sql = "SELECT o.n FROM notes JOIN orders o ON o._id = notes.of";
    assert_eq!(kit.rows(sql).await, json!([[1]]));
}
