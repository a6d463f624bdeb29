//! DuckDB over flattened histories: a row a version with its four bounds, and every temporal clause
//! as the plain predicates it stands for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use everwhen_tests::cache_dir;
use serde_json::{Value as Json, json};

use super::history::{DAY, TABLES, Version};
use super::naive::Cell;
use super::query::{Aggregate, Column, Condition, How, Instant, Join, Keys, Output, Query};
use super::query::{Relation, Scan, Side, Window};

/// A process of Python with DuckDB in it, as `scripts/setup` has put it into the cache.
pub struct Duck {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Duck {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Duck {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential/duck.py");
        let mut child = Command::new(cache_dir().join("emulator/bin/python"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("DuckDB is not set up: scripts/setup test");
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from: BufReader::new(from) }
    }

    fn ask(&mut self, request: &Json) -> Result<Vec<Vec<Cell>>, String> {
        writeln!(self.to, "{request}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let answer: Json = serde_json::from_str(&line).expect("DuckDB's process has ended");
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let cell = |value: &Json| match value {
            Json::Null => Cell::Null,
            Json::String(text) => Cell::Text(text.clone()),
            value => Cell::Int(value.as_i64().unwrap()),
        };
        let rows = answer["rows"].as_array().unwrap().iter();
        Ok(rows.map(|row| row.as_array().unwrap().iter().map(cell).collect()).collect())
    }

    /// Makes the tables anew of all versions of both axes.
    pub fn load(&mut self, tables: &[Vec<Version>; 2]) {
        let row = |v: &Version| {
            json!([
                v.id,
                v.g,
                v.v,
                v.at,
                v.valid_from,
                v.valid_to,
                v.system_from,
                v.system_to,
                v.tx
            ])
        };
        let rows = tables.iter().map(|versions| Json::Array(versions.iter().map(row).collect()));
        let load: serde_json::Map<_, _> = TABLES.map(str::to_owned).into_iter().zip(rows).collect();
        self.ask(&json!({ "load": load })).unwrap();
    }

    /// Returns a text's rows, in order of their values.
    pub fn answer(&mut self, sql: &str) -> Result<Vec<Vec<Cell>>, String> {
        let mut rows = self.ask(&json!({ "sql": sql }))?;
        rows.sort();
        Ok(rows)
    }
}

/// Returns a query over the flattened tables, where now is known.
pub fn text(query: &Query, now: i64) -> String {
    let mut with = vec![format!("l0 AS ({})", scan(&query.left, now))];
    with.push(format!("l AS (SELECT * FROM l0{})", whose(&query.filter)));
    let mut from = "l".to_owned();
    if let Some(join) = &query.join {
        let (right, on) = right(join, now);
        with.push(format!("r0 AS ({right})"));
        with.push(format!("r AS (SELECT * FROM r0{})", whose(&join.filter)));
        let kind = if join.outer { "LEFT JOIN" } else { "JOIN" };
        from = format!("l {kind} r ON {on}");
    }
    let body = output(&query.output, &from);
    format!("WITH {} {body}", with.join(", "))
}

fn whose(conditions: &[Condition]) -> String {
    let mut text = String::new();
    for (at, condition) in conditions.iter().enumerate() {
        text += if at == 0 { " WHERE " } else { " AND " };
        text += &self::condition(condition);
    }
    text
}

fn condition(condition: &Condition) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match condition {
        Condition::Above(least) => format!("v > {least}"),
        Condition::NumberIn(numbers) => {
            format!("v IN ({})", list(numbers.iter().map(ToString::to_string).collect()))
        }
        Condition::GroupIs(group) => format!("g = '{group}'"),
        Condition::KeyIn(keys) => {
            format!("id IN ({})", list(keys.iter().map(|key| format!("'{key}'")).collect()))
        }
        Condition::KeyFrom(key) => format!("id >= '{key}'"),
        Condition::NoNumber => "v IS NULL".to_owned(),
        Condition::AtBefore(at) => format!("due < {at}"),
        Condition::ValidFromBefore(at) => format!("vf < {at}"),
        Condition::ValidToAfter(at) => format!("vt > {at}"),
        Condition::SystemFromSince(at) => format!("sf >= {at}"),
        Condition::Covers(at) => format!("vf <= {at} AND (vt IS NULL OR vt > {at})"),
        Condition::OverlapsPeriod(from, to) => {
            format!("vf < {to} AND (vt IS NULL OR vt > {from})")
        }
    }
}

/// What a system window sees: rows recorded by `high` whose end, where it is known then, is after
/// `low`.
fn known(system: Window) -> (String, String) {
    let both = |text: &str| (text.to_owned(), text.to_owned());
    let (begin, end) = ("-9223372036854775807", "9223372036854775807");
    match system {
        Window::Now => both(end),
        Window::At(at) => both(&at.to_string()),
        Window::FromTo(from, to) => (
            from.map_or(begin.to_owned(), |from| from.to_string()),
            to.map_or(end.to_owned(), |to| (to - 1).to_string()),
        ),
        Window::Between(from, to) => (
            from.map_or(begin.to_owned(), |from| from.to_string()),
            to.map_or(end.to_owned(), |to| to.to_string()),
        ),
        Window::All | Window::Only(..) => (begin.to_owned(), end.to_owned()),
    }
}

/// Returns a table at its windows: what is known is joined to the longest periods of equal rows,
/// then those within the valid window are taken.
fn scan(scan: &Scan, now: i64) -> String {
    let (low, high) = known(scan.system);
    let table = TABLES[scan.table];
    let same = "id, g, v, due, sf, st, tx";
    let whole = format!(
        "SELECT id, g, v, due, min(vf) AS vf, CASE WHEN bool_or(vt IS NULL) THEN NULL ELSE max(vt) \
         END AS vt, sf, st, tx FROM (SELECT *, sum(begins) OVER (PARTITION BY {same} ORDER BY vf) \
         AS island FROM (SELECT *, CASE WHEN lag(vt) OVER (PARTITION BY {same} ORDER BY vf) = vf \
         THEN 0 ELSE 1 END AS begins FROM (SELECT id, g, v, due, vf, vt, sf, CASE WHEN st <= {high} \
         THEN st END AS st, tx FROM {table} WHERE sf <= {high} AND (st IS NULL OR st > {low})))) \
         GROUP BY {same}, island"
    );
    let since = |at: Option<i64>| at.map(|at| format!("(vt IS NULL OR vt > {at})"));
    let before = |at: Option<i64>, sign: &str| at.map(|at| format!("vf {sign} {at}"));
    let predicates = |all: Vec<Option<String>>| {
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
    };
    let (mut from, mut to) = ("vf".to_owned(), "vt".to_owned());
    let seen = match scan.valid {
        Window::Now => format!("vf <= {now} AND (vt IS NULL OR vt > {now})"),
        Window::At(at) => format!("vf <= {at} AND (vt IS NULL OR vt > {at})"),
        Window::FromTo(a, b) => predicates(vec![before(b, "<"), since(a)]),
        Window::Between(a, b) => predicates(vec![before(b, "<="), since(a)]),
        Window::Only(a, b) => {
            from = a.map_or(from, |a| format!("greatest(vf, {a})"));
            to = b.map_or(to, |b| format!("least(coalesce(vt, {b}), {b})"));
            predicates(vec![before(b, "<"), since(a)])
        }
        Window::All => "true".to_owned(),
    };
    format!(
        "SELECT id, g, v, due, {from} AS vf, {to} AS vt, sf, st, tx FROM ({whole}) WHERE {seen}"
    )
}

/// Returns the right side of a join, and how its rows meet those of the left.
fn right(join: &Join, now: i64) -> (String, String) {
    let keys = match join.keys {
        Keys::Same => "r.id = l.id",
        Keys::Group => "r.id = l.g",
        Keys::Any => "true",
    };
    match join.how {
        How::ValidAsOf(instant) => {
            let at = instant_of(instant);
            let all = scan(&Scan { valid: Window::All, ..join.scan.clone() }, now);
            (all, format!("{keys} AND r.vf <= {at} AND (r.vt IS NULL OR r.vt > {at})"))
        }
        How::SystemAsOf(instant) => {
            let at = instant_of(instant);
            let instant = match join.scan.valid {
                Window::At(at) => at,
                _ => now,
            };
            let slice = format!(
                "SELECT * FROM {} WHERE vf <= {instant} AND (vt IS NULL OR vt > {instant})",
                TABLES[join.scan.table]
            );
            (slice, format!("{keys} AND r.sf <= {at} AND (r.st IS NULL OR r.st > {at})"))
        }
        How::Periods(relation) => {
            (scan(&join.scan, now), format!("{keys} AND {}", self::relation(relation)))
        }
    }
}

fn instant_of(instant: Instant) -> String {
    match instant {
        Instant::At => "l.due".to_owned(),
        Instant::AtPlusDays(days) => format!("(l.due + {})", days * DAY),
        Instant::AtOr(other) => format!("coalesce(l.due, {other})"),
        Instant::ValidFrom => "l.vf".to_owned(),
        Instant::ValidTo => "l.vt".to_owned(),
        Instant::SystemFrom => "l.sf".to_owned(),
    }
}

fn relation(relation: Relation) -> String {
    const END: &str = "9223372036854775807";
    let (lt, rt) = (format!("coalesce(l.vt, {END})"), format!("coalesce(r.vt, {END})"));
    match relation {
        Relation::Overlaps => format!("l.vf < {rt} AND r.vf < {lt}"),
        Relation::Contains => format!("l.vf <= r.vf AND {rt} <= {lt}"),
        Relation::StrictlyContains => format!("l.vf < r.vf AND {rt} < {lt}"),
        Relation::Equals => format!("l.vf = r.vf AND {lt} = {rt}"),
        Relation::Precedes => "l.vt <= r.vf".to_owned(),
        Relation::StrictlyPrecedes => "l.vt < r.vf".to_owned(),
        Relation::ImmediatelyPrecedes => "l.vt = r.vf".to_owned(),
        Relation::Leads => format!("l.vf < r.vf AND r.vf < l.vt AND l.vt < {rt}"),
        Relation::Lags => format!("r.vf < l.vf AND l.vf < r.vt AND r.vt < {lt}"),
        Relation::ImmediatelyLeads => format!("l.vf < r.vf AND {lt} = {rt}"),
        Relation::ImmediatelyLags => format!("l.vf = r.vf AND {rt} < {lt}"),
        Relation::CoversBegin => format!("r.vf <= l.vf AND l.vf < {rt}"),
    }
}

fn full((side, column): (Side, Column)) -> String {
    let alias = match side {
        Side::Left => "l",
        Side::Right => "r",
    };
    let name = match column {
        Column::Id => "id",
        Column::Group => "g",
        Column::Number => "v",
        Column::At => "due",
        Column::ValidFrom => "vf",
        Column::ValidTo => "vt",
        Column::SystemFrom => "sf",
        Column::SystemTo => "st",
        Column::Tx => "tx",
    };
    format!("{alias}.{name}")
}

fn output(output: &Output, from: &str) -> String {
    let list = |columns: &[(Side, Column)]| columns.iter().map(|c| full(*c)).collect::<Vec<_>>();
    match output {
        Output::Rows { columns, distinct, limit } => {
            let distinct = if *distinct { "DISTINCT " } else { "" };
            let limit = limit.map_or(String::new(), |limit| {
                format!(" ORDER BY ALL ASC NULLS FIRST LIMIT {limit}")
            });
            format!("SELECT {distinct}{} FROM {from}{limit}", list(columns).join(", "))
        }
        Output::Common { columns } => {
            let mut shown = list(columns);
            shown.push("greatest(l.vf, r.vf)".to_owned());
            // Of DuckDB's `least`, NULLs are of no account: an open end is one.
            shown.push("least(l.vt, r.vt)".to_owned());
            format!("SELECT {} FROM {from}", shown.join(", "))
        }
        Output::Groups { by, aggregates } => {
            let keys = list(by);
            let shown: Vec<_> =
                keys.iter().cloned().chain(aggregates.iter().map(aggregate)).collect();
            let group = match keys.is_empty() {
                true => String::new(),
                false => format!(" GROUP BY {}", keys.join(", ")),
            };
            format!("SELECT {} FROM {from}{group}", shown.join(", "))
        }
        Output::Coalesced { by } => {
            let key = full((Side::Left, *by));
            format!(
                "SELECT k, min(vf), CASE WHEN bool_or(vt IS NULL) THEN NULL ELSE max(vt) END FROM \
                 (SELECT *, sum(begins) OVER (PARTITION BY k ORDER BY place) AS island FROM \
                 (SELECT *, CASE WHEN vf <= max(coalesce(vt, 9223372036854775807)) OVER \
                 (PARTITION BY k ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) \
                 THEN 0 ELSE 1 END AS begins FROM (SELECT {key} AS k, l.vf AS vf, l.vt AS vt, \
                 row_number() OVER (ORDER BY l.vf) AS place FROM {from}))) GROUP BY k, island"
            )
        }
    }
}

fn aggregate(aggregate: &Aggregate) -> String {
    match aggregate {
        Aggregate::Count => "count(*)".to_owned(),
        Aggregate::CountOf(side, column) => format!("count({})", full((*side, *column))),
        Aggregate::DistinctOf(side, column) => {
            format!("count(DISTINCT {})", full((*side, *column)))
        }
        Aggregate::SumNumber(side) => {
            format!("sum({})::BIGINT", full((*side, Column::Number)))
        }
        Aggregate::MinOf(side, column) => format!("min({})", full((*side, *column))),
        Aggregate::MaxOf(side, column) => format!("max({})", full((*side, *column))),
    }
}
