"""Faults of the network between a run and its server."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

from psycopg import sql

from meter_pipeline.ingest.tables import load
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.watchdog import cut
from meter_pipeline_tests.faults.bench import Bench, Case
from meter_pipeline_tests.faults.catalogue import Strike, fault
from meter_pipeline_tests.faults.proxy import Proxy, Toxic


def _network(
    toxic: Callable[[random.Random], Toxic], heals_after_s: float | None = None, counts: bool = False
) -> Strike:
    def strike(bench: Bench, seed: int) -> Case:
        with bench.case(seed) as case:
            proxy = Proxy(bench.cluster.socket / ".s.PGSQL.5432", seed)
            through = Database(f"postgresql://postgres@127.0.0.1:{proxy.port}/{case.database.name}")
            try:
                proxy.toxic = toxic(case.rng) if heals_after_s is None else Toxic()
                if heals_after_s is not None:

                    def strike_now() -> None:
                        proxy.toxic = toxic(case.rng)
                        threading.Timer(heals_after_s, lambda: setattr(proxy, "toxic", Toxic())).start()

                    with case.at_batch(case.rng.randint(0, 2), strike_now):
                        case.try_run(through)
                else:
                    case.try_run(through)
                case.injected += proxy.struck if counts else 1
            finally:
                proxy.close()
            case.reckon()
        return case

    return strike


fault("connection reset before COMMIT is sent", 60, 2)(
    _network(lambda rng: Toxic(reset_before_commit=rng.randint(1, 5)), counts=True)
)
fault("connection reset after COMMIT, before its reply", 60, 2)(
    _network(lambda rng: Toxic(reset_after_commit=rng.randint(1, 5)), counts=True)
)
fault("latency of 20 ms", 6)(_network(lambda _: Toxic(latency_s=0.02)))
fault("jitter up to 40 ms", 6)(_network(lambda _: Toxic(jitter_s=0.04)))
fault("packets sliced to 1 to 7 bytes", 10)(_network(lambda rng: Toxic(slice_bytes=rng.randint(1, 7))))
fault("link cut after so many bytes", 25)(
    _network(lambda rng: Toxic(limit_bytes=rng.randint(3000, 30_000)), counts=True)
)
fault("half-open link for 1 s", 8)(_network(lambda _: Toxic(half_open=True), heals_after_s=1.0))
fault("connections refused for 0.6 s", 10)(
    _network(lambda _: Toxic(refuse=True, reset_before_commit=0), heals_after_s=0.6)
)


@fault("COMMIT hangs on the server, its link is reset", 30, 2)
def _hung_commit(bench: Bench, seed: int) -> Case:
    """A stalled disk or a standby that is away: the server goes on committing after its client has gone, for less or
    for longer than a run waits before it ends that session."""
    with bench.case(seed) as case:
        struck = case.rng.randint(1, 3)
        seconds = case.rng.choice((0.2, 1.0, 30.0))
        with case.database.connect(autocommit=True) as connection:
            connection.execute("CREATE SCHEMA faults; CREATE SEQUENCE faults.claims")
            connection.execute(
                sql.SQL(
                    "CREATE FUNCTION faults.hang() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
                    "IF nextval('faults.claims') = {} THEN PERFORM pg_sleep({}); END IF; RETURN NULL; END $$"
                ).format(sql.Literal(struck), sql.Literal(seconds))
            )
            connection.execute(
                "CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON raw.load_batch DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION faults.hang()"
            )
        real, begun = load.write_batch, 0

        async def cut_while_it_commits(connection: Any, batch: load.Batch) -> bool:
            nonlocal begun
            begun += 1
            if begun == struck:
                case.injected += 1
                asyncio.get_running_loop().call_later(0.1, cut, connection)
            return await real(connection, batch)

        load.write_batch = cut_while_it_commits
        try:
            case.try_run()
        finally:
            load.write_batch = real
        with case.database.connect(autocommit=True) as connection:
            connection.execute("DROP TRIGGER hang ON raw.load_batch; DROP SCHEMA faults CASCADE")
        case.reckon()
    return case
