//! The tables of random histories and the query shapes that each of them drives.

use everwhen_storage::{ColumnType, Op, Precedence, TableDef, Tenant, Value, Write};
use rand::Rng;
use rand::rngs::StdRng;

use super::edges::{edges, random_edge};
use super::rig::{HOUR, START, Shape, assertion, table, text};

/// Facts with an instant and a reference, dimensions with periods, a second fact table, and one of
/// values at the edges of their types.
pub fn tables() -> [TableDef; 4] {
    let fact = [
        ("_id", ColumnType::Text),
        ("dim", ColumnType::Text),
        ("amount", ColumnType::Int64),
        ("at", ColumnType::Timestamp),
        ("tag", ColumnType::Text),
        ("weight", ColumnType::Float64),
    ];
    let dim = [
        ("_id", ColumnType::Text),
        ("name", ColumnType::Text),
        ("grp", ColumnType::Text),
        ("rate", ColumnType::Decimal),
    ];
    let visit = [("_id", ColumnType::Int64), ("dim", ColumnType::Text), ("n", ColumnType::Int64)];
    [
        table(1, "fact", Precedence::Recorded, &fact),
        table(2, "dim", Precedence::Effective, &dim),
        table(3, "visit", Precedence::Effective, &visit),
        edges(),
    ]
}

/// The shapes: each is compared with the query from scratch after every history.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "filter_project",
        key: &["_id"],
        query: "SELECT _id, amount * 2 AS twice, upper(tag) AS tag FROM fact WHERE amount > 2",
    },
    Shape {
        name: "inner_join",
        key: &["_id"],
        query: "SELECT f._id, f.amount, d.name FROM fact f JOIN dim d ON d._id = f.dim",
    },
    Shape {
        name: "left_as_of",
        key: &["_id"],
        query: "SELECT f._id, f.at, d.name AS dim_name, d.rate FROM fact f \
                LEFT JOIN dim FOR VALID_TIME AS OF f.at AS d ON d._id = f.dim",
    },
    Shape {
        name: "inner_as_of",
        key: &["_id"],
        query: "SELECT f._id, d.grp, v.n FROM fact f \
                JOIN dim FOR VALID_TIME AS OF f.at AS d ON d._id = f.dim \
                LEFT JOIN visit FOR VALID_TIME AS OF f.at AS v ON v._id = f.amount",
    },
    Shape {
        name: "group_join",
        key: &["grp"],
        query: "SELECT d.grp, count(*) AS n, sum(f.amount) AS total, max(f.tag) AS last_tag \
                FROM fact f JOIN dim d ON d._id = f.dim GROUP BY d.grp",
    },
    Shape {
        name: "having_under_join",
        key: &["grp"],
        query: "SELECT a.grp, a.n AS facts, b.n AS visits FROM \
                (SELECT d.grp, count(*) AS n FROM fact f JOIN dim d ON d._id = f.dim \
                 GROUP BY d.grp HAVING count(*) < 3) a JOIN \
                (SELECT d.grp, count(*) AS n FROM visit v JOIN dim d ON d._id = v.dim \
                 GROUP BY d.grp HAVING count(*) < 3) b ON a.grp = b.grp",
    },
    Shape {
        name: "distinct_union",
        key: &["word", "source"],
        query: "SELECT DISTINCT tag AS word, 'fact' AS source FROM fact WHERE tag IS NOT NULL \
                UNION ALL SELECT DISTINCT name, 'dim' FROM dim WHERE name IS NOT NULL",
    },
    Shape {
        name: "at_now",
        key: &["_id"],
        query: "SELECT _id, name, grp, _valid_from AS since, _valid_to AS until FROM dim",
    },
    Shape {
        name: "valid_bounds",
        key: &["_id", "since"],
        query: "SELECT _id, _valid_from AS since, _valid_to AS until, name \
                FROM dim FOR ALL VALID_TIME",
    },
    Shape {
        name: "exists",
        key: &["_id"],
        query: "SELECT d._id, d.name FROM dim d WHERE EXISTS \
                (SELECT 1 FROM fact f WHERE f.dim = d._id AND f.amount > 3)",
    },
    Shape {
        name: "not_exists",
        key: &["_id"],
        query: "SELECT f._id, f.dim FROM fact f WHERE NOT EXISTS \
                (SELECT 1 FROM dim FOR VALID_TIME AS OF f.at AS d WHERE d._id = f.dim)",
    },
    Shape {
        name: "full_join",
        key: &["who"],
        query: "SELECT coalesce(f._id, d._id) AS who, f.amount, d.name \
                FROM fact f FULL JOIN dim d ON d._id = f.tag",
    },
    Shape {
        name: "window",
        key: &["_id"],
        query: "SELECT _id, dim, row_number() OVER (PARTITION BY dim ORDER BY amount, _id) AS place, \
                sum(amount) OVER (PARTITION BY dim) AS all_of_dim FROM fact",
    },
    Shape {
        name: "top",
        key: &["_id"],
        query: "SELECT _id, amount FROM fact ORDER BY amount DESC NULLS LAST, _id LIMIT 3",
    },
    Shape {
        name: "grand_total",
        key: &["one"],
        query: "SELECT 1 AS one, count(*) AS n, sum(amount) AS total, count(DISTINCT dim) AS dims FROM fact",
    },
    Shape {
        name: "period_read",
        key: &["_id", "since"],
        query: "SELECT v._id, v._valid_from AS since, v.n, d.name FROM visit FOR VALID_TIME \
                FROM TIMESTAMP '2026-01-05T12:00:00Z' TO TIMESTAMP '2026-01-05T16:00:00Z' AS v \
                LEFT JOIN dim d ON d._id = v.dim",
    },
    Shape {
        name: "beliefs",
        key: &["_id", "since", "known"],
        query: "SELECT _id, _valid_from AS since, _system_from AS known, _system_to AS until, n \
                FROM visit FOR ALL VALID_TIME FOR ALL SYSTEM_TIME",
    },
    Shape {
        name: "one_value",
        key: &["_id"],
        query: "SELECT f._id, (SELECT max(v.n) FROM visit v WHERE v.dim = f.dim) AS most \
                FROM fact f WHERE f.amount > 3 OR EXISTS \
                (SELECT 1 FROM visit v WHERE v._id = f.amount)",
    },
    Shape {
        name: "made_keys",
        key: &["word", "hour"],
        query: "SELECT lower(f.tag) AS word, date_trunc('hour', f.at) AS hour, count(*) AS n, \
                string_agg(d.name, ',' ORDER BY d.name) AS names FROM fact f \
                JOIN dim d ON lower(d._id) = lower(f.tag) \
                GROUP BY lower(f.tag), date_trunc('hour', f.at)",
    },
    Shape {
        name: "except",
        key: &["dim"],
        query: "SELECT dim FROM fact WHERE amount > 1 EXCEPT SELECT _id FROM dim WHERE grp = 'x'",
    },
    Shape { name: "doubled_keys", key: &["dim"], query: "SELECT dim, amount, tag FROM fact" },
];

const IDS: [&str; 4] = ["a", "b", "c", "d"];
const NAMES: [&str; 3] = ["x", "y", "z"];

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

fn instant(random: &mut StdRng) -> i64 {
    START + random.random_range(-6_i64..14) * HOUR
}

fn period(random: &mut StdRng) -> (i64, Option<i64>) {
    let from = instant(random);
    let to = random.random_bool(0.5).then(|| from + random.random_range(1_i64..8) * HOUR);
    (from, to)
}

/// Adds a field most of the time: what is left out reads NULL, or stays under a patch.
fn some(random: &mut StdRng, fields: &mut Vec<(u32, Value)>, id: u32, value: Value) {
    if random.random_bool(0.85) {
        fields.push((id, value));
    }
}

/// Draws one write to one of the tables.
pub fn random_write(random: &mut StdRng, tenant: &Tenant, tables: &[TableDef; 4]) -> Write {
    let of = random.random_range(0..4);
    let mut fields = Vec::new();
    let key = match of {
        0 => {
            let dim = text(pick(random, &IDS));
            some(random, &mut fields, 1, dim);
            let amount = Value::Int(random.random_range(0..6));
            some(random, &mut fields, 2, amount);
            let at = Value::Timestamp(instant(random));
            some(random, &mut fields, 3, at);
            let tag = text(pick(random, &IDS));
            some(random, &mut fields, 4, tag);
            let weight = Value::Float(f64::from(random.random_range(0..100_u8)) / 7.0);
            some(random, &mut fields, 5, weight);
            text(["f1", "f2", "f3", "f4", "f5", "a"][random.random_range(0..6)])
        }
        1 => {
            let name = text(pick(random, &NAMES));
            some(random, &mut fields, 1, name);
            let grp = text(pick(random, &NAMES[..2]));
            some(random, &mut fields, 2, grp);
            let rate = Value::Decimal(i128::from(random.random_range(1..5_u8)) * 500_000_000);
            some(random, &mut fields, 3, rate);
            text(pick(random, &IDS))
        }
        3 => {
            let (key, drawn) = random_edge(random);
            fields = drawn;
            key
        }
        _ => {
            let dim = text(pick(random, &IDS));
            some(random, &mut fields, 1, dim);
            let n = Value::Int(random.random_range(0..4));
            some(random, &mut fields, 2, n);
            Value::Int(random.random_range(0..5))
        }
    };
    let op = match random.random_range(0..10) {
        0..=5 => Op::Put,
        6..=7 => Op::Patch { set_nulls: false },
        _ => Op::Delete,
    };
    if op == Op::Delete {
        fields.clear();
    }
    assertion(tenant, &tables[of], key, op, period(random), fields)
}
