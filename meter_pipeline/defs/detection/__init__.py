"""What Dagster loads for anomalies: weather, baselines, flags, and the exception queue's jobs."""
