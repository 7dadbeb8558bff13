"""What Dagster loads for validation: intervals and daily usage."""
