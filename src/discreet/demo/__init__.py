"""The built-in demo: a laboratory's private scenes, and a small model trained elsewhere.

    scenes.py        draw synthetic blood smears in a public and a private laboratory's style
    cells.py         draw one cell
    dataset.py       write scenes as a data set in Ultralytics' YOLO format
    demo-model.pt    detector pretrained on the public laboratory's scenes (half precision)
    demo-model.yaml  its architecture: stock YOLOv8 modules, narrow

`scripts/pretrain_demo_model.py` makes the model. No real image is involved anywhere.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from discreet.errors import ModelError

__all__ = ["demo_model_path"]


def demo_model_path() -> Path:
    """Path of the shipped pretrained detector, a stock Ultralytics checkpoint.

    Raises:
        ModelError: The installed package lacks the file.
    """
    path = Path(str(resources.files(__name__) / "demo-model.pt"))
    if not path.is_file():
        raise ModelError(
            "the demo's pretrained model is missing from this installation",
            where=str(path),
            do="Install discreet again, or make the file by scripts/pretrain_demo_model.py.",
        )
    return path
