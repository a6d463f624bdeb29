//! Random histories: small domains of instants, keys and values, so that collisions are frequent.

use everwhen_storage::{
    AssertedFrom, Assertion, ColumnDef, ColumnId, ColumnType, Event, EventId, Op, Precedence, Row,
    RowKey, TableDef, TableId, Tenant, Tx, ValidTime, Value, Write, WriteKind,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The columns that histories write; key columns are [`KEY`] and, where composite, [`KEY_PART`].
pub const KEY: ColumnId = ColumnId(0);
/// Second column of a composite key.
pub const KEY_PART: ColumnId = ColumnId(1);
/// An int64 column.
pub const NUMBER: ColumnId = ColumnId(2);
/// A text column.
pub const TEXT: ColumnId = ColumnId(3);
/// A bool column.
pub const FLAG: ColumnId = ColumnId(4);

/// Instants of a history lie in `0..INSTANTS` steps after its origin.
pub const INSTANTS: i64 = 12;

/// The two tables of histories: RECORDED with a text key, EFFECTIVE with a composite one.
pub fn tables(first: u32) -> [TableDef; 2] {
    let column = |id, name: &str, kind| {
        let nullable = id != KEY && id != KEY_PART;
        ColumnDef { id, name: name.to_owned(), kind, nullable }
    };
    let table = |id, name: &str, precedence, key: Vec<ColumnId>| TableDef {
        id: TableId(id),
        name: name.to_owned(),
        precedence,
        key,
        columns: vec![
            column(KEY, "_id", ColumnType::Text),
            column(KEY_PART, "part", ColumnType::Int64),
            column(NUMBER, "number", ColumnType::Int64),
            column(TEXT, "text", ColumnType::Text),
            column(FLAG, "flag", ColumnType::Bool),
        ],
        declared: true,
    };
    let mut recorded = table(first, "recorded", Precedence::Recorded, vec![KEY]);
    recorded.columns.retain(|c| c.id != KEY_PART);
    [recorded, table(first + 1, "effective", Precedence::Effective, vec![KEY, KEY_PART])]
}

/// One step of a history.
#[derive(Debug, Clone)]
pub enum Step {
    /// The clock goes forward to this time, in microseconds.
    Clock(i64),
    /// One micro-batch.
    Commit(Vec<Tx>),
    /// What was erased is purged.
    Purge,
    /// The store is closed and opened again.
    Restart,
}

/// A whole history, and what it takes to read it at interesting places.
#[derive(Debug, Clone)]
pub struct History {
    pub seed: u64,
    pub table: TableDef,
    pub tenants: Vec<Tenant>,
    pub steps: Vec<Step>,
    /// Microseconds since the Unix epoch of the first instant.
    pub origin: i64,
    /// Microseconds between two instants.
    pub scale: i64,
}

/// What a random history is to be like.
#[derive(Debug, Clone)]
pub struct Shape {
    pub table: TableDef,
    pub tenants: Vec<Tenant>,
    /// Nothing happens before this time, in microseconds.
    pub start: i64,
    pub txs_max: usize,
    /// Chance of a restart after each commit.
    pub restart: f64,
    /// Chance of an erasure after each commit.
    pub erase: f64,
    /// Chance that an erasure is purged at once.
    pub purge: f64,
}

impl History {
    /// Makes the history of a seed.
    pub fn random(seed: u64, shape: &Shape) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scale = [1, 1, 3, 1000, 86_400_000_000][rng.random_range(0..5)];
        let origin = shape.start + 1 + scale;
        let mut maker = Maker {
            table: shape.table.clone(),
            tenants: shape.tenants.clone(),
            origin,
            scale,
            keys: rng.random_range(1..=3),
            events: rng.random_range(1..=4),
            orders: rng.random_bool(0.4),
            said: Vec::new(),
            rng,
        };
        let mut steps = Vec::new();
        let mut clock = shape.start;
        let mut left = maker.rng.random_range(1..=shape.txs_max);
        while left > 0 {
            if maker.rng.random_bool(0.3) {
                clock = clock.max(maker.instant().micros());
                steps.push(Step::Clock(clock));
            }
            let batch = maker.rng.random_range(1..=left.min(5));
            left -= batch;
            steps.push(Step::Commit((0..batch).map(|_| maker.tx(clock)).collect()));
            if maker.rng.random_bool(shape.erase) {
                steps.push(Step::Commit(vec![maker.erasure()]));
                if maker.rng.random_bool(shape.purge) {
                    steps.push(Step::Purge);
                }
            }
            if maker.rng.random_bool(shape.restart) {
                steps.push(Step::Restart);
            }
        }
        let Shape { table, tenants, .. } = shape.clone();
        Self { seed, table, tenants, steps, origin, scale }
    }

    /// Returns an instant in or near the history's domain.
    pub fn instant(&self, rng: &mut StdRng) -> ValidTime {
        match rng.random_range(0..20) {
            0 => ValidTime::BEGIN,
            1 => ValidTime::from_micros(i64::MAX - 1),
            _ => {
                let step = self.origin + self.scale * rng.random_range(-1..=INSTANTS);
                ValidTime::from_micros(step + rng.random_range(-1..=1))
            }
        }
    }

    /// Returns the latest time that anything of the history may lie at.
    pub fn end(&self) -> i64 {
        self.origin + self.scale * (INSTANTS + 2) + 1000
    }
}

struct Maker {
    rng: StdRng,
    table: TableDef,
    tenants: Vec<Tenant>,
    origin: i64,
    scale: i64,
    keys: usize,
    events: usize,
    orders: bool,
    /// Events said so far, to repeat and to contradict.
    said: Vec<Write>,
}

impl Maker {
    fn effective(&self) -> bool {
        self.table.precedence == Precedence::Effective
    }

    fn instant(&mut self) -> ValidTime {
        let step = self.rng.random_range(0..INSTANTS);
        ValidTime::from_micros(self.origin + self.scale * step)
    }

    fn key(&mut self) -> RowKey {
        let names = ["a", "ab", "b"];
        let name = Value::Text(names[self.rng.random_range(0..self.keys)].to_owned());
        let mut parts = vec![name];
        if self.effective() {
            parts.push(Value::Int(if self.rng.random_bool(0.9) { 1 } else { -1 }));
        }
        RowKey::encode(&parts).expect("text and int64 can stand in a key")
    }

    fn tenant(&mut self) -> Tenant {
        self.tenants[self.rng.random_range(0..self.tenants.len())].clone()
    }

    fn tx(&mut self, clock: i64) -> Tx {
        if self.effective() && self.rng.random_bool(0.35) {
            return Tx { writes: self.event(), position: None };
        }
        let writes = match self.rng.random_range(0..10) {
            0..6 => 1,
            6..9 => 2,
            _ => 4,
        };
        let tenant = self.tenant();
        let same = self.rng.random_bool(0.5).then(|| self.key());
        let write = |_| {
            let key = same.clone().unwrap_or_else(|| self.key());
            let exact = self.rng.random_bool(0.3);
            let assertion = self.assertion(exact, clock);
            let kind = WriteKind::Assert { key, assertion, event: None };
            Write { tenant: tenant.clone(), table: self.table.id, kind }
        };
        Tx { writes: (0..writes).map(write).collect(), position: None }
    }

    fn erasure(&mut self) -> Tx {
        let (tenant, table) = (self.tenant(), self.table.id);
        let kind = WriteKind::Erase { key: self.key() };
        Tx { writes: vec![Write { tenant, table, kind }], position: None }
    }

    /// An event: new, repeated, corrected (also under another key), stale, or taken back.
    fn event(&mut self) -> Vec<Write> {
        let dice = self.rng.random_range(0..10);
        if dice < 2 && !self.said.is_empty() {
            let again = self.rng.random_range(0..self.said.len());
            return vec![self.said[again].clone()];
        }
        let id = EventId(format!("e{}", self.rng.random_range(0..self.events)));
        let tenant = self.tenant();
        let table = self.table.id;
        if dice == 2 {
            return vec![Write { tenant, table, kind: WriteKind::Retract { event_id: id } }];
        }
        let order = self.order();
        let content_hash = u128::from(self.rng.random::<u64>());
        let parts = if self.rng.random_bool(0.15) { 2 } else { 1 };
        let mut writes = Vec::new();
        for _ in 0..parts {
            // An event may come again when the clock has passed its end.
            let assertion = self.assertion(false, i64::MAX);
            let assertion = Assertion { order, ..assertion };
            let event = Some(Event { id: id.clone(), content_hash });
            let kind = WriteKind::Assert { key: self.key(), assertion, event };
            writes.push(Write { tenant: tenant.clone(), table, kind });
        }
        if parts == 1 {
            self.said.extend(writes.iter().cloned());
        }
        writes
    }

    fn order(&mut self) -> i64 {
        if self.orders { self.rng.random_range(-1..=2) } else { 0 }
    }

    fn assertion(&mut self, exact: bool, clock: i64) -> Assertion {
        let op = match self.rng.random_range(0..10) {
            0..5 => Op::Put,
            5..7 => Op::Patch { set_nulls: false },
            7 => Op::Patch { set_nulls: true },
            _ => Op::Delete,
        };
        let op = if exact && op == Op::Put { Op::Patch { set_nulls: true } } else { op };
        let (from, to) = self.period(clock);
        let fields = if op == Op::Delete { Row::default() } else { self.fields() };
        let order = if self.effective() && !exact { self.order() } else { 0 };
        Assertion { op, from, to, order, fields, exact }
    }

    fn period(&mut self, clock: i64) -> (AssertedFrom, ValidTime) {
        let mut from = self.instant();
        let mut to = if self.rng.random_bool(0.45) { ValidTime::END } else { self.instant() };
        if to <= from {
            (from, to) = if to == from { (from, ValidTime::END) } else { (to, from) };
        }
        match self.rng.random_range(0..20) {
            0 => (AssertedFrom::At(ValidTime::BEGIN), to),
            // The writer's clock may run a little ahead of ours: stay well clear of its end.
            1 | 2 if to.micros() > clock.saturating_add(10_000) => (AssertedFrom::SystemTime, to),
            _ => (AssertedFrom::At(from), to),
        }
    }

    fn fields(&mut self) -> Row {
        let mut row = Row::default();
        for column in [NUMBER, TEXT, FLAG] {
            let value = match (self.rng.random_range(0..5), column) {
                (0 | 1, _) => continue,
                (2, _) if self.rng.random_bool(0.5) => Value::Null,
                (_, NUMBER) => Value::Int(self.rng.random_range(0..3)),
                (_, TEXT) => Value::Text(["", "x", "yy"][self.rng.random_range(0..3)].to_owned()),
                _ => Value::Bool(self.rng.random_bool(0.5)),
            };
            row.set(column, value);
        }
        row
    }
}
