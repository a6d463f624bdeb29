//! One week at an office: the scenarios S1 to S3 as events, what the reports must say after each day,
//! and the questions an analyst asks at the end.

use serde_json::{Value, json};

/// The models of the three scenarios, as they stand in `models/workplace`.
pub const MODELS: [&str; 3] = [
    include_str!("../../../../models/workplace/s1.sql"),
    include_str!("../../../../models/workplace/s2.sql"),
    include_str!("../../../../models/workplace/s3.sql"),
];

/// The topics that the models read.
pub const TOPICS: [&str; 4] = ["employees", "presence", "desks", "bookings"];

/// The warehouse tables: name, columns shown, what the table is.
pub const REPORTS: [(&str, &str, &str); 3] = [
    ("booking_report", "id, day, employee, desk, room", "S2: the room in force at the start"),
    ("name_report", "name, bookings, first_day, last_day", "S3: counted under the latest name"),
    ("presence_report", "id, day, employee, site, department", "S1: the department of that day"),
];

/// The desk whose history is drawn.
pub const DRAWN_DESK: &str = "d1";
/// When the booking of that desk starts.
pub const BOOKING_STARTS: &str = "2026-01-07T09:00:00Z";
/// The first midnight of the week.
pub const WEEK_BEGINS: &str = "2026-01-05T00:00:00Z";

/// What arrives together.
pub struct Arrival {
    pub topic: &'static str,
    /// In words.
    pub says: &'static str,
    pub events: Vec<Value>,
}

/// Rows of a table as text.
pub type Rows = Vec<Vec<&'static str>>;

/// A day of the story.
pub struct Day {
    pub name: &'static str,
    /// When its events arrive.
    pub clock: &'static str,
    pub arrivals: Vec<Arrival>,
    /// The warehouse tables in the order of [`REPORTS`] once the day is over.
    pub expected: [Rows; 3],
    /// What to notice.
    pub lesson: &'static str,
}

/// A question with the rows that answer it.
pub struct Question {
    pub asks: &'static str,
    pub sql: &'static str,
    pub expected: Rows,
    /// The answer in words.
    pub means: &'static str,
}

/// The week.
pub fn days() -> Vec<Day> {
    vec![monday(), tuesday(), wednesday(), thursday(), friday()]
}

fn monday() -> Day {
    Day {
        name: "Monday 5 January",
        clock: "2026-01-05T09:30:00Z",
        arrivals: vec![
            Arrival {
                topic: "employees",
                says: "Ada Byron is in Finance and Bob Chen in Sales, both since New Year",
                events: vec![
                    json!({"id": "e1", "name": "Ada Byron", "department": "Finance",
                        "at": "2026-01-01T00:00:00Z"}),
                    json!({"id": "e2", "name": "Bob Chen", "department": "Sales",
                        "at": "2026-01-01T00:00:00Z"}),
                ],
            },
            Arrival {
                topic: "desks",
                says: "Desk d1 stands in Room A, desk d2 in the Attic",
                events: vec![
                    json!({"id": "d1", "room": "Room A", "at": "2026-01-01T00:00:00Z"}),
                    json!({"id": "d2", "room": "Attic", "at": "2026-01-01T00:00:00Z"}),
                ],
            },
            Arrival {
                topic: "bookings",
                says: "Bob books desk d1 for Wednesday",
                events: vec![booking("b1", "d1", "e2", "2026-01-07")],
            },
            Arrival {
                topic: "bookings",
                says: "Ada books desk d2 for the whole week, as a series",
                events: vec![
                    booking("a1", "d2", "e1", "2026-01-05"),
                    booking("a2", "d2", "e1", "2026-01-06"),
                    booking("a3", "d2", "e1", "2026-01-07"),
                    booking("a4", "d2", "e1", "2026-01-08"),
                    booking("a5", "d2", "e1", "2026-01-09"),
                ],
            },
        ],
        expected: [bookings("Room A"), names("Ada Byron"), vec![]],
        lesson: "Wednesday's booking is reported already, in the room that is planned for Wednesday.",
    }
}

fn tuesday() -> Day {
    Day {
        name: "Tuesday 6 January",
        clock: "2026-01-06T11:30:00Z",
        arrivals: vec![Arrival {
            topic: "desks",
            says: "Desk d1 has moved to Room B, half an hour ago",
            events: vec![json!({"id": "d1", "room": "Room B", "at": "2026-01-06T11:00:00Z"})],
        }],
        expected: [bookings("Room B"), names("Ada Byron"), vec![]],
        lesson: "The booking has not begun, yet its row is corrected: just that one row was written.",
    }
}

fn wednesday() -> Day {
    Day {
        name: "Wednesday 7 January",
        clock: "2026-01-07T10:00:00Z",
        arrivals: vec![
            Arrival {
                topic: "employees",
                says: "Ada has moved to Accounting this morning",
                events: vec![json!({"id": "e1", "department": "Accounting",
                    "at": "2026-01-07T08:00:00Z"})],
            },
            Arrival {
                topic: "employees",
                says: "Ada has married: she is called Ada King from now on",
                events: vec![json!({"id": "e1", "name": "Ada King",
                    "at": "2026-01-07T10:00:00Z"})],
            },
        ],
        expected: [bookings("Room B"), names("Ada King"), vec![]],
        lesson: "All her bookings, earlier ones too, are counted under the new name only.",
    }
}

fn thursday() -> Day {
    Day {
        name: "Thursday 8 January",
        clock: "2026-01-08T15:30:00Z",
        arrivals: vec![Arrival {
            topic: "desks",
            says: "Desk d1 has moved on to Room C",
            events: vec![json!({"id": "d1", "room": "Room C", "at": "2026-01-08T15:00:00Z"})],
        }],
        expected: [bookings("Room B"), names("Ada King"), vec![]],
        lesson: "Wednesday's booking took place in Room B: its row is left alone, not even rewritten.",
    }
}

fn friday() -> Day {
    Day {
        name: "Friday 9 January",
        clock: "2026-01-09T17:00:00Z",
        arrivals: vec![
            Arrival {
                topic: "presence",
                says: "The facility manager uploads Ada's presence of the week, Monday to Friday",
                events: vec![
                    presence("p1", "2026-01-05T09:12:00Z"),
                    presence("p2", "2026-01-06T08:55:00Z"),
                    presence("p3", "2026-01-07T09:03:00Z"),
                    presence("p4", "2026-01-08T09:20:00Z"),
                    presence("p5", "2026-01-09T08:47:00Z"),
                ],
            },
            Arrival {
                topic: "desks",
                says: "Late news: from Wednesday 14:00 until it went to Room C, d1 was in Room D",
                events: vec![json!({"id": "d1", "room": "Room D", "at": "2026-01-07T14:00:00Z"})],
            },
        ],
        expected: [
            bookings("Room B"),
            names("Ada King"),
            vec![
                vec!["p1", "2026-01-05", "e1", "HQ", "Finance"],
                vec!["p2", "2026-01-06", "e1", "HQ", "Finance"],
                vec!["p3", "2026-01-07", "e1", "HQ", "Accounting"],
                vec!["p4", "2026-01-08", "e1", "HQ", "Accounting"],
                vec!["p5", "2026-01-09", "e1", "HQ", "Accounting"],
            ],
        ],
        lesson: "Days late, each event still finds the department that Ada was in when it happened.",
    }
}

/// What an analyst asks on Friday evening.
pub fn questions() -> Vec<Question> {
    vec![
        Question {
            asks: "Which department was Ada in on Tuesday, and under which name?",
            sql: "SELECT name, department
FROM employees FOR VALID_TIME AS OF TIMESTAMP '2026-01-06T12:00:00Z'
WHERE _id = 'e1'",
            expected: vec![vec!["Ada Byron", "Finance"]],
            means: "Valid time: the state of the world on Tuesday, as we know it now.",
        },
        Question {
            asks: "On Monday evening, in which room did we expect Bob's booking to be?",
            sql: "SELECT b._id AS booking, d.room
FROM bookings FOR ALL VALID_TIME FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-05T18:00:00Z' AS b
JOIN desks FOR VALID_TIME AS OF b._valid_from
           FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-05T18:00:00Z' AS d ON d._id = b.desk
WHERE b._id = 'b1'",
            expected: vec![vec!["b1", "Room A"]],
            means: "The report as it stood on Monday: an as-of join, itself asked as of Monday.",
        },
        Question {
            asks: "What did we believe on Wednesday about Tuesday: was anybody in?",
            sql: "SELECT COUNT(*) AS people
FROM presence FOR VALID_TIME FROM TIMESTAMP '2026-01-06T00:00:00Z'
                             TO TIMESTAMP '2026-01-07T00:00:00Z'
              FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-07T18:00:00Z'",
            expected: vec![vec!["0"]],
            means: "Nobody, as far as we knew: the upload came on Friday.",
        },
        Question {
            asks: "And what do we believe today about Tuesday?",
            sql: "SELECT COUNT(*) AS people
FROM presence FOR VALID_TIME FROM TIMESTAMP '2026-01-06T00:00:00Z'
                             TO TIMESTAMP '2026-01-07T00:00:00Z'",
            expected: vec![vec!["1"]],
            means: "Ada was. Both answers stay available for good.",
        },
        Question {
            asks: "Where did we think desk d1 was on Wednesday at 16:00, and when did we learn better?",
            sql: "SELECT room, _system_from AS believed_from, _system_to AS believed_until
FROM desks FOR VALID_TIME AS OF TIMESTAMP '2026-01-07T16:00:00Z' FOR ALL SYSTEM_TIME
WHERE _id = 'd1'
ORDER BY _system_from",
            expected: vec![
                vec!["Room A", "Mon 09:30", "Tue 11:30"],
                vec!["Room B", "Tue 11:30", "Fri 17:00"],
                vec!["Room D", "Fri 17:00", ""],
            ],
            means: "System time: every belief is kept, with the period in which it was held.",
        },
    ]
}

/// The rooms of the drawn desk over the week as believed at the end of each day, in valid order.
pub fn beliefs() -> [Vec<&'static str>; 5] {
    [
        vec!["Room A"],
        vec!["Room A", "Room B"],
        vec!["Room A", "Room B"],
        vec!["Room A", "Room B", "Room C"],
        vec!["Room A", "Room B", "Room D", "Room C"],
    ]
}

fn booking(id: &str, desk: &str, employee: &str, day: &str) -> Value {
    json!({"id": id, "desk": desk, "employee": employee,
        "starts_at": format!("{day}T09:00:00Z"), "ends_at": format!("{day}T17:00:00Z")})
}

fn presence(id: &str, at: &str) -> Value {
    json!({"id": id, "employee": "e1", "site": "HQ", "at": at})
}

fn bookings(room_of_b1: &'static str) -> Rows {
    vec![
        vec!["a1", "2026-01-05", "e1", "d2", "Attic"],
        vec!["a2", "2026-01-06", "e1", "d2", "Attic"],
        vec!["a3", "2026-01-07", "e1", "d2", "Attic"],
        vec!["a4", "2026-01-08", "e1", "d2", "Attic"],
        vec!["a5", "2026-01-09", "e1", "d2", "Attic"],
        vec!["b1", "2026-01-07", "e2", "d1", room_of_b1],
    ]
}

fn names(ada: &'static str) -> Rows {
    vec![
        vec![ada, "5", "2026-01-05", "2026-01-09"],
        vec!["Bob Chen", "1", "2026-01-07", "2026-01-07"],
    ]
}
