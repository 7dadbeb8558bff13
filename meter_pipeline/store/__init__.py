"""PostgreSQL, and everything that speaks to it: connections, the embedded server, migrations, COPY and day vectors, one
module a room's tables."""
