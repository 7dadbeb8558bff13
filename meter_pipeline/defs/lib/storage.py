"""Dagster's storage: dagster-postgres on the pipeline's own server."""

from __future__ import annotations

import os
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from meter_pipeline.deployment import CONSOLE_ROLE, dagster_url, roles_in_use
from meter_pipeline.settings import load_settings


class ServerStorage(DagsterPostgresStorage):
    """Named in dagster.yaml. METER_PIPELINE_DAGSTER_URL where it is set: every process that ``meter-pipeline`` starts
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
        return cls(postgres_url=os.environ.get("METER_PIPELINE_DAGSTER_URL") or _own_server(), inst_data=inst_data)


def _own_server() -> str:
    from meter_pipeline.postgres.database import open_database
    from meter_pipeline.postgres.migrations import migrate

    settings = load_settings()
    database = open_database(settings)
    if settings.database_url is None:
        migrate(database)  # makes schema dagster; a server of one's own is migrated by whoever owns it
    return dagster_url(database.url, CONSOLE_ROLE if roles_in_use() else None)
