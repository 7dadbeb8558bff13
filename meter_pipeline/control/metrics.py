"""The state of the work as Prometheus metrics, read from the database at each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.tables import metrics
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database

_PREFIX = "meter_pipeline_"


class Collector:
    """Reads every figure in one connection; a database that does not answer is meter_pipeline_up 0 and nothing else."""

    def __init__(
        self, database: Database, calendar: BillingCalendar | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._database, self._calendar, self._clock = database, calendar, clock

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(_PREFIX + "up", "1 when the database answers")
        try:
            with self._database.connect("metrics", autocommit=True) as connection:
                families = list(self._families(connection))
        except driver.Error:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *families]

    def _families(self, connection: driver.Connection) -> Iterable[Metric]:
        for name, about, labels, rows in metrics.figures(connection):
            family = GaugeMetricFamily(_PREFIX + name, about, labels=labels)
            for values, figure in rows:
                family.add_metric(list(values), figure)
            yield family
        if self._calendar is not None:
            latest = metrics.latest_billed_day(connection)
            closed = self._calendar.day_of(self._clock.now())
            family = GaugeMetricFamily(
                _PREFIX + "billing_day_lag_days",
                "Closed billing days that are not billed yet, counted from the latest billed",
            )
            family.add_metric([], (closed - latest).days - 1 if latest else -1)
            yield family


def render(database: Database, calendar: BillingCalendar | None = None, clock: Clock = SYSTEM_CLOCK) -> bytes:
    """All figures in Prometheus text format. Never raises for the database's sake."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(database, calendar, clock))
    return generate_latest(registry)
