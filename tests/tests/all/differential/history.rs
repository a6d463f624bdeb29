//! Random histories as SQL, told to a database and to the naive model alike.
//!
//! What a statement asserts is worked out here from the model's state alone: an UPDATE is a patch of
//! every version within its window, as the definition of portions goes.

use std::collections::BTreeMap;

use everwhen_storage::{
    AssertedFrom, Assertion, ColumnId, Op, Period, Precedence, Row, RowKey, SystemTime, TableId,
    Tenant, Tx, TxId, TxOutcome, ValidTime, Value, Write, WriteKind,
};
use everwhen_tests::model::{Model, Shown};
use rand::Rng as _;
use rand::rngs::StdRng;

/// The two tables, one of each precedence.
pub const TABLES: [&str; 2] = ["rec", "eff"];
/// Keys, and what `g` may be: it names keys and others.
pub const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
pub const GROUPS: [&str; 5] = ["a", "b", "c", "x", "y"];

const G: ColumnId = ColumnId(1);
const V: ColumnId = ColumnId(2);
const AT: ColumnId = ColumnId(3);

pub const DAY: i64 = 86_400_000_000;

/// A version as it is shown, with instants in microseconds; `None` is an open end or NULL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub id: String,
    pub g: Option<String>,
    pub v: Option<i64>,
    pub at: Option<i64>,
    pub valid_from: i64,
    pub valid_to: Option<i64>,
    pub system_from: i64,
    pub system_to: Option<i64>,
    pub tx: i64,
}

/// The values that a row is given; `None` is NULL.
#[derive(Debug, Clone)]
struct Fields {
    g: Option<Option<String>>,
    v: Option<Option<i64>>,
    at: Option<Option<i64>>,
}

#[derive(Debug, Clone)]
enum Condition {
    All,
    Key(String),
    Group(String),
    Above(i64),
    NoNumber,
}

/// The window of an UPDATE or DELETE.
#[derive(Debug, Clone)]
enum Portion {
    FromNow,
    Between(Option<i64>, Option<i64>),
    All,
}

#[derive(Debug, Clone)]
enum Change {
    Fields(Fields),
    /// `SET v = v + n`.
    Add(i64),
    Delete,
}

#[derive(Debug, Clone)]
enum Statement {
    Insert { patch: bool, key: String, fields: Fields, from: Option<i64>, to: Option<i64> },
    Change { change: Change, portion: Portion, condition: Condition },
}

/// A history under way, on the model's side.
pub struct Told {
    pub model: Model,
    /// What was said so far, to be printed where it is found wrong.
    pub log: Vec<String>,
    pub clock: i64,
    /// The time around which instants lie.
    origin: i64,
}

fn table_id(table: usize) -> TableId {
    TableId(u32::try_from(table).unwrap() + 1)
}

fn key_of(id: &str) -> RowKey {
    RowKey::encode(&[Value::Text(id.to_owned())]).unwrap()
}

pub fn instant_text(micros: i64) -> String {
    ValidTime::from_micros(micros).to_string()
}

fn quoted(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |text| format!("'{text}'"))
}

fn quoted_instant(micros: Option<i64>) -> String {
    quoted(micros.map(instant_text).as_deref())
}

impl Told {
    /// Begins after a database's last transaction, under its clock.
    pub fn after(last: TxId, time: SystemTime, clock: i64) -> Self {
        let mut model = Model::starting_after(last, time);
        model.table(table_id(0), Precedence::Recorded);
        model.table(table_id(1), Precedence::Effective);
        Self { model, log: Vec::new(), clock, origin: clock }
    }

    /// Returns an instant that is likely to be one of those that others are at.
    pub fn instant(&self, rng: &mut StdRng) -> i64 {
        let day = self.origin + DAY * rng.random_range(-6..=14);
        match rng.random_range(0..10) {
            0 => day + rng.random_range(-1..=1),
            1 => self.system_instant(rng),
            _ => day,
        }
    }

    /// Returns an instant at or about the system time of a transaction, not after the clock.
    pub fn system_instant(&self, rng: &mut StdRng) -> i64 {
        let last = self.model.last_tx();
        let tx = TxId::new(rng.random_range(1..=last.get().max(1)));
        let at = self.model.system_time(tx).map_or(self.origin, SystemTime::micros);
        (at + [0, 0, 0, -1, 1][rng.random_range(0..5)]).clamp(self.origin, self.now())
    }

    /// Returns what now means to a reader: the clock, or the last transaction where that is later.
    pub fn now(&self) -> i64 {
        let last = self.model.system_time(self.model.last_tx());
        last.map_or(self.clock, |time| time.micros().max(self.clock))
    }

    /// Makes one transaction and tells the model; returns the request's text and whether it spends
    /// a transaction.
    pub fn transaction(&mut self, rng: &mut StdRng) -> (String, bool) {
        let statements = if rng.random_bool(0.8) { 1 } else { rng.random_range(2..=3) };
        let last =
            self.model.system_time(self.model.last_tx()).map_or(i64::MIN, |t| t.micros() + 1);
        let time = self.clock.max(last);
        let (mut texts, mut writes) = (Vec::new(), Vec::new());
        let (mut so_far, mut inserted) = (self.model.clone(), false);
        for _ in 0..statements {
            let table = rng.random_range(0..2);
            let statement = self.statement(rng, time);
            // What an EFFECTIVE table holds after an INSERT is told by its commit alone: refused.
            if table == 1 && inserted && matches!(statement, Statement::Change { .. }) {
                continue;
            }
            inserted |= table == 1 && matches!(statement, Statement::Insert { .. });
            texts.push(text(table, &statement));
            writes.extend(writes_of(table, &statement, &so_far, time));
            so_far = self.model.clone();
            if !writes.is_empty() {
                so_far.apply(&Tx { writes: writes.clone(), position: None }, self.clock);
            }
        }
        let text = texts.join("; ");
        self.log.push(format!("-- at {}\n{text};", instant_text(self.clock)));
        let spends = !writes.is_empty();
        if spends {
            let outcome = self.model.apply(&Tx { writes, position: None }, self.clock);
            assert!(matches!(outcome, TxOutcome::Applied(_)));
        }
        (text, spends)
    }

    fn statement(&self, rng: &mut StdRng, time: i64) -> Statement {
        let key = KEYS[rng.random_range(0..KEYS.len())].to_owned();
        let few = self.log.len() < 10;
        match rng.random_range(if few { 0..6 } else { 0..11 }) {
            0..6 => {
                let mut from = rng.random_bool(0.85).then(|| self.instant(rng));
                let mut to = rng.random_bool(0.35).then(|| self.instant(rng));
                if let (begin, Some(end)) = (from.unwrap_or(time), to)
                    && begin >= end
                {
                    to = None;
                    from = from.filter(|_| begin != end).map(|_| end);
                }
                let patch = rng.random_bool(0.25);
                let fields = self.fields(rng, patch);
                Statement::Insert { patch, key, fields, from, to }
            }
            kind => {
                let condition = match rng.random_range(0..6) {
                    0 => Condition::All,
                    1 => Condition::Group(GROUPS[rng.random_range(0..GROUPS.len())].to_owned()),
                    2 => Condition::Above(rng.random_range(0..5)),
                    3 => Condition::NoNumber,
                    _ => Condition::Key(key),
                };
                let change = match kind {
                    6 => Change::Add(rng.random_range(1..3)),
                    7..10 => Change::Fields(self.fields(rng, true)),
                    _ => Change::Delete,
                };
                let portion = match rng.random_range(0..8) {
                    0 => Portion::FromNow,
                    1 => Portion::All,
                    2 => Portion::Between(None, Some(self.instant(rng))),
                    3 => Portion::Between(Some(self.instant(rng)), None),
                    _ => {
                        let (a, b) = (self.instant(rng), self.instant(rng));
                        let (a, b) = (a.min(b), a.max(b));
                        Portion::Between(Some(a), Some(if a == b { a + DAY } else { b }))
                    }
                };
                Statement::Change { change, portion, condition }
            }
        }
    }

    fn fields(&self, rng: &mut StdRng, partial: bool) -> Fields {
        let group = rng.random_bool(0.85).then(|| GROUPS[rng.random_range(0..GROUPS.len())]);
        let mut fields = Fields {
            g: Some(group.map(str::to_owned)),
            v: Some(rng.random_bool(0.85).then(|| rng.random_range(0..6))),
            at: Some(rng.random_bool(0.85).then(|| self.instant(rng))),
        };
        if partial {
            match rng.random_range(0..3) {
                0 => fields.v = None,
                1 => (fields.g, fields.at) = (None, None),
                _ => fields.at = None,
            }
        }
        fields
    }

    /// Returns the versions of a table that were believed at some time after `low` and are known
    /// at `high`, both in system time: whatever came after `high` is not seen.
    pub fn versions(&self, table: usize, low: i64, high: i64) -> Vec<Version> {
        let last = self.model.last_tx();
        let through = |at: i64| {
            let known = (1..=last.get())
                .map(TxId::new)
                .filter(|tx| self.model.system_time(*tx).is_some_and(|time| time.micros() <= at));
            known.max().unwrap_or(TxId::ZERO)
        };
        let (from, to) = (through(low), through(high));
        let mut versions = Vec::new();
        for id in KEYS {
            let key = (table_id(table), Tenant::default(), key_of(id));
            if self.model.keys().any(|known| *known == key) {
                let shown = self.model.plane(&key).versions(from, to);
                versions.extend(shown.iter().map(|shown| version_of(&self.model, id, shown)));
            }
        }
        versions
    }
}

fn version_of(model: &Model, id: &str, shown: &Shown) -> Version {
    let time = |tx: TxId| model.system_time(tx).unwrap().micros();
    let to = shown.valid.to();
    let Values { g, v, at } = values_of(&shown.row);
    Version {
        id: id.to_owned(),
        g,
        v,
        at,
        valid_from: shown.valid.from().micros(),
        valid_to: (to != ValidTime::END).then(|| to.micros()),
        system_from: time(shown.tx_from),
        system_to: shown.tx_to.map(time),
        tx: i64::try_from(shown.tx_from.get()).unwrap(),
    }
}

/// The values of a row.
struct Values {
    g: Option<String>,
    v: Option<i64>,
    at: Option<i64>,
}

fn values_of(row: &Row) -> Values {
    Values {
        g: match row.get(G) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        },
        v: match row.get(V) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        },
        at: match row.get(AT) {
            Some(Value::Timestamp(at)) => Some(*at),
            _ => None,
        },
    }
}

fn text(table: usize, statement: &Statement) -> String {
    let table = TABLES[table];
    match statement {
        Statement::Insert { patch, key, fields, from, to } => {
            let mut columns = BTreeMap::from([("_id", quoted(Some(key)))]);
            if let Some(g) = &fields.g {
                columns.insert("g", quoted(g.as_deref()));
            }
            if let Some(v) = &fields.v {
                columns.insert("v", v.map_or("NULL".to_owned(), |v| v.to_string()));
            }
            if let Some(at) = &fields.at {
                columns.insert("at", quoted_instant(*at));
            }
            if from.is_some() {
                columns.insert("_valid_from", quoted_instant(*from));
            }
            if to.is_some() {
                columns.insert("_valid_to", quoted_instant(*to));
            }
            let verb = if *patch { "PATCH" } else { "INSERT" };
            let names: Vec<_> = columns.keys().copied().collect();
            let values: Vec<_> = columns.into_values().collect();
            let (names, values) = (names.join(", "), values.join(", "));
            format!("{verb} INTO {table} ({names}) VALUES ({values})")
        }
        Statement::Change { change, portion, condition } => {
            let portion = match portion {
                Portion::FromNow => String::new(),
                Portion::All => " FOR ALL VALID_TIME".to_owned(),
                Portion::Between(from, to) => {
                    let (from, to) = (quoted_instant(*from), quoted_instant(*to));
                    format!(" FOR PORTION OF VALID_TIME FROM {from} TO {to}")
                }
            };
            let condition = match condition {
                Condition::All => String::new(),
                Condition::Key(key) => format!(" WHERE _id = '{key}'"),
                Condition::Group(group) => format!(" WHERE g = '{group}'"),
                Condition::Above(least) => format!(" WHERE v > {least}"),
                Condition::NoNumber => " WHERE v IS NULL".to_owned(),
            };
            match change {
                Change::Delete => format!("DELETE FROM {table}{portion}{condition}"),
                Change::Add(more) => {
                    format!("UPDATE {table}{portion} SET v = v + {more}{condition}")
                }
                Change::Fields(fields) => {
                    let mut set = Vec::new();
                    set.extend(fields.g.iter().map(|g| format!("g = {}", quoted(g.as_deref()))));
                    let number = |v: &Option<i64>| v.map_or("NULL".to_owned(), |v| v.to_string());
                    set.extend(fields.v.iter().map(|v| format!("v = {}", number(v))));
                    set.extend(fields.at.iter().map(|at| format!("at = {}", quoted_instant(*at))));
                    format!("UPDATE {table}{portion} SET {}{condition}", set.join(", "))
                }
            }
        }
    }
}

fn row_of(fields: &Fields) -> Row {
    let mut row = Row::default();
    let text = |g: &Option<String>| g.clone().map_or(Value::Null, Value::Text);
    fields.g.iter().for_each(|g| row.set(G, text(g)));
    fields.v.iter().for_each(|v| row.set(V, v.map_or(Value::Null, Value::Int)));
    fields.at.iter().for_each(|at| row.set(AT, at.map_or(Value::Null, Value::Timestamp)));
    row
}

/// Returns what a statement asserts where the model stands.
fn writes_of(table: usize, statement: &Statement, model: &Model, time: i64) -> Vec<Write> {
    let write = |id: &str, assertion: Assertion| Write {
        table: table_id(table),
        tenant: Tenant::default(),
        kind: WriteKind::Assert { key: key_of(id), assertion, event: None },
    };
    match statement {
        Statement::Insert { patch, key, fields, from, to } => {
            let op = if *patch { Op::Patch { set_nulls: false } } else { Op::Put };
            let at = |at: i64| AssertedFrom::At(ValidTime::from_micros(at));
            let from = from.map_or(AssertedFrom::SystemTime, at);
            let to = to.map_or(ValidTime::END, ValidTime::from_micros);
            let fields = row_of(fields);
            vec![write(key, Assertion { op, from, to, order: 0, fields, exact: false })]
        }
        Statement::Change { change, portion, condition } => {
            let at = |at: Option<i64>, open| at.map_or(open, ValidTime::from_micros);
            let window = match portion {
                Portion::FromNow => Period::new(ValidTime::from_micros(time), ValidTime::END),
                Portion::All => Period::new(ValidTime::BEGIN, ValidTime::END),
                Portion::Between(from, to) => {
                    Period::new(at(*from, ValidTime::BEGIN), at(*to, ValidTime::END))
                }
            };
            let (window, last) = (window.unwrap(), model.last_tx());
            let mut writes = Vec::new();
            for id in KEYS {
                let key = (table_id(table), Tenant::default(), key_of(id));
                if !model.keys().any(|known| *known == key) {
                    continue;
                }
                for shown in model.plane(&key).versions(last, last) {
                    let values = values_of(&shown.row);
                    let Some(part) = shown.valid.intersect(&window) else { continue };
                    if !holds(condition, id, &values) {
                        continue;
                    }
                    let (op, fields) = match change {
                        Change::Delete => (Op::Delete, Row::default()),
                        Change::Fields(fields) => (Op::Patch { set_nulls: true }, row_of(fields)),
                        Change::Add(more) => {
                            let v = Some(values.v.map(|v| v + more));
                            let fields = row_of(&Fields { g: None, v, at: None });
                            (Op::Patch { set_nulls: true }, fields)
                        }
                    };
                    let (from, to) = (AssertedFrom::At(part.from()), part.to());
                    writes
                        .push(write(id, Assertion { op, from, to, order: 0, fields, exact: true }));
                }
            }
            writes
        }
    }
}

fn holds(condition: &Condition, id: &str, values: &Values) -> bool {
    match condition {
        Condition::All => true,
        Condition::Key(key) => id == key,
        Condition::Group(group) => values.g.as_ref() == Some(group),
        Condition::Above(least) => values.v.is_some_and(|v| v > *least),
        Condition::NoNumber => values.v.is_none(),
    }
}
