"""A flag moves only by a step its declaration allows, by two people where it asks for them, and never over somebody
else's change."""

from __future__ import annotations

import threading

import psycopg
import pytest

from meter_pipeline.control import flags
from meter_pipeline.control.people import Refused
from meter_pipeline.control.tables import dual_requests
from meter_pipeline.postgres.database import Database

STAGES = ["off", "shadow", "live"]
STAGE = flags.Flag(
    "stage",
    "off",
    check=lambda before, after: (
        None if after in STAGES and abs(STAGES.index(after) - STAGES.index(before)) == 1 else f"no step to {after}"
    ),
    needs_two=lambda before, after: after == "live",
)


def test_a_flag_never_changed_has_its_default(connection: psycopg.Connection[object]) -> None:
    assert flags.read(connection, STAGE) == flags.Value("off", 0)


def test_each_change_is_kept_and_names_the_version_it_replaced(database: Database) -> None:
    assert flags.change(database, STAGE, "shadow", by="ann", reason="begin").version == 1
    assert flags.change(database, STAGE, "off", by="ann", reason="back", expect_version=1).version == 2
    with pytest.raises(Refused, match="version 2"):
        flags.change(database, STAGE, "shadow", by="ann", reason="late", expect_version=1)
    with database.connect() as connection:
        kept = connection.execute(
            "SELECT version, value FROM control.flag_change WHERE flag = 'stage' ORDER BY version"
        )
        assert kept.fetchall() == [(1, "shadow"), (2, "off")]
        assert dual_requests.refusals(connection)[0]["code"] == "stale"


def test_a_step_that_is_not_allowed_or_needs_two_is_refused(database: Database) -> None:
    with pytest.raises(Refused, match="no step"):
        flags.change(database, STAGE, "live", by="ann", reason="jump")
    flags.change(database, STAGE, "shadow", by="ann", reason="begin")
    with pytest.raises(Refused, match="two people"):
        flags.change(database, STAGE, "live", by="ann", reason="go")
    request = flags.request_change(database, STAGE, "live", by="ann", reason="go").request_id
    with pytest.raises(Refused, match="second person"):
        flags.confirm_change(database, STAGE, request, by="ann", reason="me too")
    assert flags.confirm_change(database, STAGE, request, by="bob", reason="checked").value == "live"
    with database.connect(autocommit=True) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("UPDATE control.flag SET request = NULL, decision = NULL, version = 9")


def test_a_confirmation_of_what_has_moved_is_refused(database: Database) -> None:
    flags.change(database, STAGE, "shadow", by="ann", reason="begin")
    request = flags.request_change(database, STAGE, "live", by="ann", reason="go").request_id
    flags.change(database, STAGE, "off", by="cat", reason="trouble")
    with pytest.raises(Refused, match="changed since"):
        flags.confirm_change(database, STAGE, request, by="bob", reason="checked")
    with database.connect() as connection:
        assert flags.read(connection, STAGE).value == "off"
        assert dual_requests.request_by_id(connection, request).decision is None  # type: ignore[union-attr]


def test_a_share_lock_keeps_the_value_until_the_transaction_ends(database: Database) -> None:
    with database.connect() as connection:
        flags.ensure(connection, STAGE, by="deploy")
        connection.commit()
        assert flags.read(connection, STAGE, lock="share").value == "off"
        changer = threading.Thread(target=lambda: flags.change(database, STAGE, "shadow", by="ann", reason="go"))
        changer.start()
        changer.join(0.3)
        assert changer.is_alive()
        assert flags.read(connection, STAGE).value == "off"
        connection.commit()
        changer.join(5)
        assert flags.read(connection, STAGE).value == "shadow"
