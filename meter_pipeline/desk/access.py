"""Who is at the desk: a token, or a header from a proxy that is trusted by its address; and the proof that a form came
from our own page.

A token is 32 random bytes, so one round of SHA-256 at rest is enough: there is nothing to guess. The file is 0600 and
refused when others can read it. A session is a signed cookie that names its token: revoking the token ends it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.people import canonical

#: A working day: who comes back tomorrow logs in again.
SESSION_S: Final = 10 * 3600
HEADER_VARIABLE: Final = "METER_PIPELINE_DESK_PROXY_HEADER"
PROXIES_VARIABLE: Final = "METER_PIPELINE_DESK_TRUSTED_PROXIES"
TOKENS_VARIABLE: Final = "METER_PIPELINE_DESK_TOKEN_HASHES"
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class AccessError(ValueError):
    """A setting or file that cannot be trusted; the message names it and the next step."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. ``person`` is canonical; ``session`` is what a form's proof is bound to; ``by`` is token or proxy."""

    person: str
    session: str
    by: str


@dataclass(slots=True)
class Access:
    """Tokens and sessions of one desk. ``folder`` holds tokens and the session key, both 0600.

    ``header`` is the name of a header that a proxy sets after its own log-in; it counts only from an address in
    ``proxies``.
    """

    folder: Path
    header: str | None = None
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    clock: Clock = SYSTEM_CLOCK
    key: bytes = b""

    def __post_init__(self) -> None:
        if bool(self.header) != bool(self.proxies):
            raise AccessError(
                f"{HEADER_VARIABLE} and {PROXIES_VARIABLE} go together: a header counts only from a proxy that is named"
            )
        if self.header and not _HEADER.fullmatch(self.header):
            raise AccessError(f"{HEADER_VARIABLE}: {self.header!r} is not a header name")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.key = self.key or _key(self.folder / "session.key")

    # --- tokens

    @property
    def path(self) -> Path:
        return self.folder / "tokens"

    def issue(self, name: str) -> str:
        """A new token for a person; only its hash is kept. Raises AccessError for a name that is none."""
        person = canonical(name)
        if person is None:
            raise AccessError(f"{name!r} is not a name: lower-case ASCII letters, digits and . _ @ - only")
        token = secrets.token_urlsafe(32)
        line = f"{person} {_hash(token)} {self.clock.now():%Y-%m-%dT%H:%M:%SZ}\n"
        _check_mode(self.path)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(line)
        return token

    def revoke(self, name: str) -> int:
        """Drop every token of a person from the file, and with them their sessions; returns how many there were."""
        person = canonical(name)
        _check_mode(self.path)
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if line.partition(" ")[0] != person]
        fresh = self.path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in kept))
        fresh.replace(self.path)
        return len(lines) - len(kept)

    def tokens(self) -> dict[str, str]:
        """Hash of a token to its person: the environment's and the file's. Raises AccessError where others can read the
        file."""
        found = dict(self.fixed)
        if self.path.exists():
            _check_mode(self.path)
            for line in self.path.read_text("utf-8").splitlines():
                person, digest, *_ = [*line.split(), "", ""]
                if canonical(person) == person and re.fullmatch(r"[0-9a-f]{64}", digest):
                    found[digest] = person
        return found

    def owner_of(self, token: str) -> str | None:
        """Whose token this is; None where it is unknown."""
        return self.tokens().get(_hash(token.strip()))

    # --- log-in and sessions

    def log_in(self, token: str) -> str | None:
        """A session cookie's value for a token, or None where it is unknown."""
        digest = _hash(token.strip())
        # Looked up by the hash of what was given: how long it takes says nothing about a token that exists.
        person = self.owner_of(token)
        if person is None:
            return None
        body = f"{person}|{digest[:16]}|{int(self.clock.now().timestamp())}|{secrets.token_urlsafe(12)}"
        return f"{body}|{self._sign('session', body)}"

    def visitor(self, peer: str | None, headers: Mapping[str, str], cookie: str | None) -> Visitor | None:
        """Who sends this request, or None. ``peer`` is the address of the connection itself, never a forwarded one."""
        if self.header and self._trusted(peer):
            person = canonical(headers.get(self.header.lower(), ""))
            if person is not None:
                # One proof a person and day: the proxy keeps no session with us.
                return Visitor(person, f"proxy|{person}|{self.clock.now():%Y-%m-%d}", "proxy")
        if not cookie or cookie.count("|") != 4:
            return None
        body, _, signature = cookie.rpartition("|")
        if not hmac.compare_digest(self._sign("session", body).encode(), signature.encode("utf-8", "replace")):
            return None
        person, digest, at, _ = body.split("|")
        age = self.clock.now().timestamp() - int(at)
        if not -60 <= age <= SESSION_S or not any(
            h.startswith(digest) and p == person for h, p in self.tokens().items()
        ):
            return None
        if hashlib.sha256(body.encode()).hexdigest() in self._ended():
            return None
        return Visitor(person, body, "token")

    def log_out(self, visitor: Visitor) -> None:
        """End a session for good: its cookie is worthless from now on, whoever holds a copy."""
        if visitor.by != "token":
            return
        now = int(self.clock.now().timestamp())
        ended = {name: at for name, at in self._ended().items() if now - at <= SESSION_S}
        ended[hashlib.sha256(visitor.session.encode()).hexdigest()] = now
        fresh = self.folder / "ended.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(f"{name} {at}\n" for name, at in ended.items()))
        fresh.replace(self.folder / "ended")

    def _ended(self) -> dict[str, int]:
        """Sessions that were logged out, by hash, and when. Kept in a file, so that a restart brings none back."""
        path = self.folder / "ended"
        if not path.exists():
            return {}
        return {name: int(at) for name, at in (line.split() for line in path.read_text("utf-8").splitlines())}

    def begun(self, visitor: Visitor) -> int | None:
        """When a token's session began, in seconds since 1970; None for a proxy's, which keeps none with us."""
        return int(visitor.session.split("|")[2]) if visitor.by == "token" else None

    def csrf_token(self, visitor: Visitor) -> str:
        """The token of a form, which shows that the form came from a page of ours."""
        return self._sign("form", visitor.session)

    def csrf_token_valid(self, visitor: Visitor, csrf_token: str) -> bool:
        return hmac.compare_digest(self.csrf_token(visitor).encode(), csrf_token.encode("utf-8", "replace"))

    def _trusted(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self.proxies)

    def _sign(self, purpose: str, body: str) -> str:
        return hmac.new(self.key, f"{purpose}\x1f{body}".encode(), hashlib.sha256).hexdigest()


def from_environment(folder: Path, environment: Mapping[str, str]) -> Access:
    """The desk's access as the environment describes it. Raises AccessError naming the variable."""
    proxies = []
    for text in (environment.get(PROXIES_VARIABLE) or "").replace(",", " ").split():
        try:
            proxies.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise AccessError(f"{PROXIES_VARIABLE}: {text!r} is not an address or network") from error
    fixed = {}
    for pair in (environment.get(TOKENS_VARIABLE) or "").replace(",", " ").split():
        person, _, digest = pair.partition(":")
        if canonical(person) != person or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise AccessError(f"{TOKENS_VARIABLE}: write name:sha256-in-hex, several separated by commas")
        fixed[digest] = person
    return Access(folder, environment.get(HEADER_VARIABLE) or None, tuple(proxies), fixed)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _key(path: Path) -> bytes:
    """The key that signs sessions, made once. Kept, so that a restart ends no session."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        _check_mode(path)
        found = path.read_bytes()
        if len(found) < 32:
            raise AccessError(f"{path} is damaged: remove it, everybody logs in again") from None
        return found
    with os.fdopen(descriptor, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
    return key


def _check_mode(path: Path) -> None:
    if path.exists() and path.stat().st_mode & 0o077:
        raise AccessError(f"{path} can be read by others: chmod 600 {path}")
