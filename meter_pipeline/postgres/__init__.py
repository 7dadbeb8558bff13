"""PostgreSQL apart from any table: connections and pools, COPY, day vectors, partitions, the embedded server,
migrations.

Belongs here: code that knows no table of a room. A room's SQL lives in its own tables module.
"""
