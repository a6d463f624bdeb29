//! The answer of the naive model: every row with every row, by the definitions.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{DAY, Told, Version};
use super::query::{Aggregate, Column, Condition, How, Instant, Join, Keys, Output, Query};
use super::query::{Relation, Scan, Side, Window};

/// A value of an answer; instants are microseconds. NULL comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl From<Option<i64>> for Cell {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Int)
    }
}

impl From<Option<String>> for Cell {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Null, Self::Text)
    }
}

type Pair = (Version, Option<Version>);

/// Returns a query's rows, in order of their values.
pub fn answer(query: &Query, told: &Told) -> Vec<Vec<Cell>> {
    let left = scan(&query.left, told).into_iter();
    let left = left.filter(|row| query.filter.iter().all(|condition| holds(condition, row)));
    let mut pairs: Vec<Pair> = Vec::new();
    for row in left {
        let Some(join) = &query.join else {
            pairs.push((row, None));
            continue;
        };
        let met = partners(join, &row, told);
        if met.is_empty() && join.outer {
            pairs.push((row, None));
            continue;
        }
        pairs.extend(met.into_iter().map(|right| (row.clone(), Some(right))));
    }
    let mut rows = output(&query.output, &pairs);
    rows.sort();
    if let Output::Rows { distinct, limit, .. } = &query.output {
        if *distinct {
            rows.dedup();
        }
        rows.truncate(limit.unwrap_or(usize::MAX));
    }
    rows
}

/// Returns a table's rows at its windows.
pub fn scan(scan: &Scan, told: &Told) -> Vec<Version> {
    let (low, high) = match scan.system {
        Window::Now => (i64::MAX, i64::MAX),
        Window::At(at) => (at, at),
        Window::FromTo(from, to) => (from.unwrap_or(i64::MIN), to.map_or(i64::MAX, |to| to - 1)),
        Window::Between(from, to) => (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)),
        Window::All | Window::Only(..) => (i64::MIN, i64::MAX),
    };
    let versions = told.versions(scan.table, low, high).into_iter();
    versions.filter_map(|version| within(version, scan.valid, told.now())).collect()
}

fn within(mut version: Version, window: Window, now: i64) -> Option<Version> {
    let (begin, end) = (version.valid_from, version.valid_to.unwrap_or(i64::MAX));
    let seen = match window {
        Window::Now => begin <= now && now < end,
        Window::At(at) => begin <= at && at < end,
        Window::FromTo(from, to) | Window::Only(from, to) => {
            begin < to.unwrap_or(i64::MAX) && end > from.unwrap_or(i64::MIN)
        }
        Window::Between(from, to) => {
            begin <= to.unwrap_or(i64::MAX) && end > from.unwrap_or(i64::MIN)
        }
        Window::All => true,
    };
    if let Window::Only(from, to) = window {
        version.valid_from = begin.max(from.unwrap_or(i64::MIN));
        let end = end.min(to.unwrap_or(i64::MAX));
        version.valid_to = (end < i64::MAX).then_some(end);
    }
    seen.then_some(version)
}

fn end_of(version: &Version) -> i64 {
    version.valid_to.unwrap_or(i64::MAX)
}

fn holds(condition: &Condition, row: &Version) -> bool {
    match condition {
        Condition::Above(least) => row.v.is_some_and(|v| v > *least),
        Condition::NumberIn(numbers) => row.v.is_some_and(|v| numbers.contains(&v)),
        Condition::GroupIs(group) => row.g.as_ref() == Some(group),
        Condition::KeyIn(keys) => keys.contains(&row.id),
        Condition::KeyFrom(key) => row.id >= *key,
        Condition::NoNumber => row.v.is_none(),
        Condition::AtBefore(at) => row.at.is_some_and(|own| own < *at),
        Condition::ValidFromBefore(at) => row.valid_from < *at,
        Condition::ValidToAfter(at) => row.valid_to.is_some_and(|to| to > *at),
        Condition::SystemFromSince(at) => row.system_from >= *at,
        Condition::Covers(at) => row.valid_from <= *at && *at < end_of(row),
        Condition::OverlapsPeriod(from, to) => row.valid_from < *to && end_of(row) > *from,
    }
}

fn partners(join: &Join, left: &Version, told: &Told) -> Vec<Version> {
    let own = match join.how {
        How::ValidAsOf(instant) => match instant_of(instant, left) {
            Some(at) => scan(&Scan { valid: Window::At(at), ..join.scan.clone() }, told),
            None => Vec::new(),
        },
        How::SystemAsOf(instant) => match instant_of(instant, left) {
            Some(at) => scan(&Scan { system: Window::At(at), ..join.scan.clone() }, told),
            None => Vec::new(),
        },
        How::Periods(_) => scan(&join.scan, told),
    };
    let met = |right: &Version| {
        let keys = match join.keys {
            Keys::Same => right.id == left.id,
            Keys::Group => left.g.as_ref() == Some(&right.id),
            Keys::Any => true,
        };
        let related = match join.how {
            How::Periods(relation) => relates(relation, left, right),
            _ => true,
        };
        keys && related && join.filter.iter().all(|condition| holds(condition, right))
    };
    own.into_iter().filter(met).collect()
}

fn instant_of(instant: Instant, left: &Version) -> Option<i64> {
    match instant {
        Instant::At => left.at,
        Instant::AtPlusDays(days) => left.at.map(|at| at + days * DAY),
        Instant::AtOr(other) => left.at.or(Some(other)),
        Instant::ValidFrom => Some(left.valid_from),
        Instant::ValidTo => left.valid_to,
        Instant::SystemFrom => Some(left.system_from),
    }
}

fn relates(relation: Relation, a: &Version, b: &Version) -> bool {
    let (af, at, bf, bt) = (a.valid_from, end_of(a), b.valid_from, end_of(b));
    match relation {
        Relation::Overlaps => af < bt && bf < at,
        Relation::Contains => af <= bf && bt <= at,
        Relation::StrictlyContains => af < bf && bt < at,
        Relation::Equals => af == bf && at == bt,
        Relation::Precedes => at <= bf,
        Relation::StrictlyPrecedes => at < bf,
        Relation::ImmediatelyPrecedes => at == bf,
        Relation::Leads => af < bf && bf < at && at < bt,
        Relation::Lags => bf < af && af < bt && bt < at,
        Relation::ImmediatelyLeads => af < bf && at == bt,
        Relation::ImmediatelyLags => af == bf && at > bt,
        Relation::CoversBegin => bf <= af && af < bt,
    }
}

fn cell(pair: &Pair, (side, column): (Side, Column)) -> Cell {
    let version = match (side, &pair.1) {
        (Side::Left, _) => &pair.0,
        (Side::Right, Some(right)) => right,
        (Side::Right, None) => return Cell::Null,
    };
    match column {
        Column::Id => Cell::Text(version.id.clone()),
        Column::Group => version.g.clone().into(),
        Column::Number => version.v.into(),
        Column::At => version.at.into(),
        Column::ValidFrom => Cell::Int(version.valid_from),
        Column::ValidTo => version.valid_to.into(),
        Column::SystemFrom => Cell::Int(version.system_from),
        Column::SystemTo => version.system_to.into(),
        Column::Tx => Cell::Int(version.tx),
    }
}

fn output(output: &Output, pairs: &[Pair]) -> Vec<Vec<Cell>> {
    match output {
        Output::Rows { columns, .. } => {
            let row = |pair| columns.iter().map(|column| cell(pair, *column)).collect();
            pairs.iter().map(row).collect()
        }
        Output::Common { columns } => {
            let row = |pair: &Pair| {
                let right = pair.1.as_ref().expect("an inner join");
                let end = end_of(&pair.0).min(end_of(right));
                let bounds = [
                    Cell::Int(pair.0.valid_from.max(right.valid_from)),
                    Cell::from((end < i64::MAX).then_some(end)),
                ];
                columns.iter().map(|column| cell(pair, *column)).chain(bounds).collect()
            };
            pairs.iter().map(row).collect()
        }
        Output::Groups { by, aggregates } => {
            let mut groups: BTreeMap<Vec<Cell>, Vec<&Pair>> = BTreeMap::new();
            if by.is_empty() {
                groups.insert(Vec::new(), Vec::new());
            }
            for pair in pairs {
                let key = by.iter().map(|column| cell(pair, *column)).collect();
                groups.entry(key).or_default().push(pair);
            }
            let row = |(key, pairs): (Vec<Cell>, Vec<&Pair>)| {
                let values = aggregates.iter().map(|one| aggregated(*one, &pairs));
                key.into_iter().chain(values).collect()
            };
            groups.into_iter().map(row).collect()
        }
        Output::Coalesced { by } => {
            let mut groups: BTreeMap<Cell, Vec<(i64, i64)>> = BTreeMap::new();
            for pair in pairs {
                let key = cell(pair, (Side::Left, *by));
                groups.entry(key).or_default().push((pair.0.valid_from, end_of(&pair.0)));
            }
            let periods = groups.into_iter().flat_map(|(key, mut periods)| {
                periods.sort_unstable();
                let mut whole: Vec<(i64, i64)> = Vec::new();
                for (from, to) in periods {
                    match whole.last_mut() {
                        Some(last) if from <= last.1 => last.1 = last.1.max(to),
                        _ => whole.push((from, to)),
                    }
                }
                let row = move |(from, to): (i64, i64)| {
                    let to = (to < i64::MAX).then_some(to);
                    vec![key.clone(), Cell::Int(from), to.into()]
                };
                whole.into_iter().map(row).collect::<Vec<_>>()
            });
            periods.collect()
        }
    }
}

fn aggregated(aggregate: Aggregate, pairs: &[&Pair]) -> Cell {
    let values = |at| {
        let cells = pairs.iter().map(move |pair| cell(pair, at));
        cells.filter(|cell| *cell != Cell::Null)
    };
    let count = |count: usize| Cell::Int(i64::try_from(count).unwrap());
    match aggregate {
        Aggregate::Count => count(pairs.len()),
        Aggregate::CountOf(side, column) => count(values((side, column)).count()),
        Aggregate::DistinctOf(side, column) => {
            count(values((side, column)).collect::<BTreeSet<_>>().len())
        }
        Aggregate::MinOf(side, column) => values((side, column)).min().unwrap_or(Cell::Null),
        Aggregate::MaxOf(side, column) => values((side, column)).max().unwrap_or(Cell::Null),
        Aggregate::SumNumber(side) => {
            let numbers = values((side, Column::Number)).map(|cell| match cell {
                Cell::Int(number) => number,
                other => panic!("{other:?} is no number"),
            });
            numbers.reduce(|sum, number| sum + number).into()
        }
    }
}
