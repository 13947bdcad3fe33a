"""Weights & Biases, as its own environment variables and login say.

Left to itself it also sends the console's output, the command line, host and user names, paths,
the git repository and how busy the machine is: all of that is off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from discreet.tracking import PROJECT, PublicRun


def publish(run: PublicRun, folder: Path) -> None:
    """Send the run to Weights & Biases; see `Tracker.publish`."""
    anything: Any = wandb
    settings = anything.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        silent=True,
        host="",
        program="",
        program_relpath="",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    sent = anything.init(
        project=PROJECT, config=dict(run.settings), dir=str(folder), settings=settings
    )
    for step, scalars in run.rows:
        sent.log(dict(scalars), step=step)
    sent.finish()
