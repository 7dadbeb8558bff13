"""Register reads: consumption between reads, meter exchanges, reads that close earlier days."""
