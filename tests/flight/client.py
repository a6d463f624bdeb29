"""Reads and writes a server through the ADBC driver for Flight SQL, as its users do.

usage: client.py GRPC_URI

The server's test clock stands at 2026-01-10T00:00:00Z. Each part prints one line; the first that
does not hold ends the script.
"""

import datetime as dt
import sys
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi as flight
import adbc_driver_manager
import polars as pl
import pyarrow as pa

URI = sys.argv[1].replace("http://", "grpc://")
HEADER = adbc_driver_flightsql.DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
UTC = dt.timezone.utc


def connect(**headers):
    options = {f"{HEADER}x-everwhen-{name.replace('_', '-')}": at for name, at in headers.items()}
    return flight.connect(URI, db_kwargs=options, autocommit=True)


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: got {got!r}, expected {expected!r}")


def writes(cursor):
    cursor.execute("CREATE TABLE staff (_id TEXT PRIMARY KEY, name TEXT, age BIGINT, since DATE)")
    cursor.execute("INSERT INTO staff (_id, name, age) VALUES ('e1', 'Ada', 36)")
    cursor.execute(
        "INSERT INTO staff (_id, name, age, since) VALUES ($1, $2, $3, $4)",
        ("e2", "Grace", 40, dt.date(2025, 6, 1)),
    )
    cursor.executemany(
        "INSERT INTO staff (_id, name, age, _valid_from) VALUES ($1, $2, $3, $4)",
        [(f"e{n}", f"name {n}", n, dt.datetime(2026, 1, 1, tzinfo=UTC)) for n in range(3, 13)],
    )
    check("rows of many runs", cursor.rowcount, 10)
    cursor.execute("SELECT count(DISTINCT _tx) FROM staff WHERE age BETWEEN 3 AND 12")
    check("one transaction", cursor.fetchone(), (1,))
    cursor.execute("UPDATE staff SET age = age + 1 WHERE _id = $1", ("e1",))
    cursor.execute("UPDATE staff SET since = NULL WHERE _id = $1 RETURNING name", ("e1",))
    check("returning", cursor.fetchall(), [("Ada",)])


def prepared(cursor):
    taken = cursor.adbc_prepare("SELECT name FROM staff WHERE age = $1 AND name <> $2")
    check("parameters", taken.types, [pa.int64(), pa.string()])
    for (age, name) in ((40, "Grace"), (5, "name 5")):
        cursor.execute("SELECT name FROM staff WHERE age = $1 AND name <> $2", (age, "x"))
        check("a prepared query", cursor.fetchone(), (name,))
    schema = cursor.adbc_execute_schema("SELECT age, since FROM staff")
    check("a schema without running", schema.types, [pa.int64(), pa.date32()])
    values = (None, 1.5, b"\x00\xff", dt.date(2026, 1, 2), True, dt.datetime(2026, 1, 2, tzinfo=UTC))
    cursor.execute("SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d, $5 AS e, $6 AS f", values)
    check("typed parameters", cursor.fetchone(), values)


def reads(cursor):
    cursor.execute("SELECT _id, name, age, since FROM staff WHERE _id <= 'e2' ORDER BY _id")
    rows = cursor.fetchall()
    check("rows", rows[0][0], "e1")
    cursor.execute("SELECT _id, age, since FROM staff WHERE name = $1", ("Grace",))
    check("a row by parameter", cursor.fetchall(), [("e2", 40, dt.date(2025, 6, 1))])
    cursor.execute("SELECT count(*) AS n, sum(age) AS total FROM staff")
    check("Arrow", cursor.fetch_arrow_table().to_pylist(), [{"n": 12, "total": 37 + 40 + 75}])
    frame = pl.read_database("SELECT _id, age FROM staff ORDER BY age, _id", cursor)
    check("polars", frame["age"].to_list()[:3], [3, 4, 5])
    check("polars' types", frame.schema["age"], pl.Int64)


def large_answers(cursor):
    cursor.execute("SELECT n, 'text ' || n AS t FROM (SELECT unnest(range(0, 300000)) AS n)")
    table = cursor.fetch_arrow_table()
    check("many rows", (table.num_rows, table["n"][-1].as_py() >= 0), (300000, True))


def as_of():
    with connect(valid_time="2026-01-05T00:00:00Z") as past, past.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM staff")
        check("as of a valid time", cursor.fetchone(), (10,))
    with connect(system_time="2025-01-01T00:00:00Z") as past, past.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM staff FOR ALL VALID_TIME")
        check("as of a system time", cursor.fetchone(), (0,))


def basis(cursor):
    cursor.execute("INSERT INTO staff (_id, name) VALUES ('late', 'Late')")
    (tx, at, token) = cursor.fetchone()
    check("a write's place", (tx > 0, at.year), (True, 2026))
    cursor.execute("DELETE FROM staff WHERE _id = 'late'")
    with connect(basis=token) as past, past.cursor() as reading:
        reading.execute("SELECT name FROM staff WHERE _id = 'late'")
        check("at a basis", reading.fetchall(), [("Late",)])


def tenants():
    with connect(tenant="acme") as acme, acme.cursor() as cursor:
        cursor.execute("INSERT INTO staff (_id, name) VALUES ('a1', 'Own')")
        cursor.execute("SELECT _id FROM staff")
        check("a tenant's rows", cursor.fetchall(), [("a1",)])
        objects = acme.adbc_get_objects(depth="catalogs").read_all().to_pylist()
        check("a tenant's catalog", [one["catalog_name"] for one in objects], ["acme"])


def bulk(connection, cursor):
    n = 25_000
    start = dt.datetime(2026, 1, 1, tzinfo=UTC)
    rows = pa.table({
        "_id": pa.array([f"r{i}" for i in range(n)]),
        "value": pa.array(range(n), pa.int32()),
        "ratio": pa.array([i / 7 for i in range(n)]),
        "tags": pa.array([["a", str(i)] for i in range(n)]),
        "_valid_from": pa.array([start] * n, pa.timestamp("us", tz="UTC")),
    })
    check("rows made", cursor.adbc_ingest("readings", rows, mode="create"), n)
    check("rows added", cursor.adbc_ingest("readings", rows.slice(0, 5), mode="append"), 5)
    cursor.execute("SELECT count(*), max(value), min(_valid_from) FROM readings")
    check("what is in", cursor.fetchone(), (n, n - 1, start))
    more = pl.DataFrame({"_id": ["p1"], "value": [1], "ratio": [0.5], "tags": [["x"]]})
    more.write_database("readings", connection, if_table_exists="append", engine="adbc")
    cursor.execute("SELECT tags FROM readings WHERE _id = 'p1'")
    check("a frame's row", cursor.fetchone(), (["x"],))
    refused("replace", "0A000", lambda: cursor.adbc_ingest("readings", rows, mode="replace"))
    refused("create again", "42P07", lambda: cursor.adbc_ingest("readings", rows, mode="create"))
    refused("append to none", "42P01", lambda: cursor.adbc_ingest("nowhere", rows, mode="append"))
    keyless = rows.drop_columns(["_id"])
    refused("no key", "42P16", lambda: cursor.adbc_ingest("keyless", keyless, mode="create"))


def catalog(connection):
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    check("catalogs", [one["catalog_name"] for one in objects], ["default"])
    schemas = {one["db_schema_name"]: one for one in objects[0]["catalog_db_schemas"]}
    check("schemas", sorted(schemas), ["everwhen", "public"])
    tables = {one["table_name"]: one for one in schemas["public"]["db_schema_tables"]}
    columns = [one["column_name"] for one in tables["staff"]["table_columns"]]
    check("columns", columns, ["_id", "name", "age", "since"])
    schema = connection.adbc_get_table_schema("staff")
    check("a table's schema", schema.field("age").type, pa.int64())
    types = connection.adbc_get_table_types()
    check("table types", sorted(types), ["SYSTEM TABLE", "TABLE"])
    info = connection.adbc_get_info()
    check("the server", info["vendor_name"], "Everwhen")


def refused(what, state, call):
    try:
        call()
    except adbc_driver_manager.Error as error:
        details = dict(error.details or [])
        check(what, details.get(b"sqlstate", b"").decode(), state)
    else:
        sys.exit(f"{what}: was not refused")


def errors(cursor):
    refused("an unknown table", "42P01", lambda: cursor.execute("SELECT * FROM nowhere"))
    refused("wrong syntax", "42601", lambda: cursor.execute("SELEC 1"))
    refused("a missing parameter", "42P02", lambda: cursor.execute("SELECT $1"))


def cancelling(connection):
    forever = "SELECT count(*) FROM (SELECT unnest(range(0, 200000)) AS a) x, " \
        "(SELECT unnest(range(0, 200000)) AS b) y WHERE a * b = -1"
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(forever)
        stream, _ = cursor.adbc_statement.execute_query()
        with connection.cursor() as other:
            other.execute("SELECT count(*) FROM everwhen.queries WHERE sql LIKE '%-1'")
            check("it is listed", other.fetchone()[0] >= 1, True)
        began = time.monotonic()
        stream.release() if hasattr(stream, "release") else None
    with connection.cursor() as other:
        while True:
            other.execute("SELECT count(*) FROM everwhen.queries WHERE sql LIKE '%a * b = -1'")
            if other.fetchone()[0] == 0:
                break
            if time.monotonic() - began > 20:
                sys.exit("a query went on after its reader had gone")
            time.sleep(0.05)


def main():
    with connect() as connection, connection.cursor() as cursor:
        parts = [
            ("writes", lambda: writes(cursor)),
            ("prepared", lambda: prepared(cursor)),
            ("reads", lambda: reads(cursor)),
            ("large answers", lambda: large_answers(cursor)),
            ("as of", as_of),
            ("basis", lambda: basis(cursor)),
            ("tenants", tenants),
            ("bulk", lambda: bulk(connection, cursor)),
            ("catalog", lambda: catalog(connection)),
            ("errors", lambda: errors(cursor)),
            ("cancelling", lambda: cancelling(connection)),
        ]
        for name, part in parts:
            began = time.monotonic()
            part()
            print(f"{name}: {time.monotonic() - began:.2f} s", flush=True)


main()
