//! Writes that follow from a seed alone, so that a process that was ended in the middle of them can
//! be judged: what it left must be an exact beginning of them.

use std::collections::BTreeMap;

use everwhen_storage::{
    Batch, DeadLetter, DefinitionChange, Keys, Origin, Scan, SourceAdvance, SourceLog,
    SourcePosition, Store, SystemBound, SystemTime, TableDef, Tenant, Tx, TxId, ValidBound, Value,
    Version, WriteKind,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::model::history::{History, Shape, Step, TEXT, tables};
use crate::model::{KeyOf, Model, Shown};

/// Where the clock stands throughout, in microseconds: transactions follow by the microsecond.
pub const CLOCK: i64 = 1_767_600_000_000_000;

const STREAM: &str = "stream";
const TOPIC: &str = "topic";
const PARTITIONS: i32 = 3;

/// Batches of client writes and of records, and the naive model after all of them.
pub struct Workload {
    pub batches: Vec<Batch>,
    tables: [TableDef; 2],
    model: Model,
    /// What stands in the store after each number of batches.
    ends: Vec<End>,
}

/// What tells how many batches a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct End {
    tx: TxId,
    /// Next offsets by partition.
    offsets: BTreeMap<i32, i64>,
    dead_letters: usize,
}

/// Why a store is not taken to hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unequal {
    /// It answers otherwise than the model.
    Differs(String),
    /// It answers with an error, which is no wrong answer.
    Unreadable(String),
}

impl std::fmt::Display for Unequal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Differs(why) | Self::Unreadable(why)) = self;
        f.write_str(why)
    }
}

impl From<everwhen_storage::Error> for Unequal {
    fn from(error: everwhen_storage::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Workload {
    /// Makes `count` batches; the first makes the tables.
    pub fn new(seed: u64, count: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let tables = tables(1);
        let definitions = tables.iter().cloned().map(DefinitionChange::Table).collect();
        let mut batches = vec![Batch { definitions, ..Batch::default() }];
        let mut made = 0;
        while batches.len() < count {
            let shape = Shape {
                table: tables[made % 2].clone(),
                tenants: vec![Tenant::default(), Tenant::new("other").unwrap()],
                start: CLOCK,
                txs_max: 40,
                restart: 0.0,
                erase: 0.0,
                purge: 0.0,
            };
            let history = History::random(random.random(), &shape);
            made += 1;
            for step in history.steps {
                if let Step::Commit(txs) = step {
                    batches.push(Batch {
                        txs: txs.into_iter().map(heavy).collect(),
                        ..Batch::default()
                    });
                }
            }
        }
        batches.truncate(count);
        let mut offsets = BTreeMap::new();
        for batch in &mut batches[1..] {
            if random.random_bool(0.5) {
                from_topic(batch, &mut offsets, &mut random);
            }
        }
        let mut model = Model::starting_after(TxId::new(1), SystemTime::from_micros(CLOCK));
        tables.iter().for_each(|table| model.table(table.id, table.precedence));
        let mut end = End::default();
        let mut ends = vec![end.clone()];
        for batch in &batches {
            for tx in &batch.txs {
                model.apply(tx, CLOCK);
            }
            end.tx = model.last_tx();
            for source in &batch.sources {
                end.offsets.insert(source.partition, source.next_offset);
            }
            end.dead_letters += batch.dead_letters.len();
            ends.push(end.clone());
        }
        Self { batches, tables, model, ends }
    }

    /// Returns how many batches a store holds; where some leave nothing, the most it can be.
    ///
    /// # Errors
    /// Where it holds something else than a beginning of the batches.
    pub fn position(&self, store: &Store) -> Result<usize, Unequal> {
        let offsets = store.source_offsets(STREAM)?;
        let letters = store.dead_letters(0, usize::MAX)?;
        let found = End {
            tx: store.latest().tx,
            offsets: offsets.into_iter().map(|(_, partition, next)| (partition, next)).collect(),
            dead_letters: letters.len(),
        };
        let place = self.ends.iter().rposition(|end| *end == found);
        place.ok_or_else(|| {
            Unequal::Differs(format!("the store holds no beginning of the batches: {found:?}"))
        })
    }

    /// Compares all that was ever believed, and when, with the model.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, store: &Store) -> Result<(), Unequal> {
        let last = store.latest().tx;
        for tx in 2..=last.get() {
            let found = store.system_time(TxId::new(tx))?;
            if Some(found) != self.model.system_time(TxId::new(tx)) {
                return Err(Unequal::Differs(format!("transaction {tx} is of {found}")));
            }
        }
        let mut stored = BTreeMap::<KeyOf, Vec<Shown>>::new();
        for table in &self.tables {
            for version in versions(store, table, last)? {
                let key = (table.id, version.tenant.clone(), version.key.clone());
                stored.entry(key).or_default().push(shown(version));
            }
        }
        for key in self.model.keys() {
            let mut expected = self.model.plane(key).versions(TxId::ZERO, last);
            let mut found = stored.remove(key).unwrap_or_default();
            expected.sort_by_key(|shown| (shown.valid.from(), shown.tx_from));
            found.sort_by_key(|shown| (shown.valid.from(), shown.tx_from));
            if found != expected {
                let why = format!("{key:?} at {last}: {found:?}, expected {expected:?}");
                return Err(Unequal::Differs(why));
            }
        }
        let rest: Vec<(KeyOf, Vec<Shown>)> = stored.into_iter().collect();
        if rest.is_empty() {
            return Ok(());
        }
        Err(Unequal::Differs(format!("keys of nobody: {rest:?}")))
    }
}

fn versions(store: &Store, table: &TableDef, last: TxId) -> Result<Vec<Version>, Unequal> {
    if last == TxId::ZERO {
        return Ok(Vec::new());
    }
    let scan = Scan {
        table,
        tenant: None,
        keys: Keys::All,
        valid: ValidBound::ALL,
        system: SystemBound::Between(TxId::ZERO, last),
        columns: None,
        whole: true,
    };
    Ok(store.read(last, |view| view.collect(&scan))?)
}

fn shown(version: Version) -> Shown {
    let Version { valid, tx_from, tx_to, row, .. } = version;
    Shown { valid, tx_from, tx_to, row }
}

/// Gives texts some weight, so that files fill.
fn heavy(mut tx: Tx) -> Tx {
    for write in &mut tx.writes {
        if let WriteKind::Assert { assertion, event: None, .. } = &mut write.kind
            && let Some(Value::Text(text)) = assertion.fields.get(TEXT)
        {
            let long = format!("{text}{}", "0123456789".repeat(40));
            assertion.fields.set(TEXT, Value::Text(long));
        }
    }
    tx
}

/// Makes a batch one of records of a topic, perhaps with one that is rejected.
fn from_topic(batch: &mut Batch, offsets: &mut BTreeMap<i32, i64>, random: &mut StdRng) {
    batch.origin = Origin::Kafka { stream: STREAM.to_owned() };
    let mut next = |partition: i32| {
        let offset = offsets.entry(partition).or_insert(0);
        *offset += 1;
        SourcePosition { topic: TOPIC.to_owned(), partition, offset: *offset - 1 }
    };
    let mut advances = BTreeMap::new();
    for tx in &mut batch.txs {
        let position = next(random.random_range(0..PARTITIONS));
        advances.insert(position.partition, position.offset + 1);
        tx.position = Some(position);
    }
    if random.random_bool(0.2) {
        let SourcePosition { topic, partition, offset } = next(random.random_range(0..PARTITIONS));
        advances.insert(partition, offset + 1);
        batch.dead_letters.push(DeadLetter {
            id: 0,
            tenant: "default".to_owned(),
            stream: STREAM.to_owned(),
            topic: Some(topic),
            partition: Some(partition),
            offset: Some(offset),
            reason: "no reason".to_owned(),
            value: b"{".to_vec(),
            size: 1,
            at: 0,
        });
    }
    let advance = |(partition, next_offset)| SourceAdvance {
        stream: STREAM.to_owned(),
        topic: TOPIC.to_owned(),
        partition,
        next_offset,
        log: SourceLog::default(),
    };
    batch.sources = advances.into_iter().map(advance).collect();
}
