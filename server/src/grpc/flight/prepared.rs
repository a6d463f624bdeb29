//! Prepared statements: a text under a handle, with the parameters that were last bound to it.
//!
//! Bounded in number, in bytes and by the time they lie unused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use everwhen_query::Params;
use everwhen_query::columns::{cast_column, field_type, json_of};
use everwhen_storage::ColumnType;
use parking_lot::Mutex;

use super::session::Session;
use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Prepared statements that are kept at most.
const PREPARED_MAX: usize = 1024;
/// How long one is kept that nobody uses.
const UNUSED_LIFE: Duration = Duration::from_secs(3600);
/// Bytes of all bound parameters together.
const BOUND_BYTES_MAX: usize = 256 << 20;

/// The prepared statements of a server.
#[derive(Default)]
pub struct PreparedStatements(Mutex<BTreeMap<String, Entry>>);

struct Entry {
    used: Instant,
    statement: Prepared,
    bytes: usize,
}

/// A prepared statement.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    pub sql: String,
    /// What the call that made it said.
    pub session: Session,
    /// The transaction that its runs are part of.
    pub transaction: Option<Bytes>,
    /// What is bound: a row for each run; nothing where nothing was bound.
    pub bound: Vec<RecordBatch>,
}

impl PreparedStatements {
    /// Keeps a statement and returns its handle.
    ///
    /// # Errors
    /// [`Code::Busy`] where too many are kept.
    pub fn create(&self, now: Instant, statement: Prepared) -> Answered<String> {
        let mut all = self.0.lock();
        all.retain(|_, entry| now.saturating_duration_since(entry.used) < UNUSED_LIFE);
        if all.len() >= PREPARED_MAX {
            let detail = format!("{PREPARED_MAX} prepared statements are kept, there is no room");
            return Err(Failure::new(Code::Busy, detail).with_hint("close some of them"));
        }
        let handle = uuid::Uuid::new_v4().simple().to_string();
        all.insert(handle.clone(), Entry { used: now, statement, bytes: 0 });
        Ok(handle)
    }

    /// Returns a statement.
    ///
    /// # Errors
    /// `not_found` for a handle that is none, or was closed or forgotten.
    pub fn get(&self, now: Instant, handle: &[u8]) -> Answered<Prepared> {
        let mut all = self.0.lock();
        let entry = find(&mut all, handle)?;
        entry.used = now;
        Ok(entry.statement.clone())
    }

    /// Binds parameters in place of those bound before.
    ///
    /// # Errors
    /// `not_found`, and `over_limit` where too much is bound.
    pub fn bind(&self, now: Instant, handle: &[u8], bound: Vec<RecordBatch>) -> Answered<()> {
        let bytes = bound.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        let mut all = self.0.lock();
        let others = all.values().map(|entry| entry.bytes).sum::<usize>();
        let entry = find(&mut all, handle)?;
        if others - entry.bytes + bytes > BOUND_BYTES_MAX {
            let detail = "too many bytes of parameters are bound";
            return Err(Failure::new(Code::OverLimit, detail)
                .with_hint("close prepared statements, or bind fewer rows at a time"));
        }
        entry.used = now;
        entry.bytes = bytes;
        entry.statement.bound = bound;
        Ok(())
    }

    /// Forgets a statement; one that is not there is forgotten already.
    pub fn close(&self, handle: &[u8]) {
        if let Ok(handle) = std::str::from_utf8(handle) {
            self.0.lock().remove(handle);
        }
    }
}

fn find<'a>(all: &'a mut BTreeMap<String, Entry>, handle: &[u8]) -> Answered<&'a mut Entry> {
    let handle = std::str::from_utf8(handle).unwrap_or_default();
    all.get_mut(handle).ok_or_else(|| {
        Failure::new(Code::NotFound, "there is no such prepared statement, or no longer")
    })
}

impl Prepared {
    /// Returns the parameters of each run, in order; one run without any where nothing is bound.
    ///
    /// # Errors
    /// 0A000 for a column of a type that has no place here, and where a value does not fit.
    pub fn runs(&self) -> Answered<Vec<Params>> {
        if self.bound.is_empty() {
            return Ok(vec![Params::None]);
        }
        let mut runs = Vec::new();
        for batch in &self.bound {
            let mut columns = Vec::with_capacity(batch.num_columns());
            for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                let kind = field_type(field).ok_or_else(|| {
                    let name = field.name();
                    let detail = format!("parameter {name} is of type {}", field.data_type());
                    Failure::of_sqlstate("0A000", detail)
                })?;
                columns.push((cast_column(array, &kind)?, kind));
            }
            for row in 0..batch.num_rows() {
                let value = |(array, kind): &(ArrayRef, ColumnType)| {
                    (json_of(array, row, kind), Some(kind.clone()))
                };
                runs.push(Params::Typed(columns.iter().map(value).collect()));
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let numbers = (0..rows).map(|n| i32::try_from(n).ok()).collect::<Int32Array>();
        let texts = (0..rows).map(|n| Some(format!("t{n}"))).collect::<StringArray>();
        RecordBatch::try_from_iter([
            ("1", Arc::new(numbers) as arrow::array::ArrayRef),
            ("2", Arc::new(texts)),
        ])
        .unwrap()
    }

    #[test]
    fn every_bound_row_is_a_run() {
        let (all, now) = (PreparedStatements::default(), Instant::now());
        let handle = all.create(now, Prepared::default()).unwrap();
        assert_eq!(all.get(now, handle.as_bytes()).unwrap().runs().unwrap().len(), 1);
        all.bind(now, handle.as_bytes(), vec![batch(3), batch(2)]).unwrap();
        assert_eq!(all.get(now, handle.as_bytes()).unwrap().runs().unwrap().len(), 5);
        all.close(handle.as_bytes());
        assert_eq!(all.get(now, handle.as_bytes()).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn there_is_an_end_to_how_many_are_kept() {
        let (all, now) = (PreparedStatements::default(), Instant::now());
        let create = |at| all.create(at, Prepared::default());
        (0..PREPARED_MAX).for_each(|_| drop(create(now).unwrap()));
        assert_eq!(create(now).unwrap_err().code, Code::Busy);
        create(now + UNUSED_LIFE * 2).unwrap();
    }

    #[test]
    fn fuzzed_handles_are_found_or_refused() {
        let (all, now) = (PreparedStatements::default(), Instant::now());
        let handle = all.create(now, Prepared::default()).unwrap().into_bytes();
        let known = handle.clone();
        everwhen_fuzz::Fuzz::bytes("handles of prepared statements", [handle]).run(|bytes| {
            let found = all.get(now, bytes).is_ok();
            assert_eq!(found, bytes == known);
            found
        });
    }
}
