"""An OWRS file as it is written: plain values, and the line of each for messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from meter_pipeline.billing.tariffs import owrs_members
from meter_pipeline.billing.tariffs.fields import TariffRefusedError


@dataclass(slots=True)
class OwrsFile:
    """A parsed file: plain values, each scalar a text, and the line of each path."""

    root: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def refuse(self, path: str, why: str) -> TariffRefusedError:
        line = next((self.lines[p] for p in _upwards(path) if p in self.lines), None)
        return TariffRefusedError(path, why if line is None else f"{why} (line {line})")


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path[: path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]


def read(raw: bytes) -> OwrsFile:
    """Parse a file. Raises TariffRefusedError."""
    import yaml  # Dagster brings it; 20 ms that other commands do without

    try:
        node = yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TariffRefusedError("document", f"is not YAML: {' '.join(str(error).split())[:200]}") from error
    found = OwrsFile({})
    root = _plain(node, "", found.lines)
    if (
        not isinstance(root, dict)
        or not isinstance(root.get("rate_structure"), dict)
        or not isinstance(root.get("metadata"), dict)
    ):
        raise TariffRefusedError("rate_structure", "is missing: an OWRS file has metadata and rate_structure")
    found.root = root
    unknown = owrs_members.unknown_member(root)
    if unknown is not None:
        raise found.refuse(*unknown)
    return found


def _plain(node: Any, path: str, lines: dict[str, int]) -> Any:
    import yaml

    if node is None:
        return None
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        plain: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            at = f"{path}.{name}".lstrip(".")
            lines[at] = key.start_mark.line + 1
            if name in plain:
                raise TariffRefusedError(at, f"stands twice (line {key.start_mark.line + 1})")
            plain[name] = _plain(value, at, lines)
        return plain
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, f"{path}[{k}]", lines) for k, value in enumerate(node.value)]
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value).strip()


def definitions_of(file: OwrsFile, given: Any, path: str) -> dict[str, Any]:
    """A class's definitions: a mapping, or a list of mappings of one name each."""
    if isinstance(given, dict):
        return given
    if not isinstance(given, list):
        raise file.refuse(path, "is neither a mapping nor a list of definitions")
    definitions: dict[str, Any] = {}
    for k, item in enumerate(given):
        if not isinstance(item, dict):
            raise file.refuse(f"{path}[{k}]", "is not a definition")
        names = [n for n in item if n not in ("depends_on", "values")]
        for name in names:
            if name in definitions:
                raise file.refuse(f"{path}[{k}].{name}", "stands twice in the class")
            # depends_on and values one level too far out, as in published files.
            outside = {n: item[n] for n in ("depends_on", "values") if n in item}
            definitions[name] = outside if item[name] is None and outside else item[name]
            inner = f"{path}[{k}].{name}"
            file.lines |= {f"{path}.{name}{p[len(inner) :]}": n for p, n in file.lines.items() if p.startswith(inner)}
    return definitions


def keys_of(text: str, count: int) -> list[str] | None:
    """The values of ``count`` fields in a key such as inside_city|5/8": 1|1/2" and 1_1/2" are one meter size."""
    parts = re.sub(r"\b1[|_ ]1/2", "1-1/2", text).split("|")
    return [p.strip().strip('"').strip() for p in parts] if len(parts) == count else None
