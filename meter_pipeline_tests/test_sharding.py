"""Sharding promises: Python and SQL agree, and every id has one shard."""

from __future__ import annotations

from meter_pipeline.postgres.database import Database
from meter_pipeline.sharding import shard_of


def test_python_and_sql_agree(database: Database) -> None:
    ids = [f"SP-{n:06d}" for n in range(500)]
    with database.connect() as connection:
        for count in (1, 4, 16, 7):
            rows = connection.execute(
                "SELECT ref.shard_of(i, %s) FROM unnest(%s::text[]) WITH ORDINALITY AS u(i, n) ORDER BY n", (count, ids)
            )
            found = [row[0] for row in rows]
            assert found == shard_of(ids, count).tolist()
            assert len(set(found)) == count
