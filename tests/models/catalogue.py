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
from .matrix import COLUMNS, REFUSED, ROWS, Examination, Row

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

_INTRODUCTION = f"""\
# Models and tasks

Every model below is trained privately from public weights, at every size; the task follows from the
model, as in Ultralytics. One size is examined; the other sizes are made of layers that some
examined model has, which a test holds.

- **loss per image**: in a batch, the loss of each image is Ultralytics' own of a batch of that
  image alone.
- **all layers**: with everything trainable, the fast engine's gradients of single images are those
  of autograd, image by image, in double precision.
- **check**: `discreet check --full` passes on the user's images.
- **trains**: two private steps of `recipe=auto`.
- **releases**: `discreet verify` finds no fault in the release.
- **reloads**: stock `YOLO(...)` or `RTDETR(...)` loads the weights and predicts.
- **exports**: stock `model.export(format="onnx")` takes them.

This page is made from the tests: `python -m tests.models.catalogue`.

| family | task | examined | other sizes | {" | ".join(COLUMNS)} | note |
|---|---|---|---|{":-:|" * len(COLUMNS)}---|
"""
_NOTES = """
What trains by default is γ and β on the way to the class scores and the layer that gives them, in
every task; for poses also the last layers of boxes and key points, and where much data lets a
detector's features learn, γ and β of the whole model. `trainable=class_film+head` adds the last
layers of boxes, masks, key points and angles elsewhere. See [recipes](recipes.md).

Losses of masks, key points and angles are computed for one image after the other.

## Refused

Before anything is read or spent, with exit status 2:

| what | for example | why |
|---|---|---|
"""
_REFUSALS = "\n".join(
    f"| {what} | `{name.removesuffix('.yaml')}` | {why} |"
    for name, (what, _, why) in REFUSED.items()
)


def line(row: Row, answers: Iterable[bool]) -> str:
    """A row of the table."""
    cells = ["✓" if answer else "–" for answer in answers]
    examined, *others = (
        f"`{name.removesuffix('.yaml')}`" for name in (row.architecture, *row.others)
    )
    return f"| {' | '.join([row.family, row.task, examined, ' '.join(others), *cells, row.note])} |"


def page(lines: Iterable[str]) -> str:
    """The page for people."""
    return _INTRODUCTION + "\n".join(lines) + "\n" + _NOTES + _REFUSALS + "\n"


def lines_of(text: str) -> list[str]:
    """The table's rows on a page."""
    return [entry for entry in text.splitlines() if entry.count("|") == len(COLUMNS) + 6][2:]


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
