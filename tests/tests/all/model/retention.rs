//! Histories of tables with a retention: at the horizon and after it they read like the model,
//! before it they are said to be gone, and what was swept is no longer there.

use everwhen_storage::{
    Clock as _, Error, Keys, Needed, Scan, SystemBound, TxId, ValidBound, ValidTime, Version,
};
use everwhen_tests::model::Shown;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// Histories at one soak.
const HISTORIES: u64 = 60;

type Row = (Tenant, everwhen_storage::RowKey, Shown);

fn row(version: Version) -> Row {
    let Version { tenant, key, valid, tx_from, tx_to, row } = version;
    (tenant, key, Shown { valid, tx_from, tx_to, row })
}

/// Returns what the model shows of a history's table between two transactions.
fn expected(model: &Model, history: &History, from: TxId, to: TxId) -> Vec<Row> {
    let mut rows = Vec::new();
    for of in model.keys() {
        let (table, tenant, key) = of;
        if *table == history.table.id && history.tenants.contains(tenant) {
            let versions = model.plane(of).versions(from, to).into_iter();
            rows.extend(versions.map(|shown| (tenant.clone(), key.clone(), shown)));
        }
    }
    rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    rows
}

fn read(
    bench: &Bench,
    history: &History,
    tx: TxId,
    system: SystemBound,
) -> Result<Vec<Row>, Error> {
    let table = &history.table;
    let (keys, valid, columns) = (Keys::All, ValidBound::ALL, None);
    let scan = Scan { table, tenant: None, keys, valid, system, columns, whole: true };
    let found = bench.store().read(tx, |view| view.collect(&scan))?;
    Ok(found.into_iter().filter(|v| history.tenants.contains(&v.tenant)).map(row).collect())
}

/// Compares at every transaction; returns how many were said to be gone.
fn compare(bench: &Bench, model: &Model, history: &History, base: TxId) -> usize {
    let horizon = bench.store().horizon(history.table.id);
    let mut gone = 0;
    for at in base.get()..=model.last_tx().get() {
        let at = TxId::new(at);
        for (system, from) in
            [(SystemBound::Latest, at), (SystemBound::Between(at, model.last_tx()), at)]
        {
            let (tx, to) = match system {
                SystemBound::Latest => (at, at),
                _ => (model.last_tx(), model.last_tx()),
            };
            match read(bench, history, tx, system) {
                Ok(found) => {
                    assert!(from >= horizon, "{at} answers before the horizon {horizon}");
                    assert_eq!(found, expected(model, history, from, to), "{system:?} at {tx}");
                }
                Err(Error::Forgotten { .. }) if from < horizon => gone += 1,
                Err(error) => panic!("{system:?} at {tx}: {error}"),
            }
        }
    }
    let (last, kept) = (model.last_tx(), horizon.max(base));
    let all = read(bench, history, last, SystemBound::Kept).unwrap();
    assert_eq!(all, expected(model, history, kept, last), "all that is kept");
    gone
}

#[test]
fn histories_read_like_the_model_from_the_horizon_on_and_not_before() {
    let seed = seed();
    println!("EVERWHEN_SEED={seed}");
    let (mut gone, mut pieces) = (0, 0);
    let mut bench = Bench::new();
    for index in 0..HISTORIES * soak() {
        let seed = seed.wrapping_add(index);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = history(&bench, seed, index);
        history.steps.retain(|step| !erases(step));
        let mut model = bench.model();
        let base = model.last_tx();
        let mut clock = bench.clock.now_micros();
        for step in &history.steps {
            bench.step(&mut model, step, &mut clock).unwrap();
        }
        let table = history.table.id;
        let definitions = vec![DefinitionChange::Retention { table, micros: Some(1) }];
        commit(bench.store(), Batch { definitions, ..Batch::default() });
        bench.clock.set(clock.max(history.end()) + 10).unwrap();
        // Twice: the horizon moves on over what is left.
        for _ in 0..2 {
            let at = rng.random_range(base.get()..=model.last_tx().get());
            let needed = Needed { tx: TxId::new(at), now: ValidTime::BEGIN };
            let swept = bench.store().sweep(needed).unwrap();
            assert!(bench.store().horizon(table) >= TxId::new(at));
            pieces += swept.pieces;
            gone += compare(&bench, &model, &history, base);
        }
        if index.is_multiple_of(10) {
            bench.restart();
            compare(&bench, &model, &history, base);
        }
    }
    assert!(gone > 0 && pieces > 0, "nothing was swept: the test shows nothing");
}

fn erases(step: &Step) -> bool {
    let erasing = |tx: &everwhen_storage::Tx| {
        tx.writes.iter().any(|w| matches!(w.kind, everwhen_storage::WriteKind::Erase { .. }))
    };
    match step {
        Step::Commit(txs) => txs.iter().any(erasing),
        Step::Purge => true,
        Step::Clock(_) | Step::Restart => false,
    }
}
