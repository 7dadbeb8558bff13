"""A checkpoint is time-stamped by an authority of our own making, offline: asked, kept, verified inside and by the
auditor's program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.ledger import checkpoints, entries, timestamps, verification
from meter_pipeline.ledger.export import export
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.support import ROOT

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
certs = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
"""


class Authority:
    """A time-stamp authority in a folder, and the command that asks it as curl would."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.certificate = folder / "tsa.pem"
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01")
        extensions = [
            "-addext",
            "extendedKeyUsage=critical,timeStamping",
            "-addext",
            "keyUsage=critical,digitalSignature",
        ]
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tsa"]
        made += ["-keyout", str(folder / "tsa.key"), "-out", str(self.certificate)]
        subprocess.run([*made, *extensions], check=True, capture_output=True)
        script = folder / "ask"
        script.write_text(
            f"#!/bin/sh\ncat > {folder}/query && exec openssl ts -reply -config {folder}/tsa.cnf -queryfile {folder}/query\n"
        )
        script.chmod(0o755)
        self.command = str(script)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path / "authority")
    monkeypatch.setenv(timestamps.COMMAND_VARIABLE, made.command)
    return made


def test_a_checkpoint_is_stamped_kept_and_verified(database: Database, tmp_path: Path, authority: Authority) -> None:
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {"n": 1})
    done = checkpoints.checkpoint(database, home=tmp_path)
    assert done.stamped
    assert checkpoints.checkpoint(database, home=tmp_path).stamped
    with database.connect("test") as connection:
        [(size, kind, token)] = store.anchors(connection)
    assert (size, kind) == (2, "rfc3161")
    assert (
        abs((timestamps.verify(bytes(token), done.note, authority.certificate) - datetime.now(UTC)).total_seconds())
        < 600
    )
    assert verification.verify(database, home=tmp_path, authority=authority.certificate).checked["time stamps"] == 1
    export(database, tmp_path / "export")
    report = judge(tmp_path / "export", done.vkey, authority.certificate)
    assert (report["findings"], report["checked"]["time stamps"]) == ([], 1)
    # another authority's certificate, and a stamp over another checkpoint
    other = Authority(tmp_path / "other")
    with pytest.raises(timestamps.TimestampError):
        timestamps.verify(bytes(token), done.note, other.certificate)
    found = verification.verify(database, home=tmp_path, authority=other.certificate)
    assert [(finding.check, finding.index) for finding in found.findings] == [("time stamp", 1)]
    report = judge(tmp_path / "export", done.vkey, other.certificate)
    assert [(finding["check"], finding["index"]) for finding in report["findings"]] == [("time stamp", 1)]
    with pytest.raises(timestamps.TimestampError, match="another note"):
        timestamps.verify(bytes(token), done.note + "x", authority.certificate)


def judge(folder: Path, vkey: str, authority: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        str(ROOT / "tools" / "verify_ledger.py"),
        str(folder),
        "--vkey",
        vkey,
        "--tsa-ca",
        str(authority),
        "--json",
    ]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout))


def test_an_answer_to_another_query_or_a_refusal_is_not_kept(
    database: Database, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = subprocess.run(
        [authority.command], input=timestamps.query("note\n", 2**62 + 1), capture_output=True, check=True
    ).stdout
    assert timestamps.stamped_at(answer, "note\n", 2**62 + 1)
    with pytest.raises(timestamps.TimestampError, match="another query"):
        timestamps.stamped_at(answer, "note\n", 7)
    with pytest.raises(timestamps.TimestampError, match="not a time stamp"):
        timestamps.stamped_at(answer[:-9], "note\n")
    with pytest.raises(timestamps.TimestampError, match="refused"):
        timestamps.stamped_at(bytes.fromhex("30053003020102"), "note\n")  # status rejection
    replayed = tmp_path / "replayed"
    replayed.write_bytes(answer)
    for command in (f"cat {replayed}", "false", str(tmp_path / "nothing")):
        monkeypatch.setenv(timestamps.COMMAND_VARIABLE, command)
        assert not checkpoints.checkpoint(database, home=tmp_path).stamped
    monkeypatch.delenv(timestamps.COMMAND_VARIABLE)
    assert not checkpoints.checkpoint(database, home=tmp_path).stamped
