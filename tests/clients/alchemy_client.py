"""SQLAlchemy and pandas: inspection, Core, ORM, frames in and out."""

import datetime as dt
import os

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

UTC = dt.timezone.utc
engine = sa.create_engine(f"postgresql+psycopg://ada@127.0.0.1:{os.environ['PGPORT']}/alchemy")

with engine.begin() as c:
    c.execute(sa.text("CREATE TABLE rooms (_id TEXT PRIMARY KEY, seats INT, price DECIMAL, at TIMESTAMPTZ)"))
with engine.begin() as c:
    insert = sa.text("INSERT INTO rooms (_id, seats, price, at) VALUES (:id, :seats, :price, :at)")
    at = dt.datetime(2026, 1, 1, tzinfo=UTC)
    c.execute(insert, [{"id": f"r{n}", "seats": n, "price": 1.5, "at": at} for n in range(10)])

inspector = sa.inspect(engine)
assert "public" in inspector.get_schema_names()
assert "rooms" in inspector.get_table_names() and inspector.has_table("rooms")
columns = {column["name"]: column for column in inspector.get_columns("rooms")}
assert list(columns) == ["_id", "seats", "price", "at"], columns
assert isinstance(columns["seats"]["type"], sa.BIGINT) and not columns["_id"]["nullable"]
assert inspector.get_pk_constraint("rooms")["constrained_columns"] == ["_id"]
assert inspector.get_foreign_keys("rooms") == []
rooms = sa.Table("rooms", sa.MetaData(), autoload_with=engine)

with engine.connect() as c:
    found = sa.select(rooms.c._id).where(rooms.c.seats > 7).order_by(rooms.c.seats)
    assert c.execute(found).scalars().all() == ["r8", "r9"]
    assert len(c.execute(sa.select(rooms).where(rooms.c._id.in_(["r1", "r2"]))).all()) == 2
    try:
        c.execute(sa.text("SELECT nope FROM rooms"))
        raise AssertionError("not refused")
    except sa.exc.ProgrammingError as error:
        assert error.orig.sqlstate == "42703", error

frame = pd.read_sql("SELECT _id, seats, at, _valid_from FROM rooms ORDER BY _id", engine)
assert len(frame) == 10 and str(frame["at"].dtype).startswith("datetime64[ns, UTC"), frame.dtypes
before = sa.text("SELECT count(*) AS n FROM rooms FOR VALID_TIME AS OF :at")
params = {"at": dt.datetime(2020, 1, 1, tzinfo=UTC)}
assert pd.read_sql(before, engine, params=params)["n"][0] == 0
frame = pd.DataFrame({"_id": ["a", "b"], "v": [1.5, None], "k": [1, 2]})
frame.to_sql("frames", engine, index=False, if_exists="append")
assert pd.read_sql("SELECT sum(k) AS k FROM frames", engine)["k"][0] == 3


class Base(DeclarativeBase):
    pass


class Room(Base):
    __tablename__ = "rooms"
    id: Mapped[str] = mapped_column("_id", primary_key=True)
    seats: Mapped[int]


with Session(engine) as session:
    session.add(Room(id="orm", seats=3))
    session.commit()
with Session(engine) as session:
    assert session.get(Room, "orm").seats == 3
print("sqlalchemy and pandas ok")
