"""Rows that later ones took the place of, against the leaves that entries retired.

A charge or determinant that is brought to what it is now leaves its old row in a table of versions. The entry of the
change retires the old row's leaf, and says in ``replaced`` how many rows went to each table. So each version's leaf is
one that was retired, no more often than it was retired, and a day has as many versions as its entries say. Entries from
before they said so hold what they retired, and not how many versions there are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

from meter_pipeline.ledger import merkle
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.row_checks import RowStream
from meter_pipeline.ledger.row_rules import RowRules
from meter_pipeline.ledger.sources import RowTable, Source
from meter_pipeline.ledger.tables import entries as store


def verify_replaced(
    connection: store.Connection,
    source: Source,
    tables: Sequence[RowTable],
    day: date,
    outcome: VerifyOutcome,
    rules: RowRules,
    contents: RowStream,
) -> None:
    """The versions of a billing day against the leaves that its entries retired. ``contents`` has the rows of
    ``tables`` next."""
    retired, recorded, all_say = _retired(connection, source, day)
    for table in tables:
        rows = 0
        left = Counter(retired)
        for part in contents.parts():
            rows += part.height
            encodings = [name for name in (table.encoding, table.older) if name is not None and name in rules]
            for leaves in zip(*(rules[name](part).to_list() for name in encodings), strict=True):
                known = next((leaf for leaf in leaves if left[leaf] > 0), None)
                if known is not None:
                    left[known] -= 1
                elif all_say:
                    outcome.find("row without leaf", f"{table.name} {day}: {leaves[0].hex()}")
            wrong = rules.derived.get(table.name)
            for detail in wrong(part) if wrong is not None and part.height else ():
                outcome.find("derived column", f"{table.name}: {detail}")
        outcome.checked[f"rows of {table.name}"] += rows
        if rows < recorded.get(table.name, 0) or (all_say and rows > recorded.get(table.name, 0)):
            detail = f"{table.name} {day}: {rows} rows, the day's entries say {recorded.get(table.name, 0)}"
            outcome.find("leaf without row" if rows < recorded.get(table.name, 0) else "row without leaf", detail)


def _retired(connection: store.Connection, source: Source, day: date) -> tuple[Counter[bytes], Mapping[str, int], bool]:
    """The leaves that a day's entries retired, each as often; how many rows they say went to each table; and whether
    all that retired something say so."""
    retired: Counter[bytes] = Counter()
    recorded: Counter[str] = Counter()
    all_say = True
    for entry in store.entries_of(connection, source.kinds, day):
        body = json.loads(entry.body)["body"]
        gone = int(body.get("retired", 0))
        flat = entry.leaves or b""
        first = len(flat) - gone * merkle.HASH_SIZE
        retired.update(flat[at : at + merkle.HASH_SIZE] for at in range(first, len(flat), merkle.HASH_SIZE))
        recorded.update(body.get("replaced", {}))
        all_say &= not gone or "replaced" in body
    return retired, recorded, all_say
