"""Thirty days launched by clicking in Dagster's own UI while the pause is raised: nothing starts, a killed daemon
changes nothing, and after two people have resumed on the command line all thirty complete by themselves. The product's
own definitions, real services, a real browser.

METER_PIPELINE_PICTURES=docs/images keeps the screenshots."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.defs.lib import policy
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.defs.browser import Page, browse
from meter_pipeline_tests.defs.services import Services

FIRST = date(2026, 10, 1)
DAYS = 30
LAST = FIRST + timedelta(days=DAYS - 1)


def pause(services: Services, *arguments: str) -> dict[str, Any]:
    """``meter-pipeline pause``, as a person types it."""
    command = [sys.executable, "-m", "meter_pipeline.cli.main", "pause", *arguments, "--json"]
    done = subprocess.run(command, env=services.env, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


def batches(database: Database) -> int:
    with database.connect(autocommit=True) as connection:
        return int(scalar(connection, "SELECT count(*) FROM raw.load_batch"))


def launch(page: Page) -> str:
    """Asset page, Materialize, the range typed in, Launch backfill; returns the backfill's id."""
    from selenium.webdriver.common.keys import Keys

    page.go("/assets/raw_reads")
    page.click("Materialize…")
    page.says("Partition selection")
    page.click("Custom")
    fields = "//input[@placeholder='No matching partitions' or starts-with(@value, '[') or starts-with(@placeholder, 'Select')]"
    field = page.wait(
        lambda: next((e for e in page.driver.find_elements("xpath", fields) if e.is_displayed()), None),
        "the partitions' field",
    )
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(f"[{FIRST}...{LAST}]", Keys.ENTER)
    page.says(f"{DAYS} partitions")
    page.click(f"Launch {DAYS}-run backfill") if "run backfill" in page.text() else page.click("Launch backfill")
    found = page.wait(lambda: re.search(r"/runs/b/(\w+)", page.driver.page_source), "the backfill's number")
    return str(found.group(1))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_thirty_days_clicked_while_paused_hold_and_complete_unaided(database: Database, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("METER_PIPELINE_PICTURES") or tmp_path / "pictures").resolve()
    city = tmp_path / "city"
    simulate(Spec(meters=12, days=DAYS, start=FIRST, seed=5), city)
    for path in (city / "inbox").rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    env = {"METER_PIPELINE_DATA": str(city), "METER_PIPELINE_INBOX": str(city / "inbox")}
    with Services(tmp_path / "home", database, "meter_pipeline.definitions", env=env) as services:
        for job in ("import_reference_data", "land_feeds"):
            assert services.finished(services.launch(job), 240) == "SUCCESS"
        services.stop_sensors(
            "feed_arrival", "touched_billing_days"
        )  # they would bring the days in before anybody clicks
        services.until(lambda: services.pool_limit(policy.POOL) == 2, 60, "the pool's limit")
        began = batches(database)
        pause(services, "raise", "--by", "oli", "--reason", "water reads ten times too high since 02:00")
        assert services.pool_limit(policy.POOL) == 0, "the command tells the queue itself"
        with browse(f"http://127.0.0.1:{services.web_port}", height=900) as page:
            page.go("/locations/test/sensors/emergency_pause")
            page.says("0 runs requested")
            time.sleep(6)  # one tick under the pause
            page.go("/locations/test/sensors/emergency_pause")
            page.click("0 runs requested")  # the newest tick's result
            page.says("PAUSED (all work)")
            page.picture(pictures / "pause-sensor.png")

            backfill = launch(page)
            services.until(lambda: services.statuses().count("QUEUED") == DAYS, 180, "the backfill's runs")
            services.stop("daemon", signal.SIGKILL)
            services.start("daemon")
            time.sleep(20)
            assert services.statuses().count("QUEUED") == DAYS
            assert batches(database) == began
            page.go(f"/runs/b/{backfill}?tab=runs")
            page.says("Queued")
            page.picture(pictures / "backfill-queued.png")

            checked = (
                "--ledger",
                "verified to its size",
                "--control-totals",
                "all files balance",
                "--dead-letters",
                "none open",
            )
            asked = pause(services, "request-resume", "--by", "oli", "--reason", "head-end fixed", *checked)
            pause(services, "confirm-resume", str(asked["request"]), "--by", "fay")
            with database.connect(autocommit=True) as connection:
                resumed_ago = float(
                    scalar(
                        connection,
                        "SELECT extract(epoch FROM clock_timestamp() - max(resumed_at)) FROM control.emergency_pause",
                    )
                )
            resumed = time.monotonic() - resumed_ago
            services.until(lambda: batches(database) > began, 120, "the first batch")
            first = time.monotonic() - resumed
            print(f"first batch {first:.1f} s after the resume")
            services.until(lambda: services.statuses().count("SUCCESS") == DAYS + 2, 1200, "the last day")
            last = time.monotonic() - resumed
            services.until(lambda: services.backfill_status(backfill) == "COMPLETED_SUCCESS", 120, "the backfill's end")
            closed = time.monotonic() - resumed
            print(
                f"first batch {first:.1f} s after the resume, all {DAYS} days {last:.1f} s, backfill closed {closed:.1f} s"
            )
            page.go(f"/runs/b/{backfill}")
            page.says("100% completed")
            page.picture(pictures / "backfill-finished.png")
    with database.connect(autocommit=True) as connection:
        assert scalar(connection, "SELECT count(DISTINCT billing_day) FROM raw.load_batch") >= DAYS
