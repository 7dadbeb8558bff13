"""What billing days left behind, as digests: equal digests mean equal rows, to the last byte, and equal ledger
leaves.
"""

from __future__ import annotations

from meter_pipeline.postgres.database import Database

SCHEMAS = ("raw", "vee", "anomaly", "billing")
#: How the work was cut into batches and entries and how it was steered, not what it made. The leaves themselves are
# compared below.
STEERING = {
    "raw.load_batch",
    "raw.day_load",
    "raw.breaker",
    "raw.touched_meter",
    "vee.usage_change",
    "billing.leaf_prefix",
    "billing.usage_seen",
}
#: Instants of writing, runs, and numbers of ledger entries, which count every entry of the log, pauses among them.
OF_THE_RUN = (
    "landed_at",
    "loaded_at",
    "taken_at",
    "first_seen",
    "last_seen",
    "written_at",
    "replaced_at",
    "judged_at",
    "opened_at",
    "decided_at",
    "checked_at",
    "made_at",
    "changed_at",
    "updated_at",
    "billed_at",
    "frozen_at",
    "reconciled_at",
    "computed_at",
    "run_id",
    "ledger_entry",
    "modified_ns",
    "validated_at",
    "valid_from_at",
    "at",
    "actor",
    "first_used_at",
)
#: A dead letter's salt is drawn at random, and its leaf is the hash of it and the bytes (which are compared).
AT_RANDOM = {"raw.dead_letter": ("salt", "leaf", "corrected_leaf")}
#: Kinds of entry whose leaves are the rows of a day.
OF_A_DAY = ("ingested", "validated", "estimated", "billed", "flagged")


def content(database: Database) -> dict[str, str]:
    """A digest of every table of the day's work, and of the ledger's leaves by kind."""
    found: dict[str, str] = {}
    with database.connect(autocommit=True) as connection:
        tables = connection.execute(
            """SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1""",
            (list(SCHEMAS),),
        ).fetchall()
        for (table,) in tables:
            if table in STEERING:
                continue
            row = connection.execute(
                f"SELECT count(*)::text || ':' || coalesce(md5(string_agg(h, '' ORDER BY h)), '') FROM (SELECT md5((to_jsonb(t) - %s::text[])::text) h FROM {table} t) x",
                ([*OF_THE_RUN, *AT_RANDOM.get(table, ())],),
            ).fetchone()
            assert row is not None
            found[table] = row[0]
        leaves = connection.execute(
            """SELECT kind, count(*)::text || ':' || md5(string_agg(leaf, '' ORDER BY leaf)) FROM (
                 SELECT kind, encode(substring(leaves FROM 1 + 32 * n FOR 32), 'hex') AS leaf FROM ledger.entry, generate_series(0, leaf_count - 1) n
                 WHERE kind = ANY(%s)) l GROUP BY 1""",
            (list(OF_A_DAY),),
        ).fetchall()
    return found | {f"ledger leaves: {kind}": digest for kind, digest in leaves}
