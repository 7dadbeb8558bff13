"""SQL of the anomaly schema: detection, and the exception queue."""
