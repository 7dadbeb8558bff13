"""Dagster definitions of the ledger: checkpoints around billing, and the auditor's jobs."""
