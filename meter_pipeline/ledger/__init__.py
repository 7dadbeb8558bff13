"""The audit ledger: all changes in an order that cannot be rewritten unseen, and the proofs of it.

Belongs here: entries and their canonical bytes, the RFC 6962 tree, the sequencer, signed checkpoints, witnesses,
exports, verification. Does not belong here: what the entries are about (each room writes its own in the transaction of
its change), SQL (ledger/tables/entries.py). Names are imported when first used, so that the signer's process starts
with the standard library and one dependency.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from meter_pipeline.ledger.day import LedgerBefore, LedgerDay, checkpoint_billing_day, verify_before_billing
    from meter_pipeline.ledger.entries import append
    from meter_pipeline.ledger.outcome import VerifyOutcome
    from meter_pipeline.ledger.verification import verify

__all__ = [
    "LedgerBefore",
    "LedgerDay",
    "VerifyOutcome",
    "append",
    "checkpoint_billing_day",
    "verify",
    "verify_before_billing",
]

_HOME: Final = {
    "LedgerBefore": "day",
    "LedgerDay": "day",
    "checkpoint_billing_day": "day",
    "verify_before_billing": "day",
    "append": "entries",
    "VerifyOutcome": "outcome",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
