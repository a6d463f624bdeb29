-- S1, late presence: a presence event is reported under the department the employee was in when it
-- happened, however late the event or the news of a move arrives.
--
-- ${brokers} and ${prefix} (before each topic) are to be replaced, for instance with envsubst.

CREATE STREAM IF NOT EXISTS employees
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}employees')
FORMAT JSON (id TEXT, name TEXT, department TEXT, at TIMESTAMPTZ);

-- An event carries what changed; what it does not mention stays as it was.
CREATE OR REPLACE MAPPING employee_changed ON employees AS PATCH INTO employees
SELECT id AS _id, name, department, at AS _valid_from;

CREATE STREAM IF NOT EXISTS presence
FROM KAFKA (brokers = '${brokers}', topic = '${prefix}presence')
FORMAT JSON (id TEXT, employee TEXT, site TEXT, at TIMESTAMPTZ);

CREATE OR REPLACE MAPPING presence_seen ON presence AS PUT INTO presence
SELECT id AS _id, employee, site, at AS _valid_from, at + INTERVAL '1 hour' AS _valid_to;

CREATE PROJECTION presence_report KEY (id) INTO warehouse.presence_report AS
SELECT p._id AS id, CAST(p._valid_from AS DATE) AS day, p.employee, p.site, e.department
FROM presence FOR ALL VALID_TIME AS p
LEFT JOIN employees FOR VALID_TIME AS OF p._valid_from AS e ON e._id = p.employee;
