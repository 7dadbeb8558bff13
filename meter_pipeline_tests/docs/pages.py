"""What the README and docs/ tell people to type: found in fenced blocks and in inline code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meter_pipeline_tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.S | re.M)
_COMMAND = re.compile(r"(?:^|[\s\"'(])(?:\.venv/bin/)?meter-pipeline((?:[ \t]+[^\n`]*)?)")
#: What ends a command on its line.
_ENDS = {"|", "||", "&&", ";", ">", ">>", "<", "2>&1", "&"}


def shell_blocks(page: Path) -> list[str]:
    """Fenced blocks meant to be run, in order."""
    return [
        body
        for language, body in _FENCE.findall(page.read_text("utf-8"))
        if language in ("sh", "bash", "console", "shell")
    ]


def commands(page: Path) -> Iterator[list[str]]:
    """Words after ``meter-pipeline`` of every command in fenced blocks (any language) and inline code."""
    text = page.read_text("utf-8")
    fenced = "\n".join(
        body
        for language, body in _FENCE.findall(text)
        if language not in ("sql", "toml", "json", "python", "ini", "yaml")
    )
    inline = "\n".join(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
    for part in (fenced.replace("\\\n", " "), inline):
        for found in _COMMAND.findall(part):
            try:
                words = shlex.split(found, comments=True)
            except ValueError:
                words = found.split()
            kept: list[str] = []
            for word in words:
                if word in _ENDS:
                    break
                kept.append(word.rstrip(")\"'.,;:") if not word.startswith("-") else word)
            yield kept


def unknown(root: Any, words: list[str]) -> str | None:
    """What of a command line the command line does not know: a command or an option. None where it knows all."""
    import click

    command, context = root, click.Context(root)
    rest = list(words)
    while rest and hasattr(command, "list_commands") and not rest[0].startswith("-"):
        if rest[0] in ("COMMAND", "..."):
            return None
        names = rest[0].split("|")  # docs write alternatives as list|show
        found = [command.get_command(context, name) for name in names]
        if None in found:
            return f"no command {rest[0]}"
        command, rest = found[0], rest[1:]
        context = click.Context(command, parent=context)
    if getattr(command, "name", "") == "bench" or getattr(command, "context_settings", {}).get(
        "ignore_unknown_options"
    ):
        return None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    strange = [word for word in rest if word.startswith("--") and word.partition("=")[0].rstrip("].,") not in known]
    return f"no option {', '.join(strange)}" if strange else None
