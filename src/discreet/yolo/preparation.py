"""Everything that is decided and checked before a run touches the disk."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from ultralytics.utils.torch_utils import select_device

from discreet.arguments import PrivacyArguments, split_arguments, with_file
from discreet.data import DetectionDataset, load_dataset
from discreet.errors import ConfigurationError
from discreet.performance import PerformanceConfig
from discreet.planning import TrainingPlan, complete, plan_training
from discreet.recipes import Chosen, PublicFacts
from discreet.terminal import Reporter
from discreet.yolo.checkpoint import RunState, dataset_digest, file_digest, find_run
from discreet.yolo.model import Norm, known_task, open_source
from discreet.yolo.tasks import CLASSIFY, Task

DEFAULT_PROJECT = Path("runs/private")
_CELL = 32


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run that may begin.

    Attributes:
        privacy: The arguments that set the guarantee.
        settings: Ultralytics' own, with what private runs hold fixed.
        performance: What only speed depends on.
        dataset: The validated images.
        source: The public model to start from.
        task: What it does.
        from_scratch: Whether only its architecture is taken.
        trainable: Parts of the model that train.
        chosen: What the recipe chose, and why.
        norm: How normalisation is made independent of the batch.
        plan: The mechanism and its promise.
        state: What is kept so that the run can go on.
        resumed: Folder of the interrupted run that goes on, if one does.
    """

    privacy: PrivacyArguments
    settings: Mapping[str, Any]
    performance: PerformanceConfig
    dataset: DetectionDataset
    source: nn.Module
    task: Task
    from_scratch: bool
    trainable: str
    chosen: Chosen
    norm: Norm
    plan: TrainingPlan
    state: RunState
    resumed: Path | None

    @property
    def project(self) -> Path:
        """Folder of the runs."""
        return Path(str(self.settings.get("project") or DEFAULT_PROJECT))

    @property
    def name(self) -> str:
        """Wanted name of the run."""
        return str(self.settings.get("name") or "train")

    @property
    def starting_weights(self) -> str | None:
        """sha256 of the file of weights that the run starts from; None if there is none."""
        pretrained = self.settings.get("pretrained")
        path = pretrained if isinstance(pretrained, str) else self.settings["model"]
        return file_digest(Path(str(path))) or None

    @property
    def reasons_against(self) -> list[str]:
        """Why the run is not private, if it is not."""
        reasons: list[str] = []
        if self.privacy.insecure_seed is not None:
            reasons.append("noise and sampling are seeded: anyone can repeat them")
        if self.privacy.noise_multiplier == 0:
            reasons.append("no noise was added")
        return reasons


def prepare(
    arguments: Mapping[str, Any], *, reporter: Reporter, extra_units: int = 0
) -> PreparedRun:
    """Check arguments, data and model, and plan the run. Writes nothing.

    Args:
        arguments: All arguments by name; with `resume`, those of the interrupted run are taken.
        reporter: Who is told of the progress.
        extra_units: Units beside the images: an audit's canaries.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    given: dict[str, Any] = with_file(arguments)  # the file may change before the run is resumed
    resumed = find_run(given.pop("resume", None), project=given.get("project") or DEFAULT_PROJECT)
    state = RunState.load(resumed) if resumed else None
    if state is not None:
        given = state.continued_with(given)
    settings: dict[str, Any]
    privacy, settings = split_arguments(given, required=("data", "model"))
    source, from_scratch = _open_model(settings)
    task = known_task(source)
    _check_task(task, settings)
    reporter.stage(f"reading {settings['data']}")
    dataset = load_dataset(
        settings["data"],
        progress=reporter.stage_progress,
        single_cls=bool(settings.get("single_cls")),
        task=task.name,
    )
    for notice in dataset.notices:
        reporter.notice(notice)
    _notice_new_key_points(source, dataset, reporter)
    _check_classes(settings.get("classes"), dataset)
    _check_device(settings.get("device"))
    population = dataset.n + extra_units
    # Whole cells of the coarsest feature map, as in Ultralytics.
    settings["imgsz"] = math.ceil(settings.get("imgsz", task.imgsz) / _CELL) * _CELL
    facts = PublicFacts(
        population=population,
        pretrained=not from_scratch,
        imgsz=settings["imgsz"],
        classes=dataset.nc,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        task=task.name,
    )
    privacy, chosen = complete(privacy, facts=facts, settings=settings)
    settings |= {k: v for k, v in chosen.values().items() if k not in PrivacyArguments.model_fields}
    plan = _plan(privacy, population, resumed=state)
    fresh = RunState(
        given=given,
        mechanism=plan.mechanism,
        dataset=dataset_digest(dataset.train, dataset.names),
        source=_source_digest(settings),
        run_id=uuid.uuid4().hex,
    )
    if state is not None:
        state.check_unchanged(fresh)
    assert privacy.trainable is not None
    return PreparedRun(
        privacy=privacy,
        settings=settings,
        performance=_performance(privacy, settings),
        dataset=dataset,
        source=source,
        task=task,
        from_scratch=from_scratch,
        trainable=privacy.trainable,
        chosen=chosen,
        norm=privacy.norm or ("group" if from_scratch else "frozen"),
        plan=plan,
        state=state or fresh,
        resumed=resumed,
    )


def _plan(privacy: PrivacyArguments, population: int, *, resumed: RunState | None) -> TrainingPlan:
    plan = plan_training(privacy, population=population)
    if resumed is None:
        return plan
    # As calibrated when the run began: a newer accountant may find another noise multiplier.
    kept = {"noise_multiplier": resumed.mechanism.noise_multiplier}
    mechanism = plan.mechanism.model_copy(update=kept)
    if mechanism != resumed.mechanism:
        raise ConfigurationError(
            "the mechanism on record is not the one that these arguments and images give",
            where="resume",
            do="restore the run's folder and the data, or start a new run",
        )
    return TrainingPlan.of(mechanism, target_epsilon=privacy.epsilon)


def _check_classes(classes: list[int] | None, dataset: DetectionDataset) -> None:
    unknown = [number for number in classes or () if number >= dataset.nc]
    if unknown:
        raise ConfigurationError(
            f"there is no class {unknown[0]}: the data set has {dataset.nc}",
            where="classes",
            do=f"use numbers from 0 to {dataset.nc - 1}",
        )


def _check_task(task: Task, settings: dict[str, Any]) -> None:
    """Set the model's task, which an argument may only confirm.

    Raises:
        ConfigurationError: Another task is asked for, or something that it has not.
    """
    asked = settings.get("task") or task.name
    if asked != task.name:
        raise ConfigurationError(
            f"the model is for {task.name}, not for {asked}",
            where="task",
            do="leave it out: the task follows from the model",
        )
    settings["task"] = task.name
    if task is CLASSIFY:
        for name in ("single_cls", "classes"):
            if settings.get(name):
                raise ConfigurationError(
                    "every image has one class, and all of them are needed",
                    where=name,
                    do="leave it out",
                )


def _notice_new_key_points(
    source: nn.Module, dataset: DetectionDataset, reporter: Reporter
) -> None:
    points, head = dataset.keypoints, cast(Any, source).model[-1]
    if points is not None and list(head.kpt_shape) != [points.count, points.columns]:
        reporter.notice(
            f"the weights know {head.kpt_shape[0]} key points of {head.kpt_shape[1]} numbers, "
            f"the data set has {points.count} of {points.columns}: their branch starts from random "
            "weights, and needs trainable=class_film+whole_head"
        )


def _check_device(device: object) -> None:
    try:
        select_device(cast(Any, device), verbose=False)
    except Exception as error:
        raise ConfigurationError(
            f"there is no device {device!r} here",
            where="device",
            do="use device=cpu, or the number of a GPU that torch sees",
        ) from error


def _open_model(settings: Mapping[str, Any]) -> tuple[nn.Module, bool]:
    """The model to start from, and whether only its architecture is taken."""
    pretrained = settings.get("pretrained", True)
    if isinstance(pretrained, str):
        return open_source(pretrained), False
    architecture = Path(str(settings["model"])).suffix in {".yaml", ".yml"}
    return open_source(settings["model"]), architecture or pretrained is False


def _performance(privacy: PrivacyArguments, settings: Mapping[str, Any]) -> PerformanceConfig:
    on_cpu = not torch.cuda.is_available() or str(settings.get("device", "")) == "cpu"
    return PerformanceConfig(
        micro_batch_size=privacy.micro_batch,
        engine=privacy.engine,
        workers=int(settings.get("workers", 0 if on_cpu else 8)),
    )


def _source_digest(settings: Mapping[str, Any]) -> str:
    """Digests of the files that the weights start from, as far as they are files."""
    files = (settings["model"], settings.get("pretrained"))
    return "".join(file_digest(Path(file)) for file in files if isinstance(file, str))
