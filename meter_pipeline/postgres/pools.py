"""The driver's connection pools. Apart from driver.py, because importing them costs what most commands need not pay."""

from __future__ import annotations

from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

__all__ = ["AsyncConnectionPool", "ConnectionPool", "PoolTimeout"]
