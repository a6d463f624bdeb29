//! What a sink is: a place that keeps a table equal to a projection, whatever happens in between.

use async_trait::async_trait;

use super::error::{Error, Result};
use super::step::Step;
use super::target::Target;

/// A table of key and values per row, with a control row beside it.
///
/// The control row says whose the table is and how far it is. Both calls check it and move it in the
/// same transaction as the rows, so that at any crash either both or neither are there. [`admit`] is
/// the rule; [`suite`](super::suite) checks that a sink keeps it.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Makes the table if it is missing and takes it over for the target's lease.
    ///
    /// Returns the control row, which says how far the sink is. From now on writes under older leases
    /// are fenced. A table of another database (another incarnation) becomes this one's: its rows
    /// stay until the next reload has ended. A table of another projection is never taken over.
    ///
    /// A table that is there already is never dropped or narrowed. One that the sink made for the
    /// projection gets the columns that the query has gained; one that somebody else made stays as
    /// it is, and so do its rows that the projection has not written.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer lease has it; [`Error::Refused`] if the table cannot be had or
    /// does not fit; [`Error::Unavailable`] to try again.
    async fn prepare(&self, target: &Target) -> Result<Control>;

    /// Writes a step and moves the control row, all or nothing; a step that is there already is not
    /// written again. Rows that are [refused](Step::refused) are passed over. A delete, and the end of
    /// a reload, remove only rows that the projection has written.
    ///
    /// # Errors
    /// [`Error::Fenced`] and [`Error::OutOfOrder`] as [`admit`] says; [`Error::Rows`] if it is the
    /// values of some rows that the sink does not accept, [`Error::Refused`] for any other refusal;
    /// [`Error::Unavailable`] to try again: also if the outcome is unknown.
    async fn write(&self, target: &Target, step: &Step) -> Result<()>;

    /// Reads the table back: for comparison with the query and for tests. Rows are the query's columns
    /// in the contract's JSON forms, instants with six fraction digits, in no order.
    ///
    /// # Errors
    /// [`Error::Unavailable`] to try again, [`Error::Refused`] if there is no table.
    async fn rows(&self, target: &Target) -> Result<Vec<Vec<serde_json::Value>>>;
}

/// The control row of a projection in a sink.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// Whose rows these are.
    pub incarnation: String,
    /// The generation of the last step.
    pub generation: u64,
    /// The lease that may write.
    pub lease: u64,
    /// The last change written in the generation.
    pub change: u64,
    /// A reload has begun and not ended.
    pub reloading: bool,
}

impl Control {
    /// The row of a table that is new to `target`'s database.
    pub fn new(target: &Target) -> Self {
        Self { incarnation: target.incarnation.clone(), lease: target.lease, ..Self::default() }
    }

    /// The row after `step`.
    #[must_use]
    pub fn after(&self, step: &Step) -> Self {
        let change = if step.generation == self.generation {
            self.change.max(step.last_change())
        } else {
            step.last_change()
        };
        Self {
            incarnation: self.incarnation.clone(),
            generation: step.generation,
            lease: self.lease,
            change,
            reloading: (self.reloading || step.reload_begin) && !step.reload_end,
        }
    }

    /// Says whether `step` ends a reload that has begun.
    pub const fn ends_reload(&self, step: &Step) -> bool {
        step.reload_end && (self.reloading || step.reload_begin)
    }

    /// Says whether the sink lacks what it has acknowledged, for instance because its file was
    /// removed: only a reload makes it right again.
    pub fn is_behind(&self, target: &Target) -> bool {
        let same = self.generation == target.generation;
        target.acked_change > 0
            && (!same || self.change < target.acked_change)
            && self.generation <= target.generation
    }
}

/// How [`Sink::prepare`] finds the table.
#[derive(Debug, PartialEq, Eq)]
pub enum Takeover {
    /// There is no control row.
    New,
    /// The row is of this database; only the lease moves.
    Renewed(Control),
    /// The row is of another database, or of the same one before a restore.
    Foreign,
}

/// Says how `target` may take the table over.
///
/// # Errors
/// [`Error::Fenced`] if a newer lease has it.
pub fn take_over(found: Option<Control>, target: &Target) -> Result<Takeover> {
    let Some(control) = found else { return Ok(Takeover::New) };
    if control.incarnation != target.incarnation {
        return Ok(Takeover::Foreign);
    }
    if control.lease > target.lease {
        return Err(fenced(target, &control));
    }
    Ok(Takeover::Renewed(Control { lease: target.lease, ..control }))
}

/// Says why a table that has the control row of another projection is refused.
pub fn taken(sink: &str, target: &Target, owner: &str) -> Error {
    let detail = format!(
        "table \"{}\" belongs to projection \"{owner}\": name another table with INTO sink.table, \
         or drop this one in the sink if projection \"{owner}\" is not in use any more",
        target.table
    );
    Error::Refused { sink: sink.to_owned(), code: "table".into(), detail }
}

/// What to do with a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Everything is there already.
    Skip,
    /// Write the rows from this place on.
    Write(usize),
}

/// Says what to do with a step, given the control row: the one rule that keeps redelivered, late and
/// foreign writes out. Generations and changes only go up, without a gap inside a generation.
///
/// # Errors
/// [`Error::Fenced`] if a newer lease or generation or another database has the table,
/// [`Error::OutOfOrder`] if an earlier step of the generation is missing, its beginning too.
pub fn admit(control: &Control, target: &Target, step: &Step) -> Result<Admission> {
    if control.incarnation != target.incarnation || control.lease != target.lease {
        return Err(fenced(target, control));
    }
    if control.generation > step.generation {
        let detail = format!(
            "its rows are of generation {}, the step is of {}",
            control.generation, step.generation
        );
        return Err(Error::Fenced { projection: target.projection.clone(), detail });
    }
    let out_of_order = |at: u64| Error::OutOfOrder {
        projection: target.projection.clone(),
        at,
        first: step.first_change,
    };
    if control.generation < step.generation {
        // The beginning may be without rows, so that its number does not tell that it is missing.
        // Without it, the end of the reload would leave the rows of the older generation.
        let begins = step.reload_begin || control.generation == 0;
        return if begins { Ok(Admission::Write(0)) } else { Err(out_of_order(0)) };
    }
    let next = control.change.saturating_add(1);
    if step.first_change > next && !step.reload_begin {
        return Err(out_of_order(control.change));
    }
    // An empty step counts as the number that it would have used, so that an old one is told apart.
    if step.last_change().max(step.first_change) < next {
        return Ok(Admission::Skip);
    }
    let known = next.saturating_sub(step.first_change);
    Ok(Admission::Write(usize::try_from(known).unwrap_or(usize::MAX)))
}

fn fenced(target: &Target, control: &Control) -> Error {
    let detail = if control.incarnation == target.incarnation {
        format!("lease {} has it, this is lease {}", control.lease, target.lease)
    } else {
        "its table belongs to another database now".into()
    };
    Error::Fenced { projection: target.projection.clone(), detail }
}
