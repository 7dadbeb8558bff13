"""Which handler answers a statement of the simulated server."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meter_pipeline_tests.simulation.server import Connection, Result, Server, Transaction

    Handler = Callable[[Server, Connection, Transaction, re.Match[str], Any], Result]

#: Filled by statements.py
STATEMENTS: list[tuple[re.Pattern[str], Handler]] = []


def on(pattern: str) -> Callable[[Handler], Handler]:
    """Register what answers the statements that begin so."""

    def keep(handler: Handler) -> Handler:
        STATEMENTS.append((re.compile(pattern), handler))
        return handler

    return keep


@cache
def handler_of(query: str) -> tuple[Handler, re.Match[str]]:
    """By its text, of which there are a few dozen: twenty patterns tried for each of 280 statements were 3 % of a
    history."""
    for pattern, handler in STATEMENTS:
        found = pattern.match(query)
        if found is not None:
            return handler, found
    raise AssertionError(f"the simulated server does not know: {query[:300]}")
