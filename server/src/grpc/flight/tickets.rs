//! Tickets: what a statement answered, kept until its reader comes for it.
//!
//! Bounded in number, in bytes and in time. The rows of a query under way hold memory and one of
//! the places for statements, so few wait, and not for long; a query whose rows are gone is run
//! again at the same basis, which answers the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use everwhen_storage::Tenant;
use parking_lot::Mutex;

use crate::code::Code;
use crate::failure::{Answered, Failure};
use crate::service::query::{Rows, Statement};

/// Tickets that are kept at most.
const TICKETS_MAX: usize = 1024;
/// How long a ticket is good for.
const TICKET_LIFE: Duration = Duration::from_secs(300);
/// Queries under way that wait for their readers at most.
const WAITING_MAX: usize = 16;
/// How long they wait before they are given up, to be run again.
const WAITING_LIFE: Duration = Duration::from_secs(10);
/// Bytes of the rows of writes (RETURNING) that are kept at most.
const WRITTEN_BYTES_MAX: usize = 64 << 20;

/// The tickets of a server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tickets(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    /// By number, in the order they were made.
    tickets: BTreeMap<u64, Ticket>,
    made: u64,
}

struct Ticket {
    /// What a handle holds beside the number, so that nobody guesses one.
    secret: String,
    at: Instant,
    tenant: Tenant,
    /// The id that the query is listed under while it runs.
    query: Option<String>,
    holds: Holds,
}

enum Holds {
    Rows(Box<Rows>, Box<Statement>),
    /// The statement to be run again.
    Again(Box<Statement>),
    Written(SchemaRef, Vec<RecordBatch>),
}

/// What a reader gets for a ticket.
pub enum Taken {
    Rows(Box<Rows>),
    Again(Box<Statement>),
    Written(SchemaRef, Vec<RecordBatch>),
}

impl Tickets {
    /// Keeps a query that has begun; `statement` reads the same again.
    pub fn keep_rows(&self, now: Instant, tenant: Tenant, rows: Rows, again: Statement) -> String {
        let query = rows.id().map(str::to_owned);
        self.keep(now, tenant, query, Holds::Rows(Box::new(rows), Box::new(again)))
    }

    /// Keeps what a write answered.
    pub fn keep_written(
        &self,
        now: Instant,
        tenant: Tenant,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> String {
        self.keep(now, tenant, None, Holds::Written(schema, batches))
    }

    fn keep(&self, at: Instant, tenant: Tenant, query: Option<String>, holds: Holds) -> String {
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let mut open = self.0.lock();
        open.made += 1;
        let number = open.made;
        let handle = format!("{number}.{secret}");
        open.tickets.insert(number, Ticket { secret, at, tenant, query, holds });
        let gone = open.trim(at);
        drop(open);
        drop(gone);
        handle
    }

    /// Gives up what has waited too long.
    pub fn sweep(&self, now: Instant) {
        let gone = self.0.lock().trim(now);
        drop(gone);
    }

    /// Takes what a ticket of a tenant's holds. A query may be asked for again, a write's rows once.
    ///
    /// # Errors
    /// `not_found` where there is no such ticket, or no longer.
    pub fn take(&self, now: Instant, tenant: &Tenant, handle: &str) -> Answered<Taken> {
        self.sweep(now);
        let mut open = self.0.lock();
        let (number, ticket) = open.find(tenant, handle)?;
        let again = match &ticket.holds {
            Holds::Rows(_, statement) | Holds::Again(statement) => statement.clone(),
            Holds::Written(..) => {
                let Some(Holds::Written(schema, batches)) =
                    open.tickets.remove(&number).map(|ticket| ticket.holds)
                else {
                    return Err(no_ticket());
                };
                return Ok(Taken::Written(schema, batches));
            }
        };
        Ok(match std::mem::replace(&mut ticket.holds, Holds::Again(again.clone())) {
            Holds::Rows(rows, _) => Taken::Rows(rows),
            _ => Taken::Again(again),
        })
    }

    /// Takes a ticket back; returns the id that its query is, or was, listed under.
    ///
    /// # Errors
    /// `not_found` where there is no such ticket, or no longer.
    pub fn cancel(&self, tenant: &Tenant, handle: &str) -> Answered<Option<String>> {
        let mut open = self.0.lock();
        let (number, _) = open.find(tenant, handle)?;
        let gone = open.tickets.remove(&number);
        drop(open);
        Ok(gone.and_then(|ticket| ticket.query.clone()))
    }
}

fn no_ticket() -> Failure {
    Failure::new(Code::NotFound, "there is no such ticket, or no longer")
        .with_hint("get the flight's info again")
}

impl Open {
    fn find(&mut self, tenant: &Tenant, handle: &str) -> Answered<(u64, &mut Ticket)> {
        let (number, secret) = handle.split_once('.').ok_or_else(no_ticket)?;
        let (written, number) = (number, number.parse::<u64>().map_err(|_| no_ticket())?);
        // One ticket has one handle: not "01" beside "1".
        if number.to_string() != written {
            return Err(no_ticket());
        }
        let ticket = self.tickets.get_mut(&number);
        ticket
            .filter(|ticket| ticket.secret == secret && ticket.tenant == *tenant)
            .map(|ticket| (number, ticket))
            .ok_or_else(no_ticket)
    }

    /// Takes out what is over a limit, the oldest; the caller drops it outside the lock.
    fn trim(&mut self, now: Instant) -> Vec<Holds> {
        let (mut over, mut gone) = (Vec::new(), Vec::new());
        let (mut kept, mut waiting, mut bytes) = (0, 0, 0);
        for (number, ticket) in self.tickets.iter_mut().rev() {
            let age = now.saturating_duration_since(ticket.at);
            let written = match &ticket.holds {
                Holds::Written(_, batches) => {
                    batches.iter().map(RecordBatch::get_array_memory_size).sum()
                }
                _ => 0,
            };
            kept += 1;
            bytes += written;
            // The newest is kept however large it is: it is in memory already.
            let has_room = kept == 1 || written == 0 || bytes <= WRITTEN_BYTES_MAX;
            if kept > TICKETS_MAX || age > TICKET_LIFE || !has_room {
                over.push(*number);
                continue;
            }
            if let Holds::Rows(_, statement) = &ticket.holds {
                waiting += 1;
                if waiting > WAITING_MAX || age > WAITING_LIFE {
                    let again = Holds::Again(statement.clone());
                    gone.push(std::mem::replace(&mut ticket.holds, again));
                }
            }
        }
        gone.extend(over.iter().filter_map(|number| self.tickets.remove(number)).map(|t| t.holds));
        gone
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    fn written(tickets: &Tickets, now: Instant, tenant: &Tenant) -> String {
        tickets.keep_written(now, tenant.clone(), Arc::new(Schema::empty()), Vec::new())
    }

    #[test]
    fn a_ticket_is_good_for_its_tenant_once_and_not_for_ever() {
        let (tickets, tenant, now) = (Tickets::default(), Tenant::default(), Instant::now());
        let other = Tenant::new("other").unwrap();
        let handle = written(&tickets, now, &tenant);
        assert!(tickets.take(now, &other, &written(&tickets, now, &tenant)).is_err());
        assert!(matches!(tickets.take(now, &tenant, &handle), Ok(Taken::Written(..))));
        assert!(tickets.take(now, &tenant, &handle).is_err());
        let handle = written(&tickets, now, &tenant);
        assert!(tickets.take(now + TICKET_LIFE * 2, &tenant, &handle).is_err());
    }

    #[test]
    fn the_newest_tickets_are_kept() {
        let (tickets, tenant, now) = (Tickets::default(), Tenant::default(), Instant::now());
        let first = written(&tickets, now, &tenant);
        let rest: Vec<_> = (0..TICKETS_MAX).map(|_| written(&tickets, now, &tenant)).collect();
        assert!(tickets.take(now, &tenant, &first).is_err());
        assert!(rest.iter().all(|handle| tickets.take(now, &tenant, handle).is_ok()));
    }

    #[test]
    fn a_query_is_run_again_where_its_rows_were_given_up() {
        let (tickets, tenant, now) = (Tickets::default(), Tenant::default(), Instant::now());
        let again = Holds::Again(Box::new(Statement::new("SELECT 1")));
        let handle = tickets.keep(now, tenant.clone(), Some("q".to_owned()), again);
        for _ in 0..2 {
            assert!(matches!(tickets.take(now, &tenant, &handle), Ok(Taken::Again(_))));
        }
        assert_eq!(tickets.cancel(&tenant, &handle).unwrap().as_deref(), Some("q"));
        assert!(tickets.cancel(&tenant, &handle).is_err());
    }

    #[test]
    fn fuzzed_handles_are_found_or_refused() {
        let (tickets, tenant, now) = (Tickets::default(), Tenant::default(), Instant::now());
        let again = Holds::Again(Box::new(Statement::new("SELECT 1")));
        let handle = tickets.keep(now, tenant.clone(), Some("q".to_owned()), again);
        let known = handle.clone();
        everwhen_fuzz::Fuzz::text("handles of tickets", [handle]).run_text(|text| {
            let taken = tickets.take(now, &tenant, text).is_ok();
            // Nothing but the handle itself may end it.
            if text != known {
                assert!(!taken && tickets.cancel(&tenant, text).is_err(), "{text:?}");
            }
            taken
        });
    }
}
