"""The ledger's guards as the catalogue has them."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from psycopg import sql

from meter_pipeline.ledger.tables.entries import Connection
from meter_pipeline.postgres.database import scalar


def guards(connection: Connection) -> dict[str, Any]:
    """Everything that guards the ledger, as plain values that can be hashed and exported.

    ``version`` of a table, trigger or policy is its catalogue row's transaction: disabling and enabling a trigger again
    leaves it another.
    """
    tables = {
        name: {
            "owner": owner,
            "owner_can_login": login,
            "row_security": row,
            "forced": forced,
            "version": version,
            "rows": {},
        }
        for name, owner, login, row, forced, version in connection.execute(
            "SELECT c.relname, r.rolname, r.rolcanlogin, c.relrowsecurity, c.relforcerowsecurity, c.xmin::text FROM pg_class c"
            " JOIN pg_roles r ON r.oid = c.relowner WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relname"
        )
    }
    for table in tables.values():
        table.pop("rows")
    grants = connection.execute(
        "SELECT c.relname, '' AS attname, coalesce(g.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable FROM pg_class c,"
        " aclexplode(c.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee"
        " WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND a.grantee <> c.relowner"
        " UNION ALL SELECT c.relname, t.attname, coalesce(g.rolname, 'PUBLIC'), a.privilege_type, a.is_grantable FROM pg_class c"
        " JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee"
        " WHERE c.relnamespace = 'ledger'::regnamespace ORDER BY 1, 2, 3, 4"
    ).fetchall()
    triggers = connection.execute(
        "SELECT c.relname, t.tgname, t.tgenabled, p.proname, pg_get_triggerdef(t.oid), t.xmin::text FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE c.relnamespace = 'ledger'::regnamespace AND NOT t.tgisinternal ORDER BY 1, 2"
    ).fetchall()
    policies = connection.execute(
        "SELECT c.relname, p.polname, p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid),"
        " p.xmin::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'ledger'::regnamespace ORDER BY 1, 2"
    ).fetchall()
    functions = connection.execute(
        "SELECT p.proname, encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'), r.rolname, p.xmin::text FROM pg_proc p"
        " JOIN pg_roles r ON r.oid = p.proowner WHERE p.pronamespace = 'ledger'::regnamespace ORDER BY 1"
    ).fetchall()
    members = connection.execute(
        "SELECT g.rolname, m.rolname FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member"
        " WHERE g.rolname = 'meter_ledger_owner' AND m.rolcanlogin AND NOT m.rolsuper"
        # before version 16 every membership lets the member act as the role
        " AND coalesce((to_jsonb(a) ->> 'set_option')::boolean OR (to_jsonb(a) ->> 'inherit_option')::boolean, true) ORDER BY 1, 2"
    ).fetchall()
    bypass = connection.execute(
        "SELECT rolname FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND rolcanlogin ORDER BY 1"
    ).fetchall()
    return {
        "tables": tables,
        "grants": [{"table": t, "column": c, "grantee": g, "privilege": p, "grantable": o} for t, c, g, p, o in grants],
        "triggers": [
            {"table": t, "name": n, "enabled": _text(e), "function": f, "definition": d, "version": v}
            for t, n, e, f, d, v in triggers
        ],
        "policies": [
            {"table": t, "name": n, "command": _text(c), "permissive": m, "using": u, "check": k, "version": v}
            for t, n, c, m, u, k, v in policies
        ],
        "functions": [{"name": n, "source_sha256": h, "owner": o, "version": v} for n, h, o, v in functions],
        "owner_members": [f"{member} of {role}" for role, member in members],
        "bypass": [name for (name,) in bypass],
    }


#: Numbers the entries. Only the ledger's owner reads its value, so a dump leaves it out.
ENTRY_SEQUENCE: Final = "ledger.entry_entry_id_seq"
_IS_SUPER: Final = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_IS_MEMBER: Final = "SELECT pg_has_role('meter_ledger_owner', 'MEMBER')"


def take_ownership(connection: Connection) -> None:
    """Let our log-in hand tables to the ledger's owner, which restoring them needs; a superuser may anyway. Raises
    psycopg.errors.InsufficientPrivilege where it may not grant itself that."""
    if not scalar(connection, _IS_MEMBER):
        connection.execute(_granted("GRANT meter_ledger_owner TO {}", connection))


def give_ownership_back(connection: Connection) -> None:
    """Take that right from our log-in again, as the migrations did."""
    if not scalar(connection, _IS_SUPER):
        connection.execute(_granted("REVOKE meter_ledger_owner FROM {}", connection))


def continue_entry_numbers(connection: Connection) -> None:
    """Number the next entry after the last one there is."""
    connection.execute(
        "SELECT setval('ledger.entry_entry_id_seq', greatest(coalesce(max(entry_id), 0), 1), max(entry_id) IS NOT NULL) FROM ledger.entry"
    )


def _granted(text: LiteralString, connection: Connection) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(connection.info.user))


def last_recorded(connection: Connection) -> bytes | None:
    """The body of the latest privileges_checked entry, or None."""
    row = connection.execute(
        "SELECT body FROM ledger.entry WHERE kind = 'privileges_checked' ORDER BY entry_id DESC LIMIT 1", binary=True
    ).fetchone()
    return None if row is None else bytes(row[0])


def _text(value: str | bytes) -> str:
    """PostgreSQL's "char" arrives as text or bytes by the protocol's format."""
    return value.decode() if isinstance(value, bytes) else value


#: The two ways in which migration 1000 makes raw.array_bytes.
_ARRAY_BYTES: Final = {("internal", "byteasend"), ("sql", "SELECT array_send($1)")}


def reads_arrays_plainly(connection: Connection) -> bool:
    """Whether raw.array_bytes is PostgreSQL's own function: verification reads the values of rows through it, and a
    function of the owner's could return others than the stored ones."""
    found = connection.execute(
        "SELECT l.lanname, p.prosrc FROM pg_proc AS p "
        "JOIN pg_language AS l ON l.oid = p.prolang WHERE p.pronamespace = 'raw'::regnamespace AND p.proname = 'array_bytes'"
    ).fetchall()
    return len(found) == 1 and found[0] in _ARRAY_BYTES
