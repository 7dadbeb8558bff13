"""Pictures small enough for Dagster's event log.

Each image is stored in the event log at every materialisation, so it must stay under 20 kB: text anti-aliased in 32
colours at 90 dpi fits; a figure that does not is drawn coarser, never refused.
"""

from __future__ import annotations

import io
from typing import Any, Final

MOST_BYTES: Final = 20_000
_DPI: Final = (90, 75, 60, 50, 40)


def small_png(figure: Any, most: int = MOST_BYTES) -> bytes:
    """A matplotlib figure as a palette PNG of at most ``most`` bytes; the same figure gives the same bytes."""
    from PIL import Image

    png = b""
    for dpi in _DPI:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
        drawn.seek(0)
        with Image.open(drawn) as picture:
            reduced = picture.convert("RGB").quantize(
                colors=32, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
            )
        out = io.BytesIO()
        reduced.save(out, format="PNG", optimize=True)
        png = out.getvalue()
        if len(png) <= most:
            break
    return png
