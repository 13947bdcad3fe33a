"""MLflow, at the place that its own environment variables name.

By its client, not by `mlflow.start_run`: that one adds the user's name, the script's path and the
state of its git repository.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow

from discreet.tracking import PROJECT, PublicRun

# The release is made by then: a server that does not answer is told of, not waited for.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def publish(run: PublicRun, folder: Path) -> None:  # noqa: ARG001
    """Send the run to MLflow's tracking server or store; see `Tracker.publish`."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    client: Any = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(PROJECT)
    number = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
    sent = client.create_run(number).info.run_id
    for name, value in run.settings.items():
        client.log_param(sent, name, value)
    for step, scalars in run.rows:
        for name, value in scalars.items():
            client.log_metric(sent, name, value, step=step)
    client.set_terminated(sent)
