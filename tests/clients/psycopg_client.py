"""psycopg 3 as people use it: every type both ways, as of, transactions, COPY, errors."""

import datetime as dt
import decimal
import os
import threading
import uuid

import psycopg
from psycopg.types.json import Json

UTC = dt.timezone.utc
WHERE = f"host=127.0.0.1 port={os.environ['PGPORT']} user=ada dbname=psycopg"


def refused(sqlstate, work):
    try:
        work()
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, (error.sqlstate, sqlstate, str(error))
        return error
    raise AssertionError(f"not refused with {sqlstate}")


with psycopg.connect(WHERE, autocommit=True) as c:
    refused("3D000", lambda: c.execute("SELECT * FROM everwhen.tables"))
    c.execute(
        "CREATE TABLE pets (_id TEXT PRIMARY KEY, n INT, f FLOAT, d DECIMAL, at TIMESTAMPTZ, "
        "day DATE, t TIME, y BYTES, j JSON, tags TEXT[], b BOOL)"
    )
    at = dt.datetime(2026, 1, 5, 10, 30, 0, 123456, tzinfo=UTC)
    values = (2**60 + 1, 1.5, decimal.Decimal("12.345"), at, at.date(), dt.time(10, 30, 1))
    for key, binary in (("text", False), ("binary", True)):
        row = (key, *values, b"\x01\xff", Json({"a": [1, None]}), ["x", "y z", None], True)
        marks = ", ".join(["%s"] * len(row))
        assert c.execute(f"INSERT INTO pets VALUES ({marks})", row, binary=binary).rowcount == 1
        got = c.execute("SELECT * FROM pets WHERE _id = %s", (key,), binary=binary).fetchone()
        assert got == (*row[:8], {"a": [1, None]}, *row[9:]), got
        nulls = (f"no {key}", *[None] * 10)
        c.execute(f"INSERT INTO pets VALUES ({marks})", nulls, binary=binary)
        assert c.execute("SELECT * FROM pets WHERE _id = %s", nulls[:1], binary=binary).fetchone() == nulls

    # As of an instant, and the period of a row as a range.
    year = lambda y: dt.datetime(y, 1, 1, tzinfo=UTC)
    change = "UPDATE pets FOR PORTION OF VALID_TIME FROM %s SET n = %s WHERE _id = %s"
    assert c.execute(change, (year(2130), 7, "text")).rowcount == 1
    then = "SELECT n, _valid_time FROM pets FOR VALID_TIME AS OF %s WHERE _id = %s"
    for binary in (False, True):
        n, period = c.execute(then, (year(2131), "text"), binary=binary).fetchone()
        assert (n, period.lower, period.upper) == (7, year(2130), None), period
    assert c.execute(then, (year(2020), "text")).fetchone() is None
    assert c.execute("SELECT count(*) FROM pets WHERE _id = ANY(%s)", (["text", "x"],)).fetchone() == (1,)

    # Errors, with their place.
    error = refused("42703", lambda: c.execute("SELECT nope FROM pets"))
    assert error.diag.statement_position == "8", error.diag.statement_position
    refused("22P02", lambda: c.execute("SELECT * FROM pets WHERE at > %s", ("rubbish",)))
    refused("42601", lambda: c.execute("SELEC 1"))

    # COPY both ways, rows that stream, pipelines.
    with c.cursor() as cursor:
        with cursor.copy("COPY pets (_id, n) FROM STDIN") as copy:
            for n in range(1000):
                copy.write_row((f"copied {n}", n))
        with cursor.copy("COPY (SELECT n FROM pets WHERE _id LIKE 'copied%' ORDER BY n) TO STDOUT") as copy:
            assert [int(row[0]) for row in copy.rows()] == list(range(1000))
    with c.pipeline():
        one, two = c.execute("SELECT 1"), c.execute("SELECT %s", ("two",))
    assert (one.fetchone(), two.fetchone()) == ((1,), ("two",))
    series = "SELECT value FROM generate_series(1, 100000) ORDER BY value"
    assert sum(1 for _ in c.cursor().stream(series)) == 100_000

    # Another thread cancels; the connection goes on.
    threading.Timer(0.3, c.cancel).start()
    refused("57014", lambda: c.execute("SELECT count(*) FROM generate_series(1, 100000000000)"))
    c.execute("SET statement_timeout = '100ms'")
    refused("57014", lambda: c.execute("SELECT count(*) FROM generate_series(1, 100000000000)"))
    c.execute("RESET ALL")
    assert c.execute("SELECT 1").fetchone() == (1,)

    # Settings: the session reads as of an instant.
    c.execute("SET valid_time = '2131-01-01'")
    assert c.execute("SELECT n FROM pets WHERE _id = 'text'").fetchone() == (7,)
    c.execute("RESET valid_time")

with psycopg.connect(WHERE) as c:
    insert = "INSERT INTO pets (_id, n) VALUES (%s, %s)"
    count = "SELECT count(*) FROM pets WHERE _id = 'tx'"
    c.execute(insert, ("tx", 1))
    c.rollback()
    assert c.execute(count).fetchone() == (0,)
    refused("25006", lambda: c.execute("DELETE FROM pets"))
    refused("25P02", lambda: c.execute("SELECT 1"))
    c.rollback()
    with c.transaction():
        c.execute(insert, ("tx", 1))
        with c.transaction():
            c.execute("UPDATE pets SET n = n + 1 WHERE _id = %s", ("tx",))
        try:
            with c.transaction():
                c.execute("DELETE FROM pets")
                raise psycopg.Rollback()
        except psycopg.Rollback:
            pass
    assert c.execute("SELECT n FROM pets WHERE _id = 'tx'").fetchone() == (2,)
    # A transaction that reads keeps its basis.
    with psycopg.connect(WHERE, autocommit=True) as other:
        other.execute(insert, ("later", 1))
    assert c.execute("SELECT count(*) FROM pets WHERE _id = 'later'").fetchone() == (0,)
    c.commit()
    assert c.execute("SELECT count(*) FROM pets WHERE _id = 'later'").fetchone() == (1,)
    token = c.execute("SHOW SNAPSHOT_TOKEN").fetchone()[0]
    c.commit()
    c.execute(insert, ("after", 1))
    refused("0A000", lambda: c.execute("SELECT * FROM pets"))
    c.rollback()
    c.autocommit = True
    c.execute("DELETE FROM pets WHERE _id = 'later'")
    c.execute(f"BEGIN READ ONLY WITH (SNAPSHOT_TOKEN = '{token}')")
    assert c.execute("SELECT count(*) FROM pets WHERE _id = 'later'").fetchone() == (1,)
    refused("25006", lambda: c.execute("DELETE FROM pets"))
    c.execute("ROLLBACK")

# UUIDs both ways, whatever they are spelled like.
with psycopg.connect(WHERE, autocommit=True) as c:
    c.execute("CREATE TABLE orders (_id UUID PRIMARY KEY, buyer UUID, n INT)")
    one, two = uuid.uuid4(), uuid.uuid4()
    for key, binary in ((one, False), (two, True)):
        c.execute("INSERT INTO orders VALUES (%s, %s, %s)", (key, one, 1), binary=binary)
        got = c.execute("SELECT * FROM orders WHERE _id = %s", (key,), binary=binary).fetchone()
        assert got == (key, one, 1), got
    assert c.execute(f"SELECT _id FROM orders WHERE _id = '{str(two).upper()}'").fetchone() == (two,)
    assert c.execute("SELECT count(*) FROM orders WHERE _id = ANY(%s)", ([one, two],)).fetchone() == (2,)
    refused("22P02", lambda: c.execute("SELECT 1 FROM orders WHERE _id = 'rubbish'"))

# A temporary view is seen by its session alone, and is gone with what it was told to discard.
with psycopg.connect(WHERE, autocommit=True) as c, psycopg.connect(WHERE, autocommit=True) as other:
    assert c.execute("CREATE TEMP VIEW mine AS SELECT _id, n FROM pets WHERE n = 2 AND _id LIKE 'tx%'").statusmessage == "CREATE VIEW"
    seen = "SELECT n FROM mine WHERE _id = %s"
    for binary in (False, True):
        assert c.execute(seen, ("tx",), binary=binary, prepare=True).fetchone() == (2,)
    refused("42P01", lambda: other.execute(seen, ("tx",)))
    with c.transaction():
        assert c.execute("SELECT count(*) FROM mine").fetchone() == (1,)
    c.execute("INSERT INTO pets (_id, n) SELECT _id || '2', n FROM mine")
    assert c.execute("SELECT count(*) FROM mine").fetchone() == (2,)
    assert c.execute("DISCARD TEMP").statusmessage == "DISCARD TEMP"
    refused("42P01", lambda: c.execute("SELECT * FROM mine"))

print("psycopg ok")
