"""The tree promises RFC 6962: known roots, other people's proof vectors, and every proof of every size up to 300."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.ledger import hashsets, merkle
from meter_pipeline_tests.support import fixtures_dir

#: The leaves and roots of RFC 6962's reference implementation (Certificate Transparency, merkletree tests).
RFC_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
RFC_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def definition(data: list[bytes]) -> bytes:
    """MTH as section 2.1 writes it, recursive and slow."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return hashlib.sha256(b"\x01" + definition(data[:split]) + definition(data[split:])).digest()


def some_leaves(size: int) -> list[bytes]:
    return [hashlib.sha256(b"leaf %d" % number).digest() for number in range(size)]


def test_known_root() -> None:
    assert merkle.root(RFC_LEAVES).hex() == RFC_ROOT
    assert merkle.root([]) == merkle.EMPTY_ROOT


@given(st.lists(st.binary(max_size=80), max_size=70))
def test_roots_follow_the_definition(data: list[bytes]) -> None:
    assert merkle.root(data) == definition(data)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 31, 32, 33, 1000])
def test_a_batch_folds_alike_from_bytes_list_and_array(size: int) -> None:
    leaves = some_leaves(size)
    array = np.frombuffer(b"".join(leaves), dtype=np.uint8).reshape(size, 32)
    assert (
        merkle.fold_root(leaves) == merkle.fold_root(b"".join(leaves)) == merkle.fold_root(array) == merkle.root(leaves)
    )
    assert merkle.fold_root(array[::-1]) == merkle.root(leaves[::-1])


def test_the_compiled_loop_hashes_as_hashlib_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 15, 16, 17, 1001):  # whole lanes, and lanes left over
        leaves = some_leaves(size)
        monkeypatch.setattr(merkle, "compiled", lambda hashes: False)
        by_hashlib = merkle.fold_root(leaves)
        monkeypatch.setattr(merkle, "compiled", lambda hashes: True)
        assert merkle.fold_root(leaves) == by_hashlib


@pytest.mark.parametrize(
    "wrong", [[b"short"], b"x" * 33, np.zeros((2, 31), np.uint8), np.zeros((2, 32), np.int64), ["a" * 32]]
)
def test_what_is_not_hashes_is_refused(wrong: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        merkle.fold_root(wrong)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.integers(1, 300), st.data())
def test_every_leaf_is_included_and_nothing_else_is(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    read = merkle.reader_of(merkle.leaf_level(b"".join(leaves)))
    root = definition(leaves)
    assert merkle.tree_root(read, size) == root
    for index in range(size):
        proof = merkle.inclusion_proof(read, index, size)
        merkle.verify_inclusion(index, size, merkle.leaf_hash(leaves[index]), proof, root)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(read, index, size)
    with pytest.raises(merkle.ProofError):
        merkle.verify_inclusion(index, size, merkle.leaf_hash(b"another"), proof, root)
    if size > 1:
        with pytest.raises(merkle.ProofError):
            merkle.verify_inclusion((index + 1) % size, size, merkle.leaf_hash(leaves[index]), proof, root)
        with pytest.raises(merkle.ProofError):
            merkle.verify_inclusion(index, size, merkle.leaf_hash(leaves[index]), proof[:-1], root)
    with pytest.raises(merkle.ProofError):
        merkle.verify_inclusion(index, size, merkle.leaf_hash(leaves[index]), [*proof, root], root)


def test_every_size_up_to_300_extends_every_smaller_one() -> None:
    leaves = some_leaves(300)
    read = merkle.reader_of(merkle.leaf_level(b"".join(leaves)))
    roots = [merkle.tree_root(read, size) for size in range(301)]
    for new in range(301):
        for old in range(new + 1):
            merkle.verify_consistency(old, new, roots[old], roots[new], merkle.consistency_proof(read, old, new))


@settings(max_examples=60)
@given(st.integers(2, 300), st.data())
def test_a_rewritten_past_is_not_consistent(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(st.integers(0, old - 1))
    leaves = some_leaves(new)
    old_root = definition(leaves[:old])
    leaves[changed] = b"rewritten"
    read = merkle.reader_of(b"".join([merkle.leaf_hash(leaf) for leaf in leaves]))
    proof = merkle.consistency_proof(read, old, new)
    with pytest.raises(merkle.ProofError):
        merkle.verify_consistency(old, new, old_root, definition(leaves), proof)


def _vectors(kind: str) -> list[Path]:
    return sorted((fixtures_dir() / "merkle" / kind).rglob("*.json"))


def _decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_other_peoples_inclusion_vectors() -> None:
    vectors = _vectors("inclusion")
    assert vectors
    for path in vectors:
        vector = json.loads(path.read_text())
        proof = [_decoded(step) for step in vector["proof"] or []]
        try:
            merkle.verify_inclusion(
                vector["leafIdx"], vector["treeSize"], _decoded(vector["leafHash"]), proof, _decoded(vector["root"])
            )
            accepted = True
        except merkle.ProofError:
            accepted = False
        assert accepted is not vector["wantErr"], path


def test_other_peoples_consistency_vectors() -> None:
    vectors = _vectors("consistency")
    assert vectors
    for path in vectors:
        vector = json.loads(path.read_text())
        proof = [_decoded(step) for step in vector["proof"] or []]
        try:
            merkle.verify_consistency(
                vector["size1"], vector["size2"], _decoded(vector["root1"]), _decoded(vector["root2"]), proof
            )
            accepted = True
        except merkle.ProofError:
            accepted = False
        assert accepted is not vector["wantErr"], path


def test_many_batches_fold_together_as_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        batches = [
            rng.randbytes(32 * rng.choice((0, 1, 2, 3, 5, 8, 13, 64, 65, 300))) for _ in range(rng.randrange(1, 12))
        ]
        counts = [len(batch) // 32 for batch in batches]
        expected = [merkle.fold_root(batch) for batch in batches]
        for compiled in (True, False):
            monkeypatch.setattr(merkle, "compiled", lambda _, on=compiled: on)
            for by_itself in (20_000, 7):
                monkeypatch.setattr(merkle, "_BY_ITSELF", by_itself)
                assert merkle.fold_roots(b"".join(batches), counts) == expected, f"seed {seed}"
        monkeypatch.undo()
    assert merkle.fold_roots(b"", []) == []
    assert merkle.fold_roots(b"", [0, 0]) == [merkle.EMPTY_ROOT] * 2
    with pytest.raises(ValueError, match="hashes"):
        merkle.fold_roots(bytes(64), [1])


def test_what_is_absent_of_one_set_of_hashes_from_another() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        # few different beginnings, so that hashes meet in their first eight bytes
        pool = [bytes([rng.randrange(3)]) * 8 + rng.randbytes(1) * 24 for _ in range(60)]
        wanted, among = rng.choices(pool, k=rng.randrange(40)), rng.choices(pool, k=rng.randrange(40))
        found = hashsets.absent(hashsets.of(b"".join(wanted)), hashsets.of(b"".join(among)))
        assert found == [row for row, each in enumerate(wanted) if each not in set(among)], f"seed {seed}"
