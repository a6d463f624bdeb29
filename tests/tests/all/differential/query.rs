//! Temporal queries as trees, made by chance: what the three who answer them have in common.

use rand::Rng as _;
use rand::rngs::StdRng;

use super::history::{DAY, GROUPS, KEYS, Told};

/// What a table is read at on one axis. Instants are microseconds; `None` is an open end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Now,
    At(i64),
    FromTo(Option<i64>, Option<i64>),
    Between(Option<i64>, Option<i64>),
    /// Of valid time alone.
    Only(Option<i64>, Option<i64>),
    All,
}

/// A table at its windows.
#[derive(Debug, Clone)]
pub struct Scan {
    pub table: usize,
    pub valid: Window,
    pub system: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    Left,
    Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    Id,
    Group,
    Number,
    At,
    ValidFrom,
    ValidTo,
    SystemFrom,
    SystemTo,
    Tx,
}

/// A condition on one side's rows; not true where a value is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Above(i64),
    NumberIn(Vec<i64>),
    GroupIs(String),
    KeyIn(Vec<String>),
    KeyFrom(String),
    NoNumber,
    AtBefore(i64),
    ValidFromBefore(i64),
    ValidToAfter(i64),
    SystemFromSince(i64),
    Covers(i64),
    OverlapsPeriod(i64, i64),
}

impl Condition {
    /// True where it asks for valid bounds.
    fn is_of_bounds(&self) -> bool {
        matches!(
            self,
            Self::ValidFromBefore(_)
                | Self::ValidToAfter(_)
                | Self::Covers(_)
                | Self::OverlapsPeriod(..)
        )
    }
}

/// The instant of an as-of join, of the left row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instant {
    At,
    AtPlusDays(i64),
    AtOr(i64),
    ValidFrom,
    ValidTo,
    SystemFrom,
}

/// How the two sides' keys must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The right's key is the left's.
    Same,
    /// The left's `g` names it.
    Group,
    Any,
}

/// What two valid periods have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Overlaps,
    Contains,
    StrictlyContains,
    Equals,
    Precedes,
    StrictlyPrecedes,
    ImmediatelyPrecedes,
    Leads,
    Lags,
    ImmediatelyLeads,
    ImmediatelyLags,
    /// The right period contains the begin of the left.
    CoversBegin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The right table has no valid window of its own: it is read at the instant.
    ValidAsOf(Instant),
    /// The right table has no system window of its own.
    SystemAsOf(Instant),
    Periods(Relation),
}

#[derive(Debug, Clone)]
pub struct Join {
    pub scan: Scan,
    pub how: How,
    pub keys: Keys,
    /// Left rows that find nothing are kept.
    pub outer: bool,
    /// Of the right rows, before they are joined.
    pub filter: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    Count,
    CountOf(Side, Column),
    DistinctOf(Side, Column),
    SumNumber(Side),
    MinOf(Side, Column),
    MaxOf(Side, Column),
}

#[derive(Debug, Clone)]
pub enum Output {
    Rows {
        columns: Vec<(Side, Column)>,
        distinct: bool,
        limit: Option<usize>,
    },
    /// The intersection of both sides' periods, beside columns.
    Common {
        columns: Vec<(Side, Column)>,
    },
    Groups {
        by: Vec<(Side, Column)>,
        aggregates: Vec<Aggregate>,
    },
    /// The fewest periods that cover the left's, by group.
    Coalesced {
        by: Column,
    },
}

#[derive(Debug, Clone)]
pub struct Query {
    pub left: Scan,
    pub filter: Vec<Condition>,
    pub join: Option<Join>,
    pub output: Output,
}

/// Makes queries that fit a history.
pub struct Maker<'a> {
    pub told: &'a Told,
    pub rng: &'a mut StdRng,
}

impl Maker<'_> {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())].clone()
    }

    fn open(&mut self, at: i64) -> Option<i64> {
        self.rng.random_bool(0.85).then_some(at)
    }

    fn period(&mut self) -> (i64, i64) {
        let (a, b) = (self.told.instant(self.rng), self.told.instant(self.rng));
        if a == b { (a, b + DAY) } else { (a.min(b), a.max(b)) }
    }

    fn system_period(&mut self) -> (i64, i64) {
        let (a, b) = (self.told.system_instant(self.rng), self.told.system_instant(self.rng));
        if a == b { (a, b + 1) } else { (a.min(b), a.max(b)) }
    }

    fn valid(&mut self) -> Window {
        let (a, b) = self.period();
        let (from, to) = (self.open(a), self.open(b));
        match self.rng.random_range(0..12) {
            0 => Window::Now,
            1 | 2 => Window::At(a),
            3..6 => Window::FromTo(from, to),
            6 | 7 => Window::Between(from, to.filter(|_| from.is_some())),
            8 | 9 => Window::Only(from, to),
            _ => Window::All,
        }
    }

    fn system(&mut self) -> Window {
        let (a, b) = self.system_period();
        let (from, to) = (self.open(a), self.open(b));
        match self.rng.random_range(0..12) {
            0..5 => Window::Now,
            5..9 => Window::At(a),
            9 => Window::FromTo(from, to),
            10 => Window::Between(from, to),
            _ => Window::All,
        }
    }

    fn scan(&mut self) -> Scan {
        let (valid, system) = (self.valid(), self.system());
        Scan { table: self.rng.random_range(0..2), valid, system }
    }

    fn filter(&mut self) -> Vec<Condition> {
        let count = [0, 0, 0, 0, 1, 1, 2][self.rng.random_range(0..7)];
        (0..count).map(|_| self.condition()).collect()
    }

    fn condition(&mut self) -> Condition {
        let number = self.rng.random_range(0..6);
        let keys = |rng: &mut StdRng| {
            let count = rng.random_range(1..=3);
            (0..count).map(|_| KEYS[rng.random_range(0..KEYS.len())].to_owned()).collect()
        };
        match self.rng.random_range(0..12) {
            0 => Condition::Above(number),
            1 => Condition::NumberIn(vec![number, self.rng.random_range(0..6)]),
            2 => Condition::GroupIs(self.one(&GROUPS).to_owned()),
            3 | 4 => Condition::KeyIn(keys(self.rng)),
            5 => Condition::KeyFrom(self.one(&KEYS).to_owned()),
            6 => Condition::NoNumber,
            7 => Condition::AtBefore(self.told.instant(self.rng)),
            8 => Condition::ValidFromBefore(self.told.instant(self.rng)),
            9 => match self.rng.random_bool(0.5) {
                true => Condition::ValidToAfter(self.told.instant(self.rng)),
                false => Condition::SystemFromSince(self.told.system_instant(self.rng)),
            },
            10 => Condition::Covers(self.told.instant(self.rng)),
            _ => {
                let (from, to) = self.period();
                Condition::OverlapsPeriod(from, to)
            }
        }
    }

    fn instant(&mut self) -> Instant {
        match self.rng.random_range(0..8) {
            0 => Instant::AtPlusDays(self.rng.random_range(-4..=4)),
            1 => Instant::AtOr(self.told.instant(self.rng)),
            2 => Instant::ValidFrom,
            3 => Instant::ValidTo,
            4 => Instant::SystemFrom,
            _ => Instant::At,
        }
    }

    fn join(&mut self) -> Join {
        use Relation::*;
        let mut scan = self.scan();
        let how = match self.rng.random_range(0..10) {
            0..4 => How::ValidAsOf(self.instant()),
            4 => {
                scan.valid = match self.rng.random_bool(0.3) {
                    true => Window::Now,
                    false => Window::At(self.told.instant(self.rng)),
                };
                How::SystemAsOf(self.one(&[Instant::SystemFrom, Instant::At]))
            }
            5..8 => How::Periods(Overlaps),
            _ => {
                let relations = [
                    Contains,
                    StrictlyContains,
                    Equals,
                    Precedes,
                    StrictlyPrecedes,
                    ImmediatelyPrecedes,
                    Leads,
                    Lags,
                    ImmediatelyLeads,
                    ImmediatelyLags,
                    CoversBegin,
                    CoversBegin,
                ];
                How::Periods(self.one(&relations))
            }
        };
        let as_of = !matches!(how, How::Periods(_));
        if as_of && !matches!(scan.system, Window::At(_)) {
            scan.system = Window::Now;
        }
        let keys = match self.rng.random_range(0..10) {
            0 => Keys::Any,
            1..6 => Keys::Group,
            _ => Keys::Same,
        };
        let mut filter =
            if self.rng.random_bool(0.15) { vec![self.condition()] } else { Vec::new() };
        if matches!(how, How::SystemAsOf(_)) {
            // At an instant of each row, bounds are those of that basis: not in a flat table.
            filter.retain(|condition| !condition.is_of_bounds());
        }
        Join { scan, how, keys, outer: self.rng.random_bool(0.4), filter }
    }

    fn columns(&mut self, from: &[(Side, Column)], least: usize) -> Vec<(Side, Column)> {
        let mut columns: Vec<_> =
            from.iter().copied().filter(|_| self.rng.random_bool(0.4)).collect();
        if columns.len() < least {
            columns.push(self.one(from));
        }
        columns
    }

    /// Makes one query.
    pub fn query(&mut self) -> Query {
        use Column::*;
        let left = self.scan();
        let join = self.rng.random_bool(0.5).then(|| self.join());
        let all = [Id, Group, Number, At, ValidFrom, ValidTo, SystemFrom, SystemTo, Tx];
        let mut known: Vec<(Side, Column)> = all.map(|column| (Side::Left, column)).to_vec();
        if let Some(join) = &join {
            let flat = [Id, Group, Number, At, SystemFrom, Tx];
            let shown = if matches!(join.how, How::SystemAsOf(_)) { &flat[..] } else { &all[..] };
            known.extend(shown.iter().map(|column| (Side::Right, *column)));
        }
        let overlap = join
            .as_ref()
            .is_some_and(|join| join.how == How::Periods(Relation::Overlaps) && !join.outer);
        let groups: Vec<_> =
            known.iter().copied().filter(|(_, column)| matches!(column, Id | Group)).collect();
        let output = match self.rng.random_range(0..10) {
            0 | 9 if overlap => Output::Common { columns: self.columns(&known, 1) },
            0 if join.is_none() => Output::Coalesced { by: self.one(&[Id, Group]) },
            1..5 => Output::Groups {
                by: if self.rng.random_bool(0.7) { self.columns(&groups, 0) } else { Vec::new() },
                aggregates: self.aggregates(&known),
            },
            _ => Output::Rows {
                columns: self.columns(&known, 1),
                distinct: self.rng.random_bool(0.15),
                limit: self.rng.random_bool(0.2).then(|| self.rng.random_range(0..6)),
            },
        };
        Query { left, filter: self.filter(), join, output }
    }

    fn aggregates(&mut self, known: &[(Side, Column)]) -> Vec<Aggregate> {
        let count = self.rng.random_range(1..=3);
        let one = |maker: &mut Self| {
            let (side, column) = maker.one(known);
            match maker.rng.random_range(0..6) {
                0 => Aggregate::Count,
                1 => Aggregate::CountOf(side, column),
                2 => Aggregate::DistinctOf(side, column),
                3 => Aggregate::MinOf(side, column),
                4 => Aggregate::MaxOf(side, column),
                _ => Aggregate::SumNumber(side),
            }
        };
        (0..count).map(|_| one(self)).collect()
    }
}
