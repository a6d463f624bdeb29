//! Views over random histories that are laid out here by the letter of `docs/format.md`, without
//! the writer: each transaction overwrites one period of one key.

use rocksdb::WriteBatch;

use crate::engine::Engine;
use crate::families::Family;
use crate::key::{self, Fork};
use crate::row::{ArchiveHeader, CurrentHeader, Document, LevelSet, TimelineHeader};
use crate::schema::{
    ColumnDef, ColumnId, ColumnType, Precedence, RowKey, TableDef, TableId, Tenant,
};
use crate::time::{Period, ValidTime};
use crate::tx::TxId;
use crate::value::{Row, Value};
use crate::view::{Keys, Scan, SystemBound, ValidBound, Version, View};

const CELLS: usize = 10;
const COLUMN: ColumnId = ColumnId(1);

/// What holds in each cell of valid time, and since which transaction. The last cell has no end.
type Line = [(Option<i64>, u64); CELLS];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn cell(&mut self) -> usize {
        usize::try_from(self.below(CELLS as u64)).unwrap()
    }
}

fn start(cell: usize) -> ValidTime {
    match i64::try_from(cell) {
        Ok(cell) if cell < CELLS as i64 => ValidTime::from_micros(1_000 + cell * 3),
        _ => ValidTime::END,
    }
}

fn document(value: i64) -> Document {
    Document::of_put(&Row::new([(COLUMN, Value::Int(value))]))
}

/// Runs of equal cells of a line: first cell, end, value, tx.
fn runs(line: &Line) -> Vec<(usize, usize, i64, u64)> {
    let mut runs: Vec<(usize, usize, i64, u64)> = Vec::new();
    for (cell, (value, tx)) in line.iter().enumerate() {
        let Some(value) = *value else { continue };
        match runs.last_mut() {
            Some(last) if last.1 == cell && (last.2, last.3) == (value, *tx) => last.1 += 1,
            _ => runs.push((cell, cell + 1, value, *tx)),
        }
    }
    runs
}

struct Layout {
    folder: std::path::PathBuf,
    engine: Engine,
    table: TableDef,
    tenant: Tenant,
}

impl Drop for Layout {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Layout {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("everwhen-{}", uuid::Uuid::new_v4()));
        let engine = Engine::open(&folder, 1 << 20).unwrap();
        let table = TableDef {
            id: TableId(3),
            name: "t".to_owned(),
            precedence: Precedence::Recorded,
            key: vec![ColumnId(0)],
            columns: vec![
                ColumnDef::new(0, "", ColumnType::Int64),
                ColumnDef::new(COLUMN.0, "", ColumnType::Int64),
            ],
            declared: true,
        };
        Self { folder, engine, table, tenant: Tenant::default() }
    }

    fn key(number: i64) -> RowKey {
        RowKey::encode(&[Value::Int(number)]).unwrap()
    }

    /// Stores the lines of a key; line 0 is before every transaction, and holds nothing.
    fn store(&self, number: i64, lines: &[Line]) {
        let own_key = Self::key(number).0;
        let prefix = key::row_prefix(&self.tenant, self.table.id, &Self::key(number));
        let mut batch = WriteBatch::default();
        let mut put = |family, key: &[u8], value: &[u8]| {
            batch.put_cf(self.engine.family(family), key, value);
        };
        let mut archive = LevelSet::default();
        for (tx, pair) in lines.windows(2).enumerate() {
            let tx = tx as u64 + 1;
            if pair[0] != pair[1] {
                let change = key::change(TxId::new(tx), &self.tenant, self.table.id, &own_key);
                put(Family::Changes, &change, &[]);
            }
            for (from, to, value, tx_from) in runs(&pair[0]) {
                let mut from = from;
                while from < to {
                    let gone = |cell: usize| pair[1][cell] != pair[0][cell];
                    let end = (from..to).find(|cell| gone(*cell) != gone(from)).unwrap_or(to);
                    if gone(from) {
                        let valid = Period::new(start(from), start(end)).unwrap();
                        let fork = Fork::of(&valid);
                        archive.insert(fork.level);
                        let mut bytes = Vec::new();
                        let header = ArchiveHeader { valid, tx_from: TxId::new(tx_from) };
                        header.put(&mut bytes, document(value).as_bytes());
                        let suffix = key::archive_suffix(fork, TxId::new(tx));
                        let key = [prefix.as_slice(), &suffix].concat();
                        put(Family::Archive, &key, &bytes);
                    }
                    from = end;
                }
            }
        }
        let last = lines.last().unwrap();
        let mut header = CurrentHeader { archive, ..CurrentHeader::NOTHING };
        let mut open = Document::default();
        for (from, to, value, tx_from) in runs(last) {
            header.valid_from = start(to);
            let mut bytes = Vec::new();
            let tx_from = TxId::new(tx_from);
            if to == CELLS {
                header.tombstone = false;
                header.valid_from = start(from);
                header.tx_from = tx_from;
                open = document(value);
            } else {
                header.timeline = true;
                header.tx_from = TxId::new(last[CELLS - 1].1);
                TimelineHeader { valid_to: start(to), tx_from }
                    .put(&mut bytes, document(value).as_bytes());
                put(Family::Timeline, &key::timeline(&prefix, start(from)), &bytes);
            }
        }
        if header.tombstone {
            let from = runs(last).last().map_or(0, |run| run.1);
            let later = last[from..].iter().map(|(_, tx)| *tx).max();
            header.tx_from = TxId::new(later.unwrap_or(0));
        }
        let mut bytes = Vec::new();
        header.put(&mut bytes, open.as_bytes());
        put(Family::Current, &prefix, &bytes);
        self.engine.write(batch, false).unwrap();
    }
}

fn random_lines(random: &mut Random, txs: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![[(None, 0); CELLS]];
    for tx in 1..=txs {
        let mut line = *lines.last().unwrap();
        let (one, two) = (random.cell(), random.cell());
        let to = if random.below(3) == 0 { CELLS } else { one.max(two) + 1 };
        let value = match random.below(4) {
            0 => None,
            value => Some(i64::try_from(value).unwrap()),
        };
        for cell in &mut line[one.min(two)..to] {
            if cell.0 != value {
                *cell = (value, tx as u64);
            }
        }
        lines.push(line);
    }
    lines
}

type Shown = (ValidTime, ValidTime, u64, Option<u64>, i64);

fn shown(version: &Version) -> Shown {
    let Some(Value::Int(value)) = version.row.get(COLUMN) else {
        return (ValidTime::END, ValidTime::END, 0, None, 0);
    };
    let tx_to = version.tx_to.map(TxId::get);
    (version.valid.from(), version.valid.to(), version.tx_from.get(), tx_to, *value)
}

/// Versions believed within `[from, to]`, by looking at every cell.
fn expected(lines: &[Line], from: usize, to: usize) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for (cell, cell_start) in (0..CELLS).map(|cell| (cell, start(cell))) {
        for tx in from..=to {
            let (Some(value), since) = lines[tx][cell] else { continue };
            let end = (tx + 1..=to).find(|later| lines[*later][cell] != lines[tx][cell]);
            let piece = (cell_start, start(cell + 1), since, end.map(|end| end as u64), value);
            let same = |last: &&mut Shown| (last.2, last.3, last.4) == (piece.2, piece.3, piece.4);
            match all.iter_mut().filter(same).find(|last| last.1 >= piece.0) {
                Some(last) => last.1 = last.1.max(piece.1),
                None => all.push(piece),
            }
        }
    }
    all.sort_unstable_by_key(|shown| (shown.0, shown.2));
    all
}

#[test]
fn views_read_what_random_histories_laid_down() {
    let layout = Layout::new();
    let mut random = Random(20_261_121);
    for history in 0..400 {
        let txs = 1 + random.cell();
        let lines = random_lines(&mut random, txs);
        layout.store(history, &lines);
        let key = Layout::key(history);
        for tx in 0..=txs {
            let at_tx = TxId::new(tx as u64);
            let newest = if random.below(2) == 0 { txs } else { txs + 5 };
            let view = View::new(&layout.engine, at_tx, || TxId::new(newest as u64));
            let all = expected(&lines, tx, tx);
            for cell in 0..CELLS {
                let found = view.point(&layout.table, &layout.tenant, &key, start(cell)).unwrap();
                let here = |shown: &&Shown| shown.0 <= start(cell) && start(cell) < shown.1;
                let what = format!("history {history} {lines:?} cell {cell} tx {tx}");
                assert_eq!(found.as_ref().map(shown).as_ref(), all.iter().find(here), "{what}");
                let row =
                    view.row_at(&layout.table, &layout.tenant, &key, start(cell), None).unwrap();
                let made_by = row.map(|(tx, _)| tx.get());
                assert_eq!(made_by, found.map(|found| found.tx_from.get()), "{what}");
            }
            let (one, two) = (random.cell(), random.cell());
            let window = Period::new(start(one.min(two)), start(one.max(two) + 1)).unwrap();
            let before = usize::try_from(random.below(tx as u64 + 1)).unwrap();
            for (from, system) in [
                (tx, SystemBound::Latest),
                (before, SystemBound::Between(TxId::new(before as u64), at_tx)),
            ] {
                let scan = Scan {
                    table: &layout.table,
                    tenant: Some(&layout.tenant),
                    keys: Keys::Among(vec![key.clone()]),
                    valid: ValidBound::Overlapping(window),
                    system,
                    columns: None,
                    whole: true,
                };
                let found: Vec<Shown> = view.collect(&scan).unwrap().iter().map(shown).collect();
                let mut wanted = expected(&lines, from, tx);
                wanted.retain(|shown| shown.0 < window.to() && window.from() < shown.1);
                assert_eq!(found, wanted, "history {history} {lines:?} {window:?} {system:?}");
            }
        }
    }
}

#[test]
fn versions_within_several_periods_come_whole_and_once() {
    let layout = Layout::new();
    let mut random = Random(20_261_201);
    for history in 0..300 {
        let txs = 1 + random.cell();
        let lines = random_lines(&mut random, txs);
        layout.store(history, &lines);
        let key = Layout::key(history);
        for tx in 0..=txs {
            let view =
                View::new(&layout.engine, TxId::new(tx as u64), || TxId::new(txs as u64 + 1));
            let mut cells: Vec<usize> = (0..random.below(5)).map(|_| random.cell()).collect();
            cells.sort_unstable();
            cells.dedup();
            // Single instants and longer periods, apart.
            let periods: Vec<_> = cells
                .iter()
                .map(|cell| {
                    let long = random.below(2) == 0;
                    let to = if long { start(cell + 1) } else { start(*cell).saturating_add(1) };
                    Period::new(start(*cell), to).unwrap()
                })
                .collect();
            let mut found = Vec::new();
            view.versions_within(&layout.table, &layout.tenant, &key, &periods, &mut |version| {
                found.push(shown(&version.version(None)?));
                Ok(true)
            })
            .unwrap();
            let mut wanted = expected(&lines, tx, tx);
            wanted.retain(|shown| {
                periods.iter().any(|period| shown.0 < period.to() && period.from() < shown.1)
            });
            assert_eq!(found, wanted, "history {history} {lines:?} tx {tx} {periods:?}");
        }
    }
}

#[test]
fn a_scan_at_one_instant_finds_what_single_reads_find() {
    const KEYS: i64 = 150;
    let layout = Layout::new();
    let mut random = Random(20_261_122);
    let mut latest = 0;
    for key in 0..KEYS {
        // Runs of keys with little history, so that steps suffice again.
        let txs =
            1 + usize::try_from(random.below(if key / 20 % 2 == 0 { 3 } else { 30 })).unwrap();
        latest = latest.max(txs);
        layout.store(key, &random_lines(&mut random, txs));
    }
    for _ in 0..200 {
        let tx = TxId::new(random.below(latest as u64 + 1));
        let at = start(random.cell());
        let view = View::new(&layout.engine, tx, || TxId::new(latest as u64));
        let keys = (0..KEYS).map(Layout::key);
        let single = |key| view.point(&layout.table, &layout.tenant, &key, at).unwrap();
        let expected: Vec<Version> = keys.filter_map(single).collect();
        let scan = |whole| Scan {
            table: &layout.table,
            tenant: Some(&layout.tenant),
            keys: Keys::All,
            valid: ValidBound::AsOf(at),
            system: SystemBound::Latest,
            columns: None,
            whole,
        };
        assert_eq!(view.collect(&scan(true)).unwrap(), expected, "at {at:?}, tx {tx}");
        let parts = view.collect(&scan(false)).unwrap();
        assert_eq!(parts.len(), expected.len(), "at {at:?}, tx {tx}");
        for (part, whole) in parts.iter().zip(&expected) {
            assert!(part.valid.contains(at) && whole.valid.hull(&part.valid) == whole.valid);
            assert_eq!(Version { valid: whole.valid, ..part.clone() }, *whole);
        }
    }
}
