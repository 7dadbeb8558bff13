"""The part of the database driver that rooms may use: connections and errors (pools.py has the pools). psycopg and ADBC
themselves are imported here, in the rest of postgres/ and in the rooms' tables modules only (an import rule holds
that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import DataError, Error, InterfaceError, OperationalError, errors, sql

if TYPE_CHECKING:
    from adbc_driver_manager import dbapi

__all__ = [
    "AdbcConnection",
    "AsyncConnection",
    "Connection",
    "DataError",
    "Error",
    "InterfaceError",
    "OperationalError",
    "errors",
    "identifier",
    "literal",
]

#: A session of the pipeline's database. Rows are tuples unless a cursor asks for another kind.
Connection: TypeAlias = psycopg.Connection[Any]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[Any]
#: A session that reads whole columns.
AdbcConnection: TypeAlias = "dbapi.Connection"


def literal(value: str | int) -> str:
    """A value as it stands in a statement's text."""
    return sql.Literal(value).as_string(None)


def identifier(name: str) -> str:
    """A name as it stands in a statement's text, quoted."""
    return sql.Identifier(name).as_string(None)
