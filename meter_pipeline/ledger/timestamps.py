"""An outside clock over a checkpoint: RFC 3161, by a command of the operator's.

Belongs here: calling the command and keeping its answer. Does not belong here: any network; the command does that.

METER_PIPELINE_LEDGER_TIMESTAMP names a command that reads the checkpoint note on stdin and writes a DER TimeStampResp over its SHA-256, such
as a script around ``openssl ts -query -sha256 -cert`` and the authority's URL. A failing command never holds up a checkpoint: the log is
signed already, and the missing stamp shows in the metadata.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from typing import Final

from meter_pipeline.store import ledger as store

COMMAND_VARIABLE: Final = "METER_PIPELINE_LEDGER_TIMESTAMP"
_LOG = logging.getLogger(__name__)


def stamp_if_configured(connection: store.Connection, size: int, note: str) -> bool:
    """Ask the authority to stamp a checkpoint, once; True where this checkpoint has a stamp."""
    if any(held == size for held, _, _ in store.anchors(connection)):
        return True
    command = os.environ.get(COMMAND_VARIABLE)
    if not command:
        return False
    try:
        done = subprocess.run(shlex.split(command), input=note.encode(), capture_output=True, check=True, timeout=30)  # noqa: S603 - the operator's own command
        # DER: a SEQUENCE is the least a TimeStampResp can be; the verifier checks the rest against the authority's certificate.
        if not done.stdout.startswith(b"\x30"):
            raise ValueError("the answer is not DER")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        _LOG.warning("no time stamp for the checkpoint of %s entries: %s", size, error)
        return False
    store.insert_anchor(connection, size, "rfc3161", done.stdout)
    return True
