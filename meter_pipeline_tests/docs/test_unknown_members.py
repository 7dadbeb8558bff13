"""Nothing that a person writes is silently ignored: an unknown member in any object of any document is refused by name.

A tariff with every member there is has its own test (billing/test_tariff_schema.py); here the published documents as
they stand, and every kind of TOML file that a deployment holds.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meter_pipeline.billing.bill_settings import read_bill_settings
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline.billing.tariffs.owrs import Season, import_owrs
from meter_pipeline.control.rules import load_thresholds
from meter_pipeline.feeds.head_ends import read_head_end
from meter_pipeline.mapping.declaration import read_mapping
from meter_pipeline.outbound.templates import read_template
from meter_pipeline.settings import Settings, file_settings
from meter_pipeline.vee.rules import policy, thresholds
from meter_pipeline_tests.billing import test_owrs as owrs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "meter_pipeline"
TARIFFS = sorted([*(ROOT / "docs" / "tariff-gallery").glob("[!b]*.json"), *(ROOT / "data" / "tariffs").glob("*.json")])
#: Tables whose keys the writer chooses: words, channels, columns of a file, attributes, seasons, periods.
CHOSEN = {
    *("quality_map", "channel_map", "unit_map", "dst_map", "flows", "dials", "moduli", "skip", "keep", "replace"),
    *("body", "on", "codes", "sources", "map", "where", "seasons", "rates", "periods", "values", "range"),
}
BILL = """
due_days = 21
[[message]]
text = "The office is closed."
from = "2026-12-01"
"""
UTILITY = """
name = "Springfield"
zone = "America/Chicago"
currency = "USD"
[settings]
shards = 4
"""


def objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a document with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from objects(inner, f"{path}.{key}" if path else key)
    if isinstance(value, list):
        for k, inner in enumerate(value):
            yield from objects(inner, f"{path}[{k}]")


def toml(value: Any) -> str:
    """A TOML value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool) else str(value)


def changed(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document with a member "colour" in each of its objects in turn."""
    for path, _ in objects(document):
        if path.rsplit(".", 1)[-1] in CHOSEN or (path.startswith("codes.") and path.count(".") == 1):
            continue
        other = copy.deepcopy(document)
        dict(objects(other))[path]["colour"] = "blue"
        yield path, other


@pytest.mark.parametrize("path", TARIFFS, ids=lambda path: path.stem)
def test_published_tariffs(path: Path) -> None:
    document = json.loads(path.read_text())
    parse_tariff(path.read_bytes())
    for where, other in changed(document):
        with pytest.raises(TariffRefusedError) as refused:
            parse_tariff(json.dumps(other).encode())
        place = where.removeprefix("items[0]").removeprefix(".")
        assert refused.value.field == (f"{place}.colour" if place else "colour")


@pytest.mark.parametrize("name", owrs.DOCUMENTS)
def test_open_water_rates(name: str) -> None:
    """Of a definition by fields ``values`` has the keys of the writer's choice, all else is the specification's."""
    document = yaml.load(owrs.DOCUMENTS[name], Loader=yaml.BaseLoader)  # noqa: S506 - texts only
    seasons = {"summer": Season("05-01", "10-31"), "winter": Season("11-01", "04-30")}
    import_owrs(yaml.safe_dump(document).encode(), tariff_id="W", seasons=seasons)
    tried = 0
    for where, other in changed(document):
        with pytest.raises(TariffRefusedError) as refused:
            import_owrs(yaml.safe_dump(other).encode(), tariff_id="W", seasons=seasons)
        # A definition in a list is named by its class.
        place = re.sub(r"\[[0-9]+\]", "", where)
        assert refused.value.field == (f"{place}.colour" if place else "colour")
        assert "(line " in str(refused.value)
        tried += 1
    assert tried >= 4


def declarations() -> list[str]:
    """Head-ends: the demo city's, those of vendors, and every example of docs/feeds.md."""
    folders = (ROOT / "data" / "head_ends", PACKAGE / "feeds" / "vendors")
    found = [path.read_text() for folder in folders for path in sorted(folder.glob("*.toml"))]
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "feeds.md").read_text(), re.S)
    fetched = re.findall(r"```text\n(\[fetch\].*?)```", (ROOT / "docs" / "feeds.md").read_text(), re.S)
    return found + blocks + [f"{blocks[1]}\n{table}".replace("SHA256:...", f"SHA256:{'A' * 43}") for table in fetched]


def mapping() -> str:
    return str(re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "mapping.md").read_text(), re.S)[0])


def utility(path: Path) -> None:
    """Both readers of utility.toml."""
    Settings(path.parent, path.parent, path.parent, None).utility()
    file_settings(path.parent)


def template() -> str:
    return str(re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "outputs.md").read_text(), re.S)[0])


KINDS: dict[str, tuple[list[str], str, Callable[[Path], object]]] = {
    "head-end": (declarations(), "head_end.toml", read_head_end),
    "mapping": ([mapping()], "mapping.toml", lambda path: read_mapping(path.parent)),
    "utility": ([UTILITY, (ROOT / "data" / "utility.toml").read_text()], "utility.toml", utility),
    "bill": ([BILL], "bill.toml", lambda path: read_bill_settings(path.parent)),
    "output": ([template()], "reads.toml", read_template),
    "pause": ([(PACKAGE / "control" / "thresholds.toml").read_text()], "thresholds.toml", load_thresholds),
    "rules": (
        [(PACKAGE / "vee" / "rules" / "thresholds.toml").read_text()],
        "thresholds.toml",
        lambda path: thresholds.parse(path.read_bytes()),
    ),
    "policy": (
        [(PACKAGE / "vee" / "rules" / "policy.toml").read_text()],
        "policy.toml",
        lambda path: policy.parse(path.read_bytes(), path.name),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_deployment_declares(kind: str, tmp_path: Path) -> None:
    texts, name, read = KINDS[kind]
    path, ignored, tried = tmp_path / name, [], 0
    for text in texts:
        document = tomllib.loads(text)
        for where, other in [("as it stands", document), *changed(document)]:
            path.write_text("".join(f"{json.dumps(key)} = {toml(inner)}\n" for key, inner in other.items()))
            if where == "as it stands":
                read(path)
                continue
            tried += 1
            try:
                read(path)
            except ValueError as error:
                if "colour" not in str(error):
                    ignored.append(f"{where}: {error}")
            else:
                ignored.append(where)
    assert not ignored
    assert tried >= len(texts)
