"""What Dagster loads for reference data: its asset and the import job."""
