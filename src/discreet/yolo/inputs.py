"""What a run is given, read and checked: arguments, data, model, teacher. Nothing is chosen yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from discreet.arguments import PrivacyArguments, split_arguments, with_file
from discreet.arithmetic import refuse_overrides
from discreet.data import DetectionDataset
from discreet.distributed import SOLO, Team
from discreet.errors import ConfigurationError
from discreet.recipes import whole_cells
from discreet.terminal import Reporter
from discreet.yolo.checkpoint import RunState, dataset_digest, file_digest, find_run
from discreet.yolo.devices import check_device, device_of, fits
from discreet.yolo.model import is_architecture, known_task, open_source
from discreet.yolo.provenance import PrivateImages, require_public_start
from discreet.yolo.reading import (
    notice_new_key_points,
    read_dataset,
    read_partners,
)
from discreet.yolo.tasks import CLASSIFY, Task
from discreet.yolo.teacher import Teacher, open_teacher

DEFAULT_PROJECT = Path("runs/private")


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """A run as it was asked for.

    Attributes:
        given: All arguments by name, as they were given.
        privacy: Those that set the guarantee.
        settings: Ultralytics' own, with what private runs hold fixed.
        dataset: The validated images.
        source: The public model to start from.
        task: What it does.
        from_scratch: Whether only its architecture is taken.
        teacher: The model that guides the training, if there is one.
        partners: Public images that private ones are mixed with, if there are any.
        digest: Of the files that the run learns from beside its images.
        resumed: Folder of the interrupted run that goes on, if one does.
        state: What was kept of it.
    """

    given: Mapping[str, Any]
    privacy: PrivacyArguments
    settings: Mapping[str, Any]
    dataset: DetectionDataset
    source: nn.Module
    task: Task
    from_scratch: bool
    teacher: Teacher | None
    partners: DetectionDataset | None
    digest: str
    resumed: Path | None
    state: RunState | None

    def at(self, epsilon: float) -> RunInputs:
        """The same at another ε."""
        asked = {**self.privacy.model_dump(exclude_unset=True), "epsilon": epsilon}
        given = {**self.given, "epsilon": epsilon}
        return replace(self, given=given, privacy=PrivacyArguments(**asked))


def read_inputs(
    arguments: Mapping[str, Any], *, reporter: Reporter, team: Team = SOLO
) -> RunInputs:
    """Read and check what a run is given. Writes nothing.

    Args:
        arguments: All arguments by name; with `resume`, those of the interrupted run are taken.
        reporter: Who is told of the progress.
        team: The processes that run it together.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    refuse_overrides()
    given: dict[str, Any] = with_file(arguments)  # the file may change before the run is resumed
    resumed, state = _interrupted(given, team)
    if state is not None:
        began_on = None if "device" in given else state.given.get("device")
        given = state.continued_with(given)
        if not fits(began_on, team.place):
            del given["device"]  # it goes on with any number of processes
    settings: dict[str, Any]
    privacy, settings = split_arguments(given, required=("data", "model"))
    settings["device"] = device_of(settings.get("device"), team.place)
    check_device(settings["device"])
    source, from_scratch = _open_model(settings)
    task = known_task(source)
    _check_task(task, settings)
    dataset = read_dataset(privacy, settings, task=task, reporter=reporter)
    partners = read_partners(privacy, settings, beside=dataset, task=task, reporter=reporter)
    if not from_scratch:
        argument, weights = start_of(settings)
        require_public_start(Path(weights), argument=argument, private=[PrivateImages.of(dataset)])
        notice_new_key_points(source, dataset, reporter)
    settings["imgsz"] = whole_cells(settings.get("imgsz", task.imgsz))
    teacher = _open_teacher(privacy, dataset)
    return RunInputs(
        given=given,
        privacy=privacy,
        settings=settings,
        dataset=dataset,
        source=source,
        task=task,
        from_scratch=from_scratch,
        teacher=teacher,
        partners=partners,
        digest=_source_digest(settings)
        + ("" if teacher is None else teacher.sha256)
        + ("" if partners is None else dataset_digest(partners)),
        resumed=resumed,
        state=state,
    )


def _interrupted(given: dict[str, Any], team: Team) -> tuple[Path | None, RunState | None]:
    """The run that goes on, if one does; `resume` is taken out of `given`.

    Its folder is the leader's: the others hear of it.
    """
    resume, project = given.pop("resume", None), given.get("project") or DEFAULT_PROJECT
    folder = find_run(resume, project=project) if team.leads else None
    state = RunState.load(folder) if folder else None
    found: Mapping[str, Any] | None = team.told(state and {"run": str(folder), **state.to_json()})
    if found is None:
        return None, None
    return Path(found["run"]), state or RunState.from_json(found)


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


def _open_model(settings: Mapping[str, Any]) -> tuple[nn.Module, bool]:
    """The model to start from, and whether only its architecture is taken."""
    argument, start = start_of(settings)
    only_architecture = argument == "model" and settings.get("pretrained", True) is False
    return open_source(start, argument=argument), is_architecture(start) or only_architecture


def start_of(settings: Mapping[str, Any]) -> tuple[str, str]:
    """What training starts from, and the argument that says so."""
    if isinstance(settings.get("pretrained"), str):
        return "pretrained", settings["pretrained"]
    return "model", str(settings["model"])


def _open_teacher(privacy: PrivacyArguments, dataset: DetectionDataset) -> Teacher | None:
    if privacy.teacher is None:
        return None
    vouched = privacy.teacher_data == "public"
    return open_teacher(Path(privacy.teacher), vouched=vouched, dataset=dataset)


def _source_digest(settings: Mapping[str, Any]) -> str:
    """Digests of the files that the weights start from, as far as they are files."""
    files = (settings["model"], settings.get("pretrained"))
    return "".join(file_digest(Path(file)) for file in files if isinstance(file, str))
