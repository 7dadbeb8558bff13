"""At the desk people do what the command line does, by the same rules, and the ledger says who."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from meter_pipeline.control import pause
from meter_pipeline.desk import tables
from meter_pipeline_tests.billing.test_corrections import STATEMENT
from meter_pipeline_tests.desk.support import HELD, LEAK, Office, add_case, post


def ledger(office: Office, kind: str) -> list[dict[str, Any]]:
    frame = office.utility.read(
        f"SELECT convert_from(body, 'UTF8') AS body FROM ledger.entry WHERE kind = '{kind}' ORDER BY entry_id"
    )
    return [json.loads(text) for text in frame["body"].to_list()]


def words(text: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def test_the_first_page_says_what_waits(office: Office) -> None:
    text = words(office.client("ana").get("/").text)
    assert "2 exceptions undecided 1 of them hold a bill 2 dead letters unsettled 1 adjustments to approve" in text
    assert "Running: no pause is in force" in text
    assert "Jul 1, 2026 1 0 0 0 1" in text, "received, accepted, again, rejected, waiting of the file's day"


def test_an_exception_is_found_shown_assigned_and_dismissed(office: Office) -> None:
    ana = office.client("ana")
    assert HELD in ana.get("/exceptions?kind=spike").text
    assert LEAK not in ana.get("/exceptions?kind=spike").text
    page = f"/exceptions/{HELD}"
    shown = ana.get(page).text
    assert "&lt;b&gt;not bold&lt;/b&gt;" in shown, "evidence is text, never markup"
    assert "<b>not bold" not in shown
    assert "the bill of its days waits for the decision" in shown
    picture = ana.get(f"{page}/usage.svg")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert 'role="img"' in picture.text
    assert len(picture.content) < 20_000
    assert post(ana, page, "/exceptions/decide", case=HELD, decision="assign").status_code == 422, "to whom?"
    assert (
        "assigned to ben"
        in post(ana, page, "/exceptions/decide", case=HELD, decision="assign", to="ben", back=page).text
    )
    assert post(ana, page, "/exceptions/decide", case=HELD, decision="dismiss").status_code == 422, "why?"
    done = post(ana, page, "/exceptions/decide", case=HELD, decision="dismiss", reason="holiday lights", back=page)
    assert done.url.path == page
    assert "1 bill hold(s) released" in done.text
    assert "released" not in ana.get(page).text, "said once"
    assert [(e["actor"], e["body"]["decision"]) for e in ledger(office, "flag_decided")] == [
        ("ana", "assigned"),
        ("ana", "dismissed"),
    ]
    again = post(office.client("ben"), "/exceptions", "/exceptions/decide", case=HELD, decision="confirm")
    assert again.status_code == 409
    assert "already decided" in again.text
    assert ana.get("/exceptions/nothing-here").status_code == 404
    assert ana.get("/exceptions?kind=nonsense").status_code == 422


def test_many_are_decided_at_once_and_a_return_address_stays_in_the_house(office: Office) -> None:
    ana = office.client("ana")
    sent = post(
        ana,
        "/exceptions",
        "/exceptions/decide",
        case=[HELD, LEAK],
        decision="confirm",
        reason="seen",
        back="//evil.example/exceptions",
    )
    assert sent.url.host == "testserver"
    assert "2 case(s) confirmed; 1 bill hold(s) released" in sent.text
    assert len(ledger(office, "flag_decided")) == 2


def test_pages_of_a_list_hold_every_case_once(office: Office) -> None:
    for n in range(tables.PAGE * 2):
        add_case(
            office.desk.database,
            f"flow-SP-{n:04}-20260630",
            "flow",
            "leak",
            day=date(2026, 6, 30 - n % 3),
            point=f"SP-{n:04}",
        )
    ana = office.client("ana")
    seen: list[str] = []
    path: str | None = "/exceptions"
    while path:
        text = ana.get(path).text
        seen += re.findall(r'name="case" value="([^"]+)"', text)
        following = re.search(r'href="([^"]+)">Next page', text)
        path = unescape(following[1]) if following else None
    assert len(seen) == len(set(seen)) == tables.PAGE * 2 + 2
    assert ana.get("/exceptions?after=garbage").status_code == 422


def test_a_dead_letter_is_corrected_replayed_once_and_another_dismissed(office: Office) -> None:
    ana = office.client("ana")
    keys = office.letters()
    bad, stranger = keys.pop(next(k for k in keys if k != "unknown_meter")), keys["unknown_meter"]
    page = f"/dead-letters/{bad}"
    shown = ana.get(page).text
    assert "&lt;script&gt;alert(1)" in shown
    assert "<script" not in shown
    still = post(ana, page, f"{page}/replay")
    assert "Still at fault, nothing was loaded" in still.text
    line = "N-1,E1,2026-07-01T06:00:00Z,1.500,2"
    assert post(ana, page, f"{page}/correct", content=line).status_code == 422, "why?"
    assert "Corrected" in post(ana, page, f"{page}/correct", content=line + "\r\n", reason="mistyped").text
    assert "Replayed: 1 read(s) wait" in post(ana, page, f"{page}/replay").text
    again = office.client("ben").get(page).text
    assert "replayed" in again
    assert "Keep the correction" not in again
    assert ledger(office, "corrected")[0]["actor"] == "ana"
    gone = post(
        ana, "/dead-letters", "/dead-letters/many", letter=[stranger, bad], decision="dismiss", reason="not our meter"
    )
    assert "1 dead letter(s) dismissed" in gone.text
    assert "was replayed by ana" in gone.text
    assert ana.get("/dead-letters/zz").status_code == 404
    assert "unknown meter" in words(ana.get("/dead-letters?status=any&reason=unknown_meter").text)


def test_two_people_end_a_pause_and_one_cannot(office: Office) -> None:
    ana, ben = office.client("ana"), office.client("ben")
    assert "Paused: all work" in post(ana, "/pause", "/pause/raise", scope="all", reason="totals do not add up").text
    assert "PAUSED" in ana.get("/").text
    checked = {
        "ledger": "verified to its last entry",
        "control_totals": "all files balance",
        "dead_letters": "two, dismissed",
    }
    assert (
        post(ana, "/pause", "/pause/request", scope="all", reason="fixed", **checked | {"ledger": " "}).status_code
        == 422
    )
    asked = post(ana, "/pause", "/pause/request", scope="all", reason="fixed", **checked)
    number = re.search(r"Request (\d+) waits", asked.text)
    assert number
    shown = ben.get("/pause").text
    assert "verified to its last entry" in shown
    digest = re.search(r'name="digest" value="([0-9a-f]+)"', shown)
    assert digest
    confirm = f"/pause/requests/{number[1]}/confirm"
    alone = post(ana, "/pause", confirm, reason="me again", digest=digest[1])
    assert alone.status_code == 409
    assert "a second person must confirm" in alone.text
    assert "Confirm as the second person" not in ana.get("/pause").text
    assert post(ben, "/pause", confirm, reason="looked", digest="00" * 32).status_code == 422, (
        "what is confirmed is what was read"
    )
    done = post(ben, "/pause", confirm, reason="looked at all three", digest=digest[1])
    assert "is over; held work goes on by itself" in done.text
    with office.desk.database.connect() as connection:
        assert not pause.status(connection)["paused"]
    assert post(ben, "/pause", confirm, reason="twice", digest=digest[1]).status_code == 409, (
        "a confirmation counts once"
    )


def test_a_request_to_resume_is_declined(office: Office) -> None:
    ana, ben = office.client("ana"), office.client("ben")
    post(ana, "/pause", "/pause/raise", scope="electricity", reason="odd")
    post(
        ana,
        "/pause",
        "/pause/request",
        scope="electricity",
        reason="fine",
        ledger="ok",
        control_totals="ok",
        dead_letters="ok",
    )
    assert (
        "is declined; the pause stays" in post(ben, "/pause", "/pause/requests/1/decline", reason="not convinced").text
    )
    assert post(ben, "/pause", "/pause/requests/9/decline", reason="x").status_code == 409
    assert post(ben, "/pause", "/pause/raise", scope="cheese", reason="x").status_code == 422


def test_an_adjustment_needs_another_person(office: Office) -> None:
    page = f"/adjustments/{office.adjustment}"
    asker = office.client(office.utility.read("SELECT requested_by FROM billing.adjustment")["requested_by"][0])
    assert "another person decides" in asker.get(page).text
    own = post(asker, page, f"{page}/decide", decision="approve")
    assert own.status_code == 409
    assert "another person must decide" in own.text
    ana = office.client("ana")
    bill, net = office.utility.read(
        "SELECT s.total::text AS total, a.net::text AS net FROM billing.adjustment AS a JOIN billing.statement AS s USING (statement_id)"
    ).row(0)
    corrected = "Corrected {:,.2f} USD with the adjustments posted so far"
    waiting = words(ana.get(f"/bills/{STATEMENT}").text)
    assert f"{office.adjustment} " in waiting
    assert corrected.format(Decimal(bill)) in waiting
    assert office.adjustment in ana.get("/adjustments").text
    assert "Approved and posted" in post(ana, page, f"{page}/decide", decision="approve").text
    assert corrected.format(Decimal(bill) + Decimal(net)) in words(ana.get(f"/bills/{STATEMENT}").text)
    assert office.adjustment not in ana.get("/adjustments").text
    assert office.adjustment in ana.get("/adjustments?status=posted").text
    assert ledger(office, "adjustment_approved")[0]["actor"] == "ana"


def test_a_bill_leads_to_its_lines_days_intervals_and_back(office: Office) -> None:
    ana = office.client("ana")
    assert ana.get(f"/bills?q={STATEMENT}").url.path == f"/bills/{STATEMENT}"
    assert ana.get(f"/bills?q={STATEMENT}.2").url.path == f"/bills/{STATEMENT}/2"
    assert STATEMENT in ana.get("/bills?q=A-001").text
    bill = ana.get(f"/bills/{STATEMENT}").text
    total = office.utility.read("SELECT total::text AS t FROM billing.statement")["t"][0]
    assert total.rstrip("0") in bill.replace(",", "")
    lines = re.findall(rf'href="(/bills/{re.escape(STATEMENT)}/\d+)"', bill)
    assert lines
    for path in sorted(set(lines)):
        text = words(ana.get(path).text)
        assert "Time of use" in text
        assert "Jul 3, 2026" in text
    day = words(ana.get("/usage/SP-001/2026-07-02").text)
    assert "24 intervals" in day
    assert "not read" in day
    assert ana.get("/usage/SP-001/2031-01-01").status_code == 404
    assert ana.get(f"/bills/{STATEMENT}/999").status_code == 404
    assert ana.get("/bills/A-404.C1.20260701.0").status_code == 404
    proof = ana.get(f"/bills/{STATEMENT}/proof").text
    assert "make a checkpoint first" in proof, "before a checkpoint there is nothing to prove by"


def test_a_month_shows_its_checklist_and_two_people_seal_it(office: Office) -> None:
    ana = office.client("ana")
    assert "2026-07" in ana.get("/months").text
    text = words(ana.get("/months/2026-07").text)
    assert "every day is billed no" in text
    assert (
        "Asked. A second person seals the month"
        in post(ana, "/months/2026-07", "/months/2026-07/close", step="request").text
    )
    assert "another person seals it" in ana.get("/months/2026-07").text
    sealed = post(office.client("ben"), "/months/2026-07", "/months/2026-07/close", step="approve")
    assert sealed.status_code == 409
    assert "not so: every day is billed" in sealed.text
    assert ana.get("/months/2026-13").status_code == 404


def test_no_page_holds_script_or_inline_style(office: Office) -> None:
    ana = office.client("ana")
    ana.post("/nothing")
    paths = [
        "/",
        "/exceptions",
        f"/exceptions/{HELD}",
        "/dead-letters",
        *(f"/dead-letters/{k}" for k in office.letters().values()),
        "/pause",
        "/adjustments",
        f"/adjustments/{office.adjustment}",
        "/bills",
        f"/bills/{STATEMENT}",
        f"/bills/{STATEMENT}/1",
        "/usage/SP-001/2026-07-02",
        "/months",
        "/months/2026-07",
        "/reports",
        "/nothing",
    ]
    for path in paths:
        text = ana.get(path).text
        assert not re.search(r"<script|\son[a-z]+=|\sstyle=|<style|javascript:", text), path
        assert text.count("<h1>") == 1, path
        assert 'href="#main"' in text
        for name in re.findall(r'<(?:input type="(?:text|password)"|select|textarea)[^>]*id="([^"]+)"', text):
            assert f'for="{name}"' in text, f"{path}: {name} has no label"
        ids = re.findall(r'\sid="([^"]+)"', text)
        assert len(ids) == len(set(ids)), f"{path}: an id twice"


def test_a_close_report_is_served_with_no_right_to_load_or_run_anything(office: Office, tmp_path: Path) -> None:
    folder = office.desk.settings.home / "reports"
    folder.mkdir()
    (folder / "day-2026-07-01.html").write_text("<!DOCTYPE html><title>report</title>")
    ana: TestClient = office.client("ana")
    answer = ana.get("/reports/day/2026-07-01")
    assert answer.status_code == 200
    assert "sandbox" in answer.headers["content-security-policy"]
    assert ana.get("/reports/day/2026-07-02").status_code == 404
    assert ana.get("/reports/day/..%2F..%2Fx").status_code in (404, 422)
    assert "2026-07-01" in ana.get("/reports").text
    shutil.rmtree(folder)
