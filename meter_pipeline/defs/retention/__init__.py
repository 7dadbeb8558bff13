"""What Dagster loads for days that leave the database."""
