//! Writes: statements to assertions, all of one request in one transaction.
//!
//! What needs nothing of the store's state is handed straight to the writer ([`Writing::blind`]);
//! everything else is evaluated inside the writer's turn, so that nothing comes in between, with
//! now = the system time that the transaction will get.

mod alter;
mod append;
mod assert;
mod change;
mod dependents;
mod draft;
mod erase;
mod indexes;
mod insert;
mod literals;
mod retention;
mod returning;
mod tables;
mod values;
mod views;

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::collect;
use everwhen_storage::{
    Basis, Batch, Committed, Definitions, Store, SystemTime, Tenant, Turn, Tx, TxOutcome,
};

use crate::answer::Shape;
use crate::basis::basis_token;
use crate::diagnose::Diagnose;
use crate::dialect::{ParsedQuery, ParsedStatement};
use crate::engine::WriteAnswer;
use crate::error::{Error, Result};
use crate::interrupt::{Interrupt, interruptible};
use crate::overlay::Pending;
use crate::read::{Defaults, Planned, Reading};
use crate::session::StatementContext;
use crate::system_tables::SystemTables;
use crate::views::TemporaryViews;
use draft::Draft;

pub use alter::alter_table;
pub use indexes::{create_index, drop_index};
pub(crate) use literals::literal;
pub use retention::set_retention;
pub(crate) use returning::{Returning, Writes};
pub use tables::{create_table, drop_table};
pub use views::{create_temporary_view, create_view, drop_view};

/// What a request's writes are done with.
pub struct Writing<'a> {
    pub store: &'a Store,
    pub runtime: &'a Arc<RuntimeEnv>,
    pub tenant: &'a Tenant,
    pub system_tables: &'a SystemTables,
    /// The system time to write at, instead of the clock's.
    pub import_time: Option<SystemTime>,
    /// Those of the session that writes.
    pub temporary: TemporaryViews,
    pub interrupt: Interrupt,
}

impl Writing<'_> {
    /// Runs the writes of a request, their parameters bound, as one transaction.
    ///
    /// # Errors
    /// Whatever is wrong with them; nothing is written then.
    pub async fn run(&self, statements: Vec<ParsedStatement>) -> Result<WriteAnswer> {
        if let Some((batch, rows)) = self.blind(&statements)? {
            let batch = Batch { system_time: self.import_time, ..batch };
            match self.store.write(batch).await {
                Err(error) if self.import_time.is_some() => return Err(error.into()),
                // The tables changed under it: what is right is decided in the writer's turn.
                Err(everwhen_storage::Error::Refused { .. }) => {}
                committed => return self.answer(&committed?, None, rows),
            }
        }
        if self.import_time.is_some() {
            let message = "a transaction with a SYSTEM_TIME holds INSERTs of values alone, into \
                           tables and columns that are there";
            return Err(Error::unsupported(message));
        }
        let turn = self.store.turn().await?;
        self.in_turn(turn, statements).await
    }

    /// Builds the batch of writes that depend on nothing: INSERTs of literal values into tables
    /// that have the columns already.
    fn blind(&self, statements: &[ParsedStatement]) -> Result<Option<(Batch, Vec<u64>)>> {
        let definitions = self.temporary.over(&self.store.definitions());
        let mut draft = Draft::new(&definitions, self.tenant, self.store.latest().now);
        let mut rows = Vec::with_capacity(statements.len());
        for statement in statements {
            let ParsedStatement::Insert(insert) = statement else { return Ok(None) };
            if insert.returning.is_some() || definitions.table(&insert.table.name).is_none() {
                return Ok(None);
            }
            let Some(source) = insert::literal_source(insert, &definitions)? else {
                return Ok(None);
            };
            if !insert::is_blind(insert) {
                return Ok(None);
            }
            let written = draft.writes.len();
            insert::draft_rows(&mut draft, insert, source, None)?;
            rows.push(draft.rows_since(written));
        }
        if !draft.changes.is_empty() || draft.needs_turn {
            return Ok(None);
        }
        let txs = vec![Tx { writes: draft.writes, position: None }];
        Ok(Some((Batch { txs, ..Batch::default() }, rows)))
    }

    async fn in_turn(&self, turn: Turn, statements: Vec<ParsedStatement>) -> Result<WriteAnswer> {
        let definitions = self.temporary.over(&turn.definitions());
        let basis = turn.basis();
        let ctx = StatementContext::new(self.store.clone(), basis, self.tenant.clone())
            .with_runtime(Arc::clone(self.runtime))
            .with_interrupt(self.interrupt.clone());
        let mut draft = Draft::new(&definitions, self.tenant, basis.now);
        let mut returning = None;
        let mut rows = Vec::with_capacity(statements.len());
        let last = statements.len() - 1;
        for (at, statement) in statements.iter().enumerate() {
            // Later statements of the transaction see what earlier ones wrote.
            let ctx = ctx.clone().with_pending(Pending::of(&draft.writes));
            let written = draft.writes.len();
            let asked = self.draft(&ctx, &mut draft, statement).await?;
            rows.push(draft.rows_since(written));
            match asked {
                Some(_) if at != last => {
                    let message = "RETURNING stands at the last statement of a transaction";
                    return Err(Error::unsupported(message));
                }
                asked => returning = asked,
            }
        }
        let returned = match returning {
            None => None,
            Some(returning) => Some(returning.rows(&ctx).await?),
        };
        if draft.writes.is_empty() && draft.changes.is_empty() {
            return self.nothing(basis, returned);
        }
        let batch = Batch {
            definitions: draft.changes,
            txs: vec![Tx { writes: draft.writes, position: None }],
            ..Batch::default()
        };
        let committed = turn.commit(batch).await?;
        self.answer(&committed, returned, rows)
    }

    async fn draft(
        &self,
        ctx: &StatementContext,
        draft: &mut Draft,
        statement: &ParsedStatement,
    ) -> Result<Option<Returning>> {
        match statement {
            ParsedStatement::Insert(insert) => {
                let reading = self.reading(ctx, &draft.definitions);
                let source = match insert::literal_source(insert, &draft.definitions)? {
                    Some(source) => source,
                    None => insert::computed_source(&reading, draft, insert).await?,
                };
                let portion = change::insert_window(ctx, insert)?;
                insert::draft_rows(draft, insert, source, portion)
            }
            ParsedStatement::Update(update) => change::update(self, ctx, draft, update).await,
            ParsedStatement::Delete(delete) => change::delete(self, ctx, draft, delete).await,
            ParsedStatement::Erase(erase) => {
                erase::erase(self, ctx, draft, erase).await?;
                Ok(None)
            }
            ParsedStatement::Assert(assert) => {
                assert::check(self, ctx, draft, assert).await?;
                Ok(None)
            }
            _ => Err(Error::internal("a statement was taken for a write")),
        }
    }

    fn reading<'b>(
        &'b self,
        ctx: &'b StatementContext,
        definitions: &'b Definitions,
    ) -> Reading<'b> {
        Reading {
            ctx,
            definitions,
            defaults: Defaults::default(),
            system_tables: self.system_tables,
        }
    }

    /// Answers a write that asserts nothing: no transaction is spent.
    fn nothing(&self, basis: Basis, returning: Option<Vec<RecordBatch>>) -> Result<WriteAnswer> {
        let system_time = match basis.tx.get() {
            0 => SystemTime::from_micros(basis.now.micros()),
            _ => self.store.system_time(basis.tx)?,
        };
        Ok(WriteAnswer { returning, ..write_answer(self.store, basis.tx, system_time) })
    }

    fn answer(
        &self,
        committed: &Committed,
        returning: Option<Vec<RecordBatch>>,
        statement_rows: Vec<u64>,
    ) -> Result<WriteAnswer> {
        let rows = statement_rows.iter().sum();
        let answer = answer_of(self.store, committed)?;
        Ok(WriteAnswer { returning, rows, statement_rows, ..answer })
    }
}

/// Answers a commit of one transaction.
fn answer_of(store: &Store, committed: &Committed) -> Result<WriteAnswer> {
    let tx = match committed.outcomes.first() {
        Some(TxOutcome::Applied(tx)) => *tx,
        _ => committed.last_tx,
    };
    let system_time = match tx == committed.last_tx {
        true => committed.system_time,
        false => store.system_time(tx)?,
    };
    Ok(write_answer(store, tx, system_time))
}

fn write_answer(store: &Store, tx: everwhen_storage::TxId, system_time: SystemTime) -> WriteAnswer {
    let now = everwhen_storage::ValidTime::from_micros(system_time.micros());
    let basis = basis_token(store, Basis { tx, now });
    let (rows, statement_rows) = (0, Vec::new());
    WriteAnswer { tx, system_time, basis, rows, statement_rows, returning: None }
}

/// Runs a query of a write and returns its rows, cast as they would leave.
async fn rows_of(
    reading: &Reading<'_>,
    draft: &Draft,
    query: &ParsedQuery,
) -> Result<(Shape, Vec<RecordBatch>)> {
    let planned = reading.plan(query).await?;
    rows_of_plan(draft, planned, query).await
}

/// Runs a planned query of a write.
async fn rows_of_plan(
    draft: &Draft,
    planned: Planned,
    query: &ParsedQuery,
) -> Result<(Shape, Vec<RecordBatch>)> {
    let positions = query.clauses.positions();
    draft.refuse_reads_of_written(&planned.plan)?;
    let physical = planned.state.create_physical_plan(&planned.plan).await;
    let task = planned.state.task_ctx();
    let physical = physical.and_then(|plan| interruptible(plan, &task)).diagnosed(positions)?;
    let shape = Shape::of(&physical.schema())?;
    let batches = collect(physical, task).await.diagnosed(positions)?;
    let cast: Result<Vec<_>> = batches.iter().map(|batch| shape.cast(batch)).collect();
    Ok((shape, cast.diagnosed(positions)?))
}
