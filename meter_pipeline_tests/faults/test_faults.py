"""Real faults on a real server, a few of each kind that is quick; `make faults` does them all, many times."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import psycopg
import pytest

from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.faults.bench import Bench
from meter_pipeline_tests.faults.kinds import FAULTS, Fault
from meter_pipeline_tests.faults.proxy import Proxy, Toxic
from meter_pipeline_tests.faults.run import first_seed


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.few], ids=lambda fault: fault.name)
def test_after_a_fault_every_invariant_holds(bench: Bench, fault: Fault) -> None:
    for seed in range(first_seed(fault), first_seed(fault) + fault.few):
        assert fault.strike(bench, seed).injected > 0


def test_there_are_thirty_kinds() -> None:
    assert len({fault.name for fault in FAULTS}) >= 30


def test_a_planted_password_is_nowhere(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Resets and refusals make errors that quote connection strings: not in logs, errors, dead letters, ledger or the
    run's report."""
    secret = "planted-7f3a9c"
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with bench.case(4, 4) as case:
        proxy = Proxy(bench.cluster.socket / ".s.PGSQL.5432", 1)
        through = Database(f"postgresql://postgres:{secret}@127.0.0.1:{proxy.port}/{case.database.name}")
        try:
            case.failpoint("raw.load_batch", "23514", [1, 2])
            proxy.toxic = Toxic(reset_after_commit=2)
            outcome = case.try_run(through)
            case.clear_failpoint("raw.load_batch")
            said += [repr(outcome), repr(outcome.report() if outcome else None), *case.errors]
        finally:
            proxy.close()
        for attempt in (lambda: through.connect(), lambda: case.run(through)):
            with pytest.raises(psycopg.Error) as raised:
                attempt()
            said += ["".join(traceback.format_exception(raised.value))]
        with PauseProbe(through) as probe:
            said.append(repr(probe.check()))
        with case.database.connect() as connection:
            said += [
                repr(row) for row in connection.execute("SELECT raw, reasons, file_name, run_id FROM raw.dead_letter")
            ]
            said += [repr(row) for row in connection.execute("SELECT convert_from(body, 'UTF8') FROM ledger.entry")]
    assert len(said) > 6
    for text in (*said, caplog.text):
        assert secret not in text
