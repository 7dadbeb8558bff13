"""``meter-pipeline pause``: one JSON document on stdout, exit 1 and the code of the refusal when refused, 2 for wrong
usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from meter_pipeline.cli import pause as command
from meter_pipeline.cli import people as people_command
from meter_pipeline.postgres.database import Database


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    return lambda *arguments: CliRunner().invoke(command.app, list(arguments))


def said(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.stdout))


CHECKED = ("--ledger", "verified", "--control-totals", "balanced", "--dead-letters", "none")


def test_the_whole_way_from_raise_to_resume(cli: Any) -> None:
    assert said(cli("status", "--json"))["paused"] is False
    raised = cli("raise", "--reason", "odd water", "--commodity", "water", "--by", "ann", "--json")
    assert (raised.exit_code, said(raised)["target"]) == (0, "water")
    assert cli("status", "--exit-code").exit_code == 1
    asked = said(cli("request-resume", "--reason", "fixed", *CHECKED, "--commodity", "water", "--by", "ann", "--json"))
    refused = cli("confirm-resume", str(asked["request"]), "--by", "ann", "--json")
    assert (refused.exit_code, said(refused)["refused"]) == (1, "same_person")
    done = cli("confirm-resume", str(asked["request"]), "--by", "bob", "--json")
    assert (done.exit_code, said(done)["resumed"]) == (0, True)
    status = said(cli("status", "--json"))
    assert status["paused"] is False
    assert status["refusals"][0]["code"] == "same_person"


def test_a_resume_that_names_no_scope_says_which_pause_is_in_force_and_how_to_name_it(cli: Any) -> None:
    cli("raise", "--reason", "odd water", "--commodity", "water", "--by", "ann")
    refused = cli("request-resume", "--reason", "fixed", *CHECKED, "--by", "ann", "--json")
    assert refused.exit_code == 1
    assert "(give --commodity water)" in said(refused)["detail"]
    cli("raise", "--reason", "odd everything", "--by", "ann")
    other = said(cli("request-resume", "--reason", "fixed", *CHECKED, "--head-end", "HE-1", "--by", "ann", "--json"))
    assert "(give neither --commodity nor --head-end)" in other["detail"]


@pytest.mark.parametrize(
    "wrong", [("--commodity", "steam"), ("--head-end", "he 1"), ("--commodity", "gas", "--head-end", "HE-1")]
)
def test_a_scope_there_is_none_of_is_wrong_usage(cli: Any, wrong: tuple[str, ...]) -> None:
    assert cli("raise", "--reason", "x", "--by", "ann", *wrong).exit_code == 2


def test_the_register_of_people_from_the_shell(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entered, listed, taken out; nobody gives themselves a duty, and a resume is confirmed by who has it."""
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)

    def people(*arguments: str) -> Result:
        return CliRunner().invoke(people_command.app, list(arguments))

    assert said(people("list", "--json"))["duties_of_nobody"] == ["operator", "finance", "engineer", "auditor"]
    entered = people("put", "Fay@Utility.example", "--duty", "finance", "--duty", "operator", "--by", "ann", "--json")
    assert (entered.exit_code, said(entered)["person"]) == (0, "fay@utility.example")
    own = people("put", "fay@utility.example", "--duty", "auditor", "--by", "fay@utility.example", "--json")
    assert own.exit_code == 1
    assert people("put", "eve", "--duty", "king", "--by", "ann").exit_code == 1
    assert people("deactivate", "nobody", "--by", "ann").exit_code == 1
    assert people("deactivate", "fay@utility.example", "--by", "ann", "--json").exit_code == 0
    listed = said(people("list", "--json"))
    assert [(p["person"], p["active"], p["duties"]) for p in listed["people"]] == [
        ("fay@utility.example", False, ["finance", "operator"])
    ]
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM ledger.entry WHERE kind = 'flag_flipped'").fetchone() == (2,)
