"""mAP against ε, with what is reached without privacy as lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from discreet.comparing.table import Comparison
from discreet.drawing import draw


def write_plot(comparison: Comparison, path: Path) -> None:
    """Draw a comparison into a file.

    Args:
        comparison: What was measured.
        path: Where to; ends in .svg or .png.

    Raises:
        ConfigurationError: If the ending is another.
        StorageError: If the file cannot be written.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        private = sorted(
            (row.epsilon, row.map50, row.map50_95)
            for row in comparison.rows
            if row.epsilon is not None
        )
        epsilons = [row[0] for row in private]
        for index, (label, color) in enumerate((("mAP50", "C0"), ("mAP50-95", "C1")), start=1):
            if private:
                axes.plot(epsilons, [row[index] for row in private], "o-", color=color, label=label)
        for kind, style in (("stock", "--"), ("twin", ":")):
            for row in comparison.rows:
                if row.kind == kind:
                    for value, color in ((row.map50, "C0"), (row.map50_95, "C1")):
                        axes.axhline(value, linestyle=style, color=color, linewidth=0.9)
                    axes.annotate(row.name, (0.01, row.map50), xycoords=("axes fraction", "data"),
                                  va="bottom")  # fmt: skip
        if private:
            axes.set_xscale("log")
            axes.set_xticks(epsilons, [f"{epsilon:.3g}" for epsilon in epsilons], minor=False)
            axes.minorticks_off()
            axes.legend(loc="lower right")
        axes.set(xlabel="ε", ylabel="validation", ylim=(0, 1))

    draw(path, paint, size=(6, 3.6))
