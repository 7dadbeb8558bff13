"""Faults of the network between a run and its server."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from meter_pipeline.postgres.database import Database
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
