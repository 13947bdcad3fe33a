"""Mistakes in what is charged and claimed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discreet.accounting import PoissonSampledGaussian, make_accountant
from discreet.accounting.pld import PldAccountant
from discreet.config import MechanismConfig
from discreet.ledger import RunAccounts, Spent
from discreet.privacy import NeighboringRelation
from discreet.randomness import InsecureSource
from discreet.sampling import ShuffleSampler
from discreet.yolo.loop import StepLoop

from ..statement.conftest import FULL_BATCH
from .plant import Plant, Tool, wrap
from .runs import Release, Training

Patch = pytest.MonkeyPatch


def rate_of_the_drawn(patch: Patch, run: Training) -> None:
    run.given["insecure_seed"] = 1
    sizes: list[int] = []

    def draws(own: Any, self: Any, **kwargs: Any) -> Iterator[Sequence[int]]:
        for draw in own(self, **kwargs):
            sizes.append(len(draw))
            yield draw

    def charge(own: Any, self: Any, event: PoissonSampledGaussian) -> None:
        drawn = max(sizes[self.trainer.charged], 1)
        own(self, replace(event, sample_rate=drawn / self.trainer.dataset.n))

    wrap(patch, StepLoop, "draws", draws)
    wrap(patch, StepLoop, "charge", charge)


def every_other_step(patch: Patch, run: Training) -> None:
    steps: list[int] = []

    def charge(own: Any, self: Any, event: Any) -> None:
        steps.append(1)
        if len(steps) % 2:
            own(self, event)

    wrap(patch, RunAccounts, "charge", charge)


def old_copy_of_the_ledger(patch: Patch, run: Training) -> None:
    """Somebody puts a backup back while the run goes on."""
    ledger = run.folder / "ledger.sqlite"
    run.given["ledger"] = str(ledger)
    backup = run.folder / "backup.sqlite"

    def charge(own: Any, self: Any, event: Any) -> None:
        own(self, event)
        if self.charged == 1:
            shutil.copy(ledger, backup)
        if self.charged == 2:
            ledger.unlink()
            backup.rename(ledger)

    wrap(patch, RunAccounts, "charge", charge)


# ---- what is claimed ----

DEAL = FULL_BATCH.model_copy(
    update={"expected_batch_size": 8, "sampling": "shuffle", "accountant": "rdp", "steps": 4}
)


def shuffle_as_poisson(patch: Patch, run: Release) -> None:
    def event(
        own: Any, self: ShuffleSampler, *, noise_multiplier: float, steps: int
    ) -> PoissonSampledGaussian:
        return PoissonSampledGaussian(
            sample_rate=self.sample_rate, noise_multiplier=noise_multiplier, steps=steps
        )

    wrap(patch, ShuffleSampler, "event", event)
    run.facts["mechanism"] = DEAL


def accounted_for_the_other_relation(patch: Patch, run: Release) -> None:
    patch.setattr(MechanismConfig, "make_accountant", lambda self: make_accountant(self.accountant))
    run.facts["mechanism"] = FULL_BATCH.model_copy(
        update={"relation": NeighboringRelation.REPLACE_ONE}
    )


def last_steps_forgotten(patch: Patch, run: Release) -> None:
    def epsilon(own: Any, self: Any, events: Sequence[Any], *, delta: float) -> float:
        return own(self, [event.with_steps(event.steps - 1) for event in events], delta=delta)

    wrap(patch, PldAccountant, "epsilon", epsilon)


def facts(**changed: Any) -> Any:
    def plant(patch: Patch, run: Release) -> None:
        run.facts |= changed

    return plant


def another_models_weights(patch: Patch, run: Release) -> None:
    def swap(folder: Path) -> None:
        path = folder / "weights.pt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    run.after = swap


PLANTS = (
    Plant(
        name="q from the drawn number",
        why="The rate that is charged depends on the draw: private, and not the sampler's.",
        runs=(Training,),
        plant=rate_of_the_drawn,
        found_by={Tool.LEDGER: "not what run .* planned"},
    ),
    Plant(
        name="every other step charged",
        why="Two micro-steps are taken for one.",
        runs=(Training,),
        plant=every_other_step,
        found_by={Tool.LEDGER: "step 2 ran, and 1 were charged"},
    ),
    Plant(
        name="an old copy of the ledger put back",
        why="What was charged since the backup would be forgotten.",
        runs=(Training,),
        plant=old_copy_of_the_ledger,
        found_by={Tool.LEDGER: "replaced|old copy"},
    ),
    Plant(
        name="shuffled epochs claimed as Poisson samples",
        why="The amplification that is claimed is not the sampler's.",
        runs=(Release,),
        plant=shuffle_as_poisson,
        found_by={Tool.VERIFY: "the events are those of poisson"},
    ),
    Plant(
        name="one relation claimed, another accounted",
        why="Replacing an image moves the sum by 2 C.",
        runs=(Release,),
        plant=accounted_for_the_other_relation,
        found_by={Tool.VERIFY: "claim.epsilon"},
    ),
    Plant(
        name="ε one step short",
        why="The last step is composed after the claim is made.",
        runs=(Release,),
        plant=last_steps_forgotten,
        found_by={Tool.VERIFY: "claim.epsilon"},
    ),
    Plant(
        name="more steps in the weights than were charged",
        why="A resumed run applies steps again that it charged before.",
        runs=(Release,),
        plant=facts(executed_steps=FULL_BATCH.steps + 1),
        found_by={Tool.VERIFY: "steps: more were executed"},
    ),
    Plant(
        name="a claim on seeded noise",
        why="Whoever knows the seed knows the noise.",
        runs=(Release,),
        plant=facts(source=InsecureSource(3)),
        found_by={Tool.VERIFY: "claim_valid"},
    ),
    Plant(
        name="the run is not in the lifetime total",
        why="What the data set has spent is told without this run.",
        runs=(Release,),
        plant=facts(
            total=Spent(epsilon=0.1, delta=FULL_BATCH.delta, runs=1, unprotected_runs=0, events=())
        ),
        found_by={Tool.VERIFY: "spent"},
    ),
    Plant(
        name="metrics of private validation released",
        why="A score on private images is an output without noise.",
        runs=(Release,),
        plant=facts(metrics={"map50": 0.9}),
        found_by={Tool.VERIFY: "metrics"},
    ),
    Plant(
        name="other weights under the claim",
        why="The weights beside the claim are not those that it was made for.",
        runs=(Release,),
        plant=another_models_weights,
        found_by={Tool.VERIFY: r"weights\.pt"},
    ),
)
