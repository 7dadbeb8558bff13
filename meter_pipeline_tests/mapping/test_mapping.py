"""A customer system's exports as they are: one wide listing, a fixed-width premise file and a code table become the
reference tables; every fault carries file and line of the export."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.cli.reference import app
from meter_pipeline.mapping import MappedTables, MappingError, make_tables, read_mapping
from meter_pipeline.reference import read_folder

ZONE = "America/Chicago"
DOCUMENT = Path(__file__).parents[2] / "docs" / "mapping.md"


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind in docs/mapping.md."""
    return re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """The exports that docs/mapping.md shows."""
    folder = tmp_path / "exports"
    folder.mkdir()
    services, premises = blocks("csv")
    (folder / "SERV_20261101.txt").write_text(services)
    (folder / "PREM_20261101.dat").write_text(premises)
    return folder


def mapping_of(tmp_path: Path, text: str | None = None) -> Path:
    folder = tmp_path / "mapping"
    folder.mkdir(exist_ok=True)
    (folder / "cis.toml").write_text(blocks("toml")[0] if text is None else text)
    return folder


def made(tmp_path: Path, exports: Path, text: str | None = None) -> MappedTables:
    return make_tables(read_mapping(mapping_of(tmp_path, text)), exports, tmp_path / "out", ZONE)


def rows(tmp_path: Path, table: str) -> list[dict[str, str]]:
    with (tmp_path / "out" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_documented_exports_become_tables_that_an_import_takes(tmp_path: Path, exports: Path) -> None:
    result = made(tmp_path, exports)
    assert result.faults == []
    assert result.tables == {
        "accounts": 2,
        "service_points": 3,
        "meters": 3,
        "channels": 3,
        "installations": 3,
        "agreements": 3,
    }
    tables, _ = read_folder(tmp_path / "out")
    assert {name: len(content) for name, content in tables.items()} == result.tables
    assert rows(tmp_path, "accounts")[0] == {
        "account_id": "10-204",
        "customer_class": "residential",
        "opened": "2019-03-01",
        "closed": "",
    }
    assert [row["installed_at"] for row in rows(tmp_path, "installations")] == [
        "2019-03-01T06:00:00Z",
        "2021-06-15T05:00:00Z",
        "2020-01-02T06:00:00Z",
    ]
    assert rows(tmp_path, "service_points")[0]["route"] == "R-07"
    assert [row["multiplier"] for row in rows(tmp_path, "channels")] == ["1", "1", "40.5"]
    with (tmp_path / "out" / "ids.csv").open(newline="") as file:
        assert {tuple(row) for row in csv.reader(file)} >= {("accounts.account_id", "10/204", "10-204")}


def test_faults_carry_the_exports_file_and_line(tmp_path: Path, exports: Path) -> None:
    path = exports / "SERV_20261101.txt"
    lines = path.read_text().splitlines()
    changes = {
        1: ("03/01/2019", "2019-03-01"),  # a date in another form
        2: ("|RES|", "|FARM|"),  # a code nobody knows
        3: ("P00003", "P00009"),  # a premise that is not in the other export
    }
    header = next(n for n, line in enumerate(lines) if line.startswith("ACCT"))
    for after, (old, new) in changes.items():
        assert old in lines[header + after]
        lines[header + after] = lines[header + after].replace(old, new)
    path.write_text("\n".join([*lines[:-1], "broken|line", lines[-1]]) + "\n")
    found = {(f.file, f.line): f.why for f in made(tmp_path, exports).faults}
    at = {n: (path.name, header + 1 + n) for n in changes}
    assert "is not written as %m/%d/%Y" in found[at[1]]
    assert "no code for 'FARM'" in found[at[2]]
    assert "no row of premises has 'P00009'" in found[at[3]]
    assert found[(path.name, len(lines))] == "2 cells, 12 expected"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("40,5", "forty", 3, "MULT: channels: multiplier: not a plain decimal number"),
        ("|KWH|1|", "|PARSEC|1|", 1, "UOM: channels: unit: "),
        ("|90002|", "|90001|", 3, "METER: meters: "),
    ],
)
def test_what_an_import_refuses_is_named_by_the_exports_line(
    tmp_path: Path, exports: Path, old: str, new: str, line: int, said: str
) -> None:
    path = exports / "SERV_20261101.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    found = [str(fault) for fault in made(tmp_path, exports).faults]
    header = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith("ACCT"))
    assert any(fault.startswith(f"{path.name}:{header + line}: {said}") for fault in found), found


def test_rows_that_repeat_must_agree_and_ids_must_stay_apart(tmp_path: Path, exports: Path) -> None:
    path = exports / "SERV_20261101.txt"
    text = path.read_text()
    second = [n for n, line in enumerate(text.splitlines()) if line.startswith("10/204")][1]
    lines = text.splitlines()
    lines[second] = lines[second].replace("03/01/2019", "04/01/2019", 1)
    path.write_text("\n".join(lines) + "\n")
    assert any("differs from" in fault.why and "opened" in fault.why for fault in made(tmp_path, exports).faults)
    path.write_text(text.replace("20/001", "10-204"))
    assert any("both become 10-204" in fault.why for fault in made(tmp_path, exports).faults)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('file = "SERV*.txt"', 'file = "NONE*.txt"', "no file matches"),
        ('account_id = { column = "ACCT"', 'account_id = { column = "ACT"', "has no column 'ACT'"),
        ('codes = "class"', 'codes = "clas"', "did you mean class"),
        ("[[tables.accounts]]", "[[tables.acounts]]", "did you mean accounts"),
        ("unique = true", "uniqe = true", "did you mean unique"),
        ('delimiter = "|"', 'delimitr = "|"', "did you mean delimiter"),
        ('"1-6"', '"6-1"', "is not a place"),
        ('from = "services"', 'from = "service"', "did you mean services"),
    ],
)
def test_a_mapping_that_does_not_fit_says_what_to_change(
    tmp_path: Path, exports: Path, old: str, new: str, said: str
) -> None:
    text = blocks("toml")[0]
    assert old in text
    with pytest.raises(MappingError, match=said):
        made(tmp_path, exports, text.replace(old, new))


def test_the_commands(tmp_path: Path, exports: Path) -> None:
    folder, run = mapping_of(tmp_path), CliRunner()
    asked = ["check", str(exports), "--mapping", str(folder), "--no-preview", "--json"]
    found = run.invoke(app, asked)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["tables"]["meters"] == 3
    out = run.invoke(app, ["map", str(exports), "--mapping", str(folder), "--out", str(tmp_path / "made")])
    assert out.exit_code == 0, out.output
    assert (tmp_path / "made" / "channels.csv").is_file()
    (exports / "SERV_20261101.txt").unlink()
    assert run.invoke(app, asked).exit_code == 1
