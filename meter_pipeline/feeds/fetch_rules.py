"""Where the files of a head-end are fetched from, where it does not send them: the table ``[fetch]`` of a
declaration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

#: an SFTP server, or an API that is asked for a report and has it ready later
WAYS: Final = ("sftp", "report")
#: a host key as known_hosts has it without the host, or its fingerprint as ssh-keygen -l prints it
_HOST_KEY: Final = re.compile(
    r"(ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]{16,}|SHA256:[A-Za-z0-9+/]{43}"
)
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Fetch:
    """How files come. Secrets are never written down: ``key_env``, ``password_env``, ``user_env`` and ``token_env``
    name environment variables (``key_env`` one that holds the path of a private key).

    SFTP: files of ``folder`` on ``host`` that match ``files`` and were not changed for ``settle_seconds``. ``host_key``
    pins the server: its public key, or the key's fingerprint (SHA256:...).

    Report: ``url`` is asked by POST with the fields of ``body`` (``{day}`` and ``{next_day}`` stand for the billing day
    and the one after it). The answer is JSON: ``status`` is the path of the address to ask next (or, with ``id``, an
    address in which ``{id}`` stands for the value at that path). There ``state`` is the path of a word: one of
    ``ready``, one of ``failed``, or anything else while it is being made; ``file`` is the path of the report's address.
    Every address must be on the host of ``url``. ``suffix`` ends the file's name. ``patience_seconds``: how long one
    pull waits; the next one goes on. ``again_days``: a day is asked for again so many days later, since reads go on
    arriving.
    """

    how: str
    host: str = ""
    port: int = 22
    user: str = ""
    user_env: str = ""
    password_env: str = ""
    key_env: str = ""
    token_env: str = ""
    host_key: str = ""
    folder: str = "."
    files: str = "*"
    settle_seconds: int = 60
    url: str = ""
    body: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    status: str = ""
    state: str = ""
    ready: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    file: str = ""
    suffix: str = ".csv"
    poll_seconds: int = 30
    patience_seconds: int = 120
    again_days: tuple[int, ...] = ()


def secure(url: str) -> bool:
    """Whether an address may carry secrets: https, or http to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)


def fault_of(fetch: Fetch) -> str | None:
    """Returns the fault of a table ``[fetch]``, or None."""
    if fetch.how not in WAYS:
        return f"how must be one of {', '.join(WAYS)}"
    if any(days < 1 or days > 400 for days in fetch.again_days) or list(fetch.again_days) != sorted(
        set(fetch.again_days)
    ):
        return "again_days must be days from 1 to 400, in order"
    if fetch.how == "sftp":
        return _sftp_fault(fetch)
    if not secure(fetch.url):
        return "url must be https, or http to this machine"
    for name in ("status", "state", "ready", "file"):
        if not getattr(fetch, name):
            return f'{name}: declare it, how = "report" needs it'
    if fetch.id and "{id}" not in fetch.status:
        return "status: an address with {id} in it is wanted beside id"
    if not re.fullmatch(r"(\.[A-Za-z0-9]{1,8}){1,2}", fetch.suffix):
        return "suffix must be an ending such as .csv"
    if not 1 <= fetch.poll_seconds <= 3600 or not 0 <= fetch.patience_seconds <= 3600:
        return "poll_seconds must be 1 to 3600, patience_seconds 0 to 3600"
    return None


def _sftp_fault(fetch: Fetch) -> str | None:
    if not fetch.host or not (fetch.user or fetch.user_env):
        return 'host and user: declare them, how = "sftp" needs both'
    if not _HOST_KEY.fullmatch(fetch.host_key):
        return "host_key: give the server's public key (ssh-keyscan HOST) or its fingerprint (SHA256:...)"
    if not fetch.key_env and not fetch.password_env:
        return "key_env or password_env: name the environment variable that holds the key's path or the password"
    if "/" in fetch.files or not fetch.files:
        return "files must be a pattern of names, such as *.csv"
    if ".." in PurePosixPath(fetch.folder).parts:
        return "folder may not go up (..)"
    if not 1 <= fetch.port <= 65535 or not 0 <= fetch.settle_seconds <= 86400:
        return "port must be 1 to 65535, settle_seconds 0 to 86400"
    return None
