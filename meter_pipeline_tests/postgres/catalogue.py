"""Everything a database's catalogue says of our schemas, as lines of text that two databases can be compared by.

Objects are named, never numbered, so that two databases made by different statements in another order give the same
lines where they hold the same. What belongs to an extension is left out; the extension itself is a line.
"""

from __future__ import annotations

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import identifier

_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NO_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = '{0}'::regclass AND e.objid = {1}.oid AND e.deptype = 'e')"
#: Who may do what, sorted: the order in which rights were granted says nothing.
_RIGHTS = "coalesce((SELECT string_agg(r::text, ' ' ORDER BY r::text COLLATE \"C\") FROM unnest({0}) AS r), 'default')"

_QUERIES = {
    "role": """
        SELECT concat_ws(' ', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
            rolconnlimit, shobj_description(oid, 'pg_authid'), rolconfig)
        FROM pg_roles WHERE rolname LIKE 'meter@_%' ESCAPE '@'""",
    "member": """
        SELECT concat_ws(' ', m.roleid::regrole, 'to', m.member::regrole, to_jsonb(m) - ARRAY['oid', 'roleid', 'member', 'grantor'])
        FROM pg_auth_members AS m WHERE m.roleid::regrole::text LIKE 'meter@_%' ESCAPE '@'""",
    "setting": """
        SELECT concat_ws(' ', s.setrole::regrole, s.setconfig) FROM pg_db_role_setting AS s
        WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))""",
    "default rights": f"""
        SELECT concat_ws(' ', d.defaclrole::regrole, n.nspname, d.defaclobjtype, {_RIGHTS.format("d.defaclacl")})
        FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace""",
    "extension": """
        SELECT concat_ws(' ', e.extname, e.extversion, n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace""",
    "schema": f"""
        SELECT concat_ws(' ', n.nspname, n.nspowner::regrole, {_RIGHTS.format("n.nspacl")}, obj_description(n.oid, 'pg_namespace'))
        FROM pg_namespace AS n WHERE {_OURS}""",
    "relation": f"""
        SELECT concat_ws(' ', n.nspname || '.' || c.relname, c.relkind, c.relowner::regrole, c.relpersistence, c.reloptions, c.relreplident,
            c.relrowsecurity, c.relforcerowsecurity, c.relispartition, pg_get_partkeydef(c.oid), {_RIGHTS.format("c.relacl")},
            obj_description(c.oid, 'pg_class'), CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid)
                WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {_OURS} AND {_NO_EXTENSION.format("pg_class", "c")}""",
    "column": f"""
        SELECT concat_ws(' ', n.nspname || '.' || c.relname, lpad(a.attnum::text, 3, '0'), a.attname, format_type(a.atttypid, a.atttypmod),
            o.collname, a.attnotnull, a.attidentity, a.attgenerated, a.attstorage, a.attcompression, to_jsonb(a) -> 'attstattarget', a.attoptions,
            {_RIGHTS.format("a.attacl")}, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_collation AS o ON o.oid = a.attcollation LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {_OURS} AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind NOT IN ('i', 'I') AND {_NO_EXTENSION.format("pg_class", "c")}""",
    "constraint": f"""
        SELECT concat_ws(' ', n.nspname || '.' || coalesce(k.conrelid::regclass::text, k.contypid::regtype::text), k.conname, k.contype, k.condeferrable,
            k.condeferred, k.convalidated, k.connoinherit, k.conislocal, k.coninhcount, pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'))
        FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace WHERE {_OURS}""",
    "sequence": f"""
        SELECT concat_ws(' ', n.nspname || '.' || c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache,
            s.seqcycle, d.refobjid::regclass, d.refobjsubid, d.deptype)
        FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') WHERE {_OURS}""",
    "function": f"""
        SELECT concat_ws(' ', n.nspname || '.' || p.oid::regprocedure::text, p.proowner::regrole, {_RIGHTS.format("p.proacl")},
            obj_description(p.oid, 'pg_proc'), pg_get_functiondef(p.oid))
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {_OURS} AND {_NO_EXTENSION.format("pg_proc", "p")}""",
    "trigger": f"""
        SELECT concat_ws(' ', t.tgrelid::regclass, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid), obj_description(t.oid, 'pg_trigger'))
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {_OURS} AND NOT t.tgisinternal""",
    "policy": """
        SELECT concat_ws(' ', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive,
            (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE r::regrole::text END, ' ' ORDER BY 1) FROM unnest(p.polroles) AS r),
            pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy AS p""",
    "type": f"""
        SELECT concat_ws(' ', n.nspname || '.' || t.typname, t.typtype, t.typowner::regrole, format_type(t.typbasetype, t.typtypmod), o.collname, t.typnotnull,
            t.typdefault, {_RIGHTS.format("t.typacl")}, g.rngsubtype::regtype, g.rngmultitypid::regtype, obj_description(t.oid, 'pg_type'),
            (SELECT string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid))
        FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace LEFT JOIN pg_collation AS o ON o.oid = t.typcollation
        LEFT JOIN pg_range AS g ON g.rngtypid = t.oid WHERE {_OURS} AND {_NO_EXTENSION.format("pg_type", "t")}""",
}

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public') ORDER BY 1, 2
"""


def catalogue(database: Database) -> list[str]:
    """Roles, schemas, tables with columns in order, constraints, indexes, functions, triggers, policies, views,
    sequences, types, rights, comments and every row, one line each, sorted. Run by a superuser."""
    found: list[str] = []
    with database.connect("catalogue") as connection:
        # Names are written with their schema, wherever they stand.
        connection.execute("SET search_path = ''")
        for kind, query in _QUERIES.items():
            found += [f"{kind}: {line}".replace("\n", "\\n") for (line,) in connection.execute(query.encode())]
        for schema, name in connection.execute(_TABLES.encode()).fetchall():
            rows = connection.execute(
                f"SELECT to_jsonb(t)::text FROM {identifier(schema)}.{identifier(name)} AS t".encode()
            )
            found += [f"row: {schema}.{name} {line}" for (line,) in rows]
    return sorted(found)
