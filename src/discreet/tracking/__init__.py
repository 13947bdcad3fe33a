"""Experiment trackers: TensorBoard, MLflow, Weights & Biases, told of public facts only.

Their own integrations read the trainer: training losses, paths, host and user names, console
output. Here they get a `PublicRun`, which is made from the published record, after the release:
what they show tells no more than the release does, and when it arrives tells nothing of single
epochs, whose duration depends on how many images were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from discreet.errors import ConfigurationError
from discreet.statement.schema import PrivacyRecord

PROJECT = "discreet"
# What to install for each, by the packages' own names.
_PACKAGES: Mapping[str, str] = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny alembic",
    "wandb": "wandb",
}


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """A finished run, as the outside may see it.

    Attributes:
        settings: Public settings and facts of the claim, by name.
        rows: (step, scalars by name), in the order of the steps.
    """

    settings: Mapping[str, str | float | bool]
    rows: Sequence[tuple[int, Mapping[str, float]]]


class Tracker(Protocol):
    """A module of this package: shows a run somewhere."""

    def publish(self, run: PublicRun, folder: Path) -> None:
        """Show the run.

        Args:
            run: What to show.
            folder: For files of the tracker's own, if it writes any.
        """
        ...


def open_trackers(names: str | None) -> Mapping[str, Tracker]:
    """The trackers that were asked for, by name, before anything is spent.

    Args:
        names: Names joined by +; None asks for none.

    Raises:
        ConfigurationError: One of them is not installed.
    """
    chosen = names.split("+") if names else []
    for name in chosen:
        if find_spec(name) is None:
            raise ConfigurationError(
                f"{name} is not installed",
                where=f"track={names}",
                do=f"install it with pip install {_PACKAGES[name]}, or leave it out",
            )
    return {name: cast(Tracker, import_module(f"{__name__}.{name}")) for name in chosen}


def public_run(
    record: PrivacyRecord, *, epsilons: Mapping[int, float], learning_rates: Mapping[int, float]
) -> PublicRun:
    """What trackers may see of a run.

    Args:
        record: The published record.
        epsilons: ε after some of the steps, as planned.
        learning_rates: The same steps' learning rates, as planned.
    """
    claim, steps = record.claim, record.steps
    rows = [
        (step, {"privacy/epsilon": epsilon, "learning_rate": learning_rates[step]})
        for step, epsilon in epsilons.items()
        if step < steps.charged
    ]
    final = {f"metrics/{name}": value for name, value in (record.metrics or {}).items()}
    final["privacy/delta"] = claim.delta
    if claim.epsilon is not None:
        final["privacy/epsilon"] = claim.epsilon
    rows.append((steps.charged, final))
    settings: dict[str, str | float | bool] = {
        key: value if isinstance(value, bool | int | float) else str(value)
        for key, value in record.configuration.items()
        if value is not None
    }
    return PublicRun(
        settings=settings
        | {
            "claim_valid": record.claim_valid,
            "privacy_unit": record.unit.kind.value,
            "neighboring_relation": record.unit.neighboring_relation.value,
            "units": record.data.training.units,
            "noise_multiplier": record.mechanism.noise_multiplier,
            "max_grad_norm": record.mechanism.max_grad_norm,
            "clipping": record.mechanism.clipping,
            "sample_rate": record.sampling.sample_rate,
            "steps": steps.charged,
            "accountant": record.accountant.name,
            "trainable": record.training.trainable,
        },
        rows=rows,
    )
