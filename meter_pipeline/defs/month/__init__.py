"""What Dagster loads for a month's questions: unbilled revenue, the supply balance."""
