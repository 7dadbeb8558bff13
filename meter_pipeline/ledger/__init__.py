"""The audit ledger: what happened, in an order nobody can rewrite unseen, and the proofs that show it.

Belongs here: entries and their canonical bytes, the RFC 6962 tree, the sequencer, signed checkpoints, witnesses, exports, verification.
Does not belong here: what the entries are about (each room writes its own in the transaction of its change), SQL (store/ledger.py).
This file imports nothing, so that the signer's process starts with the standard library and one dependency.
"""
