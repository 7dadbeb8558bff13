"""Database roles of least privilege: the manifest, applying it, and finding where the database differs from it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql

from meter_pipeline.postgres.database import Database

MANIFEST: Final = Path(__file__).with_name("privileges.toml")
Connection: TypeAlias = psycopg.Connection[Any]

_TABLES: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition AND n.nspname NOT IN ('ledger', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""


_PARTITIONS: Final = """
SELECT pn.nspname, p.relname, cn.nspname, c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2, 3, 4
"""
#: Tables named in one GRANT.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Manifest:
    """``roles``: role -> pattern -> verbs; ``member_of``: role -> roles it has the rights of; ``definer``: function ->
    roles that may call it; ``read_sequences``: roles that read every sequence."""

    verbs: tuple[str, ...]
    roles: dict[str, dict[str, frozenset[str]]]
    member_of: dict[str, list[str]]
    definer: dict[str, list[str]]
    read_sequences: frozenset[str] = frozenset()

    def verbs_for(self, role: str, schema: str, table: str) -> frozenset[str]:
        """Returns a role's rights on a table; empty where no line names it."""
        lines = self.roles[role]
        return lines.get(f"{schema}.{table}", lines.get(f"{schema}.*", frozenset()))


def load(path: Path = MANIFEST) -> Manifest:
    """Read the manifest. Raises ValueError for an unknown verb."""
    raw = tomllib.loads(path.read_text("utf-8"))
    verbs = tuple(raw.pop("verbs"))
    definer = dict(raw.pop("definer", {}))
    roles: dict[str, dict[str, frozenset[str]]] = {}
    for role, lines in raw.items():
        roles[role] = {
            pattern: frozenset(text.split())
            for pattern, text in lines.items()
            if pattern not in ("about", "member_of", "sequences")
        }
        if strange := {verb for granted in roles[role].values() for verb in granted} - set(verbs):
            raise ValueError(f"{path}: {role} is given {', '.join(sorted(strange))}")
    members = {role: list(lines.get("member_of", [])) for role, lines in raw.items()}
    readers = frozenset(role for role, lines in raw.items() if lines.get("sequences") == "SELECT")
    return Manifest(verbs, roles, members, definer, readers)


def abouts() -> dict[str, str]:
    """Returns each role of the manifest with its purpose."""
    raw = tomllib.loads(MANIFEST.read_text("utf-8"))
    return {role: str(lines["about"]) for role, lines in raw.items() if isinstance(lines, dict) and "about" in lines}


def everything_for(role: str) -> Manifest:
    """The manifest of a database that is one role's own (the shadow's): it writes every table the manifest answers for,
    the others have no line.

    Memberships are the cluster's and would reach into the other databases of the server, so there are none.
    """
    whole = load()
    schemas = {pattern.partition(".")[0] for lines in whole.roles.values() for pattern in lines}
    return Manifest(
        whole.verbs,
        {role: {f"{schema}.*": frozenset(whole.verbs) for schema in schemas}},
        {role: []},
        {call: [role] for call in whole.definer},
    )


def tables(connection: Connection) -> list[tuple[str, str]]:
    """Every table and view the manifest answers for, as (schema, name); partitions go with their parent."""
    return connection.execute(_TABLES.encode()).fetchall()


def apply(database: Database, manifest: Manifest | None = None) -> int:
    """Grant exactly the rights of the manifest, in one transaction; returns how many grants. For the owner of the
    tables; safe to repeat."""
    manifest = manifest or load()
    with database.connect("privileges") as connection:
        # Two services may start at once, and two GRANTs on one table are "tuple concurrently updated".
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('meter_pipeline privileges', 0))")
        present = tables(connection)
        partitions: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for schema, table, *partition in connection.execute(_PARTITIONS.encode()):
            partitions.setdefault((schema, table), []).append((partition[0], partition[1]))
        roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        count = 0
        for role in manifest.roles:
            for other in manifest.member_of[role]:
                if other in roles:
                    _grant_membership(connection, role, other)
            for schema in sorted({schema for schema, _ in present}):
                name = sql.Identifier(schema)
                reachable = any(manifest.verbs_for(role, schema, table) for s, table in present if s == schema)
                verb = (
                    sql.SQL("GRANT USAGE ON SCHEMA {} TO {}")
                    if reachable
                    else sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}")
                )
                connection.execute(verb.format(name, sql.Identifier(role)))
                connection.execute(
                    sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(name, sql.Identifier(role))
                )
                writes = any("INSERT" in manifest.verbs_for(role, s, table) for s, table in present if s == schema)
                grant = (
                    sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {} TO {}")
                    if writes
                    else sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA {} FROM {}")
                )
                connection.execute(grant.format(name, sql.Identifier(role)))
                if role in manifest.read_sequences:
                    read = sql.SQL("GRANT SELECT ON ALL SEQUENCES IN SCHEMA {} TO {}")
                    connection.execute(read.format(name, sql.Identifier(role)))
                # A day's partition is made at run time by the owner's function and written before it is attached.
                wanted = manifest.roles[role].get(f"{schema}.*", frozenset())
                if wanted:
                    connection.execute(
                        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT {} ON TABLES TO {}").format(
                            name, _verbs(wanted), sql.Identifier(role)
                        )
                    )
            alike: dict[frozenset[str], list[tuple[str, str]]] = {}
            for table in present:
                if verbs := manifest.verbs_for(role, *table):
                    # A partition is also written, locked and archived by its own name, and the REVOKE above took what
                    # it was made with.
                    alike.setdefault(verbs, []).extend([table, *partitions.get(table, ())])
                    count += 1
            for verbs, names in alike.items():
                _grant(connection, verbs, names, role)
        _define(connection, manifest)
        connection.commit()
    return count


def _grant(connection: Connection, verbs: frozenset[str], names: Sequence[tuple[str, str]], role: str) -> None:
    """The same verbs on many tables. With a statement for each table all grants took twice as long."""
    for start in range(0, len(names), _AT_ONCE):
        some = sql.SQL(", ").join([sql.Identifier(*name) for name in names[start : start + _AT_ONCE]])
        connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(_verbs(verbs), some, sql.Identifier(role)))


def _grant_membership(connection: Connection, role: str, other: str) -> None:
    """Give a role the rights of another without letting it become that one, which the server can say from version 16
    on.

    Where an administrator made the roles, the owner may grant none of them: what they granted stays as it is.
    """
    newer = connection.info.server_version >= 160000
    wanted = sql.SQL(" AND inherit_option AND NOT set_option") if newer else sql.SQL("")
    is_member = sql.SQL("SELECT FROM pg_auth_members WHERE member = %s::regrole AND roleid = %s::regrole")
    if connection.execute(is_member + wanted, (role, other)).fetchone() is not None:
        return
    member = sql.SQL("GRANT {} TO {}").format(sql.Identifier(other), sql.Identifier(role))
    try:
        with connection.transaction():
            connection.execute(member + sql.SQL(" WITH INHERIT TRUE, SET FALSE") if newer else member)
    except psycopg.errors.InsufficientPrivilege:
        if connection.execute(is_member, (role, other)).fetchone() is None:
            raise


#: Roles that the services of one machine act in (defs/lib/policy.py), all from one log-in.
STAGE_ROLES: Final = (
    "meter_console",
    "meter_ingest",
    "meter_billing",
    "meter_notary",
    "meter_shadow",
    "meter_migration",
    "meter_auditor",
    "meter_finance",
)


def may_act_as(connection: Connection, role: str) -> bool:
    """Whether our log-in may take a role. The connection commits each statement by itself."""
    try:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):  # the latter: no such role
        return False
    connection.execute("RESET ROLE")
    return True


def join(database: Database, roles: Sequence[str]) -> list[str]:
    """Let our log-in act in some roles, where it may grant them to itself; returns those it still may not act in."""
    missing = []
    with database.connect("roles", autocommit=True) as connection:
        for role in roles:
            if may_act_as(connection, role):
                continue
            grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(connection.info.user))
            with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject):
                connection.execute(grant)
            if not may_act_as(connection, role):
                missing.append(role)
    return missing


def differences(connection: Connection, manifest: Manifest | None = None) -> list[str]:
    """Where the database's table privileges are not the manifest's, in words; empty when they agree. TRUNCATE and
    TRIGGER are granted to no role."""
    manifest = manifest or load()
    found = []
    for schema, table in tables(connection):
        for role in manifest.roles:
            expected = manifest.verbs_for(role, schema, table)
            row = connection.execute(
                "SELECT array_agg(v) FILTER (WHERE has_table_privilege(%s, to_regclass(%s), v)) FROM unnest(%s::text[]) v",
                (role, f'"{schema}"."{table}"', [*manifest.verbs, "TRUNCATE", "TRIGGER"]),
            ).fetchone()
            actual = frozenset((row[0] if row else None) or ())
            if actual != expected:
                found.append(
                    f"{role} on {schema}.{table}: has {' '.join(sorted(actual)) or 'nothing'}, should have {' '.join(sorted(expected)) or 'nothing'}"
                )
    return found


def _verbs(verbs: frozenset[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL(verb) for verb in ("SELECT", "INSERT", "UPDATE", "DELETE") if verb in verbs)


def _define(connection: Connection, manifest: Manifest) -> None:
    """Functions that act with their owner's rights: a fixed search_path, and callable by the roles named only."""
    for function, roles in manifest.definer.items():
        schema, name = function.split(".")
        rows = connection.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = %s",
            (schema, name),
        ).fetchall()
        for (signature,) in rows:
            # regprocedure prints the signature quoted as SQL needs it.
            target = sql.SQL(signature)
            connection.execute(
                sql.SQL("ALTER FUNCTION {} SECURITY DEFINER SET search_path = pg_catalog").format(target)
            )
            connection.execute(sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(target))
            for role in roles:
                connection.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(target, sql.Identifier(role)))
