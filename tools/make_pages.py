#!/usr/bin/env python3
"""Write the pages of docs/ that are made from code: settings, reference tables, tables of the database, command line.

``make pages`` runs it; a test holds the committed pages equal to what it writes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import table_diagram

from meter_pipeline.schemas.contracts import CONTRACTS
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.schemas.reference_words import MEANINGS
from meter_pipeline.schemas.tables.shape import Contract
from meter_pipeline.settings import SETTINGS

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_MADE: Final = "<!-- Made by `make pages` from {}: change it there. -->\n\n"


def settings() -> str:
    """docs/settings.md"""
    rows = [f"| `{s.name}` | `{s.variable}` | {s.default or 'none'} | {s.meaning} |" for s in SETTINGS]
    return (
        _MADE.format("meter_pipeline/settings.py")
        + "# Settings\n\n"
        + "A deployment is a folder with `utility.toml` (`meter-pipeline init FOLDER` makes one). The nearest such folder at or\n"
        + "above the working directory is used, or the one that `METER_PIPELINE_DEPLOYMENT` names. In a checkout without one,\n"
        + "the demo city in `data/` is used.\n\n"
        + "Every setting below may stand in the `[settings]` table of `utility.toml`; the environment variable beside it wins.\n"
        + "`meter-pipeline settings` shows each value in force and where it comes from. Secrets belong in the environment.\n\n"
        + "`utility.toml` itself holds `name`, `zone` (IANA time zone of the billing days), `currency` (ISO 4217), `locale` (how\n"
        + "pages write dates and numbers; `en_US` where it is missing: Oct 29, 2026 and 1,234.50), and\n"
        + "`first_billing_day` (days before it are not read, validated or billed).\n\n"
        + "| In `[settings]` | Environment | Default | Meaning |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def reference_tables() -> str:
    """docs/reference-tables.md"""
    parts = [
        _MADE.format("meter_pipeline/schemas/reference.py"),
        "# Reference tables\n\n",
        "One CSV a table in the deployment's `reference/` folder, `meter-pipeline reference import reference`. Dates are billing\n",
        "days; `valid_from` is included, `valid_to` is not, and an empty one means open. Instants are UTC and end in `Z`. A\n",
        "kind that ends in `?` may be empty.\n",
    ]
    for name, table in TABLES.items():
        parts.append(f"\n## {name}\n\n{table.about}\n\nKey: {', '.join(f'`{c}`' for c in table.key)}.\n\n")
        parts.append("| Column | Kind | Refers to | Meaning |\n| --- | --- | --- | --- |\n")
        for column, kind in table.columns.items():
            refers = f"`{table.references[column]}`" if column in table.references else ""
            said = MEANINGS.get(name, {}).get(column, "")
            parts.append(f"| `{column}` | {kind.replace('|', ', ')} | {refers} | {said} |\n")
    return "".join(parts)


def _sources(contract: Contract) -> list[str]:
    """Tables that columns of a table are computed from, with their schemas, sorted; not the table itself."""
    columns = {source for sources in contract.lineage.values() for source in sources if source.count(".") == 2}
    return sorted({column.rsplit(".", 1)[0] for column in columns} - {contract.table})


def diagram() -> str:
    """docs/images/tables.svg: how data flows between the tables."""
    return table_diagram.draw((source, c.table) for c in CONTRACTS.values() for source in _sources(c))


def tables() -> str:
    """docs/tables.md: the tables a billing day writes, how data flows between them, and every column."""
    parts = [
        _MADE.format("meter_pipeline/schemas/tables"),
        "# Tables\n\nWhat a billing day reads and writes. An arrow goes from a table to those that are computed from it.\n\n",
        "![The tables by database schema, and which is computed from which](images/tables.svg)\n",
    ]
    for contract in CONTRACTS.values():
        parts.append(f"\n## {contract.table}\n\nA row is {contract.row}. Key: ")
        computed = f" Computed from {', '.join(_sources(contract))}." if _sources(contract) else ""
        parts.append(
            ", ".join(f"`{c}`" for c in contract.key)
            + f".{computed}\n\n| Column | Type | Meaning |\n| --- | --- | --- |\n"
        )
        parts += [
            f"| `{name}` | {column.type}{', may be null' if column.nullable else ''} | {column.about} |\n"
            for name, column in contract.columns.items()
        ]
    return "".join(parts)


def commands() -> str:
    """docs/commands.md: every command of the command line with its first line of help."""
    main = importlib.import_module("meter_pipeline.cli.main")
    rows = [f"| `meter-pipeline {name}` | {about} |" for name, (_, about) in main.COMMANDS.items()]
    return (
        _MADE.format("meter_pipeline/cli/main.py")
        + "# Commands\n\nEach takes `--help`; every report takes `--json`.\n\n| Command | What it does |\n| --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


#: file below docs/ -> what writes it
PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings,
    "reference-tables.md": reference_tables,
    "tables.md": tables,
    "images/tables.svg": diagram,
    "commands.md": commands,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
