//! The scenarios S1 to S3 of the requirements, as events by day and the table after each day.

use serde_json::{Value, json};

/// One event: the stream it belongs to and its JSON.
pub type Event = (&'static str, Value);

/// What happens on a day, and the report once it is over.
pub struct Day {
    /// The clock at which the day's events arrive, RFC 3339.
    pub clock: &'static str,
    pub events: Vec<Event>,
    /// Rows of the report, as text, in the order of the query.
    pub report: Vec<Vec<&'static str>>,
}

/// A scenario and the report it is judged by.
pub struct Scenario {
    pub name: &'static str,
    /// The ready model: streams, mappings and the projection.
    pub model: &'static str,
    pub projection: &'static str,
    pub columns: &'static str,
    pub order_by: &'static str,
    pub days: Vec<Day>,
}

fn day(clock: &'static str, events: Vec<Event>, report: Vec<Vec<&'static str>>) -> Day {
    Day { clock, events, report }
}

fn employee(fields: Value) -> Event {
    ("employees", fields)
}

fn desk(id: &str, room: &str, at: &str) -> Event {
    ("desks", json!({ "id": id, "room": room, "at": at }))
}

fn presence(id: &str, at: &str) -> Event {
    ("presence", json!({ "id": id, "employee": "e1", "site": "hq", "at": at }))
}

fn booking(id: &str, desk: &str, day: &str) -> Event {
    let starts_at = format!("{day}T09:00:00Z");
    let ends_at = format!("{day}T17:00:00Z");
    let event = json!({
        "id": id, "desk": desk, "employee": "e1", "starts_at": starts_at, "ends_at": ends_at,
    });
    ("bookings", event)
}

/// S1: presence uploaded on Friday is reported under the department of each day; a correction of
/// the move's date on Saturday corrects the day between.
pub fn late_presence() -> Scenario {
    let week = |tuesday: &'static str| {
        vec![
            vec!["p1", "2026-01-05", "e1", "Finance"],
            vec!["p2", "2026-01-06", "e1", tuesday],
            vec!["p3", "2026-01-07", "e1", "Accounting"],
            vec!["p4", "2026-01-08", "e1", "Accounting"],
            vec!["p5", "2026-01-09", "e1", "Accounting"],
        ]
    };
    let hired =
        json!({ "id": "e1", "name": "Ada", "department": "Finance", "at": "2026-01-01T00:00:00Z" });
    let moved = json!({ "id": "e1", "department": "Accounting", "at": "2026-01-07T08:00:00Z" });
    let corrected = json!({ "id": "e1", "department": "Accounting", "at": "2026-01-06T08:00:00Z" });
    let upload = [
        ("p1", "2026-01-05T10:00:00Z"),
        ("p2", "2026-01-06T10:00:00Z"),
        ("p3", "2026-01-07T10:00:00Z"),
        ("p4", "2026-01-08T10:00:00Z"),
        ("p5", "2026-01-09T10:00:00Z"),
    ];
    Scenario {
        name: "s1",
        model: include_str!("../../../models/workplace/s1.sql"),
        projection: "presence_report",
        columns: "id, day, employee, department",
        order_by: "id",
        days: vec![
            day("2026-01-05T18:00:00Z", vec![employee(hired)], vec![]),
            day("2026-01-06T18:00:00Z", vec![], vec![]),
            day("2026-01-07T18:00:00Z", vec![employee(moved)], vec![]),
            day("2026-01-08T18:00:00Z", vec![], vec![]),
            day(
                "2026-01-09T18:00:00Z",
                upload.iter().map(|(id, at)| presence(id, at)).collect(),
                week("Finance"),
            ),
            day("2026-01-10T18:00:00Z", vec![employee(corrected)], week("Accounting")),
        ],
    }
}

/// S2: a booking made ahead is reported in the room its desk is in when it starts.
pub fn future_booking() -> Scenario {
    let in_room = |room: &'static str| vec![vec!["b1", "2026-01-07", "e1", "d1", room]];
    Scenario {
        name: "s2",
        model: include_str!("../../../models/workplace/s2.sql"),
        projection: "booking_report",
        columns: "id, day, employee, desk, room",
        order_by: "id",
        days: vec![
            day("2026-01-04T18:00:00Z", vec![desk("d1", "Room A", "2026-01-01T00:00:00Z")], vec![]),
            day("2026-01-05T18:00:00Z", vec![booking("b1", "d1", "2026-01-07")], in_room("Room A")),
            day(
                "2026-01-06T18:00:00Z",
                vec![desk("d1", "Room B", "2026-01-06T12:00:00Z")],
                in_room("Room B"),
            ),
            day("2026-01-07T18:00:00Z", vec![], in_room("Room B")),
            day(
                "2026-01-08T18:00:00Z",
                vec![desk("d1", "Room C", "2026-01-08T12:00:00Z")],
                in_room("Room B"),
            ),
            day("2026-01-09T18:00:00Z", vec![], in_room("Room B")),
        ],
    }
}

/// S3: bookings are counted under the latest name only.
pub fn latest_name() -> Scenario {
    let counted = |name: &'static str| vec![vec![name, "5", "2026-01-05", "2026-01-09"]];
    let hired =
        json!({ "id": "e1", "name": "Ada", "department": "Finance", "at": "2026-01-01T00:00:00Z" });
    let renamed = json!({ "id": "e1", "name": "Ada Lovelace", "at": "2026-01-07T08:00:00Z" });
    let series = [
        ("b1", "2026-01-05"),
        ("b2", "2026-01-06"),
        ("b3", "2026-01-07"),
        ("b4", "2026-01-08"),
        ("b5", "2026-01-09"),
    ];
    Scenario {
        name: "s3",
        model: include_str!("../../../models/workplace/s3.sql"),
        projection: "name_report",
        columns: "name, bookings, first_day, last_day",
        order_by: "name",
        days: vec![
            day("2026-01-04T18:00:00Z", vec![employee(hired)], vec![]),
            day(
                "2026-01-05T18:00:00Z",
                series.iter().map(|(id, day)| booking(id, "d1", day)).collect(),
                counted("Ada"),
            ),
            day("2026-01-06T18:00:00Z", vec![], counted("Ada")),
            day("2026-01-07T18:00:00Z", vec![employee(renamed)], counted("Ada Lovelace")),
            day("2026-01-09T18:00:00Z", vec![], counted("Ada Lovelace")),
        ],
    }
}
