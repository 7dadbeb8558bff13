"""Shared by Dagster's assets, jobs and sensors: resources, partitions, the run guard, metadata."""
