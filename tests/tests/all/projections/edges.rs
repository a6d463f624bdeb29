//! A table of values at the edges of their types, the shapes over it, and shapes whose expressions fail
//! on some of its rows.

use std::collections::{BTreeMap, BTreeSet};

use everwhen_storage::{ColumnType, Precedence, TableDef, Value};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value as Json, json};

use super::rig::{START, Shape, table, text};

/// Facts of every type; `z` and `word` are what expressions fail on.
pub fn edges() -> TableDef {
    let columns = [
        ("_id", ColumnType::Int64),
        ("f", ColumnType::Float64),
        ("g", ColumnType::Float64),
        ("i", ColumnType::Int64),
        ("d", ColumnType::Decimal),
        ("at", ColumnType::Timestamp),
        ("day", ColumnType::Date),
        ("name", ColumnType::Text),
        ("z", ColumnType::Int64),
        ("word", ColumnType::Text),
    ];
    table(4, "edge", Precedence::Recorded, &columns)
}

/// Shapes that no value makes fail.
pub const EDGE_SHAPES: &[Shape] = &[
    Shape {
        name: "edge_rows",
        key: &["_id"],
        query: "SELECT _id, f, g, i, d, at, day, name, word FROM edge",
    },
    Shape {
        name: "edge_join",
        key: &["one", "other"],
        query: "SELECT a._id AS one, b._id AS other, a.f, b.g FROM edge a JOIN edge b ON a.f = b.g",
    },
    Shape {
        name: "edge_outer",
        key: &["one", "other"],
        query: "SELECT a._id AS one, coalesce(b._id, -1) AS other, b.at, b.day FROM edge a \
                LEFT JOIN edge b ON a.at = b.at AND a.day = b.day AND a.name = b.name",
    },
    Shape {
        name: "edge_groups",
        key: &["f"],
        query: "SELECT f, count(*) AS n, min(g) AS least, max(g) AS most, \
                count(DISTINCT g) AS different FROM edge GROUP BY f, f",
    },
    Shape {
        name: "edge_periods",
        key: &["at", "day"],
        query: "SELECT at, day, min(name) AS least, max(name) AS most, max(d) AS d, min(i) AS i \
                FROM edge GROUP BY at, day",
    },
    Shape {
        name: "edge_decimals",
        key: &["d"],
        query: "SELECT d, count(*) AS n, min(at) AS least, max(day) AS most FROM edge GROUP BY d",
    },
    Shape {
        name: "edge_distinct",
        key: &["f", "i"],
        query: "SELECT DISTINCT f, i, f AS again FROM edge",
    },
    Shape {
        name: "edge_extremes",
        key: &["one"],
        query: "SELECT 1 AS one, min(f) AS f, max(f) AS g, min(i) AS i, max(i) AS j, min(d) AS c, \
                max(d) AS d, min(at) AS at, max(at) AS until, min(day) AS day, max(day) AS last, \
                min(name) AS name, max(name) AS word FROM edge",
    },
    Shape {
        name: "edge_ranks",
        key: &["_id"],
        query: "SELECT _id, rank() OVER (PARTITION BY name ORDER BY f) AS by_f, \
                count(*) OVER (PARTITION BY g) AS of_g, max(f) OVER (PARTITION BY z) AS most \
                FROM edge",
    },
    Shape {
        name: "edge_filter",
        key: &["_id"],
        query: "SELECT _id, f FROM edge WHERE f = 0 OR g > 1e308 OR f = g OR d > 1 OR i < -1 \
                OR at < TIMESTAMP '1000-01-01T00:00:00Z' OR name = ''",
    },
    Shape { name: "edge_union", key: &["f"], query: "SELECT f FROM edge UNION SELECT g FROM edge" },
    Shape {
        name: "edge_except",
        key: &["f"],
        query: "SELECT f FROM edge EXCEPT SELECT g FROM edge",
    },
    Shape {
        name: "edge_members",
        key: &["_id"],
        query: "SELECT _id FROM edge a WHERE f IN (SELECT g FROM edge) \
                OR EXISTS (SELECT 1 FROM edge b WHERE b.d = a.d AND b._id <> a._id)",
    },
    Shape {
        name: "edge_top",
        key: &["_id"],
        query: "SELECT _id, f, g FROM edge ORDER BY f DESC NULLS LAST, g, _id LIMIT 3",
    },
    Shape {
        name: "edge_products",
        key: &["_id"],
        query: "SELECT _id, day, CAST(z AS DECIMAL) / 3 AS third, \
                CAST(z AS DECIMAL) * 0.000000005 AS small FROM edge",
    },
    Shape {
        name: "edge_counts",
        key: &["_id"],
        query: "SELECT v._id, count(*) AS n FROM visit v CROSS JOIN (SELECT 1 AS one FROM edge) e \
                GROUP BY v._id",
    },
    Shape { name: "edge_keys", key: &["g"], query: "SELECT g, i FROM edge" },
];

/// What a sink should have of a query, by key.
#[derive(Debug, Default)]
pub struct Expected {
    /// Rows whose expressions have values.
    pub rows: BTreeMap<String, Json>,
    /// Keys of which some expression fails.
    pub held: BTreeSet<String>,
    /// Some expression fails where no key is known, as in what makes the key.
    pub without_key: bool,
}

/// A shape whose expressions fail on some rows.
pub struct FailingShape {
    pub shape: Shape,
    /// The rows and held keys, from the rows of `edge` and of `visit`.
    pub expected: fn(edges: &[Json], visits: &[Json]) -> Expected,
}

/// Shapes with expressions that fail on some rows: those keys are held, all others are right.
pub const FAILING_SHAPES: &[FailingShape] = &[
    FailingShape {
        shape: Shape {
            name: "failing_quotient",
            key: &["_id"],
            query: "SELECT _id, 10 / z AS q FROM edge",
        },
        expected: |edges, _| {
            each(edges, |row| match row["z"].as_i64() {
                Some(0) => Fate::Fails,
                z => Fate::Row(json!({"_id": row["_id"], "q": z.map(|z| 10 / z)})),
            })
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_cast",
            key: &["_id"],
            query: "SELECT _id, CAST(word AS BIGINT) AS n FROM edge",
        },
        expected: |edges, _| {
            each(edges, |row| match row["word"].as_str().map(str::parse::<i64>) {
                None => Fate::Row(json!({"_id": row["_id"], "n": null})),
                Some(Ok(n)) => Fate::Row(json!({"_id": row["_id"], "n": n})),
                Some(Err(_)) => Fate::Fails,
            })
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_filter",
            key: &["_id"],
            query: "SELECT _id FROM edge WHERE 10 / z > 3",
        },
        expected: |edges, _| {
            each(edges, |row| match row["z"].as_i64() {
                Some(0) => Fate::Fails,
                Some(z) if 10 / z > 3 => Fate::Row(json!({"_id": row["_id"]})),
                _ => Fate::None,
            })
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_sum",
            key: &["z"],
            query: "SELECT z, sum(i) AS total FROM edge WHERE z IS NOT NULL GROUP BY z",
        },
        expected: |edges, _| {
            let mut sums: BTreeMap<i64, Option<i128>> = BTreeMap::new();
            for row in edges {
                let Some(z) = row["z"].as_i64() else { continue };
                let sum = sums.entry(z).or_default();
                if let Some(i) = row["i"].as_i64() {
                    *sum = Some(sum.unwrap_or_default() + i128::from(i));
                }
            }
            let mut expected = Expected::default();
            for (z, sum) in sums {
                match sum.map(i64::try_from).transpose() {
                    Ok(total) => expected.row(&[json!(z)], json!({"z": z, "total": total})),
                    Err(_) => expected.fails(&[json!(z)]),
                }
            }
            expected
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_sum_of_quotients",
            key: &["name"],
            query: "SELECT name, sum(10 / z) AS total FROM edge WHERE name IS NOT NULL GROUP BY name",
        },
        expected: |edges, _| {
            let mut sums: BTreeMap<&str, (Option<i64>, bool)> = BTreeMap::new();
            for row in edges {
                let Some(name) = row["name"].as_str() else { continue };
                let (sum, fails) = sums.entry(name).or_default();
                match row["z"].as_i64() {
                    Some(0) => *fails = true,
                    Some(z) => *sum = Some(sum.unwrap_or_default() + 10 / z),
                    None => {}
                }
            }
            let mut expected = Expected::default();
            for (name, (total, fails)) in sums {
                match fails {
                    true => expected.fails(&[json!(name)]),
                    false => expected.row(&[json!(name)], json!({"name": name, "total": total})),
                }
            }
            expected
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_join",
            key: &["_id"],
            query: "SELECT e._id, v.n FROM edge e JOIN visit v ON v._id = e._id AND 10 / (e.z + v.n) > 3",
        },
        expected: |edges, visits| {
            each(edges, |row| {
                let Some(visit) = visits.iter().find(|visit| visit["_id"] == row["_id"]) else {
                    return Fate::None;
                };
                match row["z"].as_i64().zip(visit["n"].as_i64()) {
                    Some((z, n)) if z + n == 0 => Fate::Fails,
                    Some((z, n)) if 10 / (z + n) > 3 => {
                        Fate::Row(json!({"_id": row["_id"], "n": n}))
                    }
                    _ => Fate::None,
                }
            })
        },
    },
    FailingShape {
        shape: Shape {
            name: "failing_groups",
            key: &["q"],
            query: "SELECT 10 / z AS q, count(*) AS n FROM edge WHERE z IS NOT NULL GROUP BY 10 / z",
        },
        expected: |edges, _| {
            let mut expected = Expected::default();
            let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
            for row in edges {
                match row["z"].as_i64() {
                    Some(0) => expected.without_key = true,
                    Some(z) => *counts.entry(10 / z).or_default() += 1,
                    None => {}
                }
            }
            for (q, n) in counts {
                expected.row(&[json!(q)], json!({"q": q, "n": n}));
            }
            expected
        },
    },
];

enum Fate {
    Row(Json),
    Fails,
    None,
}

/// What becomes of each row by itself.
fn each(rows: &[Json], fate: impl Fn(&Json) -> Fate) -> Expected {
    let mut expected = Expected::default();
    for row in rows {
        let key = [row["_id"].clone()];
        match fate(row) {
            Fate::Row(of) => expected.row(&key, of),
            Fate::Fails => expected.fails(&key),
            Fate::None => {}
        }
    }
    expected
}

impl Expected {
    fn row(&mut self, key: &[Json], row: Json) {
        self.rows.insert(Json::from(key).to_string(), row);
    }

    fn fails(&mut self, key: &[Json]) {
        self.held.insert(Json::from(key).to_string());
    }
}

/// 0001-01-01 and 9999-12-31T23:59:59.999999, in microseconds.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;
/// The same as days.
const FIRST_DAY: i32 = -719_162;
const LAST_DAY: i32 = 2_932_896;
/// The largest decimal of 38 digits, in units.
const MOST: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

fn one<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

/// Draws the fields of a row and its key; what is left out is NULL, or stays under a patch.
pub fn random_edge(random: &mut StdRng) -> (Value, Vec<(u32, Value)>) {
    let floats = [
        0.0,
        -0.0,
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
        1.5,
    ];
    let drawn = [
        Value::Float(one(random, &floats)),
        Value::Float(one(random, &floats)),
        Value::Int(one(random, &[i64::MIN, i64::MAX, -1, 0, 1])),
        Value::Decimal(one(random, &[-MOST, MOST, 0, 1, -1, 1_500_000_000])),
        Value::Timestamp(one(random, &[FIRST, LAST, START])),
        Value::Date(one(random, &[FIRST_DAY, LAST_DAY, 0])),
        text(one(random, &["", "a", "\u{e9}", "'\"\\"])),
        Value::Int(random.random_range(-2..4)),
        text(one(random, &["", "7", "-3", "seven", "9223372036854775808"])),
    ];
    let fields = (1..).zip(drawn).filter(|_| random.random_bool(0.85)).collect();
    (Value::Int(random.random_range(0..5)), fields)
}
