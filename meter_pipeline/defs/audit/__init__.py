"""What Dagster loads for the ledger: checkpoints around billing, and the auditor's jobs."""
