"""What Dagster's assets, jobs and sensors share: resources, partitions, the run guard, metadata."""
