-- S3, latest name: bookings are counted under the name the employee has now, earlier ones too; some
-- attributes follow the entity, not the moment.
--
-- ${brokers} and ${prefix} (before each topic) are to be replaced, for instance with envsubst.

CREATE STREAM IF NOT EXISTS employees
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}employees')
FORMAT JSON (id TEXT, name TEXT, department TEXT, at TIMESTAMPTZ);

CREATE OR REPLACE MAPPING employee_changed ON employees AS PATCH INTO employees
SELECT id AS _id, name, department, at AS _valid_from;

CREATE STREAM IF NOT EXISTS bookings
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}bookings')
FORMAT JSON (id TEXT, desk TEXT, employee TEXT, starts_at TIMESTAMPTZ, ends_at TIMESTAMPTZ);

CREATE OR REPLACE MAPPING desk_booked ON bookings AS PUT INTO bookings
SELECT id AS _id, desk, employee, starts_at AS _valid_from, ends_at AS _valid_to;

CREATE PROJECTION name_report KEY (name) INTO warehouse.name_report AS
SELECT e.name, COUNT(*) AS bookings,
       MIN(CAST(b._valid_from AS DATE)) AS first_day, MAX(CAST(b._valid_from AS DATE)) AS last_day
FROM bookings FOR ALL VALID_TIME AS b
JOIN employees AS e ON e._id = b.employee
GROUP BY e.name;
