"""Draws pictures as SVG text: small, sharp and readable by a screen reader. The web process loads no plotting
library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final
from xml.sax.saxutils import escape

INK: Final = "#1b3a4b"
SOFT: Final = "#5b6b78"
BAND: Final = "#dbe7ee"
FLAG: Final = "#b3261e"
WARM: Final = "#a8620f"
WIDTH, HEIGHT = 760, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 48, 30, 34


def usage_svg(
    days: Sequence[Mapping[str, Any]],
    flagged: Collection[date],
    title: str,
    unit: str,
    label: Callable[[date], str] = str,
) -> str:
    """Draws a service point's days as bars over the expected usage and its three sigma. A flagged day has another
    colour and a triangle. The day's mean temperature is a line with its own scale.

    ``days``: billing_day, used, expected, sigma, degrees_c, oldest first; any figure may be None. ``label`` formats a
    day.
    """
    n = max(len(days), 1)
    tops = [d["used"] or 0 for d in days] + [
        (d["expected"] + 3 * (d["sigma"] or 0)) for d in days if d["expected"] is not None
    ]
    high = max([*tops, 0.0]) or 1.0
    low = min([*(d["used"] or 0 for d in days), 0.0])
    step = (WIDTH - _LEFT - _RIGHT) / n

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (min(max(value, low), high) - low) / (high - low))

    def x(i: float) -> float:
        return _LEFT + step * i

    marked = [d["billing_day"] for d in days if d["billing_day"] in flagged]
    about = f"{len(days)} days of usage in {unit}; flagged: {', '.join(map(label, marked)) or 'none of them'}."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title><desc id="d">{escape(about)}</desc>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<g font-family="system-ui, sans-serif" font-size="12" fill="{SOFT}">',
        f'<text x="{_LEFT}" y="16" fill="{INK}" font-weight="600">{escape(title)}</text>',
    ]
    for part in range(5):
        value = low + (high - low) * part / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e3e9ed"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(f"{value:,.4g}")}</text>')
    known = [(i, d["expected"], d["sigma"] or 0.0) for i, d in enumerate(days) if d["expected"] is not None]
    if known:
        upper = " ".join(f"{x(i + 0.5):.1f},{y(e + 3 * s):.1f}" for i, e, s in known)
        lower = " ".join(f"{x(i + 0.5):.1f},{y(max(e - 3 * s, 0)):.1f}" for i, e, s in reversed(known))
        parts.append(f'<polygon points="{upper} {lower}" fill="{BAND}"/>')
    for i, day in enumerate(days):
        if day["used"] is None:
            continue
        flag = day["billing_day"] in flagged
        top, base = min(y(day["used"]), y(0)), max(y(day["used"]), y(0))
        width = max(step - 2, 0.6)
        parts.append(
            f'<rect x="{x(i) + (step - width) / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(base - top, 0.8):.1f}" fill="{FLAG if flag else INK}"/>'
        )
    for i, day in enumerate(days):
        if day["billing_day"] in flagged:
            at = x(i + 0.5)
            parts.append(
                f'<path d="M{at - 5:.1f} {HEIGHT - _BOTTOM + 9} L{at + 5:.1f} {HEIGHT - _BOTTOM + 9} L{at:.1f} {HEIGHT - _BOTTOM + 2} Z" fill="{FLAG}"/>'
            )
    if known:
        line = " ".join(f"{x(i + 0.5):.1f},{y(e):.1f}" for i, e, _ in known)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{SOFT}" stroke-width="1.6" stroke-dasharray="5 3"/>'
        )
    warmth = [(i, d["degrees_c"]) for i, d in enumerate(days) if d["degrees_c"] is not None]
    if warmth:
        cold, warm = min(t for _, t in warmth), max(t for _, t in warmth)
        place = {
            t: HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (t - cold) / max(warm - cold, 1.0) for _, t in warmth
        }
        points = " ".join(f"{x(i + 0.5):.1f},{place[t]:.1f}" for i, t in warmth)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{WARM}" stroke-width="1.4" stroke-dasharray="1.5 2.5"/>'
        )
        parts += [
            f'<text x="{WIDTH - _RIGHT + 6}" y="{place[t] + 4:.1f}" fill="{WARM}">{t:.0f} °C</text>'
            for t in dict.fromkeys((cold, warm))
        ]
    # A date is some 75 wide: five of them where there is room, else the first and the last.
    shown = sorted({0, n // 4, n // 2, 3 * n // 4, n - 1} if n > 20 else {0, n // 2, n - 1}) if days else []
    for i in shown:
        anchor = "start" if i == 0 and n > 20 else "end" if i == n - 1 and n > 20 else "middle"
        parts.append(
            f'<text x="{x(i + 0.5):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(label(days[i]["billing_day"]))}</text>'
        )
    legend = (
        f"{unit} a day"
        + ("; dashed: expected, band: three sigma" if known else "")
        + ("; red with a triangle: flagged" if marked else "")
        + ("; dotted: mean °C" if warmth else "")
    )
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="16" text-anchor="end">{escape(legend)}</text></g></svg>')
    return "".join(parts)
