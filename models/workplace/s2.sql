-- S2, future booking: a booking is reported in the room its desk is in when the booking starts, also
-- long before it starts.
--
-- ${brokers} and ${prefix} (before each topic) are to be replaced, for instance with envsubst.

CREATE STREAM IF NOT EXISTS desks
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}desks')
FORMAT JSON (id TEXT, room TEXT, at TIMESTAMPTZ);

CREATE OR REPLACE MAPPING desk_moved ON desks AS PUT INTO desks
SELECT id AS _id, room, at AS _valid_from;

CREATE STREAM IF NOT EXISTS bookings
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}bookings')
FORMAT JSON (id TEXT, desk TEXT, employee TEXT, starts_at TIMESTAMPTZ, ends_at TIMESTAMPTZ);

CREATE OR REPLACE MAPPING desk_booked ON bookings AS PUT INTO bookings
SELECT id AS _id, desk, employee, starts_at AS _valid_from, ends_at AS _valid_to;

CREATE PROJECTION booking_report KEY (id) INTO warehouse.booking_report AS
SELECT b._id AS id, CAST(b._valid_from AS DATE) AS day, b.employee, b.desk, d.room
FROM bookings FOR ALL VALID_TIME AS b
JOIN desks FOR VALID_TIME AS OF b._valid_from AS d ON d._id = b.desk;
