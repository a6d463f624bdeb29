//! The naive bitemporal store: the oracle that every read path is compared with.
//!
//! It keeps nothing but what was said, in one list per key, and folds that list anew for every
//! instant and transaction it is asked about, word for word as the definition of a table's state
//! goes. It must not share code with the store. [`history`] makes random input for both.

pub mod history;

use std::collections::BTreeMap;

use everwhen_storage::{
    AssertedFrom, Assertion, ColumnId, EventId, Op, Period, Precedence, Row, RowKey, SystemTime,
    TableId, Tenant, Tx, TxId, TxOutcome, ValidTime, Value, WriteKind,
};

/// One assertion as it was recorded. Never removed, only marked as retracted.
#[derive(Debug, Clone)]
struct Said {
    op: Op,
    valid: Period<ValidTime>,
    order: i64,
    fields: Row,
    tx: TxId,
    ordinal: usize,
    event: Option<EventId>,
    retracted: Option<TxId>,
}

impl Said {
    fn live_at(&self, tx: TxId) -> bool {
        self.tx <= tx && self.retracted.is_none_or(|gone| gone > tx)
    }
}

/// What an event id says now.
#[derive(Debug, Clone)]
struct EventState {
    order: i64,
    content: u128,
}

/// The address of one key.
pub type KeyOf = (TableId, Tenant, RowKey);

/// One version as the definition demands it to be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub valid: Period<ValidTime>,
    pub tx_from: TxId,
    pub tx_to: Option<TxId>,
    pub row: Row,
}

/// The naive store.
#[derive(Debug, Clone, Default)]
pub struct Model {
    precedence: BTreeMap<TableId, Precedence>,
    keys: BTreeMap<KeyOf, Vec<Said>>,
    events: BTreeMap<(TableId, Tenant, EventId), EventState>,
    times: BTreeMap<TxId, SystemTime>,
    last: TxId,
    last_time: i64,
}

impl Model {
    /// Starts where a store stands: `last` is its last transaction, `time` that one's system time.
    pub fn starting_after(last: TxId, time: SystemTime) -> Self {
        Self { last, last_time: time.micros(), ..Self::default() }
    }

    /// Declares a table; it spends no transaction here.
    pub fn table(&mut self, id: TableId, precedence: Precedence) {
        self.precedence.insert(id, precedence);
    }

    /// Returns the last transaction.
    pub fn last_tx(&self) -> TxId {
        self.last
    }

    /// Returns the system time a transaction must have.
    pub fn system_time(&self, tx: TxId) -> Option<SystemTime> {
        self.times.get(&tx).copied()
    }

    /// Returns every key that was ever written to, in table, tenant and key order.
    pub fn keys(&self) -> impl Iterator<Item = &KeyOf> {
        self.keys.keys()
    }

    /// Applies one transaction while the clock stands at `clock_micros`.
    pub fn apply(&mut self, tx: &Tx, clock_micros: i64) -> TxOutcome {
        let id = self.last.plus(1);
        let time = clock_micros.max(self.last_time + 1);
        let mut verdicts: BTreeMap<(TableId, Tenant, EventId), Option<TxOutcome>> = BTreeMap::new();
        let mut applied = tx.writes.is_empty();
        for (ordinal, write) in tx.writes.iter().enumerate() {
            match &write.kind {
                WriteKind::Retract { event_id } => {
                    let address = (write.table, write.tenant.clone(), event_id.clone());
                    if self.events.remove(&address).is_some() {
                        self.take_back(&address, id);
                        applied = true;
                    }
                }
                WriteKind::Erase { key } => {
                    self.erase(&(write.table, write.tenant.clone(), key.clone()));
                    applied = true;
                }
                WriteKind::EraseHashed { .. } => panic!("only journals erase by hash"),
                WriteKind::Assert { key, assertion, event } => {
                    if let Some(event) = event {
                        let address = (write.table, write.tenant.clone(), event.id.clone());
                        let verdict = verdicts.entry(address.clone()).or_insert_with(|| {
                            self.judge(&address, assertion.order, event.content_hash, id)
                        });
                        if verdict.is_some() {
                            continue;
                        }
                    }
                    applied = true;
                    let key_of = (write.table, write.tenant.clone(), key.clone());
                    let event = event.as_ref().map(|event| event.id.clone());
                    self.say(key_of, assertion, event, (id, ordinal, time));
                }
            }
        }
        if !applied {
            let stale = verdicts.values().any(|v| *v == Some(TxOutcome::Stale));
            return if stale { TxOutcome::Stale } else { TxOutcome::Duplicate };
        }
        self.last = id;
        self.last_time = time;
        self.times.insert(id, SystemTime::from_micros(time));
        TxOutcome::Applied(id)
    }

    /// Decides what an event is to its id; where it counts, what the id said before goes.
    fn judge(
        &mut self,
        address: &(TableId, Tenant, EventId),
        order: i64,
        content: u128,
        tx: TxId,
    ) -> Option<TxOutcome> {
        if let Some(state) = self.events.get(address) {
            if order < state.order {
                return Some(TxOutcome::Stale);
            }
            if state.content == content {
                return Some(TxOutcome::Duplicate);
            }
            self.take_back(address, tx);
        }
        self.events.insert(address.clone(), EventState { order, content });
        None
    }

    fn take_back(&mut self, address: &(TableId, Tenant, EventId), tx: TxId) {
        let (table, tenant, event) = address;
        for ((at, of, _), said) in &mut self.keys {
            if at == table && of == tenant {
                for one in said.iter_mut() {
                    if one.event.as_ref() == Some(event) && one.retracted.is_none() {
                        one.retracted = Some(tx);
                    }
                }
            }
        }
    }

    /// Forgets a key as if it had never been, and event ids that stood for nothing else.
    fn erase(&mut self, of: &KeyOf) {
        let (table, tenant, _) = of;
        let gone = self.keys.get_mut(of).map(std::mem::take).unwrap_or_default();
        for event in gone.into_iter().filter(|one| one.retracted.is_none()).filter_map(|o| o.event)
        {
            let elsewhere = self.keys.iter().any(|((at, whose, _), said)| {
                let live =
                    |one: &Said| one.retracted.is_none() && one.event.as_ref() == Some(&event);
                at == table && whose == tenant && said.iter().any(live)
            });
            if !elsewhere {
                self.events.remove(&(*table, tenant.clone(), event));
            }
        }
    }

    fn say(
        &mut self,
        key: KeyOf,
        assertion: &Assertion,
        event: Option<EventId>,
        (tx, ordinal, time): (TxId, usize, i64),
    ) {
        let from = match assertion.from {
            AssertedFrom::At(at) => at,
            AssertedFrom::SystemTime => ValidTime::from_micros(time),
        };
        let whole = Period::new(from, assertion.to).expect("histories state no empty period");
        let exact = assertion.exact && self.precedence[&key.0] == Precedence::Effective;
        let said = self.keys.entry(key).or_default();
        let live: Vec<Said> = said.iter().filter(|one| one.live_at(tx)).cloned().collect();
        let mut cuts = vec![whole.from(), whole.to()];
        if exact {
            let bounds = live.iter().flat_map(|one| [one.valid.from(), one.valid.to()]);
            cuts.extend(bounds.filter(|at| whole.from() < *at && *at < whole.to()));
            cuts.sort();
            cuts.dedup();
        }
        for ends in cuts.windows(2) {
            let tied = live.iter().filter(|one| exact && one.valid.from() == ends[0]);
            said.push(Said {
                op: assertion.op,
                valid: Period::new(ends[0], ends[1]).expect("cuts are sorted and distinct"),
                order: tied.map(|one| one.order).fold(assertion.order, i64::max),
                fields: assertion.fields.clone(),
                tx,
                ordinal,
                event: event.clone(),
                retracted: None,
            });
        }
    }

    /// Returns the whole history of a key over both axes.
    pub fn plane(&self, key: &KeyOf) -> Plane {
        let none = Vec::new();
        let said = self.keys.get(key).unwrap_or(&none);
        let mut ordered: Vec<&Said> = said.iter().collect();
        match self.precedence[&key.0] {
            Precedence::Recorded => ordered.sort_by_key(|one| (one.tx, one.ordinal)),
            Precedence::Effective => {
                ordered.sort_by_key(|one| (one.valid.from(), one.order, one.tx, one.ordinal));
            }
        }
        let mut starts: Vec<ValidTime> = vec![ValidTime::BEGIN];
        starts.extend(said.iter().flat_map(|one| [one.valid.from(), one.valid.to()]));
        starts.retain(|at| *at != ValidTime::END);
        starts.sort();
        starts.dedup();
        let mut txs: Vec<TxId> =
            said.iter().flat_map(|one| [Some(one.tx), one.retracted]).flatten().collect();
        txs.sort();
        txs.dedup();
        let cells = starts.iter().enumerate().map(|(i, from)| {
            let to = starts.get(i + 1).copied().unwrap_or(ValidTime::END);
            let covering: Vec<&Said> =
                ordered.iter().filter(|one| one.valid.contains(*from)).copied().collect();
            let mut runs = vec![Run { tx: TxId::ZERO, state: None }];
            for tx in &txs {
                let state = fold(covering.iter().filter(|one| one.live_at(*tx)).copied());
                if runs.last().is_some_and(|run| run.state != state) {
                    runs.push(Run { tx: *tx, state });
                }
            }
            Cell { valid: Period::new(*from, to).expect("starts are sorted"), runs }
        });
        Plane { cells: cells.collect() }
    }
}

/// The definition of a table's state: assertions in precedence order, folded.
fn fold<'a>(said: impl Iterator<Item = &'a Said>) -> Option<Row> {
    let mut state: Option<Row> = None;
    for one in said {
        match one.op {
            Op::Put => state = Some(one.fields.clone().without_nulls()),
            Op::Delete => state = None,
            Op::Patch { set_nulls } => {
                let row = state.get_or_insert_with(Row::default);
                for (column, value) in one.fields.fields() {
                    match value {
                        Value::Null if set_nulls => row.unset(*column),
                        Value::Null => {}
                        value => row.set(*column, value.clone()),
                    }
                }
            }
        }
    }
    state
}

/// From this transaction on, until the next run, the state is this.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    tx: TxId,
    state: Option<Row>,
}

/// A period of valid time within which no assertion begins or ends.
#[derive(Debug, Clone)]
struct Cell {
    valid: Period<ValidTime>,
    runs: Vec<Run>,
}

/// A key's states over valid time (cells, left to right) and transactions (runs within a cell).
#[derive(Debug, Clone)]
pub struct Plane {
    cells: Vec<Cell>,
}

impl Plane {
    /// Returns the state at an instant as known at a transaction, and what made it so.
    pub fn state(&self, at: ValidTime, tx: TxId) -> Option<(TxId, &Row)> {
        let cell = self.cells.iter().find(|cell| cell.valid.contains(at))?;
        let run = cell.runs.iter().rev().find(|run| run.tx <= tx)?;
        run.state.as_ref().map(|row| (run.tx, row))
    }

    /// Returns all versions believed at some point within transactions `[from, to]`, in order of
    /// `valid_from`, `tx_from`: maximal periods with equal values and equal system times, of which
    /// nothing after `to` is seen.
    pub fn versions(&self, from: TxId, to: TxId) -> Vec<Shown> {
        let mut open: Vec<Shown> = Vec::new();
        let mut done: Vec<Shown> = Vec::new();
        for cell in &self.cells {
            let mut pieces: Vec<Shown> = Vec::new();
            for (i, run) in cell.runs.iter().enumerate() {
                let end = cell.runs.get(i + 1).map(|next| next.tx);
                let (Some(row), true) = (&run.state, run.tx <= to && end.is_none_or(|e| e > from))
                else {
                    continue;
                };
                let tx_to = end.filter(|end| *end <= to);
                pieces.push(Shown { valid: cell.valid, tx_from: run.tx, tx_to, row: row.clone() });
            }
            let mut next: Vec<Shown> = Vec::new();
            for mut piece in pieces {
                let grows = open.iter().position(|before| {
                    before.tx_from == piece.tx_from
                        && before.tx_to == piece.tx_to
                        && before.row == piece.row
                });
                if let Some(at) = grows {
                    piece.valid = open.remove(at).valid.hull(&piece.valid);
                }
                next.push(piece);
            }
            done.append(&mut open);
            open = next;
        }
        done.append(&mut open);
        done.sort_by_key(|version| (version.valid.from(), version.tx_from));
        done
    }

    /// Returns the periods in which some transaction of `(after, through]` changed the state.
    pub fn changed(&self, after: TxId, through: TxId) -> Vec<Period<ValidTime>> {
        let hit = |cell: &&Cell| {
            cell.runs.iter().any(|run| run.tx > after.max(TxId::ZERO) && run.tx <= through)
        };
        joined(self.cells.iter().filter(hit).map(|cell| cell.valid))
    }

    /// Returns the instants at which the state known at a transaction becomes another one.
    pub fn flips(&self, tx: TxId) -> Vec<ValidTime> {
        let states =
            self.cells.iter().map(|cell| (cell.valid.from(), self.state(cell.valid.from(), tx)));
        let states: Vec<_> = states.collect();
        states
            .windows(2)
            .filter(|pair| pair[0].1.map(|s| s.1) != pair[1].1.map(|s| s.1))
            .map(|pair| pair[1].0)
            .collect()
    }

    /// Returns the values that these columns ever had together, where all of them had one.
    pub fn together(&self, columns: &[ColumnId]) -> Vec<Vec<Value>> {
        let rows = self.cells.iter().flat_map(|cell| &cell.runs).filter_map(|r| r.state.as_ref());
        rows.filter_map(|row| columns.iter().map(|id| row.get(*id).cloned()).collect()).collect()
    }
}

/// Joins periods, given in order, that overlap or touch.
pub fn joined(periods: impl Iterator<Item = Period<ValidTime>>) -> Vec<Period<ValidTime>> {
    let mut whole: Vec<Period<ValidTime>> = Vec::new();
    for period in periods {
        match whole.last_mut() {
            Some(last) if last.touches(&period) => *last = last.hull(&period),
            _ => whole.push(period),
        }
    }
    whole
}
