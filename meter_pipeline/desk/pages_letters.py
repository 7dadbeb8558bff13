"""Dead letters: listed, shown with bytes and reasons, corrected, replayed, dismissed, one or many."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from meter_pipeline.desk import tables
from meter_pipeline.desk.web import (
    WORKERS,
    DeskRequest,
    FormError,
    NotFoundError,
    bad_place,
    instant,
    link,
    parse_cursor,
    place,
)
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.ingest import FileFolders
from meter_pipeline.ingest import dead_letters as work
from meter_pipeline.ingest.tables.dead_letters import DeadLetter

STATUSES: Final = {
    "unsettled": ["open", "corrected"],
    "open": ["open"],
    "corrected": ["corrected"],
    "replayed": ["replayed"],
    "dismissed": ["dismissed"],
    "any": [],
}
#: Bytes of a payload that a page shows, and the most that its form edits.
SHOWN, EDITED = 4000, 100_000


def listing(ask: DeskRequest) -> Response:
    chosen = {name: ask.query.get(name, "").strip() for name in ("status", "reason", "head_end")}
    chosen["status"] = chosen["status"] or "unsettled"
    if chosen["status"] not in STATUSES:
        raise FormError(f"status {chosen['status'][:40]!r} is not one of {', '.join(STATUSES)}")
    found = parse_cursor(ask.query.get("after"))
    try:
        after = (instant(found[0]), bytes.fromhex(found[1])) if found else None
    except ValueError:
        bad_place()
    with ask.desk.reading() as connection:
        letters = tables.letters(
            connection,
            STATUSES[chosen["status"]],
            chosen["reason"] or None,
            chosen["head_end"] or None,
            after,
            tables.PAGE + 1,
        )
        reasons = tables.letter_reasons(connection)
    more = len(letters) > tables.PAGE
    letters = [
        letter | {"reasons": tables.reasons(letter["reasons"]), "key": bytes(letter["key"]).hex()}
        for letter in letters[: tables.PAGE]
    ]
    following = (
        link("/dead-letters", **chosen, after=place(letters[-1]["first_seen"], letters[-1]["key"])) if more else None
    )
    return ask.show(
        "letters.html",
        letters=letters,
        reasons=reasons,
        chosen=chosen,
        statuses=list(STATUSES),
        following=following,
        first=after is None,
        most=tables.COUNTED,
    )


def show(ask: DeskRequest) -> Response:
    letter = _letter(ask)
    return ask.show(
        "letter.html",
        letter=letter,
        key=letter.key.hex(),
        raw=printable(letter.raw),
        bytes=len(letter.raw),
        shown=SHOWN,
        corrected=None if letter.corrected_raw is None else printable(letter.corrected_raw),
        editable=_editable(letter),
        changeable=letter.status in ("open", "corrected"),
    )


def correct(ask: DeskRequest) -> Response:
    letter = _letter(ask)
    ask.may("dead_letter", letter.key.hex()[:12], WORKERS)
    content = next((v for k, v in ask.form if k == "content"), "")
    # A text area sends CR LF whatever it was given.
    if b"\r\n" not in letter.raw:
        content = content.replace("\r\n", "\n")
    reason = ask.field("reason", required="The reason")
    work.correct(
        ask.desk.database,
        letter.key.hex(),
        content.encode(),
        by=ask.visitor.person,
        reason=reason,
        clock=ask.desk.clock,
    )
    return ask.back(f"/dead-letters/{letter.key.hex()}", "Corrected. Nothing is loaded until it is replayed.")


def replay(ask: DeskRequest) -> Response:
    letter = _letter(ask)
    ask.may("dead_letter", letter.key.hex()[:12], WORKERS)
    return ask.back(f"/dead-letters/{letter.key.hex()}", _replay(ask, letter.key.hex()))


def dismiss(ask: DeskRequest) -> Response:
    letter = _letter(ask)
    ask.may("dead_letter", letter.key.hex()[:12], WORKERS)
    work.dismiss(
        ask.desk.database,
        letter.key.hex(),
        by=ask.visitor.person,
        reason=ask.field("reason", required="The reason"),
        clock=ask.desk.clock,
    )
    return ask.back(
        f"/dead-letters/{letter.key.hex()}", "Dismissed. Its reads stay rejected in the file's control total."
    )


def many(ask: DeskRequest) -> Response:
    """Replay or dismiss the letters that were ticked; each for itself, so that one that is still at fault keeps nothing
    back."""
    keys = [key for key in ask.fields("letter") if key]
    if not keys:
        raise FormError("tick at least one dead letter")
    decision = ask.field("decision")
    if decision not in ("replay", "dismiss"):
        raise FormError("choose replay or dismiss")
    ask.may("dead_letter", f"{len(keys)} dead letters", WORKERS)
    reason = ask.field("reason", required="The reason" if decision == "dismiss" else None)
    done, left = 0, []
    for key in keys:
        try:
            if decision == "dismiss":
                work.dismiss(ask.desk.database, key, by=ask.visitor.person, reason=reason, clock=ask.desk.clock)
            elif (words := _replay(ask, key)).startswith("Still"):
                left.append(f"{key[:12]}: {words}")
                continue
            done += 1
        except work.DeadLetterError as error:
            left.append(str(error))
    outcome = f"{done} dead letter(s) {'replayed' if decision == 'replay' else 'dismissed'}."
    return ask.back(
        "/dead-letters",
        " ".join([outcome, *left[:3], *([f"And {len(left) - 3} more are as they were."] if len(left) > 3 else [])]),
    )


def _replay(ask: DeskRequest, key: str) -> str:
    settings = ask.desk.settings
    done = work.replay(
        ask.desk.lander,
        ask.desk.calendar,
        FileFolders(settings.archive, settings.staging),
        read_head_ends(settings.head_ends),
        key,
        by=ask.visitor.person,
        clock=ask.desk.clock,
    )
    if done.rejected:
        return "Still at fault, nothing was loaded: " + "; ".join(
            f"{code}: {detail}" for code, detail in done.rejected[:3]
        )
    if done.already:
        return "It was replayed before; it is not loaded twice."
    days = ", ".join(map(str, done.days[:5]))
    return f"Replayed: {done.reads} read(s) wait for the next run of {days or 'their billing day'}."


def _letter(ask: DeskRequest) -> DeadLetter:
    try:
        return work.show(ask.desk.database, ask.path["key"])
    except work.DeadLetterError as error:
        raise NotFoundError(str(error)) from error


def printable(raw: bytes) -> str:
    """Bytes as text, everything that is no plain character written as an escape."""
    text = raw[:SHOWN].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _editable(letter: DeadLetter) -> str | None:
    """The content as a text area can hold it and give back unharmed, or None."""
    content = letter.corrected_raw if letter.corrected_raw is not None else letter.raw
    if len(content) > EDITED:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return (
        text if all(c.isprintable() or c in "\t\n\r" for c in text) and "\r" not in text.replace("\r\n", "") else None
    )


PAGES = [
    ("/dead-letters", listing, ("GET",)),
    ("/dead-letters/many", many, ("POST",)),
    ("/dead-letters/{key}", show, ("GET",)),
    ("/dead-letters/{key}/correct", correct, ("POST",)),
    ("/dead-letters/{key}/replay", replay, ("POST",)),
    ("/dead-letters/{key}/dismiss", dismiss, ("POST",)),
]
