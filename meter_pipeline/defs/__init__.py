"""The edge: the only rooms that import dagster. Each asset calls one function of a capability room and says what came
of it."""
