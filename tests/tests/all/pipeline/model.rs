//! What the sinks should hold, as DuckDB answers it over the logs of the events: of each event the last
//! record counts, and of a subject's events that cover an instant the one that begins last.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use everwhen_tests::judge::Judge;

use super::feed::{Event, TOPICS};

/// The columns of each topic's log. Instants are microseconds.
pub const LOGS: [&str; 4] = [
    "seq BIGINT, id VARCHAR, kind VARCHAR, station VARCHAR, temp BIGINT, moment BIGINT",
    "seq BIGINT, id VARCHAR, kind VARCHAR, station VARCHAR, operator VARCHAR, n BIGINT, moment BIGINT, trip VARCHAR",
    "seq BIGINT, id VARCHAR, kind VARCHAR, holder VARCHAR, gear VARCHAR, since BIGINT, until BIGINT",
    "seq BIGINT, id VARCHAR, kind VARCHAR, operator VARCHAR, name VARCHAR, moment BIGINT",
];

/// A sink's table and the question that it answers.
pub struct Question {
    pub projection: &'static str,
    pub select: &'static str,
    /// In DuckDB; `${now}` is the instant of the clock.
    pub expected: &'static str,
}

/// Trips as they are now: departed, and not cancelled since.
const CURRENT: &str = "current AS (SELECT t.* FROM trips t WHERE t.moment <= ${now} AND NOT EXISTS \
    (SELECT 1 FROM cancels c WHERE c.trip = t.id AND c.moment > t.moment AND c.moment <= ${now}))";

pub const QUESTIONS: [Question; 6] = [
    Question {
        projection: "departures",
        select: "SELECT id, departed, station, temp, gear, kit FROM departures",
        // Leases of a station by the days that they touch, so that no day meets all of them.
        expected: "WITH boats AS (SELECT t.id, arg_max(l.gear, l.since) AS gear FROM trips t \
            JOIN leases l ON l.holder = t.id AND l.since <= t.moment AND l.until > t.moment GROUP BY t.id), \
            by_day AS (SELECT *, unnest(range(since // 86400000000, until // 86400000000 + 1)) AS day \
            FROM leases WHERE holder LIKE 'station%'), \
            kits AS (SELECT t.id, arg_max(l.gear, l.since) AS gear FROM trips t \
            JOIN by_day l ON l.holder = t.station AND l.day = t.moment // 86400000000 \
            AND l.since <= t.moment AND l.until > t.moment GROUP BY t.id) \
            SELECT t.id, strftime(make_timestamp(t.moment), '%Y-%m-%dT%H:%M:%S.%fZ'), t.station, r.temp, \
            boats.gear, kits.gear AS kit FROM trips t \
            ASOF LEFT JOIN readings r ON r.station = t.station AND t.moment >= r.moment \
            LEFT JOIN boats ON boats.id = t.id LEFT JOIN kits ON kits.id = t.id",
    },
    Question {
        projection: "names",
        select: "SELECT id, name FROM names",
        expected: "WITH ${current}, latest AS (SELECT operator, arg_max(name, moment) AS name FROM operators \
            WHERE moment <= ${now} GROUP BY operator) \
            SELECT t.id, o.name FROM current t LEFT JOIN latest o ON o.operator = t.operator",
    },
    Question {
        projection: "days",
        select: "SELECT day, trips, people FROM days",
        expected: "WITH ${current} SELECT strftime(date_trunc('day', make_timestamp(moment)), \
            '%Y-%m-%dT%H:%M:%S.%fZ'), count(*), sum(n)::BIGINT FROM current GROUP BY 1",
    },
    Question {
        projection: "best",
        select: "SELECT id, station, n, place FROM best",
        expected: "WITH ${current} SELECT id, station, n, place FROM (SELECT *, row_number() OVER \
            (PARTITION BY station ORDER BY n DESC, id) AS place FROM current) WHERE place <= 3",
    },
    Question {
        projection: "top",
        select: "SELECT id, n FROM top",
        expected: "WITH ${current} SELECT id, n FROM current ORDER BY n DESC, id LIMIT 3",
    },
    Question {
        projection: "bare",
        select: "SELECT id, station FROM bare",
        expected: "SELECT t.id, t.station FROM trips t WHERE NOT EXISTS (SELECT 1 FROM leases l \
            WHERE l.holder = t.id AND l.since <= t.moment AND l.until > t.moment)",
    },
];

/// The logs so far.
pub struct Model {
    judge: Judge,
    told: usize,
}

impl Model {
    pub fn start() -> Result<Self> {
        Ok(Self { judge: Judge::start()?, told: 0 })
    }

    /// Adds events in the order in which each topic has them.
    pub fn tell(&mut self, events: &[Event], dir: &Path) -> Result<()> {
        for (topic, columns) in TOPICS.into_iter().zip(LOGS) {
            let path = dir.join("log.csv");
            let mut file = BufWriter::new(File::create(&path)?);
            for (at, event) in events.iter().enumerate() {
                if event.says.topic() == topic {
                    writeln!(file, "{}", event.line(self.told + at))?;
                }
            }
            file.flush()?;
            self.judge.read_csv(&format!("{}_log", topic.name()), columns, &path)?;
        }
        self.told += events.len();
        Ok(())
    }

    /// Compares every sink with its question at an instant; returns how many rows were compared.
    pub fn check(&mut self, sink: &Path, now: i64) -> Result<u64> {
        for topic in TOPICS {
            let name = topic.name();
            self.judge.run(&format!(
                "CREATE OR REPLACE TABLE {name} AS SELECT * FROM {name}_log \
                 QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq DESC) = 1"
            ))?;
        }
        self.judge
            .run("CREATE OR REPLACE TABLE cancels AS SELECT * FROM trips WHERE kind = 'cancel'")?;
        for topic in TOPICS {
            self.judge.run(&format!("DELETE FROM {} WHERE kind <> 'put'", topic.name()))?;
        }
        let mut rows = 0;
        for Question { projection, select, expected } in &QUESTIONS {
            let expected =
                expected.replace("${current}", CURRENT).replace("${now}", &now.to_string());
            let compared = self.judge.compare(sink, select, &expected);
            rows += compared.with_context(|| format!("projection {projection}"))?;
        }
        Ok(rows)
    }
}
