"""Dagster resources."""

from __future__ import annotations

import os
from typing import Final, Self

import dagster as dg

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.deployment import roles_in_use
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import Settings, load_settings

#: What acts in no particular role's name (sensors, the run's hold, alerts): it raises a pause and cannot end one.
SERVICE_ROLE: Final = "meter_ingest"
#: The role in which people's decisions are taken, and the variable with the URL of the log-in that may act in it.
PEOPLE_ROLE: Final = "meter_finance"
PEOPLE_DATABASE: Final = "METER_PIPELINE_PEOPLE_DATABASE_URL"


class Municipality(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the value type open
    """The utility this deployment serves: read from the environment when a run starts.

    ``database_url`` overrides METER_PIPELINE_DATABASE_URL, for tests. It is never shown: the value may hold a password.
    ``role`` is the database role its sessions act in where the deployment uses roles (postgres/privileges.toml);
    elsewhere they have the log-in's own rights.
    """

    database_url: str = ""
    role: str = SERVICE_ROLE

    def settings(self) -> Settings:
        return load_settings()

    def database(self) -> Database:
        found = Database(self.database_url) if self.database_url else open_database(self.settings())
        if not roles_in_use():
            return found
        if self.role == PEOPLE_ROLE and (people := os.environ.get(PEOPLE_DATABASE)):
            # The services' log-in may not become finance: what people decide goes through a log-in of its own.
            found = Database(people)
        return found.acting_as(self.role)

    def acting_as(self, role: str) -> Self:
        """The same municipality in another role: a stage has the rights of its own kind of work and no more."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | {"role": role})

    def calendar(self) -> BillingCalendar:
        return self.settings().calendar()

    def clock(self) -> Clock:
        return SYSTEM_CLOCK
