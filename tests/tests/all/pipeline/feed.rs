//! A feed of one year, or of a part of it: readings of weather stations, trips that start at them,
//! leases of equipment to trips and stations, and operators that change their names. Some of it is late,
//! some ahead of the clock, some corrected, sent twice, withdrawn or cancelled.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// Where the feed begins: 1 January 2025, in microseconds.
pub const BEGIN: i64 = 1_735_689_600 * SECOND;
pub const STATIONS: usize = 3;
/// Events of a whole year.
pub const YEAR_EVENTS: usize = 1_100_000;

/// What an event is about; each has a topic and a log of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Readings,
    Trips,
    Leases,
    Operators,
}

pub const TOPICS: [Topic; 4] = [Topic::Readings, Topic::Trips, Topic::Leases, Topic::Operators];

/// What an event says. Of one subject no two events begin at the same instant, so that which of them
/// wins does not depend on their arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    Reading {
        station: usize,
        temp: i64,
        at: i64,
    },
    Trip {
        station: usize,
        operator: usize,
        n: i64,
        at: i64,
    },
    Cancel {
        trip: usize,
        at: i64,
    },
    Lease {
        holder: String,
        gear: String,
        from: i64,
        to: i64,
    },
    Name {
        operator: usize,
        name: String,
        at: i64,
    },
    /// What the event said is taken back.
    Gone(Topic),
}

/// One record of a topic.
#[derive(Debug, Clone)]
pub struct Event {
    /// When it arrives, in microseconds.
    pub arrival: i64,
    /// The event's number among those of its kind: the last record of a number counts.
    pub number: usize,
    pub says: Says,
}

/// All events, in the order of their arrival.
pub struct Feed {
    pub events: Vec<Event>,
    /// Where the clock stands when the last events have arrived.
    pub end: i64,
    random: StdRng,
}

impl Says {
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Reading { .. } => Topic::Readings,
            Self::Trip { .. } | Self::Cancel { .. } => Topic::Trips,
            Self::Lease { .. } => Topic::Leases,
            Self::Name { .. } => Topic::Operators,
            Self::Gone(topic) => *topic,
        }
    }

    const fn at(&self) -> i64 {
        match self {
            Self::Reading { at, .. }
            | Self::Trip { at, .. }
            | Self::Cancel { at, .. }
            | Self::Lease { from: at, .. }
            | Self::Name { at, .. } => *at,
            Self::Gone(_) => BEGIN,
        }
    }
}

impl Topic {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Trips => "trips",
            Self::Leases => "leases",
            Self::Operators => "operators",
        }
    }
}

impl Event {
    /// Returns the id under which events of one number are one.
    pub fn id(&self) -> String {
        let letter = match (&self.says, self.says.topic()) {
            (Says::Cancel { .. }, _) => 'c',
            (_, Topic::Readings) => 'r',
            (_, Topic::Trips) => 't',
            (_, Topic::Leases) => 'l',
            (_, Topic::Operators) => 'o',
        };
        format!("{letter}{}", self.number)
    }

    /// Returns the record's JSON.
    pub fn json(&self) -> String {
        let id = self.id();
        let value = match &self.says {
            Says::Reading { station, temp, at } => {
                json!({"kind": "put", "id": id, "station": place(*station), "temp": temp, "at": text(*at)})
            }
            Says::Trip { station, operator, n, at } => json!({
                "kind": "put", "id": id, "station": place(*station), "operator": format!("op{operator}"),
                "n": n, "at": text(*at),
            }),
            Says::Cancel { trip, at } => {
                json!({"kind": "cancel", "id": id, "trip": format!("t{trip}"), "at": text(*at)})
            }
            Says::Lease { holder, gear, from, to } => json!({
                "kind": "put", "id": id, "holder": holder, "gear": gear,
                "starts": text(*from), "ends": text(*to),
            }),
            Says::Name { operator, name, at } => {
                json!({"kind": "put", "id": id, "operator": format!("op{operator}"), "name": name, "at": text(*at)})
            }
            Says::Gone(_) => json!({"kind": "gone", "id": id}),
        };
        value.to_string()
    }

    /// Returns the line of the event's log, whose columns are those of [`super::model::LOGS`].
    pub fn line(&self, place_in_feed: usize) -> String {
        let id = self.id();
        let rest = match &self.says {
            Says::Reading { station, temp, at } => format!("put,{},{temp},{at}", place(*station)),
            Says::Trip { station, operator, n, at } => {
                format!("put,{},op{operator},{n},{at},", place(*station))
            }
            Says::Cancel { trip, at } => format!("cancel,,,,{at},t{trip}"),
            Says::Lease { holder, gear, from, to } => format!("put,{holder},{gear},{from},{to}"),
            Says::Name { operator, name, at } => format!("put,op{operator},{name},{at}"),
            Says::Gone(Topic::Readings | Topic::Operators) => "gone,,,".to_owned(),
            Says::Gone(Topic::Trips) => "gone,,,,,".to_owned(),
            Says::Gone(Topic::Leases) => "gone,,,,".to_owned(),
        };
        format!("{place_in_feed},{id},{rest}")
    }
}

/// Returns a station's name.
pub fn place(station: usize) -> String {
    format!("station{station}")
}

/// Returns an instant, in microseconds, as text.
pub fn text(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map(|at| at.to_string()).unwrap_or_default()
}

impl Feed {
    /// Makes about so many events; a year of them is [`YEAR_EVENTS`].
    pub fn new(seed: u64, count: usize) -> Self {
        let days = (365 * count / YEAR_EVENTS).max(7);
        let end = BEGIN + i64::try_from(days).unwrap_or(365) * DAY;
        let mut feed = Self { events: Vec::new(), end, random: StdRng::seed_from_u64(seed) };
        feed.readings();
        let trips = count * 3 / 10;
        let operators = (trips / 165).max(5);
        let departures = feed.trips(trips, operators);
        feed.leases(trips * 16 / 10, &departures);
        feed.names(trips / 8, operators);
        // Of one number the records keep their order: the sort is stable.
        feed.events.sort_by_key(|event| event.arrival);
        feed
    }

    fn readings(&mut self) {
        let hours = (self.end - BEGIN) / HOUR;
        let mut number = 0;
        for hour in 0..hours {
            for station in 0..STATIONS {
                self.tell(number, &|random| Says::Reading {
                    station,
                    temp: random.random_range(-200..400),
                    at: BEGIN + hour * HOUR + random.random_range(0..3_600) * SECOND,
                });
                number += 1;
            }
        }
    }

    /// Returns when each trip departs, before any correction.
    fn trips(&mut self, count: usize, operators: usize) -> Vec<i64> {
        // Some depart after the end.
        let minutes = (self.end + 2 * DAY - BEGIN) / MINUTE;
        let mut departures = Vec::with_capacity(count);
        for number in 0..count {
            let departs = BEGIN + self.random.random_range(0..minutes) * MINUTE;
            departures.push(departs);
            self.tell(number, &|random| {
                let shift =
                    if random.random_bool(0.5) { random.random_range(-180..180) } else { 0 };
                Says::Trip {
                    station: random.random_range(0..STATIONS),
                    operator: random.random_range(0..operators),
                    n: random.random_range(1..60),
                    at: departs + shift * MINUTE,
                }
            });
            if self.random.random_bool(0.04) {
                // Half a minute off, so never at the instant of a departure.
                let after = self.random.random_range(-60..48 * 60) * MINUTE + 30 * SECOND;
                let says = Says::Cancel { trip: number, at: departs + after };
                let arrival = self.arrival(says.at());
                self.push(arrival, number, says);
            }
        }
        departures
    }

    fn leases(&mut self, count: usize, departures: &[i64]) {
        let span = (self.end - BEGIN) / SECOND;
        for number in 0..count {
            // The number, as microseconds, keeps the starts of one holder apart.
            let own = i64::try_from(number).unwrap_or_default();
            if self.random.random_bool(0.3) {
                self.tell(number, &|random| {
                    let from = BEGIN + random.random_range(0..span) * SECOND + own;
                    let to = from + random.random_range(1..48) * HOUR;
                    let holder = place(random.random_range(0..STATIONS));
                    Says::Lease {
                        holder,
                        gear: format!("kit {}", random.random_range(0..500)),
                        from,
                        to,
                    }
                });
            } else {
                let trip = self.random.random_range(0..departures.len());
                self.tell(number, &|random| {
                    let before = random.random_range(-1_800..7_200) * SECOND;
                    let from = departures[trip] - before + own;
                    let to = from + random.random_range(30..240) * MINUTE;
                    let gear = format!("boat {}", random.random_range(0..900));
                    Says::Lease { holder: format!("t{trip}"), gear, from, to }
                });
            }
        }
    }

    fn names(&mut self, count: usize, operators: usize) {
        let span = (self.end + 2 * DAY - BEGIN) / SECOND;
        for number in 0..count {
            let own = i64::try_from(number).unwrap_or_default();
            let operator = number % operators;
            self.tell(number, &|random| Says::Name {
                operator,
                name: format!("name {}", random.random_range(0..100_000)),
                at: BEGIN + random.random_range(0..span) * SECOND + own,
            });
        }
    }

    /// Adds an event and what becomes of it.
    fn tell(&mut self, number: usize, make: &dyn Fn(&mut StdRng) -> Says) {
        let mut says = make(&mut self.random);
        let topic = says.topic();
        let mut arrival = self.arrival(says.at());
        self.push(arrival, number, says.clone());
        if self.random.random_bool(0.1) {
            says = make(&mut self.random);
            arrival = self.later(arrival);
            self.push(arrival, number, says.clone());
        }
        if self.random.random_bool(0.01) {
            arrival = self.later(arrival);
            self.push(arrival, number, says);
        }
        if self.random.random_bool(0.05) {
            arrival = self.later(arrival);
            self.push(arrival, number, Says::Gone(topic));
            if self.random.random_bool(0.2) {
                arrival = self.later(arrival);
                let says = make(&mut self.random);
                self.push(arrival, number, says);
            }
        }
    }

    fn push(&mut self, arrival: i64, number: usize, says: Says) {
        self.events.push(Event { arrival: arrival.clamp(BEGIN, self.end), number, says });
    }

    /// Draws when an event of an instant arrives: 15 in 100 hours to weeks later, 3 ahead of it.
    fn arrival(&mut self, at: i64) -> i64 {
        match self.random.random_range(0..100) {
            0..15 => self.later(at),
            15..18 => at - self.random.random_range(1..120) * HOUR,
            _ => at + self.random.random_range(0..120) * SECOND,
        }
    }

    fn later(&mut self, than: i64) -> i64 {
        let weeks = (21 * DAY).min((self.end - BEGIN) / 3);
        than + self.random.random_range(HOUR..weeks)
    }
}
