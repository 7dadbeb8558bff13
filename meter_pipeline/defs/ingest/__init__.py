"""What Dagster loads for reads: pulled days, feed files, raw reads, and the dead letters' jobs."""
