//! Transactions over several calls: writes that are kept until they are committed together.
//!
//! Nothing is run before that, so a transaction locks nothing, and one that nobody ends costs
//! memory for a while. Bounded in number, in bytes and by the time they lie unused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use everwhen_query::Params;
use everwhen_storage::Tenant;
use parking_lot::Mutex;

use crate::code::Code;
use crate::failure::{Answered, Failure};

/// Transactions that are open at most.
const OPEN_MAX: usize = 256;
/// How long one is kept that nobody adds to.
const UNUSED_LIFE: Duration = Duration::from_secs(300);
/// Bytes of the texts and parameters of all of them, about.
const BYTES_MAX: usize = 256 << 20;

/// A write's text and its parameters.
pub type Write = (String, Params);

/// The open transactions of a server.
#[derive(Default)]
pub struct Transactions(Mutex<BTreeMap<String, Open>>);

struct Open {
    used: Instant,
    tenant: Tenant,
    writes: Vec<Write>,
    bytes: usize,
}

impl Transactions {
    /// Opens a transaction of a tenant's and returns its id.
    ///
    /// # Errors
    /// [`Code::Busy`] where too many are open.
    pub fn begin(&self, now: Instant, tenant: Tenant) -> Answered<String> {
        let mut all = self.0.lock();
        all.retain(|_, open| now.saturating_duration_since(open.used) < UNUSED_LIFE);
        if all.len() >= OPEN_MAX {
            let detail = format!("{OPEN_MAX} transactions are open, there is no room");
            return Err(Failure::new(Code::Busy, detail).with_hint("end some of them"));
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        all.insert(id.clone(), Open { used: now, tenant, writes: Vec::new(), bytes: 0 });
        Ok(id)
    }

    /// Adds writes to a transaction.
    ///
    /// # Errors
    /// 25P01 where it is not open, and `over_limit` where too much is kept.
    pub fn add(
        &self,
        now: Instant,
        tenant: &Tenant,
        id: &[u8],
        writes: Vec<Write>,
    ) -> Answered<()> {
        let bytes: usize = writes.iter().map(bytes_of).sum();
        let mut all = self.0.lock();
        let kept: usize = all.values().map(|open| open.bytes).sum();
        let open = find(&mut all, tenant, id)?;
        if kept + bytes > BYTES_MAX {
            let detail = "the open transactions hold too much";
            return Err(Failure::new(Code::OverLimit, detail)
                .with_hint("commit fewer writes at a time, or load rows in bulk"));
        }
        open.used = now;
        open.bytes += bytes;
        open.writes.extend(writes);
        Ok(())
    }

    /// Ends a transaction and returns its writes, in order.
    ///
    /// # Errors
    /// 25P01 where it is not open.
    pub fn end(&self, tenant: &Tenant, id: &[u8]) -> Answered<Vec<Write>> {
        let mut all = self.0.lock();
        let writes = std::mem::take(&mut find(&mut all, tenant, id)?.writes);
        all.remove(std::str::from_utf8(id).unwrap_or_default());
        Ok(writes)
    }
}

fn find<'a>(
    all: &'a mut BTreeMap<String, Open>,
    tenant: &Tenant,
    id: &[u8],
) -> Answered<&'a mut Open> {
    let open = all.get_mut(std::str::from_utf8(id).unwrap_or_default());
    open.filter(|open| open.tenant == *tenant).ok_or_else(|| {
        let detail = "there is no such transaction, or no longer";
        Failure::of_sqlstate("25P01", detail.to_owned())
    })
}

fn bytes_of((sql, params): &Write) -> usize {
    let values = match params {
        Params::Typed(values) => {
            values.iter().map(|(value, _)| 32 + value.as_str().map_or(0, str::len)).sum()
        }
        _ => 0_usize,
    };
    sql.len() + values
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
mod tests {
    use super::*;

    fn write(sql: &str) -> Vec<Write> {
        vec![(sql.to_owned(), Params::None)]
    }

    #[test]
    fn writes_come_out_in_order_and_once() {
        let (all, now, tenant) = (Transactions::default(), Instant::now(), Tenant::default());
        let id = all.begin(now, tenant.clone()).unwrap();
        all.add(now, &tenant, id.as_bytes(), write("a")).unwrap();
        all.add(now, &tenant, id.as_bytes(), write("b")).unwrap();
        let other = Tenant::new("other").unwrap();
        assert_eq!(all.end(&other, id.as_bytes()).unwrap_err().sqlstate, "25P01");
        let texts: Vec<_> =
            all.end(&tenant, id.as_bytes()).unwrap().into_iter().map(|(sql, _)| sql).collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(all.add(now, &tenant, id.as_bytes(), write("c")).unwrap_err().sqlstate, "25P01");
    }

    #[test]
    fn there_is_an_end_to_how_much_is_kept() {
        let (all, now, tenant) = (Transactions::default(), Instant::now(), Tenant::default());
        let ids: Vec<_> = (0..OPEN_MAX).map(|_| all.begin(now, tenant.clone()).unwrap()).collect();
        assert_eq!(all.begin(now, tenant.clone()).unwrap_err().code, Code::Busy);
        let large = || write(&"x".repeat(BYTES_MAX / 2));
        all.add(now, &tenant, ids[0].as_bytes(), large()).unwrap();
        let over = all.add(now, &tenant, ids[1].as_bytes(), [large(), large()].concat());
        assert_eq!(over.unwrap_err().code, Code::OverLimit);
        all.begin(now + UNUSED_LIFE * 2, tenant).unwrap();
    }
}
