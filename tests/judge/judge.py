"""Holds what a suite has written in DuckDB and compares a SQLite sink with a query over it.

One JSON request a line, one JSON answer a line; every column is compared as text.

{"run": sql}                                        {"rows": [[..], ..]}
{"compare": expected, "sqlite": path, "select": s}  {"expected": n, "found": n, "missing": [..],
                                                     "surplus": [..], "differences": n}
"""

import json
import sqlite3
import sys

import duckdb
import pyarrow

ROWS = 100_000
EXAMPLES = 5


def text(value):
    return None if value is None else str(value)


def read_sink(database, path, select):
    """Copies the rows of a SQLite query into the table "found"."""
    sink = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    cursor = sink.execute(select)
    names = [f"c{at}" for at in range(len(cursor.description))]
    columns = ", ".join(f"{name} VARCHAR" for name in names)
    database.execute(f"CREATE OR REPLACE TABLE found ({columns})")
    while rows := cursor.fetchmany(ROWS):
        arrays = [pyarrow.array([text(row[at]) for row in rows], pyarrow.string()) for at in range(len(names))]
        part = pyarrow.table(arrays, names=names)
        database.register("part", part)
        database.execute("INSERT INTO found SELECT * FROM part")
        database.unregister("part")
    sink.close()


def compare(database, expected, path, select):
    read_sink(database, path, select)
    database.execute(f"CREATE OR REPLACE TABLE expected AS SELECT COLUMNS(*)::VARCHAR FROM ({expected})")
    answer = {"differences": 0}
    for name, one, other in [("missing", "expected", "found"), ("surplus", "found", "expected")]:
        database.execute(
            f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}"
        )
        answer["differences"] += database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
        answer[name] = database.execute(f"SELECT * FROM {name} ORDER BY ALL LIMIT {EXAMPLES}").fetchall()
    for name in ["expected", "found"]:
        answer[name] = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
    return answer


def main():
    database = duckdb.connect(":memory:", config={"threads": 2})
    database.execute("SET TimeZone = 'UTC'")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "run" in request:
                answer = {"rows": database.execute(request["run"]).fetchall()}
            else:
                answer = compare(database, request["compare"], request["sqlite"], request["select"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


main()
