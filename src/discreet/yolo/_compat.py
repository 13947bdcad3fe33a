"""The one gate to Ultralytics: which version, and what it may not do here.

Importing Ultralytics normally allows it to look files up on the network, to install packages
when a file asks for one, and to report the data set's name and size to analytics. None of that
may happen to private data, so the environment says so before the import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")  # our own terminal output replaces its log

import ultralytics
from torch import nn
from ultralytics.engine import model as _engine_model
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import callbacks

from discreet.errors import ConfigurationError, ModelError
from discreet.launched import place_of_process

SUPPORTED_SERIES = "8.4"

# Whoever imported Ultralytics before left its switches on, in every module that copied them. And
# one process of several that train together is the only one to Ultralytics, which would spawn
# processes, wrap the model and wait for others of its own accord.
_SWITCHES = {"ONLINE": False, "AUTOINSTALL": False, "RANK": -1, "LOCAL_RANK": -1}
for _module in [m for name, m in sys.modules.items() if name.split(".")[0] == "ultralytics"]:
    for _switch, _value in _SWITCHES.items():
        if _switch in vars(_module):
            setattr(_module, _switch, _value)
# But `YOLO.train` opens the released weights afterwards: only where they are.
cast(Any, _engine_model).RANK = place_of_process().rank or -1

if not ultralytics.__version__.startswith(f"{SUPPORTED_SERIES}."):
    raise ConfigurationError(
        f"ultralytics {ultralytics.__version__} is installed; its internals are checked for "
        f"{SUPPORTED_SERIES} only",
        do=f'install "ultralytics>={SUPPORTED_SERIES},<8.5"',
    )


@contextmanager
def no_integrations() -> Generator[None]:
    """Keep Ultralytics from attaching loggers and analytics to a trainer or validator.

    They would receive training losses, arguments with paths, and the data set's name and exact
    size. There is no switch for all of them, so the hook that attaches them is held for the
    time of the construction.
    """
    with mock.patch.object(callbacks, "add_integration_callbacks", lambda _instance: None):
        yield


def load_weights(path: Path) -> nn.Module:
    """Read a checkpoint's model without unpickling anything but known layer classes.

    Args:
        path: An existing `.pt` file in Ultralytics' format.

    Returns:
        The model in float32, as stored.

    Raises:
        ModelError: If the file is missing, not a checkpoint, or asks for foreign code.
    """
    if not path.is_file():
        raise ModelError(
            "not a file"
            if path.exists()
            else "there is no such file, and nothing is downloaded at run time",
            where=f"model={path}",
            do="give the path of a local .pt file",
        )
    try:
        checkpoint: dict[str, Any] = torch_safe_load(str(path), safe_only=True)[0]
    except Exception as error:
        raise ModelError(
            "not a checkpoint of known layers that can be read without running code from it",
            where=f"model={path}",
            do="give a detection model saved by Ultralytics YOLO 8",
        ) from error
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, nn.Module):
        raise ModelError(
            "the checkpoint holds no model",
            where=f"model={path}",
            do="give a detection model saved by Ultralytics YOLO 8",
        )
    return model.float()
