"""A day's flags, cases, holds and decisions on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from meter_pipeline.anomalies import (
    QueueError,
    decide,
    detect_billing_day,
    list_cases,
    load_weather,
    plot_case,
    refit_baselines,
    show_case,
    waiting_days,
    weather_day,
)
from meter_pipeline.anomalies.queue import Decision
from meter_pipeline.cli.exceptions import app
from meter_pipeline.desk.pictures import usage_svg
from meter_pipeline.desk.tables import usage_of_point
from meter_pipeline.plotting import MOST_BYTES
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.anomalies.streets import CALENDAR, StillClock, Streets, day, temperatures, write, write_days

CLOCK = StillClock()
DAYS = 100


def electric(points: int = 20, days: int = DAYS, seed: int = 3) -> tuple[Streets, np.ndarray]:
    """Heated homes with noise of a tenth."""
    rng = np.random.default_rng(seed)
    t = temperatures(days)
    usage = rng.uniform(8, 20, (points, 1)) + rng.uniform(0.2, 0.9, (points, 1)) * np.maximum(60 - t, 0)
    return Streets("electricity", "kWh", np.round(usage * rng.normal(1, 0.07, usage.shape), 3)), t


def everything(database: Database) -> dict[str, list[Any]]:
    """All rows that a judged day leaves, but for the instants they were written at."""
    with database.connect() as connection:
        return {
            "flags": connection.execute(
                "SELECT * FROM anomaly.flag ORDER BY billing_day, kind, service_point_id, group_id"
            ).fetchall(),
            "cases": connection.execute(
                "SELECT case_id, kind, state, hold, first_day, last_day, days FROM anomaly.exception_case ORDER BY 1"
            ).fetchall(),
            "runs": connection.execute(
                "SELECT billing_day, flags, weather, baseline_version, content_hash FROM anomaly.flag_run ORDER BY 1"
            ).fetchall(),
        }


def test_a_spike_is_a_case_that_holds_the_bill_until_somebody_decides(database: Database) -> None:
    streets, t = electric()
    streets.usage[4, DAYS - 1] *= 9
    write(database, streets, t)
    fitted = refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    assert (fitted.points, fitted.by_status) == (20, {"provisional": 20})
    outcome = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert [c.kind for c in outcome.opened] == ["spike"]
    report = outcome.report()
    assert all(check.passed for check in report.checks)
    assert all(len(png) < 20_000 and png.startswith(b"\x89PNG") for png in report.plots.values())
    assert report.plots
    with database.connect() as connection:
        assert connection.execute("SELECT service_point_id, case_id FROM anomaly.bill_hold").fetchall() == [
            ("SP-E004", f"spike-SP-E004-{day(DAYS - 1):%Y%m%d}")
        ]
        case = show_case(connection, outcome.opened[0].case_id)
        assert case["flags"][0]["baseline_version"] == fitted.version
        assert case["flags"][0]["observed"] == pytest.approx(streets.usage[4, DAYS - 1], rel=1e-6)
        assert plot_case(database, CALENDAR, case).startswith(b"\x89PNG")
        done = decide(
            connection, {"case_id": case["case_id"]}, "confirmed", by="ann", reason="pool filled", clock=CLOCK
        )
        assert (done.cases, done.released) == ([case["case_id"]], 1)
        assert connection.execute("SELECT count(*) FROM anomaly.bill_hold").fetchone() == (0,)
        kinds = [k for (k,) in connection.execute("SELECT kind FROM ledger.entry ORDER BY entry_id").fetchall()]
        assert kinds == ["baselines_fitted", "flagged", "flag_decided"]


def test_judging_a_day_again_changes_nothing_and_enters_the_ledger_once(database: Database) -> None:
    streets, t = electric()
    streets.usage[4, DAYS - 1] *= 9
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    before = everything(database)
    again = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert not again.changed
    assert everything(database) == before
    assert not refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1)).written
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM ledger.entry WHERE kind = 'flagged'").fetchone() == (1,)


def test_a_corrected_day_takes_its_case_back_unless_somebody_touched_it(database: Database) -> None:
    streets, t = electric()
    streets.usage[4, DAYS - 1] *= 9
    streets.usage[5, DAYS - 1] *= 9
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    with database.connect() as connection:
        decide(connection, {"service_point_id": "SP-E005"}, "assigned", by="ann", to="bob", clock=CLOCK)
        streets.usage[:, DAYS - 1] = streets.usage[:, DAYS - 2]
        write_days(connection, streets, range(DAYS - 1, DAYS))
    assert detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK).changed
    with database.connect() as connection:
        assert [c["subject"] for c in list_cases(connection, {"state": ["open", "assigned"]})] == ["SP-E005"]


def test_missing_weather_delays_only_what_needs_it(database: Database) -> None:
    streets, t = electric()
    streets.usage[4, DAYS - 1] *= 9
    streets.usage[7, DAYS - 1] = -3.0
    write(database, streets, t, weather_until=DAYS - 1)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    without = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert without.weather == "missing"
    assert set(without.by_kind) == {"reverse"}
    assert waiting_days(database) == []
    assert not weather_day(database, day(DAYS - 1)).report().checks[0].passed
    with database.connect() as connection:
        c = round((float(t[DAYS - 1]) - 32) / 1.8, 4)
        connection.execute("INSERT INTO ref.weather VALUES ('KMUN', %s, %s, %s, %s)", (day(DAYS - 1), c - 5, c + 5, c))
    assert waiting_days(database) == [day(DAYS - 1)]
    told = weather_day(database, day(DAYS - 1)).report()
    assert told.checks[0].passed
    assert len(told.plots["five weeks of weather"]) <= MOST_BYTES
    with database.connect() as connection:
        shown = usage_of_point(connection, "SP-E004", day(DAYS - 30), day(DAYS - 1))
    assert [round(d["degrees_c"], 3) for d in shown] == [
        round((float(t[k]) - 32) / 1.8, 3) for k in range(DAYS - 30, DAYS)
    ]
    svg = usage_svg(shown, {day(DAYS - 1)}, "SP-E004: spike", "kWh")
    assert "dotted: mean °C" in svg
    assert svg.count("<polyline") == 2, "the expectation and the temperature"
    late = detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert (late.weather, waiting_days(database)) == ("complete", [])
    assert {"reverse", "spike"} <= set(late.by_kind)


def test_a_meter_without_history_is_judged_by_its_class_and_the_flag_says_so(database: Database) -> None:
    streets, t = electric(days=40)
    streets.usage[2, 39] *= 8
    write(database, streets, t)
    fitted = refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(39))
    assert fitted.by_status == {"class_profile": 20}
    outcome = detect_billing_day(database, CALENDAR, day(39), clock=CLOCK)
    flag = outcome.flags.filter(outcome.flags["service_point_id"] == "SP-E002")
    assert flag["kind"].to_list() == ["high"]
    assert '"class_profile":true' in flag["evidence"][0]


def test_a_leak_is_one_case_however_many_days_and_estimated_days_neither_trigger_nor_clear(database: Database) -> None:
    rng = np.random.default_rng(8)
    shape = np.array([0, 0, 0, 0, 0, 5, 20, 20, 10, 5, 5, 5, 5, 5, 5, 5, 10, 15, 20, 15, 10, 5, 2, 0], float)
    hours = np.round(shape[None, None, :] * rng.uniform(0.7, 1.3, (12, 40, 24)), 1)
    hours[3, 30:] += 4.0
    streets = Streets("water", "gal", hours.sum(axis=2), hours=hours)
    streets.coverage[3, 33] = 0.5
    write(database, streets, temperatures(40))
    opened, flagged = [], []
    for d in range(28, 36):
        outcome = detect_billing_day(database, CALENDAR, day(d), clock=CLOCK)
        opened += outcome.opened
        flagged += [d] * outcome.by_kind.get("leak", 0)
    assert flagged == [30, 31, 32, 34, 35]
    assert [(c.kind, c.subject) for c in opened] == [("leak", "SP-W003")]
    with database.connect() as connection:
        (case,) = list_cases(connection, {"kind": "leak"})
        assert (case["first_day"], case["last_day"], case["days"]) == (day(30), day(35), 5)
        done = decide(
            connection, {"kind": ["leak"], "commodity": "water"}, "dismissed", by="ann", reason="ice maker", clock=CLOCK
        )
        assert done.cases == [case["case_id"]]
        with pytest.raises(QueueError, match="already decided"):
            decide(connection, {"case_id": case["case_id"]}, "confirmed", by="bob", clock=CLOCK)
    write_more = detect_billing_day(database, CALENDAR, day(36), clock=CLOCK)
    assert not write_more.opened, "a dismissed matter stays quiet"


def test_one_meter_one_collector_and_a_head_end_are_told_apart(database: Database) -> None:
    streets, t = electric(points=60, days=40)
    streets.coverage[55, 36:] = 0.0
    streets.coverage[10:20, 38] = 0.6
    streets.coverage[:, 39] = 0.7
    write(database, streets, t)
    by_day = {d: detect_billing_day(database, CALENDAR, day(d), clock=CLOCK) for d in range(36, 40)}
    told = {
        d: [
            (k, p or g)
            for k, p, g in o.flags.filter(o.flags["kind"].str.starts_with("dropout"))
            .select("kind", "service_point_id", "group_id")
            .iter_rows()
        ]
        for d, o in by_day.items()
    }
    assert told == {
        36: [],
        37: [("dropout_meter", "SP-E055")],
        38: [("dropout_collector", "COL-1"), ("dropout_meter", "SP-E055")],
        39: [("dropout_head_end", "AMI")],
    }


def test_an_undecided_case_expires_and_releases_the_bill(database: Database) -> None:
    streets, t = electric(days=130)
    streets.usage[4, 65] *= 9
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(65))
    assert [c.kind for c in detect_billing_day(database, CALENDAR, day(65), clock=CLOCK).opened] == ["spike"]
    assert detect_billing_day(database, CALENDAR, day(125), clock=CLOCK).expired == 0
    assert detect_billing_day(database, CALENDAR, day(126), clock=CLOCK).expired == 1
    with database.connect() as connection:
        assert connection.execute("SELECT state, hold FROM anomaly.exception_case").fetchall() == [("expired", False)]


def test_a_judge_killed_before_its_end_leaves_no_flag_case_or_hold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    streets, t = electric()
    streets.usage[7, DAYS - 1] = -3.0
    write(database, streets, t)

    def killed(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("meter_pipeline.anomalies.day.entries.append", killed)
        with pytest.raises(KeyboardInterrupt):
            detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert everything(database) == {"flags": [], "cases": [], "runs": []}
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM vee.daily_usage").fetchone() == (streets.usage.size,)
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    assert len(everything(database)["cases"]) == 1


def test_a_day_that_was_never_validated_is_judged_as_empty(database: Database) -> None:
    outcome = detect_billing_day(database, CALENDAR, day(3), clock=CLOCK)
    assert (outcome.points, outcome.flags.height) == (0, 0)
    assert refit_baselines(database, CALENDAR, clock=CLOCK).version is None


def test_decisions_are_refused_with_the_reason(database: Database) -> None:
    with database.connect() as connection:
        refused: list[tuple[dict[str, str], Decision, str]] = [
            ({}, "confirmed", "needs a case"),
            ({"kind": "leak"}, "dismissed", "needs a reason"),
            ({"kind": "leak"}, "assigned", "someone to go to"),
            ({"kind": "leak"}, "confirmed", "no case matches"),
            ({"colour": "red"}, "confirmed", "no filter colour"),
        ]
        for filters, decision, why in refused:
            with pytest.raises(QueueError, match=why):
                decide(connection, filters, decision, by="ann")


def test_a_weather_file_is_kept_once_and_stands_before_the_reference(database: Database, tmp_path: Path) -> None:
    lines = ["time,temperature_c"] + [
        f"2025-01-{d:02d}T{h:02d}:00:00Z,{d + h / 100:.2f}" for d in range(1, 4) for h in range(24)
    ]
    (tmp_path / "w.csv").write_text("\n".join(lines))
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.weather_stations VALUES ('KMUN', 'Field', 41.9, -87.6)")
        connection.execute(
            "INSERT INTO ref.weather VALUES ('KMUN', '2025-01-02', 0, 0, 0), ('KMUN', '2025-01-09', 1, 3, null)"
        )
    loaded = load_weather(database, CALENDAR, tmp_path / "w.csv", station_id="KMUN", clock=CLOCK)
    assert (loaded.days, loaded.gaps, loaded.changed) == (
        {"KMUN": 3},
        {"KMUN": 1},
        3,
    )  # 31 December holds six hours of it
    assert load_weather(database, CALENDAR, tmp_path / "w.csv", station_id="KMUN", clock=CLOCK).changed == 0
    rows = dict(database.read("SELECT weather_day::text, source FROM anomaly.temperature ORDER BY 1").iter_rows())
    assert rows == {"2025-01-01": "file", "2025-01-02": "file", "2025-01-03": "file", "2025-01-09": "reference"}


def test_the_queue_on_the_command_line(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    streets, t = electric()
    streets.usage[7, DAYS - 1] = -3.0
    write(database, streets, t)
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)
    monkeypatch.setattr("meter_pipeline.cli.exceptions.prepare", lambda _: database)

    def call(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    case = f"reverse-SP-E007-{day(DAYS - 1):%Y%m%d}"
    listed = call("list")
    assert (listed["count"], listed["held"], listed["cases"][0]["case_id"]) == (1, 1, case)
    assert call("show", case)["flags"][0]["observed"] == -3.0
    assert call("assign", "--all", "--kind", "reverse", "--to", "field", "--by", "ann")["cases"] == [case]
    assert call("list", "--assigned-to", "field")["cases"][0]["state"] == "assigned"
    assert call("dismiss", case, "--reason", "wired backward, mended", "--by", "ann") == {
        "decision": "dismissed",
        "cases": [case],
        "released": 1,
        "days_to_run": [],
    }
    assert call("list")["count"] == 0
    assert call("list", "--all")["cases"][0]["decided_by"] == "ann"
    assert CliRunner().invoke(app, ["confirm", case, "--by", "bob"]).exit_code == 1
    assert CliRunner().invoke(app, ["confirm", "--by", "bob"]).exit_code == 2
    for arguments, said in ((["list", "--all"], "1 case(s), 0 holding a bill"), (["show", case], "dismissed, severe")):
        shown = CliRunner().invoke(app, arguments)
        assert shown.exit_code == 0
        assert said in shown.output


def test_the_queue_as_dagster_jobs(database: Database) -> None:
    """List, show with a picture, assign, confirm; a decision taken twice, or on a case that does not exist, fails with
    the reason."""
    import dagster as dg

    from meter_pipeline.defs.detection import exception_jobs as jobs
    from meter_pipeline.defs.lib.resources import Municipality

    streets, t = electric()
    streets.usage[4, DAYS - 1] *= 9
    write(database, streets, t)
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    detect_billing_day(database, CALENDAR, day(DAYS - 1), clock=CLOCK)

    def run(name: str, **config: Any) -> tuple[bool, dict[str, Any]]:
        job = next(j for j in jobs.JOBS if j.name == f"exceptions_{name}")
        [op] = [node.name for node in job.all_node_defs]
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                run_config={"ops": {op: {"config": config}}},
                resources={"municipality": Municipality(database_url=database.url)},
                instance=instance,
                raise_on_error=False,
            )
        said = next((e.step_output_data.metadata for e in result.all_events if e.event_type_value == "STEP_OUTPUT"), {})
        return result.success, {k: getattr(v, "records", None) or v.value for k, v in said.items()}

    ok, said = run("list")
    assert (ok, said["cases"], said["bills held"]) == (True, 1, 1)
    case = str(said["newest"][0].data["case_id"])
    ok, said = run("show", case=case)
    assert ok
    assert said["usage"].startswith(f"![{case}](data:image/png;base64,")
    assert len(said["flagged days"]) == 1
    assert run("show", case="none")[0] is False
    assert run("confirm", by="ann")[0] is False, "no case and no filter"
    assert run("assign", kind=["spike"], to="bob", by="ann") == (
        True,
        {"decision": "assigned", "cases": 1, "bills released": 0, "which": case},
    )
    assert run("confirm", cases=[case], by="bob", reason="pool filled")[1]["bills released"] == 1
    assert run("dismiss", cases=[case], by="bob", reason="none")[0] is False
    assert run("list")[1]["cases"] == 0
