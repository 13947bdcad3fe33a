"""Everything that is decided and checked before a run touches the disk."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from discreet.accounting import Event
from discreet.arguments import PrivacyArguments, with_file
from discreet.arguments.privacy import kind_of
from discreet.arguments.values import check_value
from discreet.config import MechanismConfig
from discreet.data import DetectionDataset
from discreet.distributed import SOLO, Team, require_same
from discreet.errors import ConfigurationError
from discreet.performance import PerformanceConfig
from discreet.planning import TrainingPlan, complete, plan_training
from discreet.planning.cost import StepTime
from discreet.randomness import make_source
from discreet.recipes import Chosen, PublicFacts, classes_learned
from discreet.terminal import Reporter
from discreet.yolo.checkpoint import RunState, dataset_digest, file_digest
from discreet.yolo.devices import check_device
from discreet.yolo.inputs import DEFAULT_PROJECT, RunInputs, read_inputs, start_of
from discreet.yolo.model import Norm
from discreet.yolo.parts import make_parts
from discreet.yolo.precision import (
    asked_for_bfloat16,
    images_of_a_step,
    rounds_by,
    wants_bfloat16,
)
from discreet.yolo.stages import Stage, select_stages
from discreet.yolo.tasks import Task
from discreet.yolo.teacher import Teacher
from discreet.yolo.timing import measure_step
from discreet.yolo.zoom import enlarging, moved_layers, trained_at


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
        teacher: The model that guides the training, if there is one.
        partners: Public images that private ones are mixed with, if there are any.
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
    teacher: Teacher | None
    partners: DetectionDataset | None

    @property
    def project(self) -> Path:
        """Folder of the runs."""
        return Path(str(self.settings.get("project") or DEFAULT_PROJECT))

    @property
    def zoom(self) -> int:
        """How many times the model enlarges the sides of its images; 1 if it does not."""
        return self.privacy.zoom or 1

    @property
    def views(self) -> int:
        """Augmented views of each drawn image, whose mean gradient is clipped."""
        return self.privacy.views or 1

    @property
    def name(self) -> str:
        """Wanted name of the run."""
        return str(self.settings.get("name") or "train")

    def stages_of(self, model: nn.Module) -> tuple[Stage, ...]:
        """What trains in which steps; sets what trains of a model that `make_parts` has added to.

        Raises:
            ConfigurationError: The model has nothing of it, or not as the stages need it.
        """
        freeze = cast(Any, self.settings.get("freeze"))
        return select_stages(
            model,
            self.trainable,
            steps=self.plan.mechanism.steps,
            first=self.privacy.first_trainable,
            first_steps=self.privacy.first_steps,
            freeze=freeze if self.zoom == 1 else moved_layers(freeze),
            imgsz=self.settings["imgsz"],
        )

    def check_stages(self) -> None:
        """Refuse parts that the model does not have so, on a copy of it.

        Raises:
            ConfigurationError: See `stages_of`.
        """
        model = deepcopy(self.source)
        make_parts(model, self.trainable, imgsz=self.settings["imgsz"])
        self.stages_of(model)

    @property
    def starting_weights(self) -> str | None:
        """sha256 of the file of weights that the run starts from; None if there is none."""
        _, path = start_of(self.settings)
        return file_digest(Path(path)) or None

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
    arguments: Mapping[str, Any],
    *,
    reporter: Reporter,
    extra_units: int = 0,
    team: Team = SOLO,
) -> PreparedRun:
    """Check arguments, data and model, and plan the run. Writes nothing.

    Args:
        arguments: All arguments by name; with `resume`, those of the interrupted run are taken.
        reporter: Who is told of the progress.
        extra_units: Units beside those of the data set: an audit's canaries.
        team: The processes that run it together.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    inputs = read_inputs(arguments, reporter=reporter, team=team)
    return decide(inputs, extra_units=extra_units, team=team)


def decide(inputs: RunInputs, *, extra_units: int = 0, team: Team = SOLO) -> PreparedRun:
    """Choose what was left open, and plan the run. Reads no image, and writes nothing.

    Args:
        inputs: What it has been given.
        extra_units: See `prepare`.
        team: See `prepare`.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    dataset, teacher, state = inputs.dataset, inputs.teacher, inputs.state
    population = len(dataset.units()) + extra_units
    facts = PublicFacts(
        population=population,
        canaries=extra_units,
        pretrained=not inputs.from_scratch,
        imgsz=inputs.settings["imgsz"],
        trained_at=trained_at(inputs.source),
        classes=classes_learned(dataset.nc, inputs.settings),
        epsilon=inputs.privacy.epsilon,
        delta=inputs.privacy.delta,
        task=inputs.task.name,
    )
    privacy, chosen = complete(
        inputs.privacy,
        facts=facts,
        settings=inputs.settings,
        begun_with=None if state is None else state.chosen,
        time_of=partial(_time_of, inputs, team),
    )
    by_recipe = {k: v for k, v in chosen.values().items() if k not in PrivacyArguments.model_fields}
    settings = {**inputs.settings, **by_recipe}
    plan = _plan(privacy, population, resumed=state, before=teacher.events if teacher else ())
    if teacher is not None:
        teacher.require_unit(plan.mechanism.unit)
    fresh = RunState(
        given=inputs.given,
        mechanism=plan.mechanism,
        dataset=dataset_digest(dataset),
        source=inputs.digest,
        run_id=uuid.uuid4().hex,
        chosen=chosen.by_rule(),
    )
    if state is not None:
        state.check_unchanged(fresh)
    if team.place.size > 1:
        bfloat16 = _asked_for_bfloat16(inputs)
        require_same(
            team,
            fresh.in_common()
            | _computing_alike(plan.mechanism)
            | (rounds_by(check_device(inputs.settings["device"])) if bfloat16 else {}),
        )
    assert privacy.trainable is not None
    prepared = PreparedRun(
        privacy=privacy,
        settings=settings,
        performance=_performance(privacy, settings, bfloat16=_asked_for_bfloat16(inputs)),
        dataset=dataset,
        source=enlarging(inputs.source, privacy.zoom or 1),
        task=inputs.task,
        from_scratch=inputs.from_scratch,
        trainable=privacy.trainable,
        chosen=chosen,
        norm=privacy.norm or ("group" if inputs.from_scratch else "frozen"),
        plan=plan,
        state=state or fresh,
        resumed=inputs.resumed,
        teacher=teacher,
        partners=inputs.partners,
    )
    if privacy.first_trainable is not None:
        prepared.check_stages()  # training would find it only after its folder is made
    return prepared


def _time_of(inputs: RunInputs, team: Team, trainable: str, zoom: int) -> StepTime:
    """What a step of units takes by the leader's clock, its images shared among all processes.

    Every unit counts as the most images that a step reads of it: how many there are is private.
    """
    step: StepTime | None = None
    if team.leads:
        _, start = start_of(inputs.settings)
        device = torch.device("cpu" if _on_cpu(inputs.settings) else "cuda")
        asked = _asked_for_bfloat16(inputs)
        images = images_of_a_step(inputs.privacy, most=len(inputs.dataset.train))
        half = wants_bfloat16(asked, device, images=images, processes=team.place.size)
        imgsz = inputs.settings["imgsz"]
        step = measure_step(start, imgsz, trainable, zoom, bfloat16=half, device=device)
    images = inputs.privacy.images_of_a_unit or 1
    return StepTime(**team.told(step and asdict(step))).scaled(images / team.place.size)


def team_timeout(arguments: Mapping[str, Any]) -> float:
    """Seconds of `team_timeout=`; its default where it is wrong, which `prepare` tells."""
    given = with_file(arguments).get("team_timeout")
    with suppress(ValueError):
        return float(cast(float, check_value(kind_of("team_timeout"), given)))
    return PerformanceConfig().team_timeout


def _computing_alike(mechanism: MechanismConfig) -> dict[str, str]:
    """Versions, and what is drawn with keys that are no secret.

    Processes that did not draw alike could take the same unit, and clip it once each.
    """
    source, sampler = make_source(), mechanism.make_sampler()
    drawn = [sampler.draw(source.stream_of(key)).tobytes() for key in range(3)]
    return {
        **{f"version of {name}": version(name) for name in ("discreet", "torch", "ultralytics")},
        "random draws": hashlib.sha256(b"".join(drawn)).hexdigest(),
    }


def _plan(
    privacy: PrivacyArguments,
    population: int,
    *,
    resumed: RunState | None,
    before: Sequence[Event],
) -> TrainingPlan:
    plan = plan_training(privacy, population=population, before=before)
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
    return TrainingPlan.of(mechanism, target_epsilon=privacy.epsilon, before=before)


def _on_cpu(settings: Mapping[str, Any]) -> bool:
    return not torch.cuda.is_available() or str(settings.get("device", "")) == "cpu"


def _asked_for_bfloat16(inputs: RunInputs) -> bool | None:
    return asked_for_bfloat16(inputs.settings["amp"] if "amp" in inputs.given else None)


def _performance(
    privacy: PrivacyArguments, settings: Mapping[str, Any], *, bfloat16: bool | None
) -> PerformanceConfig:
    return PerformanceConfig(
        micro_batch_size=privacy.micro_batch,
        engine=privacy.engine,
        bfloat16=bfloat16,
        # A teacher looks at images, not at their features.
        feature_cache=privacy.feature_cache if privacy.teacher is None else 0.0,
        workers=int(settings.get("workers", 0 if _on_cpu(settings) else 8)),
        team_timeout=privacy.team_timeout,
    )
