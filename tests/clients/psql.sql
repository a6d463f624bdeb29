-- What psql shows of a server: run by tests/tests/all/clients.rs, beside psql.out.
\set VERBOSITY verbose
\pset footer off
CREATE TABLE desks (_id TEXT PRIMARY KEY, room TEXT NOT NULL, height INT, price DECIMAL, tags TEXT[], doc JSON, at TIMESTAMPTZ, day DATE, ratio FLOAT, free BOOL, raw BYTES, clock TIME);
INSERT INTO desks (_id, room, height, price, tags, doc, at, day, ratio, free, raw, clock, _valid_from) VALUES ('d1', 'A', 72, 12.5, ARRAY['x', 'y z'], '{"a": 1}', '2026-01-05T10:30:00.25Z', DATE '2026-01-05', 1.5, true, X'01ff', TIME '10:30', '2026-01-01');
INSERT INTO desks (_id, room, _valid_from) VALUES ('d2', 'B', '2026-01-02'), ('d3', 'B', '2026-01-03');
\x on
SELECT *, _valid_time FROM desks WHERE _id = 'd1';
\x off
UPDATE desks FOR PORTION OF VALID_TIME FROM '2026-01-05' TO '2026-01-07' SET height = 80 WHERE _id = 'd2';
SELECT _id, height, _valid_time FROM desks FOR ALL VALID_TIME ORDER BY _id, _valid_from;
SELECT _id, room FROM desks FOR VALID_TIME AS OF '2026-01-02T12:00:00Z' ORDER BY _id;
INSERT INTO desks (_id, room, _valid_from) VALUES ('d9', 'B', '2026-01-09') RETURNING _id, room, _valid_to;
DELETE FROM desks WHERE _id = 'd9';
-- Errors have their SQLSTATE and place.
SELECT nope FROM desks;
SELECT * FROM nothing;
INSERT INTO desks (_id) VALUES ('d4');
SELEC 1;
-- Transactions.
BEGIN;
INSERT INTO desks (_id, room) VALUES ('d4', 'C'), ('d5', 'C');
SAVEPOINT here;
DELETE FROM desks;
ROLLBACK TO here;
UPDATE desks SET height = 90 WHERE _id = 'd4';
COMMIT;
SELECT _id, height FROM desks ORDER BY _id;
BEGIN;
INSERT INTO desks (_id, room) VALUES ('d6', 'C');
SELECT _id FROM desks;
SELECT 1 AS one;
ROLLBACK;
BEGIN READ ONLY;
SELECT count(*) AS n FROM desks;
DELETE FROM desks;
COMMIT;
COMMIT;
-- Several writes in one text are one transaction.
INSERT INTO desks (_id, room) VALUES ('s1', 'S')\; INSERT INTO desks (_id) VALUES ('s2');
SELECT count(*) AS n FROM desks WHERE room = 'S';
-- COPY.
COPY desks (_id, room, height) FROM STDIN;
c1	X	5
c2	Y\tZ	\N
\.
COPY desks (_id, height) FROM STDIN;
c3	many
\.
\copy (SELECT _id, room, height FROM desks WHERE _id LIKE 'c%' ORDER BY _id) TO STDOUT (FORMAT csv, HEADER)
-- Settings and catalogs.
SET timezone = 'Europe/Berlin';
SHOW timezone;
SET valid_time = '2026-01-01T12:00:00Z';
SELECT _id FROM desks ORDER BY _id;
RESET valid_time;
\dt public.*
\d desks
\dn
SELECT current_database(), current_user AS who;
