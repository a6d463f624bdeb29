"""Joins and aggregates over time in DuckDB and Polars, over tables in memory.

    frames.py duckdb|polars asof|overlap|aggregate THREADS

Prints {"seconds": median of the runs, "answer": [..]}. The tables follow from the numbers of their rows,
as in ../operators.rs, so both sides have the same ones.
"""

import json
import os
import statistics
import sys
import time

KEYS, VERSIONS = 100_000, 50
PERIODS = 100_000
ENDS = 5_000_000
RUNS = 5

EVENTS = f"""SELECT i // {VERSIONS} AS k, make_timestamp((i % {VERSIONS}) * 1000 + (i * 104729) % 1000) AS t
FROM range({KEYS * VERSIONS}) r (i)"""
HISTORY = f"""SELECT i // {VERSIONS} AS k, i AS n, make_timestamp((i % {VERSIONS}) * 1000) AS f,
make_timestamp((i % {VERSIONS}) * 1000 + 1000) AS u FROM range({KEYS * VERSIONS}) r (i)"""


def periods(count, span, longest):
    return f"""SELECT i AS n, make_timestamp((i * 104729) % {span}) AS f,
make_timestamp((i * 104729) % {span} + 1 + (i * 7919) % {longest}) AS u FROM range({count}) r (i)"""


DUCKDB = {
    "asof": (
        {"e": EVENTS, "v": HISTORY},
        "SELECT count(*), sum(v.n)::BIGINT FROM e ASOF JOIN v ON e.k = v.k AND e.t >= v.f",
    ),
    "overlap": (
        {"a": periods(PERIODS, 9_999_991, 1000), "b": periods(PERIODS, 9_999_973, 1000)},
        "SELECT count(*), sum(a.n + b.n)::BIGINT FROM a JOIN b ON a.f < b.u AND b.f < a.u",
    ),
    "aggregate": (
        {"p": periods(ENDS, 999_999_937, 1000)},
        """SELECT count(*), sum(c)::BIGINT, sum(s)::BIGINT FROM (
          SELECT sum(c) OVER w AS c, sum(s) OVER w AS s, t, lead(t) OVER w AS next FROM (
            SELECT t, sum(c) AS c, sum(s) AS s FROM (
              SELECT f AS t, 1 AS c, n AS s FROM p UNION ALL SELECT u, -1, -n FROM p) GROUP BY t)
          WINDOW w AS (ORDER BY t)) WHERE c > 0""",
    ),
}


def duckdb(workload, threads):
    import duckdb

    database = duckdb.connect(":memory:", config={"threads": threads})
    tables, query = DUCKDB[workload]
    for name, rows in tables.items():
        database.execute(f"CREATE TABLE {name} AS {rows}")
    return lambda: list(database.execute(query).fetchone())


def polars(workload):
    import polars as pl

    def whole(count):
        return pl.int_range(0, count, dtype=pl.Int64, eager=True)

    if workload == "asof":
        i = whole(KEYS * VERSIONS)
        frame = pl.DataFrame({"i": i}).with_columns(k=pl.col("i") // VERSIONS, p=pl.col("i") % VERSIONS)
        events = frame.select("k", t=pl.col("p") * 1000 + (pl.col("i") * 104729) % 1000).sort("t")
        history = frame.select("k", n="i", f=pl.col("p") * 1000).sort("f")

        def run():
            joined = events.join_asof(history, by="k", left_on="t", right_on="f")
            return [joined.height, joined["n"].sum()]

        return run

    def table(span):
        frame = pl.DataFrame({"n": whole(PERIODS)}).with_columns(f=(pl.col("n") * 104729) % span)
        return frame.with_columns(u=pl.col("f") + 1 + (pl.col("n") * 7919) % 1000)

    a, b = table(9_999_991), table(9_999_973)

    def run():
        joined = a.join_where(b, pl.col("f") < pl.col("u_right"), pl.col("f_right") < pl.col("u"))
        return [joined.height, int((joined["n"] + joined["n_right"]).sum())]

    return run


def main():
    engine, workload, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    run = duckdb(workload, threads) if engine == "duckdb" else polars(workload)
    seconds, answer = [], run()
    for _ in range(RUNS):
        began = time.perf_counter()
        again = run()
        seconds.append(time.perf_counter() - began)
        assert again == answer
    print(json.dumps({"seconds": statistics.median(seconds), "answer": answer}))


main()
