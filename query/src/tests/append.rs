//! Rows appended from Arrow batches, and pages of what is read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, LargeStringArray, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use everwhen_storage::Tenant;
use serde_json::json;

use super::kit::Kit;
use crate::{Error, Page, Request, WriteAnswer};

async fn append(kit: &Kit, columns: Vec<(&str, ArrayRef)>) -> Result<WriteAnswer, Error> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    kit.engine.append(Tenant::default(), "t".to_owned(), vec![batch.clone(), batch]).await
}

fn ids(ids: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from(ids.to_vec()))
}

#[tokio::test]
async fn appended_rows_are_puts_of_one_transaction() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT, s TEXT)").await;
    let from = ["2025-06-01", "2025-07-01"]
        .map(|text| everwhen_storage::ValidTime::parse(text).unwrap().micros());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_id", ids(&["a", "b"])),
        ("n", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ("s", Arc::new(LargeStringArray::from(vec!["x", "y"]))),
        ("_valid_from", Arc::new(TimestampMicrosecondArray::from(from.to_vec()))),
    ];
    let written = append(&kit, columns).await.unwrap();
    assert_eq!(written.rows, 2, "each key once");
    let sql = "SELECT _id, n, s, _valid_from, _tx FROM t FOR ALL VALID_TIME ORDER BY _id";
    let tx = written.tx.get();
    assert_eq!(
        kit.rows(sql).await,
        json!([
            ["a", 1, "x", "2025-06-01T00:00:00Z", tx],
            ["b", null, "y", "2025-07-01T00:00:00Z", tx]
        ])
    );
}

#[tokio::test]
async fn appended_rows_make_a_table_and_widen_it() {
    let kit = Kit::new();
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    append(&kit, vec![("_id", ids(&["a"])), ("x", flags)]).await.unwrap();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![7]));
    append(&kit, vec![("_id", ids(&["b"])), ("y", numbers)]).await.unwrap();
    let rows = kit.rows("SELECT _id, x, y FROM t ORDER BY _id").await;
    assert_eq!(rows, json!([["a", true, null], ["b", null, 7]]));
}

#[tokio::test]
async fn rows_that_the_table_does_not_take_are_refused_whole() {
    let kit = Kit::new();
    kit.write("CREATE TABLE t (_id TEXT PRIMARY KEY, n BIGINT NOT NULL)").await;
    let number = |n: Option<i32>| -> ArrayRef { Arc::new(Int32Array::from(vec![Some(1), n])) };
    let fault = |columns| async { append(&kit, columns).await.unwrap_err().sqlstate() };
    let two = || ids(&["a", "b"]);
    assert_eq!(fault(vec![("_id", two()), ("n", number(None))]).await, "23502");
    assert_eq!(fault(vec![("_id", two()), ("m", number(None))]).await, "42703");
    assert_eq!(fault(vec![("n", number(Some(2)))]).await, "23502");
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["1", "two"]));
    assert_eq!(fault(vec![("_id", two()), ("n", texts)]).await, "42804");
    let finer: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001]));
    let columns = vec![("_id", two()), ("n", number(Some(1))), ("_valid_from", finer)];
    assert_eq!(fault(columns).await, "22008");
    assert_eq!(kit.rows("SELECT * FROM t FOR ALL VALID_TIME").await, json!([]));
}

#[tokio::test]
async fn a_page_is_cut_out_of_one_order() {
    let kit = Kit::new();
    kit.write("INSERT INTO t (_id, k) SELECT n, n % 2 FROM (SELECT unnest(range(0, 6)) AS n) x")
        .await;
    let page = |sql: &str, offset, rows| {
        let page = Some(Page { offset, rows });
        kit.rows_of(Request { page, ..Request::new(sql) })
    };
    assert_eq!(page("SELECT _id FROM t", 1, 2).await, json!([[1], [2]]));
    let by = "SELECT _id FROM t ORDER BY k DESC";
    assert_eq!(page(by, 0, 4).await, json!([[1], [3], [5], [0]]));
    assert_eq!(page(by, 4, 4).await, json!([[2], [4]]));
    assert_eq!(page("SELECT _id FROM t ORDER BY k LIMIT 2", 1, 5).await, json!([[2]]));
    let page = Some(Page { offset: 1, rows: u64::MAX });
    let Err(error) = kit.run(Request { page, ..Request::new("SELECT 1") }).await else {
        panic!("it was cut")
    };
    assert_eq!(error.sqlstate(), "22023");
}
