"""A whole plan: the request, its price from every side, its neighbours, a verdict, advice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from discreet.arguments import PrivacyArguments
from discreet.errors import ConfigurationError
from discreet.planning.advice import Advice, advice_for
from discreet.planning.completion import complete
from discreet.planning.cost import Measure, StepTime, usual_parameters
from discreet.planning.figures import Figures, figures_of
from discreet.planning.table import Cell, table_of
from discreet.planning.text import as_text
from discreet.planning.training import TrainingPlan, plan_training
from discreet.planning.verdict import noise_for_usual_epsilon, verdict_of
from discreet.recipes import (
    BEYOND_FLIPS,
    DEFAULT_IMGSZ,
    Chosen,
    PublicFacts,
    whole_cells,
)
from discreet.terminal import Reporter, SilentReporter
from discreet.units import PrivacyUnits

_FLIPS = {"fliplr": 0.5, "flipud": 0.0}  # Ultralytics' defaults
_MORE_THAN_FLIPS = ("degrees", "shear", "perspective", "bgr", "mosaic", "mixup")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do and cost. Nothing is spent by making one.

    Attributes:
        training: The mechanism of the requested run and its promise.
        epochs: Expected passes over the images; not whole where steps were asked for.
        trainable: Parts of the model that train.
        chosen: What the recipe chose, and why.
        figures: Its ε by every accountant, relation and group.
        table: It and its neighbours.
        time: What a step takes on this machine, if it was measured.
        verdict: What it amounts to.
        advice: What to change, and why.
        images: Number of training images; None where units are images, or it is not known.
        images_per_unit: Images that a drawn unit costs on average, where units are groups.
    """

    training: TrainingPlan
    epochs: float
    trainable: str
    chosen: Chosen
    figures: Figures
    table: tuple[Cell, ...]
    time: StepTime | None
    verdict: str
    advice: tuple[Advice, ...]
    images: int | None = None
    images_per_unit: float | None = None

    @property
    def epsilon(self) -> Mapping[str, float | None]:
        """ε by accountant; add or remove one image."""
        return self.figures.epsilon

    @property
    def steps(self) -> int:
        """Number of steps: ceil(epochs · n / batch)."""
        return self.training.mechanism.steps

    @property
    def noise_multiplier(self) -> float:
        """σ."""
        return self.training.mechanism.noise_multiplier

    @property
    def seconds(self) -> float | None:
        """Expected time of the training on this machine, if it was measured."""
        return next(cell.seconds for cell in self.table if cell.requested)

    def to_json(self) -> dict[str, Any]:
        """All numbers as one JSON object; null for what is infinite or has no answer."""
        mechanism, figures = self.training.mechanism, self.figures
        facts: dict[str, Any] = {
            "population": mechanism.population,
            "unit": str(mechanism.unit),
            "max_images_per_unit": mechanism.max_images_per_unit,
            "images": self.images,
            "expected_images": None
            if self.images_per_unit is None
            else mechanism.expected_batch_size * self.images_per_unit,
            "expected_batch_size": mechanism.expected_batch_size,
            "sample_rate": mechanism.sample_rate,
            "epochs": self.epochs,
            "steps": mechanism.steps,
            "noise_multiplier": mechanism.noise_multiplier,
            "noise_per_coordinate": mechanism.noise_multiplier / mechanism.expected_batch_size,
            "max_grad_norm": mechanism.max_grad_norm,
            "delta": mechanism.delta,
            "target_epsilon": self.training.target_epsilon,
            "accountant": mechanism.accountant,
            "trainable": self.trainable,
            "recipe": {
                "name": self.chosen.recipe,
                "chosen": {
                    choice.setting: {"value": choice.value, "why": choice.why}
                    for choice in self.chosen.choices
                },
            },
            "relation": str(mechanism.relation),
            "sampling": mechanism.sampling,
            "epsilon": dict(figures.epsilon),
            "epsilon_without_sampling": figures.without_sampling,
            "replace_one": figures.replace_one,
            "groups": {str(size): value for size, value in figures.groups.items()},
            "per_epoch": {str(epoch): value for epoch, value in figures.per_epoch.items()},
            "table": [_cell(cell) for cell in self.table],
            "verdict": self.verdict,
            "advice": {advice.about: advice.text for advice in self.advice},
            "seconds": self.seconds,
            "measured": None if self.time is None else _time(self.time),
            "notes": list(figures.notes),
        }
        return _finite(facts)

    def to_text(self, width: int = 80) -> str:
        """The plan for a person, in plain text of that many columns."""
        return as_text(self, width=width)


def make_plan(
    asked: PrivacyArguments,
    *,
    population: int,
    units: PrivacyUnits | None = None,
    model: str | None = None,
    imgsz: int = DEFAULT_IMGSZ,
    trained_at: int | None = DEFAULT_IMGSZ,
    task: str = "detect",
    classes: int | None = None,
    measure: Measure | None = None,
    settings: Mapping[str, object] | None = None,
    reporter: Reporter | None = None,
) -> Plan:
    """Work out what a run will do and cost.

    Args:
        asked: The requested run.
        population: Number of privacy units, n: training images, unless they are grouped.
        units: The units, where they are groups.
        model: Weights or architecture to measure; None for the usual one.
        imgsz: Side of the images in pixels; rounded up to whole cells, as in training.
        trained_at: Side of the images that the weights have learned from.
        task: What is trained, by Ultralytics' name.
        classes: Number of classes; None where no data set tells.
        measure: Finds out what a step takes; without it the plan has no times.
        settings: Ultralytics' own arguments that were given, such as `lr0`.
        reporter: Who is told of the progress.

    Raises:
        ConfigurationError: If the batch is larger than the population.
        AccountingError: If no noise reaches the target ε.
        ModelError: If the model cannot be opened.
    """
    reporter, imgsz = reporter or SilentReporter(), whole_cells(imgsz)
    # An architecture alone is trained from scratch, and then all of it is.
    pretrained = (settings or {}).get("pretrained", True)
    architecture = model is not None and model.endswith((".yaml", ".yml"))
    scratch = not isinstance(pretrained, str) and (architecture or pretrained is False)
    facts = PublicFacts(
        population=population,
        pretrained=not scratch,
        imgsz=imgsz,
        trained_at=trained_at,
        classes=classes,
        epsilon=asked.epsilon,
        delta=asked.delta,
        task=task,
    )
    batch_is_chosen = asked.batch is None
    if measure is None and asked.hours is not None:
        raise ConfigurationError(
            "how many images fit is not known where the speed is not measured",
            where=f"hours={asked.hours:g}",
            do="leave time=False out, or hours",
        )

    @cache
    def time_of(trainable: str, zoom: int) -> StepTime:
        assert measure is not None
        return measure(model, imgsz, trainable, zoom)

    if measure is not None:
        reporter.stage("measuring the speed on blank images")
    most = asked.images_of_a_unit or 1  # how many images the units have is private
    asked, chosen = complete(
        asked,
        facts=facts,
        settings=settings,
        time_of=lambda trainable, zoom: time_of(trainable, zoom).scaled(most),
    )
    trainable = asked.trainable
    assert trainable is not None
    time = None if measure is None else time_of(trainable, asked.zoom or 1)
    reporter.stage("finding the noise" if asked.epsilon is not None else "finding the cost")
    training = plan_training(asked, population=population)
    mechanism = training.mechanism
    reporter.stage("asking every accountant")
    epochs = asked.epochs or mechanism.steps * mechanism.sample_rate
    figures = figures_of(training, epochs=epochs, tell=reporter.stage_progress)
    reporter.stage("comparing batch sizes and epochs")
    images = 1.0 if units is None else units.images_per_unit
    table = table_of(
        training,
        figures,
        epochs=epochs,
        time=time,
        states=_states(
            asked,
            {**_FLIPS, **(settings or {}), **chosen.values(), "task": task},
            population if units is None else len(units.digests),
        ),
        images_per_unit=images * (asked.views or 1),  # a pass for each view
        tell=reporter.stage_progress,
    )
    needed = noise_for_usual_epsilon(training)
    parameters = usual_parameters(trainable) if time is None else time.parameters
    return Plan(
        training=training,
        epochs=epochs,
        trainable=trainable,
        chosen=chosen,
        figures=figures,
        table=table,
        time=time,
        verdict=verdict_of(training, parameters=parameters, needed_noise=needed),
        advice=advice_for(
            training,
            table,
            trainable=trainable,
            chosen=chosen.values(),
            batch_is_chosen=batch_is_chosen,
            needed_noise=needed,
        ),
        images=None if units is None else len(units.digests),
        images_per_unit=None if units is None else images,
    )


def _states(asked: PrivacyArguments, values: Mapping[str, Any], images: int) -> float:
    """States that augmentation shows images in; infinite where nothing is kept of them."""
    more = any(values.get(name) != 0 for name in BEYOND_FLIPS)
    more |= any(values.get(name) for name in _MORE_THAN_FLIPS)
    chances = [0 < float(values[name]) < 1 for name in _FLIPS]
    kept = asked.feature_cache != 0 and asked.teacher is None and values["task"] != "classify"
    return images << sum(chances) if kept and not more else math.inf


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "expected_batch_size": cell.expected_batch_size,
        "epochs": cell.epochs,
        "sample_rate": cell.sample_rate,
        "steps": cell.steps,
        "noise_multiplier": cell.noise_multiplier,
        "noise_per_coordinate": cell.noise_per_coordinate,
        "seconds": cell.seconds,
        "epsilon": dict(cell.epsilon),
        "requested": cell.requested,
    }


def _time(time: StepTime) -> dict[str, Any]:
    return {
        "model": time.model,
        "imgsz": time.imgsz,
        "device": time.device,
        "seconds_per_image": time.seconds_per_image,
        "seconds_per_step": time.seconds_per_step,
        "seconds_per_new_image": time.seconds_per_new_image,
        "parameters": time.parameters,
    }


def _finite(value: Any) -> Any:
    """The same with None for every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
