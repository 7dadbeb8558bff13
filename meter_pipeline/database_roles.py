"""The database roles of a deployment, and the script by which an administrator makes them.

An owner of the database who may not create roles (most managed servers' default) has them made beforehand: the
migrations then find them, and grant their rights.
"""

from __future__ import annotations

from typing import Final

from meter_pipeline.ledger import privileges as ledger_privileges
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.driver import identifier, literal

#: Roles of schema ledger that own or use nothing else (sql/migrations/0101_roles.sql).
LEDGER_ROLES: Final[dict[str, str]] = {
    ledger_privileges.OWNER: "Owns the ledger's tables; no log-in may act as it once they are made.",
    "meter_ledger_writer": "Appends ledger entries; a member of every role that changes anything.",
    "meter_ledger_sequencer": "Orders entries and writes the tree and its checkpoints.",
    "meter_ledger_eraser": "Erases personal data behind a ledger entry.",
}


def roles() -> dict[str, str]:
    """Every role, with its purpose: those of the ledger first, because others are members of them."""
    return LEDGER_ROLES | privileges.abouts()


def administrators_script(owner: str) -> str:
    """Plain SQL for an administrator: the roles, their memberships, and the one that ``owner`` needs to hand the
    ledger's tables over. May be run again."""
    lines = [
        "-- The database roles of meter_pipeline. Run once on the server, as a superuser or a role with CREATEROLE, before",
        "-- the first migration. None of them can log in. Running it again changes nothing.",
        "DO $roles$",
        "DECLARE wanted text;",
        "BEGIN",
        "    FOREACH wanted IN ARRAY ARRAY[",
        ",\n".join(f"        {literal(role)}" for role in roles()),
        "    ] LOOP",
        "        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN",
        "            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);",
        "        END IF;",
        "    END LOOP;",
        "END",
        "$roles$;",
    ]
    lines += [f"ALTER ROLE {role} NOINHERIT;" for role in LEDGER_ROLES]
    lines += [f"COMMENT ON ROLE {role} IS {literal(about)};" for role, about in roles().items()]
    lines += [
        "-- A role has the rights of these others without becoming them, where the server can say so (PostgreSQL 16).",
        "DO $grants$",
        "DECLARE how text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END;",
        "BEGIN",
    ]
    lines += [
        f"    EXECUTE 'GRANT {other} TO {role}' || how;"
        for role, others in privileges.load().member_of.items()
        for other in others
    ]
    lines += ["END", "$grants$;"]
    lines += [
        "-- The owner of the database hands the ledger's tables over to their own role, and grants itself the others:",
        f"GRANT {', '.join([*LEDGER_ROLES, 'meter_auditor', 'meter_backup'])} TO {identifier(owner)} WITH ADMIN OPTION;",
        "-- `meter-pipeline services up` runs every service under this one log-in, each acting in its own role. Leave this",
        "-- line out where every service has a log-in of its own (deploy/systemd, deploy/container):",
        f"GRANT {', '.join(privileges.STAGE_ROLES)} TO {identifier(owner)};",
    ]
    return "\n".join(lines) + "\n"
