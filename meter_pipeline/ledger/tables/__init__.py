"""SQL of the ledger schema: entries, guards, and the rows that leaves cover."""
