"""The desk in a real browser, by keyboard and by mouse, against the real database; axe-core finds nothing serious on
any page."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from meter_pipeline.desk.app import build
from meter_pipeline_tests.billing.test_corrections import STATEMENT
from meter_pipeline_tests.desk.support import HELD, LEAK, Office

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(not (DRIVER and BROWSER), reason="no chromedriver and Chromium on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed (extra test)"),
]


@pytest.fixture
def site(office: Office) -> Iterator[str]:
    """The desk served on a free port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(office.desk), log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,900",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    driver.implicitly_wait(5)
    yield driver
    driver.quit()


def log_in(browser: Any, site: str, office: Office, person: str) -> None:
    browser.get(f"{site}/login")
    browser.find_element("id", "token").send_keys(office.desk.access.issue(person))
    click(browser, "Log in")
    assert browser.find_element("tag name", "h1").text == "Overview"


def text(browser: Any) -> str:
    return str(browser.find_element("tag name", "main").text)


def click(browser: Any, words: str) -> None:
    follow(browser, browser.find_element("xpath", f"//button[normalize-space()={words!r}]"))


def follow(browser: Any, element: Any) -> None:
    """Click, and wait for the page that answers."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.expected_conditions import staleness_of
    from selenium.webdriver.support.wait import WebDriverWait

    before = browser.find_element("tag name", "html")
    element.click()
    # While the page changes, Chromium may answer "Node with given id does not belong to the document", which selenium
    # does not know as a stale element: the next look does.
    WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException]).until(staleness_of(before))


def test_a_day_at_the_desk(browser: Any, site: str, office: Office) -> None:
    from selenium.webdriver.common.keys import Keys

    log_in(browser, site, office, "ana")
    # By keyboard: the first stop is the way past the navigation.
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.text == "Skip to the content"
    assert focused.rect["x"] >= 0, "it is seen when it is focused"
    focused.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "main"

    # An exception: shown with its picture, dismissed with a reason.
    browser.get(f"{site}/exceptions/{HELD}")
    assert browser.execute_script(
        "const i = document.querySelector('figure img'); return i.complete && i.naturalWidth > 0"
    ), "the picture is drawn"
    browser.find_element("id", "reason").send_keys("holiday lights")
    click(browser, "Dismiss: it is none")
    assert "1 bill hold(s) released" in text(browser)

    # Two ticked in the list would be one decision; here the one that is left.
    browser.get(f"{site}/exceptions")
    browser.find_element("css selector", f"input[value='{LEAK}']").send_keys(Keys.SPACE)
    browser.find_element("id", "to").send_keys("ben")
    click(browser, "Assign")
    assert "1 case(s) assigned to ben" in text(browser)

    # A dead letter: corrected in the form, replayed.
    bad = next(key for code, key in office.letters().items() if code != "unknown_meter")
    browser.get(f"{site}/dead-letters/{bad}")
    area = browser.find_element("id", "content")
    area.clear()
    area.send_keys("N-1,E1,2026-07-01T06:00:00Z,1.500,2")
    browser.find_element("id", "correct_reason").send_keys("mistyped")
    click(browser, "Keep the correction")
    assert "Corrected" in text(browser)
    click(browser, "Replay")
    assert "Replayed: 1 read(s)" in text(browser)

    # The pause: raised and asked by one, confirmed by another.
    browser.get(f"{site}/pause")
    browser.find_element("id", "raise_reason").send_keys("totals do not add up")
    click(browser, "Pause")
    assert "PAUSED" in text(browser)
    for field in ("ledger_1", "control_totals_1", "dead_letters_1", "reason_1"):
        browser.find_element("id", field).send_keys("looked at")
    click(browser, "Ask to resume")
    assert "waits for a second person" in text(browser)
    assert "Confirm as the second person" not in text(browser)
    click(browser, "Log out ana")
    log_in(browser, site, office, "ben")
    browser.get(f"{site}/pause")
    browser.find_element("id", "confirm_1").send_keys("seen it all")
    click(browser, "Confirm: held work goes on")
    assert "Running: no pause is in force" in text(browser)

    # An adjustment approved, and the bill it corrects explained down to an interval.
    browser.get(f"{site}/adjustments/{office.adjustment}")
    click(browser, "Approve and post")
    assert "Approved and posted" in text(browser)
    follow(browser, browser.find_element("link text", STATEMENT))
    follow(browser, browser.find_element("css selector", "tbody a"))
    follow(browser, browser.find_element("link text", "Jul 2, 2026"))
    assert "24 intervals" in text(browser)

    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == [], "no content was refused by the policy and nothing was missing"


def test_axe_finds_nothing_serious(browser: Any, site: str, office: Office) -> None:
    vendored = next(
        (spec for name in ("axe_playwright_python", "axe_core_python") if (spec := importlib.util.find_spec(name))),
        None,
    )
    if vendored is None or vendored.origin is None:
        pytest.skip("axe-core is not installed (extra test)")
    axe = (Path(vendored.origin).parent / "axe.min.js").read_text("utf-8")
    browser.get(f"{site}/login")
    found = {"/login": judge(browser, axe)}
    log_in(browser, site, office, "ana")
    letter = next(iter(office.letters().values()))
    for path in (
        "/",
        "/exceptions",
        f"/exceptions/{HELD}",
        "/dead-letters",
        f"/dead-letters/{letter}",
        "/pause",
        "/adjustments",
        f"/adjustments/{office.adjustment}",
        "/bills",
        f"/bills/{STATEMENT}",
        f"/bills/{STATEMENT}/1",
        f"/bills/{STATEMENT}/proof",
        "/usage/SP-001/2026-07-02",
        "/months",
        "/months/2026-07",
        "/reports",
        "/nothing",
    ):
        browser.get(site + path)
        found[path] = judge(browser, axe)
    for theme in ("dark",):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        browser.get(f"{site}/exceptions")
        found[theme] = judge(browser, axe)
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def judge(browser: Any, axe: str) -> list[str]:
    """Rules that axe-core finds broken with serious or critical impact, with the first place of each. It runs in the
    driver's own world: the page's policy allows no script."""
    browser.execute_cdp_cmd("Page.enable", {})
    browser.execute_script(axe)
    result = browser.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run(document).then(done, e => done({error: String(e)}))"
    )
    assert "error" not in result, result
    return [
        f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:160]}"
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]
