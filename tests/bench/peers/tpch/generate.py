"""Writes the tables and queries of TPC-H.

    generate.py DIR SCALE

DIR/before and DIR/after hold all tables as Parquet, DIR/changed the rows of `after` that `before` has otherwise (one
in ten, in every table but region and nation), and DIR/qNN.sql the queries. Integers are int64, decimals float64.
"""

import pathlib
import sys

import duckdb
import duckdb_extension_tpch

# What changes in a row, and which rows.
CHANGES = {
    "supplier": ("s_acctbal", "s_acctbal + 10", "s_suppkey"),
    "customer": ("c_acctbal", "c_acctbal - 10", "c_custkey"),
    "part": ("p_retailprice", "p_retailprice + 1", "p_partkey"),
    "partsupp": ("ps_supplycost", "ps_supplycost + 1", "ps_partkey"),
    "orders": ("o_totalprice", "o_totalprice + 1", "o_orderkey // 4"),
    "lineitem": ("l_quantity", "l_quantity + 1", "l_orderkey // 4"),
}


def main():
    folder, scale = pathlib.Path(sys.argv[1]), float(sys.argv[2])
    database = duckdb.connect(":memory:", config={"allow_unsigned_extensions": "true"})
    extension = next(pathlib.Path(duckdb_extension_tpch.__path__[0]).glob("**/tpch.duckdb_extension"))
    database.execute(f"LOAD '{extension}'")
    database.execute(f"CALL dbgen(sf = {scale})")
    for part in ("before", "after", "changed"):
        (folder / part).mkdir(parents=True)
    tables = [name for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    for table in tables:
        columns = database.execute(f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table}'")
        plain = []
        for name, kind in columns.fetchall():
            kind = "DOUBLE" if kind.startswith("DECIMAL") else "BIGINT" if "INT" in kind else kind
            plain.append(f"CAST({name} AS {kind}) AS {name}")
        rows = f"SELECT {', '.join(plain)} FROM {table}"
        after = changed = rows
        if table in CHANGES:
            column, value, which = CHANGES[table]
            after = f"SELECT * REPLACE (CASE WHEN ({which}) % 10 = 0 THEN {value} ELSE {column} END AS {column}) FROM ({rows})"
            changed = f"SELECT * REPLACE ({value} AS {column}) FROM ({rows}) WHERE ({which}) % 10 = 0"
        for part, query in (("before", rows), ("after", after), ("changed", changed)):
            if part != "changed" or table in CHANGES:
                database.execute(f"COPY ({query}) TO '{folder}/{part}/{table}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    for number, query in database.execute("SELECT query_nr, query FROM tpch_queries()").fetchall():
        (folder / f"q{number:02}.sql").write_text(query)


main()
