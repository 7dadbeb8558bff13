"""Reference assets promise: a data version that changes with a table's rows and only then, a plot of its changes, a
check of its leaves; and the preview job says what the dry run says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
from typer.testing import CliRunner

from meter_pipeline.cli.reference import app
from meter_pipeline.defs.reference.assets import LEAF_CHECK
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.defs.test_definitions import city as city
from meter_pipeline_tests.defs.test_definitions import run


def versions(result: Any) -> dict[str, str]:
    """Data version of each reference table that a run materialised."""
    found = {}
    for event in result.get_asset_materialization_events():
        made = event.step_materialization_data.materialization
        found[made.asset_key.path[-1]] = made.tags["dagster/data_version"]
    return found


def checks(result: Any) -> dict[str, bool]:
    """Whether each table's check of its leaves passed."""
    return {
        e.event_specific_data.asset_key.path[-1]: e.event_specific_data.passed
        for e in result.all_events
        if e.event_type_value == "ASSET_CHECK_EVALUATION" and e.event_specific_data.check_name == LEAF_CHECK
    }


def test_a_table_has_a_data_version_a_plot_and_a_check_and_a_preview_has_the_digest_of_the_dry_run(
    city: dg.Definitions, database: Database, tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = run(city, instance, "import_reference_data")
        assert first.success
        again = run(city, instance, "import_reference_data")
        assert versions(first) == versions(again), "nothing changed"
        assert set(checks(again).values()) == {True}
        assert len(checks(again)) == len(versions(again))
        folder = Path(os.environ["METER_PIPELINE_DATA"]) / "reference"
        channels = (folder / "channels.csv").read_text().splitlines()
        names = channels[0].split(",")
        cells = channels[1].split(",")
        cells[names.index("decimals")] = "4"
        export = tmp_path / "export"
        export.mkdir()
        (export / "channels.csv").write_text("\n".join([channels[0], ",".join(cells)]) + "\n")

        asked = {"ops": {"impact_previewed": {"config": {"folder": str(export)}}}}
        preview = run(city, instance, "preview_reference_import", run_config=asked)
        assert preview.success
        (output,) = [e for e in preview.all_events if e.event_type_value == "STEP_OUTPUT"]
        told: Any = output.event_specific_data
        said = CliRunner().invoke(app, ["import", str(export), "--dry-run", "--json"])
        assert said.exit_code == 0, said.output
        document = json.loads(said.stdout)
        assert told.metadata["digest"].value == document["digest"]
        assert told.metadata["difference"].value == document["money"]["difference"]
        assert told.metadata["billing days"].value == document["days"]
        assert told.metadata["changes"].value == len(document["changes"]) == 1

        (folder / "channels.csv").write_text("\n".join([channels[0], ",".join(cells), *channels[2:]]) + "\n")
        changed = run(city, instance, "import_reference_data")
        before, now = versions(again), versions(changed)
        assert {name for name in now if now[name] != before[name]} == {"channels"}
        made = {
            e.step_materialization_data.materialization.asset_key.path[-1]: e.step_materialization_data.materialization
            for e in changed.get_asset_materialization_events()
        }
        assert made["channels"].metadata["rows changed"].value == 1
        assert "data:image/png;base64" in str(made["channels"].metadata["changes per day"].value)

        with database.connect() as connection:
            connection.execute("ALTER TABLE ref.agreements DISABLE TRIGGER USER")
            connection.execute(
                "UPDATE ref.agreements SET valid_from = valid_from - 1 WHERE service_point_id = (SELECT min(service_point_id) FROM ref.agreements)"
            )
            connection.execute("ALTER TABLE ref.agreements ENABLE TRIGGER USER")
        with database.connect() as connection:
            from meter_pipeline.reference import history

            found = history.unproven_by_table(connection)
        assert [name for name, why in found.items() if why] == ["agreements"]
