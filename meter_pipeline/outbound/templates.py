"""Templates: how an output's records become a file's text, declared in TOML (outputs/NAME.toml of the deployment)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from meter_pipeline.outbound.contracts import OUTPUTS, Output

FORMATS: Final = ("delimited", "fixed_width", "json_lines")
_TOP: Final = {
    "output",
    "format",
    "delimiter",
    "header",
    "date",
    "encoding",
    "line_end",
    "extension",
    "field",
    "first_line",
    "last_line",
}
_FIELD: Final = {"name", "from", "constant", "width", "align", "pad", "decimals", "implied_decimals", "date", "map"}


class TemplateError(ValueError):
    """A template that cannot be used, or a value that does not fit it; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a line. ``source``: the contract's field, or None where ``constant`` stands. ``decimals``: exactly
    so many; ``implied``: so many without the point (1.25 with 2 is 125). ``words``: the contract's word to the file's.
    """

    name: str
    source: str | None = None
    constant: str = ""
    width: int | None = None
    align: str = "left"
    pad: str = " "
    decimals: int | None = None
    implied: bool = False
    date: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Template:
    """A file's layout. ``first_line`` and ``last_line`` are texts with {records}, {date}, {sequence}, {scope} and
    {sum_FIELD} in them, or None."""

    name: str
    output: Output
    format: str
    columns: tuple[Column, ...]
    delimiter: str = ","
    header: bool = True
    date: str = "%Y-%m-%d"
    encoding: str = "utf-8"
    line_end: str = "\n"
    extension: str = "txt"
    first_line: str | None = None
    last_line: str | None = None

    def text(self, records: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> bytes:
        """The file's bytes. Raises TemplateError for a value that does not fit its field: nothing is cut."""
        lines = [] if self.first_line is None else [self._fact_line(self.first_line, facts)]
        if self.format == "json_lines":
            lines += [json.dumps({c.name: _plain(c, r) for c in self.columns}, ensure_ascii=False) for r in records]
        else:
            if self.format == "delimited" and self.header:
                lines.append(self.delimiter.join(self._quoted(column.name) for column in self.columns))
            lines += [self._line(record) for record in records]
        lines += [] if self.last_line is None else [self._fact_line(self.last_line, facts)]
        try:
            return "".join(line + self.line_end for line in lines).encode(self.encoding)
        except UnicodeEncodeError as error:
            raise TemplateError(
                f"template {self.name}: {error.object[error.start]!r} is not in {self.encoding}"
            ) from error

    def _line(self, record: Mapping[str, Any]) -> str:
        cells = [self._cell(column, record) for column in self.columns]
        if self.format == "fixed_width":
            return "".join(cells)
        return self.delimiter.join(self._quoted(cell) for cell in cells)

    def _cell(self, column: Column, record: Mapping[str, Any]) -> str:
        text = self._shown(column, record)
        if "\n" in text or "\r" in text:
            text = " ".join(text.split())
        if self.format != "fixed_width" or column.width is None:
            return text
        if len(text) > column.width:
            raise TemplateError(
                f"template {self.name}, field {column.name}: {text!r} has {len(text)} characters, the field {column.width}"
            )
        if not text:
            return " " * column.width  # a read that is missing is blank: zeros would be a dial
        if column.align == "left":
            return text.ljust(column.width, column.pad)
        sign = "-" if column.pad == "0" and text.startswith("-") else ""
        return sign + text.removeprefix(sign).rjust(column.width - len(sign), column.pad)

    def _shown(self, column: Column, record: Mapping[str, Any]) -> str:
        if column.source is None:
            return column.constant
        value = record[column.source]
        if value is None:
            return column.words.get("", "")
        if isinstance(value, date):
            return value.strftime(column.date or self.date)
        text = str(value)
        if column.words:
            if text not in column.words:
                raise TemplateError(f"template {self.name}, field {column.name}: map has no {text!r}")
            return column.words[text]
        if column.decimals is not None:
            return _fixed(self.name, column, text)
        return text

    def _quoted(self, text: str) -> str:
        if any(mark in text for mark in (self.delimiter, '"', "\n", "\r")):
            return '"' + text.replace('"', '""') + '"'
        return text

    def _fact_line(self, line: str, facts: Mapping[str, str]) -> str:
        try:
            return line.format_map(facts)
        except (KeyError, ValueError, IndexError) as error:
            known = ", ".join(f"{{{name}}}" for name in sorted(facts))
            raise TemplateError(f"template {self.name}: {line!r} asks for {error}; there are {known}") from error


def _fixed(template: str, column: Column, text: str) -> str:
    """A number with exactly so many decimals. Raises TemplateError where a digit would be lost."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise TemplateError(f"template {template}, field {column.name}: {text!r} is not a number") from error
    digits = column.decimals or 0
    rounded = round(value, digits)
    if rounded != value:
        raise TemplateError(f"template {template}, field {column.name}: {text} has more than {digits} decimals")
    shown = f"{rounded:.{digits}f}"
    return shown.replace(".", "") if column.implied else shown


def _plain(column: Column, record: Mapping[str, Any]) -> Any:
    if column.source is None:
        return column.constant
    value = record[column.source]
    return value.isoformat() if isinstance(value, date) else column.words.get(str(value), value)


def plain_template(output: Output) -> Template:
    """JSON Lines with every field of the contract: the output without a template."""
    columns = tuple(Column(name, name) for name in output.fields)
    return Template(f"{output.name}-{output.version}", output, "json_lines", columns, extension="jsonl")


def read_template(path: Path) -> Template:
    """A template from its file. Raises TemplateError naming the file and the field."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path}: {error}") from error
    _known(path, raw, _TOP)
    output = OUTPUTS.get(str(raw.get("output")))
    if output is None:
        raise TemplateError(f"{path}: output is {raw.get('output')!r}, none of {', '.join(OUTPUTS)}")
    kind = raw.get("format")
    if kind not in FORMATS:
        raise TemplateError(f"{path}: format is {kind!r}, none of {', '.join(FORMATS)}")
    fields = raw.get("field")
    if not isinstance(fields, list) or not fields:
        raise TemplateError(f"{path}: no [[field]]")
    columns = tuple(_column(path, output, kind, number, one) for number, one in enumerate(fields, 1))
    texts = {n: raw[n] for n in ("delimiter", "date", "encoding", "extension", "first_line", "last_line") if n in raw}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise TemplateError(f"{path}: {name} is {value!r}, not a text")
    ends = {"lf": "\n", "crlf": "\r\n"}
    if raw.get("line_end", "lf") not in ends:
        raise TemplateError(f"{path}: line_end is {raw['line_end']!r}, neither lf nor crlf")
    try:
        "".encode(texts.get("encoding", "utf-8"))
    except LookupError as error:
        raise TemplateError(f"{path}: {error}") from error
    return Template(
        path.stem,
        output,
        kind,
        columns,
        header=bool(raw.get("header", True)),
        line_end=ends[raw.get("line_end", "lf")],
        **texts,
    )


def _column(path: Path, output: Output, kind: str, number: int, raw: Any) -> Column:
    where = f"{path}: field {number}"
    if not isinstance(raw, dict):
        raise TemplateError(f"{where} is not a table")
    _known(path, raw, _FIELD, f"field {number}: ")
    source = raw.get("from")
    if (source is None) == ("constant" not in raw):
        raise TemplateError(f"{where} has neither from nor constant, or both")
    if source is not None and source not in output.fields:
        raise TemplateError(f"{where}: {output.name} has no {source!r}; it has {', '.join(output.fields)}")
    width, digits = raw.get("width"), raw.get("decimals", raw.get("implied_decimals"))
    if kind == "fixed_width" and (type(width) is not int or width < 1):
        raise TemplateError(f"{where}: width is {width!r}; a fixed-width field has a whole number of characters")
    if digits is not None and (type(digits) is not int or not 0 <= digits <= 12):
        raise TemplateError(f"{where}: decimals is {digits!r}, not a whole number from 0 to 12")
    if raw.get("align", "left") not in ("left", "right") or len(str(raw.get("pad", " "))) != 1:
        raise TemplateError(f"{where}: align is left or right, pad is one character")
    words = raw.get("map", {})
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise TemplateError(f"{where}: map is not a table of texts")
    return Column(
        str(raw.get("name", source or f"field{number}")),
        source,
        str(raw.get("constant", "")),
        width,
        raw.get("align", "left"),
        str(raw.get("pad", " ")),
        digits,
        "implied_decimals" in raw,
        raw.get("date"),
        words,
    )


def _known(path: Path, raw: Mapping[str, Any], known: set[str], where: str = "") -> None:
    if unknown := sorted(raw.keys() - known):
        raise TemplateError(f"{path}: {where}unknown {unknown[0]!r}; known are {', '.join(sorted(known))}")
