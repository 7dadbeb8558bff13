"""SQL of the anomaly schema: what detection reads and writes, and the exception queue."""
