"""The table of models and tasks.

`python -m tests.models.catalogue` examines all of them, which takes minutes, and writes the table
to `docs/models.md`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from .data import write_shapes
from .matrix import COLUMNS, ROWS, Examination, Row

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

_INTRODUCTION = f"""\
# Models and tasks

Every architecture below is trained privately from public weights; the task follows from the model,
as in Ultralytics. Larger models of a family have the same layers and losses as the smallest, which
is what is examined here.

- **loss per image**: in a batch, the loss of each image is Ultralytics' own of a batch of that
  image alone.
- **check**: `discreet check --full` passes on the user's images, and the three gradient engines
  agree.
- **trains**: two private steps of `recipe=auto`.
- **releases**: `discreet verify` finds no fault in the release.
- **reloads**: stock `YOLO(...)` or `RTDETR(...)` loads the weights and predicts.
- **exports**: stock `model.export(format="onnx")` takes them.

This page is made from the tests: `python -m tests.models.catalogue`.

| family | task | architecture | {" | ".join(COLUMNS)} | note |
|---|---|---|{":-:|" * len(COLUMNS)}---|
"""
_NOTES = """
What trains by default is γ and β on the way to the class scores and the layer that gives them, in
every task; for poses also the last layers of boxes and key points. `trainable=class_film+head`
adds the last layers of boxes, masks, key points and angles elsewhere. See [recipes](recipes.md).

Losses of masks, key points and angles are computed for one image after the other. Semantic
segmentation, depth, open-vocabulary models (YOLO-World, YOLOE) and torchvision backbones are
refused.
"""


def line(row: Row, answers: Iterable[bool]) -> str:
    """A row of the table."""
    cells = ["✓" if answer else "–" for answer in answers]
    architecture = f"`{row.architecture.removesuffix('.yaml')}`"
    return f"| {' | '.join([row.family, row.task, architecture, *cells, row.note])} |"


def page(lines: Iterable[str]) -> str:
    """The page for people."""
    return _INTRODUCTION + "\n".join(lines) + "\n" + _NOTES


def lines_of(text: str) -> list[str]:
    """The table's rows on a page."""
    return [entry for entry in text.splitlines() if " | `yolo" in entry]


def examine(row: Row, folder: Path) -> list[bool]:
    """Ask every column's question."""
    data = write_shapes(folder / "shapes", row.task)
    examination = Examination(row=row, data=data, folder=folder)
    answers: list[bool] = []
    for column, ask in COLUMNS.items():
        try:
            ask(examination)
        except Exception:
            print(f"{row.architecture}: {column}", file=sys.stderr)
            traceback.print_exc()
            answers.append(False)
        else:
            answers.append(True)
    return answers


def produce(row: Row) -> str:
    """A row of the table, as it is now."""
    with TemporaryDirectory() as folder:
        return line(row, examine(row, Path(folder)))


if __name__ == "__main__":
    import os

    with TemporaryDirectory() as folder:
        os.environ["DISCREET_LEDGER"] = str(Path(folder) / "ledger.sqlite")
        os.environ["DISCREET_KEY"] = str(Path(folder) / "key.pem")
        found = []
        for row in ROWS:
            found.append(produce(row))
            print(found[-1], flush=True)
    PAGE.write_text(page(found), encoding="utf-8")
