"""A question over a bitemporal table in DuckDB, with period predicates on its native table.

    slices.py KEYS VERSIONS SQL

Prints {"millis": median of the runs, "rows": [..]}. The rows are those of ../bitemporal.rs.
"""

import json
import statistics
import sys
import time

import duckdb

RUNS = 5

ROWS = """CREATE TABLE readings AS
SELECT printf('key-%08d', id) AS id, 'site ' || (id % 97) AS site, id * 10 + version AS n,
  'note ' || version || ' of ' || id || ', forty characters or so' AS note,
  TIMESTAMP '2025-01-01' + INTERVAL 1 DAY * version AS valid_from,
  CASE WHEN corrected THEN TIMESTAMP '2025-01-01' + INTERVAL 1 DAY * (version + 1) END AS valid_to,
  TIMESTAMP '2025-02-01' + INTERVAL 1 HOUR * (version + corrected::INT) AS sys_from,
  CASE WHEN version + 1 < {versions} AND NOT corrected
    THEN TIMESTAMP '2025-02-01' + INTERVAL 1 HOUR * (version + 1) END AS sys_to
FROM range({keys}) k (id), range({versions}) v (version), (VALUES (FALSE), (TRUE)) c (corrected)
WHERE NOT corrected OR version + 1 < {versions}
ORDER BY id, version, corrected"""


def main():
    keys, versions, query = sys.argv[1:]
    database = duckdb.connect(":memory:", config={"threads": 1})
    database.execute(ROWS.format(keys=keys, versions=versions))
    millis = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        rows = database.execute(query).fetchall()
        millis.append((time.perf_counter() - began) * 1e3)
    print(json.dumps({"millis": statistics.median(millis[1:]), "rows": [[str(value) for value in row] for row in rows]}))


main()
