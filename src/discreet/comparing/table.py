"""The table of a comparison, in every form that people ask for."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from discreet.terminal import count, format_delta, format_epsilon

Kind = Literal["stock", "twin", "private"]

_WIDTH = 80
# Below so many units the noise for a usual ε, up to this one, is larger than their whole sum.
_FEW, _USUAL_EPSILON = 100, 10.0

NOTE = (
    "Trained without privacy in part: what is chosen by looking at these figures is not covered by "
    "any guarantee. Compare on public images, or count the figures as seen."
)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who trains.

    Attributes:
        kind: Ultralytics' own training; the private recipe without noise and clipping; or it.
        epsilon: ε that a private one ends at or under.
    """

    kind: Kind
    epsilon: float | None = None

    @property
    def name(self) -> str:
        """As the table says it, where no two have the same."""
        match self.kind:
            case "stock":
                return "stock Ultralytics"
            case "twin":
                return "recipe, no noise"
            case "private":
                return f"private, ε = {str(self.epsilon).removesuffix('.0')}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of one contestant.

    Attributes:
        kind: See `Contestant`.
        name: See `Contestant`.
        map50: mAP at IoU 0.5 on the validation split, in [0, 1].
        map50_95: Mean of mAP at IoU 0.5 to 0.95.
        seconds_per_epoch: Training time of one expected pass over the images.
        epochs: Expected passes.
        peak_mib: Peak memory of its process, or of the accelerator, in MiB.
        epsilon: ε that was spent; None without a guarantee.
        delta: δ; None without a guarantee.
    """

    kind: Kind
    name: str
    map50: float
    map50_95: float
    seconds_per_epoch: float
    epochs: float
    peak_mib: float
    epsilon: float | None = None
    delta: float | None = None


_Cell = Callable[[Measured], str]
_COLUMNS: Mapping[str, _Cell] = {
    "": lambda row: row.name,
    "mAP50": lambda row: f"{row.map50:.3f}",
    "mAP50-95": lambda row: f"{row.map50_95:.3f}",
    "s/epoch": lambda row: f"{row.seconds_per_epoch:.1f}",
    "epochs": lambda row: f"{row.epochs:.3g}",
    "peak MiB": lambda row: f"{row.peak_mib:.0f}",
    "ε": lambda row: "∞" if row.epsilon is None else format_epsilon(row.epsilon),
    "δ": lambda row: "" if row.delta is None else format_delta(row.delta),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Contestants on one data set.

    Attributes:
        population: Number of training images.
        rows: What was measured, in order.
    """

    population: int
    rows: tuple[Measured, ...] = ()

    def with_row(self, row: Measured) -> Self:
        """The same and one more."""
        return type(self)(population=self.population, rows=(*self.rows, row))

    def to_text(self) -> str:
        """Columns for a terminal, and what to make of them."""
        cells = self._cells()
        widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
        lines = [
            "  ".join(
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        remarks = [textwrap.fill(text, width=_WIDTH) for text in self.remarks()]
        return "\n".join([*lines, "", *remarks])

    def to_markdown(self) -> str:
        """A table with the remarks below it."""
        head, *body = self._cells()
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
        table = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([*table, "", *self.remarks()]) + "\n"

    def to_csv(self) -> str:
        """One line a contestant, with all digits."""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(Measured.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return out.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object."""
        return {
            "population": self.population,
            "rows": [asdict(row) for row in self.rows],
            "remarks": list(self.remarks()),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read back what `to_json` wrote."""
        rows = tuple(Measured(**row) for row in facts["rows"])
        return cls(population=facts["population"], rows=rows)

    def remarks(self) -> Sequence[str]:
        """What a reader should know of these numbers."""
        remarks = [NOTE]
        stock = next((row for row in self.rows if row.kind == "stock"), None)
        private = [row for row in self.rows if row.kind == "private"]
        if stock is not None:
            remarks += [_beside(stock, row) for row in private]
        usual = [row for row in private if row.epsilon and row.epsilon <= _USUAL_EPSILON]
        if self.population < _FEW and usual:
            remarks.append(
                f"{count(self.population, 'image')} can hardly teach at these ε: the noise that "
                "hides one of them hides what they have in common. What a private run detects "
                "here, its starting weights mostly knew before."
            )
        return remarks

    def _cells(self) -> list[list[str]]:
        return [list(_COLUMNS), *([cell(row) for cell in _COLUMNS.values()] for row in self.rows)]


def _beside(stock: Measured, private: Measured) -> str:
    """What a private run reaches of stock training; a share only where that learned more."""
    if private.map50 < stock.map50:
        return f"{private.name}: {100 * private.map50 / stock.map50:.0f} % of stock's mAP50"
    return (
        f"{private.name}: not below stock, whose training of {count(round(stock.epochs), 'epoch')} "
        "says nothing of the price of privacy. Give a larger stock_epochs; or these classes were "
        "in the starting weights, and training them anew lost them."
    )
