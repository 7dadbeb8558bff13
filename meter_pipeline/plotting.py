"""Pictures small enough for Dagster's event log.

Each image is stored in the event log at every materialisation, so it must stay under 20 kB: text anti-aliased in 32
colours at 90 dpi fits; a figure that does not is drawn coarser, never refused.
"""

from __future__ import annotations

import io
from typing import Any, Final

MOST_BYTES: Final = 20_000
_DPI: Final = (90, 75, 60, 50, 40)


def small_png(figure: Any) -> bytes:
    """A matplotlib figure as a palette PNG of at most MOST_BYTES; the same figure gives the same bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    png = b""
    canvas = FigureCanvasAgg(figure)
    for dpi in _DPI:
        # The canvas draws one time; savefig draws twice and encodes a PNG that would be decoded again (65 ms, not 48).
        figure.set_dpi(dpi)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        reduced = picture.quantize(colors=32, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        out = io.BytesIO()
        reduced.save(out, format="PNG", optimize=True)
        png = out.getvalue()
        if len(png) <= MOST_BYTES:
            break
    return png
