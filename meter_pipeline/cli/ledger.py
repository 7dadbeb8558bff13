"""``meter-pipeline ledger``: the audit ledger from the shell."""

from __future__ import annotations

import base64
import binascii
import getpass
import json
import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from meter_pipeline.cli.output import OUT, USAGE, emit, problem, table
from meter_pipeline.ledger import merkle
from meter_pipeline.ledger.tables import entries
from meter_pipeline.postgres.database import Database

app = typer.Typer(help="The audit ledger: checkpoint, prove, verify, export, witness.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Days = Annotated[
    list[datetime] | None, typer.Option("--day", formats=["%Y-%m-%d"], help="A billing day; may be repeated.")
]


@app.command()
def checkpoint(
    as_json: AsJson = False,
    sweep: Annotated[bool, typer.Option(help="Look at every entry, not only the recent ones.")] = False,
) -> None:
    """Order what is committed, have it signed, publish it. Example: meter-pipeline ledger checkpoint"""
    from meter_pipeline.ledger.checkpoints import checkpoint as make
    from meter_pipeline.ledger.sequencer import SequencerBusyError
    from meter_pipeline.ledger.signer import SignerRefusedError

    settings, database = _open()
    try:
        done = make(database, home=settings.home, utility=settings.utility().name, sweep=sweep)
    except SignerRefusedError as error:
        _no(as_json, {"refused": error.code, "reason": str(error)}, "meter-pipeline ledger verify --full")
    except SequencerBusyError as error:
        _no(as_json, {"refused": "busy", "reason": str(error)}, "try again in a moment")
    emit(
        done.document(),
        as_json,
        lambda _: OUT.print(f"{done.size} entries, root {done.root.hex()}\n{done.note}", highlight=False),
    )


@app.command()
def verify(
    day: Days = None,
    full: Annotated[bool, typer.Option("--full", help="From the first entry, not from the last verified one.")] = False,
    tsa_ca: Annotated[
        Path | None,
        typer.Option(
            "--tsa-ca", help="Certificates (PEM) of the time-stamp authority: verify the stored time stamps too."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the log; match the rows of billing days with their leaves. Exit 1 where something does not hold.

    An auditor uses tools/verify_ledger.py on an export instead. Example: meter-pipeline ledger verify --full --day
    2026-03-08
    """
    from meter_pipeline.ledger.verification import verify as run
    from meter_pipeline.ledger_hashers import hashers

    settings, database = _open()
    done = run(database, home=settings.home, full=full, days=_dates(day), hashers=hashers(), authority=tsa_ca)

    def render(_: Any) -> None:
        OUT.print(
            f"{'Verified' if done.ok else 'NOT VERIFIED'}: entries {done.start} to {done.size}, root {done.root.hex()}",
            highlight=False,
        )
        OUT.print(table(None, ["checked", "count"], list(done.checked.items()), numbers=["count"]))
        if not done.ok:
            OUT.print(
                table("Findings", ["check", "place", "detail"], [(f.check, f.index, f.detail) for f in done.findings])
            )

    emit(done.document(), as_json, render)
    if not done.ok:
        raise typer.Exit(1)


@app.command()
def prove(
    meter: Annotated[str | None, typer.Option(help="A meter; with --day.")] = None,
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The billing day of the read.")] = None,
    channel: Annotated[str | None, typer.Option(help="One channel of the meter.")] = None,
    statement: Annotated[str | None, typer.Option(help="A bill by its id.")] = None,
    line: Annotated[str | None, typer.Option(help="A line of a bill by its id, STATEMENT.LINE_NO.")] = None,
    payload: Annotated[str | None, typer.Option(help="A payload hash, hex.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the bundle here, for tools/verify_ledger.py --proof.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove a read, a bill or a line of one: its row, its path to the batch, the batch's entry, the path to a signed
    checkpoint.

    Example: meter-pipeline ledger prove --meter E-000042 --day 2026-03-08 --out proof.json
    """
    from meter_pipeline.ledger.proving import prove as prove_hash
    from meter_pipeline.ledger.proving import prove_line, prove_read, prove_statement

    _, database = _open()
    try:
        if statement:
            found = [prove_statement(database, statement)]
        elif line:
            found = [prove_line(database, line)]
        elif payload:
            with database.connect("meter-pipeline-ledger-prove") as connection:
                found = [prove_hash(connection, bytes.fromhex(payload), day=day.date() if day else None)]
        elif meter and day:
            found = prove_read(database, meter, day.date(), channel)
        else:
            _usage("say --meter and --day, or --statement, or --line, or --payload")
    except LookupError as error:
        _no(as_json, {"proofs": [], "reason": str(error)}, "meter-pipeline ledger checkpoint")
    except ValueError as error:
        _usage(str(error))
    document = {"proofs": [bundle.document() for bundle in found]}
    if out is not None:
        out.write_text(json.dumps(document, ensure_ascii=False, indent=1), "utf-8")

    def render(_: Any) -> None:
        rows = [(b.payload_hash.hex(), f"{b.batch_index} of {b.batch_size}", b.log_index, b.log_size) for b in found]
        OUT.print(table(None, ["payload hash", "in batch", "entry", "checkpoint of"], rows))

    emit(document, as_json, render)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    day: Days = None,
    as_json: AsJson = False,
) -> None:
    """Write what an auditor takes away: the whole log, its checkpoints, the rows of billing days (all of them by
    default). Makes a checkpoint first, so that everything in it is signed.

    Example: meter-pipeline ledger export audit/ --day 2026-03-08
    """
    from meter_pipeline.ledger.checkpoints import checkpoint as make
    from meter_pipeline.ledger.export import export as write
    from meter_pipeline.ledger.sequencer import SequencerBusyError
    from meter_pipeline.ledger.signer import SignerRefusedError

    settings, database = _open()

    def sign() -> object:
        return make(database, home=settings.home, utility=settings.utility().name)

    try:
        # An auditor's role may not order or sign the log: what is exported then ends where the last checkpoint was
        # made.
        with database.connect("meter-pipeline-ledger-export") as connection:
            signs = entries.may_sign(connection)
        done = write(database, out, days=_dates(day) if day else None, checkpoint=sign if signs else None)
    except FileExistsError as error:
        _usage(str(error))
    except SignerRefusedError as error:
        _no(as_json, {"refused": error.code, "reason": str(error)}, "meter-pipeline ledger verify --full")
    except SequencerBusyError as error:
        _no(as_json, {"refused": "busy", "reason": str(error)}, "try again in a moment")
    document = {
        "folder": str(done.folder),
        "origin": done.origin,
        "size": done.size,
        "checkpoints": done.checkpoints,
        "leaves": done.leaves,
        "rows": done.rows,
        "days": list(done.days),
        "unsigned": done.unsigned,
    }

    def render(d: dict[str, Any]) -> None:
        OUT.print(
            f"{d['size']} entries, {d['leaves']} payload hashes, {d['rows']} rows in {d['folder']}", highlight=False
        )
        if d["unsigned"]:
            OUT.print(
                f"{d['unsigned']} entries are under no checkpoint yet, and their rows do not verify: "
                "export again after  meter-pipeline ledger checkpoint",
                style="yellow",
                highlight=False,
            )
        chosen = "".join(f" --day {one}" for one in _dates(day))
        OUT.print(f"Next: python tools/verify_ledger.py {d['folder']} --vkey LOG.vkey{chosen}", highlight=False)

    emit(document, as_json, render)


@app.command()
def witness(
    state: Annotated[Path, typer.Option(help="The witness's own folder, on storage the pipeline cannot write.")],
    vkey: Annotated[Path, typer.Option(help="File with the log's verifier key, as handed over when the log began.")],
    log: Annotated[Path | None, typer.Option(help="Folder of the published log. Default: this deployment's.")] = None,
    name: Annotated[str, typer.Option(help="Name of the witness's key.")] = "witness",
    submit: Annotated[bool, typer.Option(help="Keep the cosignature under the checkpoint in this deployment.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cosign the latest checkpoint, after checking that it extends what was cosigned before. Refuses a fork and a
    shorter log (exit 1).

    Example: meter-pipeline ledger witness --state /mnt/finance/witness --vkey log.vkey --name finance --submit
    """
    from meter_pipeline.ledger import notes
    from meter_pipeline.ledger.witness import Witness, WitnessRefusedError

    try:
        key = notes.parse_vkey(vkey.read_text("utf-8").split("\n")[0])
        done = Witness(state, name).cosign_folder(log or _published(), key)
    except WitnessRefusedError as error:
        _no(
            as_json,
            {"refused": error.status, "reason": str(error)},
            "keep the conflicting notes in the witness's folder and call the auditor",
        )
    except (OSError, notes.NoteError) as error:
        _usage(str(error))
    if submit:
        from meter_pipeline.ledger.checkpoints import accept_cosignature

        settings, database = _open()
        accept_cosignature(database, settings.home, done.size, done.line, done.vkey)
    document = {
        "origin": done.origin,
        "size": done.size,
        "old_size": done.old_size,
        "line": done.line,
        "vkey": done.vkey,
    }
    emit(
        document,
        as_json,
        lambda d: OUT.print(f"cosigned {d['size']} entries (from {d['old_size']})\n{d['line']}", highlight=False),
    )


@app.command()
def rotate_key(
    by: Annotated[str, typer.Option("--by", help="Who asks.", default_factory=getpass.getuser)],
    as_json: AsJson = False,
) -> None:
    """Hand over to a new signing key; the old key vouches for it inside the log. Example: meter-pipeline ledger
    rotate-key --by operator-1"""
    from meter_pipeline.ledger.checkpoints import rotate_key as rotate
    from meter_pipeline.ledger.signer import SignerRefusedError

    settings, database = _open()
    by = _acting(database, "rotate_key", "ledger", by)
    try:
        done = rotate(database, home=settings.home, requested_by=by, utility=settings.utility().name)
    except SignerRefusedError as error:
        _no(as_json, {"refused": error.code, "reason": str(error)}, "meter-pipeline ledger verify --full")
    emit(done.document(), as_json, lambda d: OUT.print(f"from now on {d['signer']}", highlight=False))


@app.command()
def accept_guards(
    by: Annotated[str, typer.Option("--by", help="Who vouches for the guards as they stand.")],
    reason: Annotated[str, typer.Option("--reason", help="Why they changed: a migration, a restore.")],
    as_json: AsJson = False,
) -> None:
    """Record the ledger's guards as they now stand, so that later checks compare with them.

    Example: meter-pipeline ledger accept-guards --by dba-1 --reason "migration 0500"
    """
    from meter_pipeline.ledger.day import accept_guards as accept

    _, database = _open()
    by = _acting(database, "accept_guards", "ledger", by)
    entry = accept(database, accepted_by=by, reason=reason)
    emit({"entry": entry}, as_json, lambda _: OUT.print(f"recorded as entry {entry}"))


@app.command()
def repair(
    by: Annotated[str, typer.Option("--by", help="Who asks, or confirms.")],
    reason: Annotated[str, typer.Option("--reason", help="What went wrong, and how you know the rows are right.")],
    source: Annotated[
        str | None, typer.Argument(help="raw, validated, dead letters, charges, statements or adjustments.")
    ] = None,
    day: Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="The billing day.")] = None,
    request: Annotated[int | None, typer.Option("--confirm", help="Confirm this request as the second person.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put right leaves that an entry was given wrong by a fault of this software: two people, one more entry, nothing
    changed.

    Examples:
      meter-pipeline ledger repair charges --day 2026-03-08 --by ana --reason "release 1.4 wrote leaves twice"
      meter-pipeline ledger repair --confirm 7 --by ben --reason "compared with the bills"
    """
    from meter_pipeline.cli.identity import acting
    from meter_pipeline.control.people import Refused
    from meter_pipeline.ledger import repair as room
    from meter_pipeline.ledger_hashers import hashers

    _, database = _open()
    document: dict[str, Any]
    try:
        if request is not None:
            person = acting(database, "ledger_repair", f"request:{request}", by, room.ACTION.confirm)
            leaves = room.confirm(database, request, hashers(), by=person, reason=reason)
            document = {"repaired": True, "leaves": leaves}
        elif source is not None:
            person = acting(database, "ledger_repair", source, by, room.ACTION.ask)
            at = day.date() if day else None
            pending = room.request(database, source, at, hashers(), by=person, reason=reason)
            document = {
                "repaired": False,
                "request": pending.request_id,
                **pending.body,
                "expires_at": pending.expires_at,
            }
        else:
            _usage("name a source, or --confirm a request")
    except (Refused, room.RepairError) as error:
        problem(str(error), "meter-pipeline ledger verify --full")
    emit(document, as_json)


@app.command()
def erase(
    payload: Annotated[str, typer.Argument(help="The leaf (salted hash) of the payload, hex.")],
    reason: Annotated[str, typer.Option("--reason", help="Why: a request, a retention rule.")],
    by: Annotated[str, typer.Option("--by", help="Who asked for it.")],
    as_json: AsJson = False,
) -> None:
    """Erase personal data kept behind a salted leaf; every proof stays valid. Example: ledger erase 1f2e... --reason
    "request 12" --by privacy-1"""
    from meter_pipeline.ledger import erasure

    _, database = _open()
    by = _acting(database, "erase", payload[:64], by)
    try:
        with database.connect("meter-pipeline-ledger") as connection:
            entry = erasure.erase(connection, bytes.fromhex(payload), reason=reason, requested_by=by)
    except LookupError as error:
        problem(str(error))
    except ValueError as error:
        _usage(str(error))
    emit({"entry": entry, "payload_hash": payload}, as_json, lambda _: OUT.print(f"erased; recorded as entry {entry}"))


@app.command()
def tree(
    leaves: Annotated[
        Path, typer.Option("--leaves", help="One leaf a line, its data in hex; an empty line is an empty leaf.")
    ],
    as_json: AsJson = False,
) -> None:
    """Size and RFC 6962 root of a tree over the leaves of a file. Example: meter-pipeline ledger tree --leaves
    leaves.txt --json"""
    try:
        data = (
            [bytes.fromhex(line) for line in leaves.read_text("ascii").removesuffix("\n").split("\n")]
            if leaves.stat().st_size
            else []
        )
    except (OSError, ValueError) as error:
        _usage(f"{leaves}: {error}")
    emit(
        {"size": len(data), "root": merkle.root(data).hex()},
        as_json,
        lambda d: OUT.print(f"{d['size']} leaves, root {d['root']}", highlight=False),
    )


@app.command()
def check_inclusion(as_json: AsJson = False) -> None:
    """Check one inclusion vector (transparency-dev JSON) on stdin. Exit 0 when the proof verifies, 1 when it does not.

    Example: meter-pipeline ledger check-inclusion < vector.json
    """

    def run(vector: dict[str, Any]) -> None:
        proof = _hashes(vector.get("proof"))
        merkle.verify_inclusion(
            vector["leafIdx"], vector["treeSize"], _hash(vector.get("leafHash")), proof, _hash(vector.get("root"))
        )

    _check(run, as_json)


@app.command()
def check_consistency(as_json: AsJson = False) -> None:
    """Check one consistency vector (transparency-dev JSON) on stdin. Exit 0 when the proof verifies, 1 when it does
    not.

    Example: meter-pipeline ledger check-consistency < vector.json
    """

    def run(vector: dict[str, Any]) -> None:
        roots = _hash(vector.get("root1")), _hash(vector.get("root2"))
        merkle.verify_consistency(vector["size1"], vector["size2"], *roots, _hashes(vector.get("proof")))

    _check(run, as_json)


def _acting(database: Database, action: str, subject: str, by: str) -> str:
    """Returns the person who acts, after checking rights and identity."""
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, action, subject, by, decisions.WORK)


def _check(run: Any, as_json: bool) -> None:
    try:
        vector = json.load(sys.stdin)
        run(vector)
    except merkle.ProofError as error:
        emit({"ok": False, "reason": str(error)}, as_json, lambda d: OUT.print(f"no: {d['reason']}", highlight=False))
        raise typer.Exit(1) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _usage(f"this is not a vector: {error!r}")
    emit({"ok": True}, as_json, lambda _: OUT.print("ok"))


def _hash(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _hashes(texts: Sequence[Any] | None) -> list[bytes]:
    return [_hash(text) for text in texts or []]


def _open() -> tuple[Any, Any]:
    from meter_pipeline.postgres.database import open_database
    from meter_pipeline.settings import load_settings

    settings = load_settings()
    return settings, open_database(settings)


def _published() -> Path:
    """The folder of this deployment's log."""
    from meter_pipeline.settings import load_settings

    found = sorted(path.parent for path in (load_settings().home / "ledger").glob("*/checkpoint"))
    if len(found) != 1:
        _usage(f"{len(found)} logs are published here; name one with --log")
    return found[0]


def _dates(days: list[datetime] | None) -> list[date]:
    return [day.date() for day in days or []]


def _usage(message: str) -> NoReturn:
    typer.echo(f"Problem: {message}", err=True)
    raise typer.Exit(USAGE)


def _no(as_json: bool, document: dict[str, Any], hint: str) -> NoReturn:
    """A refusal: the document for programs, one line and what to do next for people; exit 1."""
    if as_json:
        emit(document, True)
        raise typer.Exit(1)
    problem(document["reason"], hint)
