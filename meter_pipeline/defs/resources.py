"""Resources: what an asset is given. Belongs here: the municipality (settings, database, calendar, clock) as one resource, replaceable in tests."""

from __future__ import annotations

import dagster as dg

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.settings import Settings, load_settings
from meter_pipeline.store.database import Database, open_database


class Municipality(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the value type open
    """The utility this deployment serves: read from the environment when a run starts.

    ``database_url`` overrides METER_PIPELINE_DATABASE_URL, for tests. It is never shown: the value may hold a password.
    """

    database_url: str = ""

    def settings(self) -> Settings:
        return load_settings()

    def database(self) -> Database:
        return Database(self.database_url) if self.database_url else open_database(self.settings())

    def calendar(self) -> BillingCalendar:
        return self.settings().calendar()

    def clock(self) -> Clock:
        return SYSTEM_CLOCK
