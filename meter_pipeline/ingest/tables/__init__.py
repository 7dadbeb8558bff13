"""SQL of the raw schema: reads, batch loads, dead letters, and what the server waits for."""
