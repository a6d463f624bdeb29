//! Every kind of read of one history, compared with the model.

use std::collections::{BTreeMap, BTreeSet};

use everwhen_storage::{
    IndexId, KeyRange, Keys, Period, Precedence, RowKey, Scan, Store, SystemBound, Tenant, TxId,
    ValidBound, ValidTime, Value, Version,
};
use everwhen_tests::model::history::{FLAG, History, INSTANTS, NUMBER, TEXT};
use everwhen_tests::model::{KeyOf, Model, Plane, Shown, joined};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A difference between store and model, in words.
type Check = Result<(), String>;

/// A played history, ready to be read.
pub struct Place<'a> {
    pub store: &'a Store,
    pub model: &'a Model,
    pub history: &'a History,
    /// The last transaction before the history.
    pub base: TxId,
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Check {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}\n   found {found:?}\nexpected {expected:?}"))
}

fn shown(version: Version) -> Shown {
    let Version { valid, tx_from, tx_to, row, .. } = version;
    Shown { valid, tx_from, tx_to, row }
}

type ByKey = Vec<(Tenant, RowKey, Shown)>;

impl Place<'_> {
    fn planes(&self) -> BTreeMap<(Tenant, RowKey), Plane> {
        let of_table = self.model.keys().filter(|key| key.0 == self.history.table.id);
        of_table
            .map(|key: &KeyOf| ((key.1.clone(), key.2.clone()), self.model.plane(key)))
            .collect()
    }

    fn some_tx(&self, rng: &mut StdRng) -> TxId {
        let span = self.model.last_tx().get() - self.base.get();
        match rng.random_range(0..4) {
            0 => self.model.last_tx(),
            _ => self.base.plus(rng.random_range(0..=span)),
        }
    }

    fn some_period(&self, rng: &mut StdRng) -> Period<ValidTime> {
        loop {
            let (from, to) = (self.history.instant(rng), self.history.instant(rng));
            let to = if rng.random_bool(0.2) { ValidTime::END } else { to };
            if let Some(period) = Period::nonempty(from, to) {
                return period;
            }
        }
    }

    /// Returns the range from one key's first column to another's, at times open.
    fn some_range(&self, planes: &BTreeMap<(Tenant, RowKey), Plane>, rng: &mut StdRng) -> KeyRange {
        let table = &self.history.table;
        let kinds: Vec<_> =
            table.key.iter().map(|id| &table.column_by_id(*id).unwrap().kind).collect();
        let keys: Vec<&RowKey> = planes.keys().map(|(_, key)| key).collect();
        let mut bound = || {
            let key = keys[rng.random_range(0..keys.len())];
            rng.random_bool(0.8).then(|| key.decode(&kinds).unwrap().swap_remove(0))
        };
        let (least, most) = (bound(), bound());
        KeyRange::of(&[], least.as_ref(), most.as_ref()).unwrap()
    }

    /// A few random reads of every kind.
    pub fn samples(&self, index: IndexId) -> Check {
        let mut rng = StdRng::seed_from_u64(self.history.seed ^ 0x5eed);
        let planes = self.planes();
        if planes.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = planes.keys().cloned().collect();
        self.system_times()?;
        for _ in 0..12 {
            let (tenant, key) = &keys[rng.random_range(0..keys.len())];
            let (at, tx) = (self.history.instant(&mut rng), self.some_tx(&mut rng));
            self.point(&planes, tenant, key, at, tx)?;
        }
        for _ in 0..3 {
            let valid = ValidBound::AsOf(self.history.instant(&mut rng));
            let tx = self.some_tx(&mut rng);
            self.scan(&planes, valid, SystemBound::Latest, tx, &mut rng)?;
            let valid = ValidBound::Overlapping(self.some_period(&mut rng));
            self.scan(&planes, valid, SystemBound::Latest, tx, &mut rng)?;
        }
        let whole = SystemBound::Between(TxId::ZERO, self.model.last_tx());
        self.scan(&planes, ValidBound::ALL, whole, self.model.last_tx(), &mut rng)?;
        for _ in 0..3 {
            let (one, two) = (self.some_tx(&mut rng), self.some_tx(&mut rng));
            let system = SystemBound::Between(one.min(two), one.max(two));
            let valid = match rng.random_range(0..3) {
                0 => ValidBound::AsOf(self.history.instant(&mut rng)),
                1 => ValidBound::ALL,
                _ => ValidBound::Overlapping(self.some_period(&mut rng)),
            };
            let tx = self.some_tx(&mut rng).max(one).max(two);
            self.scan(&planes, valid, system, tx, &mut rng)?;
            self.changes(&planes, one.min(two), one.max(two), tx)?;
        }
        for _ in 0..3 {
            let (tenant, key) = &keys[rng.random_range(0..keys.len())];
            let (one, two) = (self.some_tx(&mut rng), self.some_tx(&mut rng));
            let periods: Vec<_> = (0..2).map(|_| self.some_period(&mut rng)).collect();
            self.near(&planes, tenant, key, one.min(two), one.max(two), &periods)?;
        }
        let (one, two) = (self.history.instant(&mut rng), self.history.instant(&mut rng));
        self.boundaries(&planes, one.min(two), one.max(two))?;
        self.lookups(&planes, index)
    }

    /// Every kind of read at every place; for finding the smallest failing history.
    pub fn everything(&self, index: IndexId) -> Check {
        let mut rng = StdRng::seed_from_u64(1);
        let planes = self.planes();
        self.system_times()?;
        let txs: Vec<TxId> =
            (self.base.get()..=self.model.last_tx().get()).map(TxId::new).collect();
        let mut instants = vec![ValidTime::BEGIN, ValidTime::from_micros(i64::MAX - 1)];
        for step in -1..=INSTANTS {
            let at = self.history.origin + step * self.history.scale;
            instants.extend([at - 1, at].map(ValidTime::from_micros));
        }
        for tx in &txs {
            for at in &instants {
                for (tenant, key) in planes.keys() {
                    self.point(&planes, tenant, key, *at, *tx)?;
                }
                self.scan(&planes, ValidBound::AsOf(*at), SystemBound::Latest, *tx, &mut rng)?;
            }
            self.scan(&planes, ValidBound::ALL, SystemBound::Latest, *tx, &mut rng)?;
            for before in txs.iter().take_while(|before| *before <= tx) {
                let between = SystemBound::Between(*before, *tx);
                self.scan(&planes, ValidBound::ALL, between, *tx, &mut rng)?;
                self.changes(&planes, *before, *tx, self.model.last_tx())?;
                for _ in 0..4 {
                    let period = self.some_period(&mut rng);
                    let valid = ValidBound::Overlapping(period);
                    self.scan(&planes, valid, between, *tx, &mut rng)?;
                    for (tenant, key) in planes.keys() {
                        self.near(&planes, tenant, key, *before, *tx, &[period])?;
                    }
                }
            }
        }
        for (at, after) in instants.iter().enumerate() {
            for through in &instants[at..] {
                self.boundaries(&planes, *after.min(through), *after.max(through))?;
            }
        }
        self.lookups(&planes, index)
    }

    fn system_times(&self) -> Check {
        for tx in self.base.get() + 1..=self.model.last_tx().get() {
            let tx = TxId::new(tx);
            let found = self.store.system_time(tx).map_err(|e| format!("system time: {e}"))?;
            equal(&format!("system time of {tx}"), &Some(found), &self.model.system_time(tx))?;
        }
        Ok(())
    }

    fn point(
        &self,
        planes: &BTreeMap<(Tenant, RowKey), Plane>,
        tenant: &Tenant,
        key: &RowKey,
        at: ValidTime,
        tx: TxId,
    ) -> Check {
        let table = &self.history.table;
        let found = self.store.read(tx, |view| view.point(table, tenant, key, at));
        let found = found.map_err(|e| format!("point: {e}"))?.map(shown);
        let plane = &planes[&(tenant.clone(), key.clone())];
        let mut versions = plane.versions(tx, tx).into_iter();
        let expected = versions.find(|version| version.valid.contains(at));
        equal(&format!("point {tenant} {key:?} at {at:?}, tx {tx}"), &found, &expected)?;
        let state = plane.state(at, tx).map(|(from, row)| (from, row.clone()));
        equal("the model itself", &expected.map(|v| (v.tx_from, v.row)), &state)
    }

    fn scan(
        &self,
        planes: &BTreeMap<(Tenant, RowKey), Plane>,
        valid: ValidBound,
        system: SystemBound,
        tx: TxId,
        rng: &mut StdRng,
    ) -> Check {
        let tenant = (rng.random_range(0..4) > 0)
            .then(|| &self.history.tenants[rng.random_range(0..self.history.tenants.len())]);
        let keys = if rng.random_bool(0.3) {
            let some = planes.keys().filter(|_| rng.random_bool(0.6)).map(|(_, key)| key.clone());
            Keys::Among(some.collect())
        } else if rng.random_bool(0.3) {
            Keys::Within(self.some_range(planes, rng))
        } else {
            Keys::All
        };
        let columns = rng.random_bool(0.3).then_some(&[TEXT][..]);
        let table = &self.history.table;
        let whole = rng.random_bool(0.6);
        let scan = Scan { table, tenant, keys: keys.clone(), valid, system, columns, whole };
        let found = self.store.read(tx, |view| view.collect(&scan));
        let found = found.map_err(|e| format!("scan: {e}"))?.into_iter();
        let ours = found.filter(|v| self.history.tenants.contains(&v.tenant));
        let found: ByKey = ours.map(|v| (v.tenant.clone(), v.key.clone(), shown(v))).collect();
        let (from, to) = match system {
            SystemBound::Latest => (tx, tx),
            SystemBound::Between(from, to) => (from, to),
            SystemBound::Kept => (TxId::ZERO, tx),
        };
        let among = |key: &RowKey| match &keys {
            Keys::All => true,
            Keys::Among(some) => some.contains(key),
            Keys::Within(range) => range.contains(key),
        };
        let within = |period: &Period<ValidTime>| match valid {
            ValidBound::AsOf(at) => period.contains(at),
            ValidBound::Overlapping(wanted) => period.overlaps(&wanted),
        };
        let mut expected: ByKey = Vec::new();
        for ((of, key), plane) in planes {
            if tenant.is_none_or(|tenant| tenant == of) && among(key) {
                for mut version in plane.versions(from, to) {
                    if within(&version.valid) {
                        if let Some(columns) = columns {
                            let kept = version.row.fields().iter();
                            let kept = kept.filter(|(id, _)| columns.contains(id)).cloned();
                            version.row = everwhen_storage::Row::new(kept.collect::<Vec<_>>());
                        }
                        expected.push((of.clone(), key.clone(), version));
                    }
                }
            }
        }
        let what = format!("scan {valid:?} {system:?} at tx {tx}, {keys:?}, whole {whole}");
        if let (false, ValidBound::AsOf(at)) = (whole, valid) {
            // A part of the period that holds the instant is all that was asked for.
            for ((_, _, part), (_, _, version)) in found.iter().zip(&mut expected) {
                let (from, to) = (part.valid.from(), part.valid.to());
                if version.valid.from() <= from && to <= version.valid.to() && from <= at && at < to
                {
                    version.valid = part.valid;
                }
            }
        }
        equal(&what, &found, &expected)
    }

    /// The change feed is exact, also read in small portions; `versions_near` what it changed tells
    /// the difference between the two bases.
    fn changes(
        &self,
        planes: &BTreeMap<(Tenant, RowKey), Plane>,
        after: TxId,
        through: TxId,
        tx: TxId,
    ) -> Check {
        let table = &self.history.table;
        let mut expected = BTreeMap::new();
        for (key, plane) in planes {
            let changed = plane.changed(after, through);
            if !changed.is_empty() {
                expected.insert(key.clone(), changed);
            }
        }
        let view_tx = tx.max(through);
        for limit in [1, 3, usize::MAX] {
            let mut found: BTreeMap<(Tenant, RowKey), Vec<Period<ValidTime>>> = BTreeMap::new();
            let mut at = after;
            while at < through {
                let read =
                    |view: &everwhen_storage::View<'_>| view.changes(table.id, at, through, limit);
                let answer = self.store.read(view_tx, read);
                let (changes, reached) = answer.map_err(|e| format!("changes: {e}"))?;
                if reached <= at {
                    return Err(format!("changes after {at} limit {limit} make no progress"));
                }
                let order: Vec<_> = changes.iter().map(|c| (&c.tenant, &c.key)).collect();
                if !order.is_sorted() {
                    return Err(format!("changes after {at} limit {limit} out of order"));
                }
                for change in changes {
                    let all = found.entry((change.tenant, change.key)).or_default();
                    all.extend(change.changed);
                    all.sort();
                }
                at = reached;
            }
            let found: BTreeMap<_, _> =
                found.into_iter().map(|(key, all)| (key, joined(all.into_iter()))).collect();
            equal(&format!("changes ({after}, {through}] limit {limit}"), &found, &expected)?;
        }
        for ((tenant, key), changed) in &expected {
            self.near(planes, tenant, key, after, view_tx, changed)?;
            self.near(planes, tenant, key, through, view_tx, changed)?;
        }
        Ok(())
    }

    fn near(
        &self,
        planes: &BTreeMap<(Tenant, RowKey), Plane>,
        tenant: &Tenant,
        key: &RowKey,
        tx: TxId,
        view_tx: TxId,
        periods: &[Period<ValidTime>],
    ) -> Check {
        let table = &self.history.table;
        let read =
            |view: &everwhen_storage::View<'_>| view.versions_near(table, tenant, key, tx, periods);
        let found = self.store.read(view_tx, read).map_err(|e| format!("versions near: {e}"))?;
        let found: Vec<Shown> = found.into_iter().map(shown).collect();
        let versions = planes[&(tenant.clone(), key.clone())].versions(tx, tx).into_iter();
        let expected: Vec<Shown> =
            versions.filter(|v| periods.iter().any(|p| p.touches(&v.valid))).collect();
        let what = format!("versions of {tenant} {key:?} near {periods:?} at {tx} of {view_tx}");
        equal(&what, &found, &expected)
    }

    /// Every flip of a state later than what the view has recorded is among the boundaries.
    fn boundaries(
        &self,
        planes: &BTreeMap<(Tenant, RowKey), Plane>,
        after: ValidTime,
        through: ValidTime,
    ) -> Check {
        let table = self.history.table.id;
        let tx = self.model.last_tx();
        let time = self.model.system_time(tx).map_or(i64::MIN, |time| time.micros());
        let after = after.max(ValidTime::from_micros(time));
        let answer = self.store.read(tx, |view| {
            let found = view.boundaries(table, after, through, usize::MAX)?;
            Ok((found, view.next_boundary(table, after)?))
        });
        let (found, next) = answer.map_err(|e| format!("boundaries: {e}"))?;
        if !found.is_sorted_by_key(|(at, ..)| *at) {
            return Err(format!("boundaries ({after}, {through}] out of order"));
        }
        if let Some((at, ..)) = found.iter().find(|(at, ..)| *at <= after || *at > through) {
            return Err(format!("boundary {at} is outside ({after}, {through}]"));
        }
        let first = found.first().map(|(at, ..)| *at);
        if first.is_some() && first != next {
            return Err(format!("next boundary after {after} is {next:?}, found {first:?}"));
        }
        let found: BTreeSet<_> = found.into_iter().collect();
        for ((tenant, key), plane) in planes {
            for at in plane.flips(tx) {
                let wanted = (at, tenant.clone(), key.clone());
                if after < at && at <= through && !found.contains(&wanted) {
                    return Err(format!("boundary {at} of {tenant} {key:?} is missing"));
                }
            }
        }
        Ok(())
    }

    fn lookups(&self, planes: &BTreeMap<(Tenant, RowKey), Plane>, index: IndexId) -> Check {
        let columns = match self.history.table.precedence {
            Precedence::Recorded => vec![TEXT],
            Precedence::Effective => vec![NUMBER, FLAG],
        };
        let mut wanted: Vec<(Vec<Value>, &(Tenant, RowKey))> = Vec::new();
        for (key, plane) in planes {
            wanted.extend(plane.together(&columns).into_iter().map(|values| (values, key)));
        }
        let tx = self.model.last_tx();
        for (values, (tenant, key)) in wanted {
            let read = |of: Option<&Tenant>| {
                let answer = self.store.read(tx, |view| view.lookup(index, &values, of));
                answer.map_err(|e| format!("look-up: {e}"))
            };
            for found in [read(Some(tenant))?, read(None)?] {
                if !found.is_sorted() || !found.contains(&(tenant.clone(), key.clone())) {
                    return Err(format!("look-up of {values:?} gives {found:?}, not {key:?}"));
                }
            }
        }
        Ok(())
    }
}
