"""Answers queries over flattened histories: one JSON request a line, one JSON answer a line.

{"load": {"name": [[..], ..]}} makes the tables anew; {"sql": ".."} answers {"rows": [[..], ..]}.
Instants are microseconds since the Unix epoch, an open end is null.
"""

import json
import sys

import duckdb

COLUMNS = (
    "id VARCHAR, g VARCHAR, v BIGINT, due BIGINT, "
    "vf BIGINT, vt BIGINT, sf BIGINT, st BIGINT, tx BIGINT"
)


def main():
    database = duckdb.connect(":memory:", config={"threads": 1})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "load" in request:
                for name, rows in request["load"].items():
                    database.execute(f"CREATE OR REPLACE TABLE {name} ({COLUMNS})")
                    if rows:
                        places = ", ".join(["(" + ", ".join("?" * 9) + ")"] * len(rows))
                        values = [value for row in rows for value in row]
                        database.execute(f"INSERT INTO {name} VALUES {places}", values)
                answer = {"rows": []}
            else:
                answer = {"rows": database.execute(request["sql"]).fetchall()}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


main()
