"""The guards of the ledger: their required state, and whether they still have it.

Guards bind honest roles only: the owner and a superuser go round them. Two things show that afterwards: the tree, for
what was changed, and the catalogue rows' versions, for a trigger that was disabled and enabled again although nothing
was changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import guards as ledger_guards
from meter_pipeline.postgres import privileges as role_privileges
from meter_pipeline.postgres.database import Database

OWNER: Final = "meter_ledger_owner"
#: An entry's body is bounded; more than this is a database that another manifest applies to.
_DEVIATIONS_NAMED: Final = 50
_ENTRY_COLUMNS: Final = ("kind", "body", "leaf_hash", "leaf_count", "leaves", "billing_day")
#: Tables of the schema, each with the guard its rows have.
TABLES: Final[dict[str, str]] = dict.fromkeys(
    ("entry", "log", "leaf", "node", "tree_head", "checkpoint", "cosignature", "anchor"), "refuse_change"
) | {"personal": "allow_only_erasure"}
#: (table, role, privilege) -> columns; no columns means the whole table. Nothing else is granted to anyone.
GRANTS: Final[dict[tuple[str, str, str], tuple[str, ...]]] = {
    **{(table, "meter_auditor", "SELECT"): () for table in TABLES},
    **{(table, "meter_ledger_sequencer", "SELECT"): () for table in TABLES if table != "personal"},
    ("entry", "meter_ledger_writer", "INSERT"): _ENTRY_COLUMNS,
    ("entry", "meter_ledger_writer", "SELECT"): ("entry_id",),
    ("entry", "meter_ledger_eraser", "INSERT"): _ENTRY_COLUMNS,
    ("entry", "meter_ledger_eraser", "SELECT"): ("entry_id",),
    ("personal", "meter_ledger_writer", "INSERT"): ("payload_hash", "salt", "payload"),
    ("personal", "meter_ledger_writer", "SELECT"): ("payload_hash",),
    ("personal", "meter_ledger_eraser", "SELECT"): ("payload_hash", "payload"),
    ("personal", "meter_ledger_eraser", "UPDATE"): ("salt", "payload"),
    ("log", "meter_ledger_sequencer", "INSERT"): ("origin",),
    ("leaf", "meter_ledger_sequencer", "INSERT"): ("leaf_index", "entry_id", "leaf_hash"),
    ("node", "meter_ledger_sequencer", "INSERT"): ("level", "node_index", "node_hash"),
    ("tree_head", "meter_ledger_sequencer", "INSERT"): ("tree_size", "root_hash", "horizon", "cluster_id"),
    ("checkpoint", "meter_ledger_sequencer", "INSERT"): ("tree_size", "note", "key_id"),
    ("cosignature", "meter_ledger_sequencer", "INSERT"): ("tree_size", "name", "key_id", "line"),
    ("anchor", "meter_ledger_sequencer", "INSERT"): ("tree_size", "kind", "token"),
}


@dataclass(frozen=True, slots=True)
class GuardReport:
    """``deviations`` from the manifest and from what was last recorded; ``bypass`` names the logins no guard binds (for
    the auditor)."""

    deviations: tuple[str, ...]
    bypass: tuple[str, ...]
    guards: dict[str, Any]

    @property
    def ok(self) -> bool:
        return not self.deviations


def check(connection: store.Connection) -> GuardReport:
    """Compare the catalogue with the manifest, and with the versions last recorded in the ledger."""
    found = ledger_guards.guards(connection)
    deviations = [*_tables(found), *_grants(found), *_triggers(found), *_policies(found)]
    deviations += [f"{member}, a login, may act as the owner" for member in found["owner_members"]]
    if not ledger_guards.reads_arrays_plainly(connection):
        deviations.append("function raw.array_bytes was replaced: it is not PostgreSQL's own")
    recorded = ledger_guards.last_recorded(connection)
    if recorded is not None:
        before = json.loads(recorded)["body"]["versions"]
        now = versions(found)
        deviations += [
            f"{name} was altered since the guards were last recorded"
            for name in sorted(before.keys() | now)
            if before.get(name) != now.get(name)
        ]
    return GuardReport(tuple(deviations), tuple(found["bypass"]), found)


def scheduled_check(database: Database, *, roles: bool, clock: Clock = SYSTEM_CLOCK) -> GuardReport:
    """Compare the guards with the manifest, and put the result into the ledger: also that nothing was amiss, so that a
    silence shows.

    ``roles``: the rights of the roles on every other schema too (postgres/privileges.toml), for a deployment that
    grants them.
    """
    with database.connect("ledger guards") as connection:
        found = check(connection)
        if roles:
            found = replace(found, deviations=(*found.deviations, *role_privileges.differences(connection)))
        body = {
            "what": "guards",
            "ok": found.ok,
            "roles": roles,
            "deviations": found.deviations[:_DEVIATIONS_NAMED],
            "found": len(found.deviations),
            "bypass": found.bypass,
        }
        entries.append(connection, "verified", body, actor="ledger-guards", clock=clock)
    return found


def record(connection: store.Connection, *, accepted_by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> int:
    """Put the guards as they stand into the ledger: the baseline that later checks compare with. After a migration
    someone accepts it anew."""
    found = ledger_guards.guards(connection)
    problems = [*_tables(found), *_grants(found), *_triggers(found), *_policies(found)]
    body = {
        "accepted_by": accepted_by,
        "reason": reason,
        "deviations": problems,
        "bypass": found["bypass"],
        "versions": versions(found),
        "guards_sha256": hashlib.sha256(entries.canonical_json(found)).digest(),
    }
    return entries.append(connection, "privileges_checked", body, actor=accepted_by, clock=clock)


def versions(found: dict[str, Any]) -> dict[str, str]:
    """The catalogue version of every guard, by a name people can read."""
    named = {f"table {name}": table["version"] for name, table in found["tables"].items()}
    named |= {f"trigger {row['name']} on {row['table']}": row["version"] for row in found["triggers"]}
    named |= {f"policy {row['name']} on {row['table']}": row["version"] for row in found["policies"]}
    return named | {f"function {row['name']}": row["version"] for row in found["functions"]}


def _tables(found: dict[str, Any]) -> list[str]:
    problems = [f"table {name} is not in the manifest" for name in found["tables"].keys() - TABLES.keys()]
    for name in TABLES:
        table = found["tables"].get(name)
        if table is None:
            problems.append(f"table {name} is gone")
            continue
        if table["owner"] != OWNER:
            problems.append(f"table {name} belongs to {table['owner']}, not to {OWNER}")
        if table["owner_can_login"]:
            problems.append(f"the owner of table {name} can log in")
        if not (table["row_security"] and table["forced"]):
            problems.append(f"row security is not forced on table {name}")
    return problems


def _grants(found: dict[str, Any]) -> list[str]:
    expected = {
        (table, column, role, privilege)
        for (table, role, privilege), columns in GRANTS.items()
        for column in columns or ("",)
    }
    actual = {(row["table"], row["column"], row["grantee"], row["privilege"]) for row in found["grants"]}
    problems = [
        f"{role} may {privilege} {_column(table, column)}"
        for table, column, role, privilege in sorted(actual - expected)
    ]
    problems += [
        f"{role} may not {privilege} {_column(table, column)}"
        for table, column, role, privilege in sorted(expected - actual)
    ]
    return problems + [
        f"{row['grantee']} may pass on {row['privilege']} of {row['table']}"
        for row in found["grants"]
        if row["grantable"]
    ]


def _column(table: str, column: str) -> str:
    return f"{table}.{column}" if column else table


def _triggers(found: dict[str, Any]) -> list[str]:
    actual = {(row["table"], row["name"]): row for row in found["triggers"]}
    problems = []
    for table, guard in TABLES.items():
        for name, function in (("only_grows", guard), ("never_truncated", "refuse_change")):
            row = actual.pop((table, name), None)
            if row is None:
                problems.append(f"trigger {name} on {table} is gone")
            elif row["enabled"] != "A":
                problems.append(f"trigger {name} on {table} is not ENABLE ALWAYS")
            elif row["function"] != function:
                problems.append(f"trigger {name} on {table} calls {row['function']}")
    return problems + [f"trigger {name} on {table} is not in the manifest" for table, name in actual]


def _policies(found: dict[str, Any]) -> list[str]:
    expected = {(table, command) for table in TABLES for command in "ar"} | {("personal", "w")}
    actual = {(row["table"], row["command"]) for row in found["policies"]}
    return [f"policy for {command!r} on {table} is not as it should be" for table, command in sorted(expected ^ actual)]
