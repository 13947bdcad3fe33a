"""TensorBoard: event files in the run's internal folder."""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from discreet.tracking import PublicRun


def publish(run: PublicRun, folder: Path) -> None:
    """Write the run's curves and settings below `folder`; see `Tracker.publish`."""
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        writer.add_text("settings", f"```\n{json.dumps(dict(run.settings), indent=1)}\n```")
        for step, scalars in run.rows:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
