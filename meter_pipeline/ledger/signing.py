"""The pipeline's side of the signer: a request to another process.

Belongs here: starting the signer and reading its answer. Does not belong here: keys; this process never opens one.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meter_pipeline.ledger.signer import SignerRefusedError

#: A command that answers as the signer does: another user's by sudo, another machine's by ssh.
COMMAND_VARIABLE: Final = "METER_PIPELINE_LEDGER_SIGNER"
_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class SignerClient:
    """How to ask the signer: ``command`` reads a JSON request on stdin and prints a JSON answer."""

    command: tuple[str, ...]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer. Raises SignerRefusedError with the signer's own code, or ``unreachable``."""
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
                self.command, input=json.dumps(request), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=_environment()
            )
            answer: dict[str, Any] = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
            raise SignerRefusedError("unreachable", f"the signer gave no answer: {error}") from error
        if "refused" in answer:
            raise SignerRefusedError(str(answer["refused"]), str(answer.get("reason", "")))
        return answer

    def public(self, origin: str) -> tuple[str, int]:
        """(verifier key, size last signed); a log's first question makes its key."""
        answer = self.ask({"op": "public", "origin": origin})
        return str(answer["vkey"]), int(answer["size"])

    def sign(self, origin: str, size: int, root: bytes, old_size: int, proof: Sequence[bytes]) -> tuple[str, str]:
        """(signature line, verifier key) for a tree head that extends the one signed last."""
        answer = self.ask(
            {"op": "sign", "origin": origin, "size": size, "root": root.hex(), "old_size": old_size, "proof": [step.hex() for step in proof]}
        )
        return str(answer["line"]), str(answer["vkey"])

    def rotate(self, origin: str) -> dict[str, Any]:
        """Make a new key and have both sign the hand-over; the new one waits for activate."""
        return self.ask({"op": "rotate", "origin": origin})

    def activate(self, origin: str) -> str:
        """Let the waiting key take over; returns its verifier key."""
        return str(self.ask({"op": "activate", "origin": origin})["vkey"])


def signer_client(keys: Path, command: str | None = None) -> SignerClient:
    """The signer of METER_PIPELINE_LEDGER_SIGNER, or one started here for each signature over ``keys``."""
    chosen = command if command is not None else os.environ.get(COMMAND_VARIABLE)
    if chosen:
        return SignerClient(tuple(shlex.split(chosen)))
    return SignerClient((sys.executable, "-m", "meter_pipeline.ledger.signer", "--keys", str(keys)))


def _environment() -> dict[str, str]:
    """Nothing of the database goes to the signer."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "METER_PIPELINE_DATABASE"))}
