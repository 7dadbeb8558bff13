"""SQL of the raw schema: reads, batch loads, dead letters, and the server's wait events."""
