"""Charts in files: no window, no global state, and nothing of the time or place of drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from discreet.errors import ConfigurationError
from discreet.storage import write_atomically

FORMATS = {".svg": "svg", ".png": "png"}
# The same content, the same bytes.
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "discreet", "font.size": 9}
_METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def draw(path: Path, paint: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """Draw a figure into a file, whole or not at all.

    Args:
        path: Where to; the ending says whether as SVG or PNG.
        paint: Fills an empty `matplotlib.figure.Figure`.
        size: Width and height in inches.

    Raises:
        ConfigurationError: If the ending is another.
        StorageError: If the file cannot be written.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigurationError(
            f"expected a file that ends in {' or '.join(FORMATS)}",
            where=f"plot={path}",
            do="write plot=plan.svg",
        )
    # Late, and without pyplot, which keeps figures.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)

        def save(stream: BinaryIO) -> None:
            figure.savefig(stream, format=kind, dpi=150, metadata=_METADATA[kind])

        write_atomically(path, save)
