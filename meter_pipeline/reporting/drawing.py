"""Bar charts as SVG for the close report, except that of the reconciliation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 720, 180
_LEFT, _TOP, _BOTTOM = 64, 10, 24
#: Up to so many columns are all named below; of more the first, the middle and the last
_ALL_NAMED: Final = 7
INK: Final = "#35618f"
MARKED: Final = "#b3541e"


def columns_svg(values: Sequence[tuple[str, float | int | None]], unit: str, marked: str | None = None) -> str:
    """A column for each (label, value), the one labelled ``marked`` in another colour and named in the text; None is a
    gap."""
    known = [v for _, v in values if v is not None]
    high = max([*known, 0]) or 1
    low = min([*known, 0])
    step = (WIDTH - _LEFT) / max(len(values), 1)

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))

    described = "; ".join(f"{label} {value:,.6g}" for label, value in values if value is not None) or "nothing"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={quoteattr(f"In {unit}: {described}")}>'
    ]
    parts.append('<g font-family="system-ui, sans-serif" font-size="11" fill="#4a5a67">')
    for part in range(4):
        at = low + (high - low) * part / 3
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#e3e9ed"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(at) + 4:.1f}" text-anchor="end">{escape(f"{at:,.0f}" if high >= 100 else f"{at:,.3g}")}</text>'
        )
    for i, (label, value) in enumerate(values):
        if value is None:
            continue
        top, base = min(y(value), y(0)), max(y(value), y(0))
        colour = MARKED if label == marked else INK
        parts.append(
            f'<rect x="{_LEFT + step * i + step * 0.1:.1f}" y="{top:.1f}" width="{max(step * 0.8, 0.6):.1f}" height="{max(base - top, 0.6):.1f}" fill="{colour}">'
            f"<title>{escape(label)}: {value:,.6g} {escape(unit)}</title></rect>"
        )
    named = range(len(values)) if len(values) <= _ALL_NAMED else sorted({0, len(values) // 2, len(values) - 1})
    for i in named:
        anchor = (
            "middle"
            if len(values) <= _ALL_NAMED
            else "start"
            if i == 0
            else "end"
            if i == len(values) - 1
            else "middle"
        )
        parts.append(
            f'<text x="{_LEFT + step * (i + 0.5):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(values[i][0])}</text>'
        )
    return "".join([*parts, "</g></svg>"])
