"""The driver's connection pools. Apart from driver.py, because most commands need no pool and importing it takes
time."""

from __future__ import annotations

from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

__all__ = ["AsyncConnectionPool", "ConnectionPool", "PoolTimeout"]
