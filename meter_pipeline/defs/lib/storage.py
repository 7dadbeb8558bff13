"""Dagster's storage: dagster-postgres on the pipeline's own server."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Final

import sqlalchemy
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from meter_pipeline.deployment import CONSOLE_ROLE, dagster_url, roles_in_use
from meter_pipeline.settings import load_settings

#: Sessions that a process keeps for Dagster's stores of runs, events and schedules, and may open beside them.
KEPT: Final = 3
BESIDE: Final = 20
#: The server ends a session that stays idle so long; the next use opens another.
IDLE_S: Final = 60
#: Servers whose tables a process has seen; a forked child has seen none.
_seen: Final[set[tuple[str, int]]] = set()


class ServerStorage(DagsterPostgresStorage):
    """Dagster's tables, over sessions that stay open between statements. Dagster's own storage opens one for every
    event of a run and every look of the daemon.

    Named in dagster.yaml. METER_PIPELINE_DAGSTER_URL where it is set: every process that ``meter-pipeline`` starts
    has it.

    Else the server that settings name, made and started where it is the embedded one, so that any ``dagster`` command
    works in a checkout.
    """

    @classmethod
    def config_type(cls) -> Any:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> ServerStorage:
        """The storage, its tables made where they are missing."""
        url = os.environ.get("METER_PIPELINE_DAGSTER_URL") or _own_server()
        # The code server makes an instance for each tick of a sensor: it looks for the tables the first time only.
        storage = cls(url, should_autocreate_tables=(url, os.getpid()) not in _seen, inst_data=inst_data)
        _seen.add((url, os.getpid()))
        engine = _pooled(url, os.getpid())
        for store in (storage._run_storage, storage._event_log_storage, storage._schedule_storage):
            store._engine = engine
        return storage


@lru_cache(maxsize=2)
def _pooled(url: str, process: int) -> sqlalchemy.engine.Engine:
    """A process's engine. It tries a kept session before it gives it, as the server may have been started again."""
    engine = sqlalchemy.create_engine(
        url, isolation_level="AUTOCOMMIT", pool_size=KEPT, max_overflow=BESIDE, pool_pre_ping=True
    )

    @sqlalchemy.event.listens_for(engine, "connect")
    def _ends_when_idle(session: Any, _record: Any) -> None:
        with session, session.cursor() as cursor:
            cursor.execute(f"SET idle_session_timeout = '{IDLE_S}s'")

    return engine


def _own_server() -> str:
    from meter_pipeline.postgres.database import open_database
    from meter_pipeline.postgres.migrations import migrate

    settings = load_settings()
    database = open_database(settings)
    if settings.database_url is None:
        migrate(database)  # makes schema dagster; a server of one's own is migrated by whoever owns it
    return dagster_url(database.url, CONSOLE_ROLE if roles_in_use() else None)
