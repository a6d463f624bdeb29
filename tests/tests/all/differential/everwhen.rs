//! A query as a request to the database: the same tree has many texts, of which chance takes one.

use everwhen_query::{Params, Request};
use everwhen_storage::ValidTime;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::Value as Json;

use super::history::{TABLES, instant_text};
use super::query::{Aggregate, Column, Condition, How, Instant, Join, Keys, Output, Query};
use super::query::{Relation, Scan, Side, Window};

/// A text under way, with the choices made for it.
struct Writer<'a> {
    rng: &'a mut StdRng,
    params: Vec<Json>,
    /// Whether instants may be parameters.
    with_params: bool,
    /// What tables without a clause read, where that is not now.
    default_valid: Option<Window>,
    default_system: Option<Window>,
}

/// Returns a request for a query.
pub fn request(query: &Query, rng: &mut StdRng) -> Request {
    let with_params = rng.random_bool(0.3);
    let mut writer =
        Writer { rng, params: Vec::new(), with_params, default_valid: None, default_system: None };
    let mut request = Request::new("");
    let mut settings = Vec::new();
    if writer.rng.random_bool(0.25) {
        writer.default_valid = Some(query.left.valid);
        match query.left.valid {
            Window::At(at) if writer.rng.random_bool(0.5) => {
                request.valid_time = Some(ValidTime::from_micros(at));
            }
            Window::Now => writer.default_valid = None,
            window => settings.push(format!("DEFAULT VALID_TIME {}", writer.window(window))),
        }
    }
    if writer.rng.random_bool(0.25) {
        writer.default_system = Some(query.left.system);
        match query.left.system {
            Window::Now => writer.default_system = None,
            window => settings.push(format!("DEFAULT SYSTEM_TIME {}", writer.window(window))),
        }
    }
    let body = writer.query(query);
    request.sql = match settings.is_empty() {
        true => body,
        false => format!("SETTING {} {body}", settings.join(", ")),
    };
    if !writer.params.is_empty() {
        request.params = Params::Positional(writer.params);
    }
    request
}

fn name(column: Column) -> &'static str {
    match column {
        Column::Id => "_id",
        Column::Group => "g",
        Column::Number => "v",
        Column::At => "at",
        Column::ValidFrom => "_valid_from",
        Column::ValidTo => "_valid_to",
        Column::SystemFrom => "_system_from",
        Column::SystemTo => "_system_to",
        Column::Tx => "_tx",
    }
}

fn alias(side: Side) -> &'static str {
    match side {
        Side::Left => "l",
        Side::Right => "r",
    }
}

fn full((side, column): (Side, Column)) -> String {
    format!("{}.{}", alias(side), name(column))
}

impl Writer<'_> {
    fn one<'b>(&mut self, of: &[&'b str]) -> &'b str {
        of[self.rng.random_range(0..of.len())]
    }

    fn instant(&mut self, at: i64) -> String {
        let text = instant_text(at);
        match self.rng.random_range(0..4) {
            0 if self.with_params => {
                self.params.push(Json::String(text));
                format!("${}", self.params.len())
            }
            0 | 1 => format!("TIMESTAMP '{text}'"),
            2 => match text.strip_suffix("T00:00:00Z") {
                Some(day) => format!("DATE '{day}'"),
                None => format!("'{text}'::timestamptz"),
            },
            _ => format!("TIMESTAMPTZ '{text}'"),
        }
    }

    fn bound(&mut self, at: Option<i64>) -> String {
        at.map_or("NULL".to_owned(), |at| self.instant(at))
    }

    fn window(&mut self, window: Window) -> String {
        match window {
            Window::Now => "AS OF now()".to_owned(),
            Window::At(at) => format!("AS OF {}", self.instant(at)),
            Window::FromTo(from, to) => format!("FROM {} TO {}", self.bound(from), self.bound(to)),
            Window::Between(from, to) => {
                format!("BETWEEN {} AND {}", self.bound(from), self.bound(to))
            }
            Window::Only(from, to) => {
                format!("ONLY FROM {} TO {}", self.bound(from), self.bound(to))
            }
            Window::All => "ALL".to_owned(),
        }
    }

    fn clause(&mut self, axis: &str, window: Window, default: Option<Window>) -> String {
        if window == default.unwrap_or(Window::Now) && self.rng.random_bool(0.8) {
            return String::new();
        }
        match window {
            Window::All if self.rng.random_bool(0.5) => format!(" FOR ALL {axis}"),
            window => format!(" FOR {axis} {}", self.window(window)),
        }
    }

    /// Returns a table with its clauses in either order, before or after the alias.
    fn table(&mut self, table: usize, valid: &str, system: &str, alias: &str) -> String {
        let clauses = match self.rng.random_bool(0.5) {
            true => format!("{valid}{system}"),
            false => format!("{system}{valid}"),
        };
        let between = self.one(&[" ", " AS "]);
        match self.rng.random_bool(0.6) {
            true => format!("{}{clauses}{between}{alias}", TABLES[table]),
            false => format!("{}{between}{alias}{clauses}", TABLES[table]),
        }
    }

    fn scan(&mut self, scan: &Scan, alias: &str) -> String {
        let valid = self.clause("VALID_TIME", scan.valid, self.default_valid);
        let system = self.clause("SYSTEM_TIME", scan.system, self.default_system);
        self.table(scan.table, &valid, &system, alias)
    }

    fn condition(&mut self, alias: &str, condition: &Condition) -> String {
        let texts = |keys: &[String]| {
            keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ")
        };
        match condition {
            Condition::Above(least) => format!("{alias}.v > {least}"),
            Condition::NumberIn(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                format!("{alias}.v IN ({})", numbers.join(", "))
            }
            Condition::GroupIs(group) => format!("{alias}.g = '{group}'"),
            Condition::KeyIn(keys) if keys.len() == 1 => format!("{alias}._id = '{}'", keys[0]),
            Condition::KeyIn(keys) => format!("{alias}._id IN ({})", texts(keys)),
            Condition::KeyFrom(key) => format!("{alias}._id >= '{key}'"),
            Condition::NoNumber => format!("{alias}.v IS NULL"),
            Condition::AtBefore(at) => format!("{alias}.at < {}", self.instant(*at)),
            Condition::ValidFromBefore(at) => {
                format!("{alias}._valid_from < {}", self.instant(*at))
            }
            Condition::ValidToAfter(at) => format!("{alias}._valid_to > {}", self.instant(*at)),
            Condition::SystemFromSince(at) => {
                format!("{alias}._system_from >= {}", self.instant(*at))
            }
            Condition::Covers(at) => {
                format!("{alias}._valid_time CONTAINS {}", self.instant(*at))
            }
            Condition::OverlapsPeriod(from, to) => {
                let (from, to) = (self.instant(*from), self.instant(*to));
                match self.rng.random_bool(0.5) {
                    true => format!("{alias}._valid_time OVERLAPS PERIOD({from}, {to})"),
                    false => format!("{alias}._valid_time && PERIOD({from}, {to})"),
                }
            }
        }
    }

    fn query(&mut self, query: &Query) -> String {
        let mut conditions: Vec<String> =
            query.filter.iter().map(|condition| self.condition("l", condition)).collect();
        let mut left = self.scan(&query.left, "l");
        let mut with = String::new();
        // Names of bounds in another query block count as the right table's there, and are refused.
        let by_system = matches!(&query.join, Some(Join { how: How::SystemAsOf(_), .. }));
        if !by_system && self.rng.random_bool(0.2) {
            let inner = self.scan(&query.left, "l");
            let places = match conditions.is_empty() {
                true => String::new(),
                false => format!(" WHERE {}", std::mem::take(&mut conditions).join(" AND ")),
            };
            let every = "_id, g, v, at, _valid_from, _valid_to, _system_from, _system_to, _tx, \
                         _valid_time";
            let inner = format!("SELECT {every} FROM {inner}{places}");
            match self.rng.random_bool(0.5) {
                true => left = format!("({inner}) AS l"),
                false => (with, left) = (format!("WITH l AS ({inner}) "), "l".to_owned()),
            }
        }
        let from = match &query.join {
            None => left,
            Some(join) => self.join(join, &left, &mut conditions),
        };
        let places = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        format!("{with}{}", self.output(&query.output, &format!("{from}{places}")))
    }

    fn join(&mut self, join: &Join, left: &str, conditions: &mut Vec<String>) -> String {
        let scan = &join.scan;
        let right = match &join.how {
            How::ValidAsOf(instant) => {
                let valid = format!(" FOR VALID_TIME AS OF {}", self.instant_of(*instant));
                let system = self.clause("SYSTEM_TIME", scan.system, self.default_system);
                self.table(scan.table, &valid, &system, "r")
            }
            How::SystemAsOf(instant) => {
                let system = format!(" FOR SYSTEM_TIME AS OF {}", self.instant_of(*instant));
                let valid = self.clause("VALID_TIME", scan.valid, self.default_valid);
                self.table(scan.table, &valid, &system, "r")
            }
            How::Periods(_) => self.scan(scan, "r"),
        };
        let mut on = Vec::new();
        match join.keys {
            Keys::Same => on.push("r._id = l._id".to_owned()),
            Keys::Group => on.push(self.one(&["r._id = l.g", "l.g = r._id"]).to_owned()),
            Keys::Any => {}
        }
        if let How::Periods(relation) = join.how {
            on.push(self.relation(relation));
        }
        on.extend(join.filter.iter().map(|condition| self.condition("r", condition)));
        if on.is_empty() {
            on.push("true".to_owned());
        }
        if join.outer {
            return format!("{left} LEFT JOIN {right} ON {}", on.join(" AND "));
        }
        match self.rng.random_range(0..4) {
            0 => {
                conditions.extend(on);
                format!("{left}, {right}")
            }
            1 => {
                conditions.extend(on.split_off(1));
                format!("{left} JOIN {right} ON {}", on[0])
            }
            _ => format!("{left} JOIN {right} ON {}", on.join(" AND ")),
        }
    }

    fn instant_of(&mut self, instant: Instant) -> String {
        match instant {
            Instant::At => "l.at".to_owned(),
            Instant::AtPlusDays(days) if days < 0 => format!("l.at - INTERVAL '{} days'", -days),
            Instant::AtPlusDays(days) => format!("l.at + INTERVAL '{days} days'"),
            // A text is taken for an instant where it is compared with one alone.
            Instant::AtOr(other) => {
                format!("coalesce(l.at, ({})::timestamptz)", self.instant(other))
            }
            Instant::ValidFrom => "l._valid_from".to_owned(),
            Instant::ValidTo => "l._valid_to".to_owned(),
            Instant::SystemFrom => "l._system_from".to_owned(),
        }
    }

    fn relation(&mut self, relation: Relation) -> String {
        let word = match relation {
            Relation::Overlaps => match self.rng.random_range(0..4) {
                0 => return "l._valid_time && r._valid_time".to_owned(),
                1 => {
                    let end = "TIMESTAMP '9999-01-01T00:00:00Z'";
                    return format!(
                        "l._valid_from < coalesce(r._valid_to, {end}) \
                         AND r._valid_from < coalesce(l._valid_to, {end})"
                    );
                }
                2 => return "OVERLAPS(l._valid_time, r._valid_time)".to_owned(),
                _ => "OVERLAPS",
            },
            Relation::Contains => self.one(&["CONTAINS", "@>"]),
            Relation::StrictlyContains => "STRICTLY CONTAINS",
            Relation::Equals => "EQUALS",
            Relation::Precedes => self.one(&["PRECEDES", "<<"]),
            Relation::StrictlyPrecedes => "STRICTLY PRECEDES",
            Relation::ImmediatelyPrecedes => "IMMEDIATELY PRECEDES",
            Relation::Leads => "LEADS",
            Relation::Lags => "LAGS",
            Relation::ImmediatelyLeads => "IMMEDIATELY LEADS",
            Relation::ImmediatelyLags => "IMMEDIATELY LAGS",
            Relation::CoversBegin => return "r._valid_time CONTAINS l._valid_from".to_owned(),
        };
        format!("l._valid_time {word} r._valid_time")
    }

    fn output(&mut self, output: &Output, from: &str) -> String {
        let list = |columns: &[(Side, Column)]| {
            let columns = columns.iter().enumerate();
            columns.map(|(at, column)| format!("{} AS c{at}", full(*column))).collect::<Vec<_>>()
        };
        match output {
            Output::Rows { columns, distinct, limit } => {
                let shown = list(columns).join(", ");
                let distinct = if *distinct { "DISTINCT " } else { "" };
                let limit = limit.map_or(String::new(), |limit| {
                    let order = (1..=columns.len()).map(|at| format!("{at} NULLS FIRST"));
                    let order = order.collect::<Vec<_>>().join(", ");
                    format!(" ORDER BY {order} LIMIT {limit}")
                });
                format!("SELECT {distinct}{shown} FROM {from}{limit}")
            }
            Output::Common { columns } => {
                let mut shown = list(columns);
                shown.push("LOWER(l._valid_time * r._valid_time) AS since".to_owned());
                shown.push("UPPER(l._valid_time * r._valid_time) AS until".to_owned());
                format!("SELECT {} FROM {from}", shown.join(", "))
            }
            Output::Groups { by, aggregates } => {
                let mut shown = list(by);
                let values = aggregates.iter().enumerate();
                shown.extend(values.map(|(at, one)| format!("{} AS a{at}", aggregate(*one))));
                let group = match by.is_empty() {
                    true => String::new(),
                    false => {
                        let by: Vec<_> = by.iter().map(|column| full(*column)).collect();
                        format!(" GROUP BY {}", by.join(", "))
                    }
                };
                format!("SELECT {} FROM {from}{group}", shown.join(", "))
            }
            Output::Coalesced { by } => format!(
                "SELECT k, LOWER(p) AS since, UPPER(p) AS until FROM (SELECT l.{0} AS k, \
                 UNNEST(COALESCE_PERIODS(l._valid_time)) AS p FROM {from} GROUP BY l.{0}) AS x",
                name(*by)
            ),
        }
    }
}

fn aggregate(aggregate: Aggregate) -> String {
    match aggregate {
        Aggregate::Count => "count(*)".to_owned(),
        Aggregate::CountOf(side, column) => format!("count({})", full((side, column))),
        Aggregate::DistinctOf(side, column) => format!("count(DISTINCT {})", full((side, column))),
        Aggregate::SumNumber(side) => format!("sum({}.v)", alias(side)),
        Aggregate::MinOf(side, column) => format!("min({})", full((side, column))),
        Aggregate::MaxOf(side, column) => format!("max({})", full((side, column))),
    }
}
