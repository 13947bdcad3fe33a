"""Have the contestants of a comparison measured, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from discreet.arguments import with_file
from discreet.arguments.values import is_none
from discreet.comparing import Comparison, Contestant
from discreet.errors import (
    BudgetError,
    ConfigurationError,
    DiscreetError,
    StorageError,
    TeamError,
    UnsafeArgumentError,
)
from discreet.statement.signing import open_key
from discreet.terminal import Reporter, SilentReporter
from discreet.tracking import open_trackers
from discreet.yolo.comparison_folder import ComparisonFolder
from discreet.yolo.contestants import Job, in_a_process
from discreet.yolo.inputs import RunInputs, read_inputs, start_of
from discreet.yolo.model import is_architecture
from discreet.yolo.preparation import PreparedRun, decide
from discreet.yolo.tasks import CLASSIFY
from discreet.yolo.teacher import NAMED_TEACHER

# No clipping: a bound that no gradient reaches.
_OUT_OF_REACH = 1e6


def compare_runs(
    arguments: Mapping[str, Any],
    *,
    epsilons: Sequence[float],
    stock_epochs: int,
    resume: Path | None = None,
    reporter: Reporter,
) -> tuple[Comparison, Path]:
    """Train and validate every contestant.

    Every run is charged in the ledger of the data set, those without privacy as such.

    Args:
        arguments: As for `discreet train`, without ε.
        epsilons: ε of the private runs.
        stock_epochs: Epochs of Ultralytics' own training.
        resume: Folder of an interrupted comparison, whose rows are kept.
        reporter: Who is told of the progress.

    Returns:
        The comparison, and the folder with its files `comparison.json`, `.csv`, `.md`, `.svg`.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    given = with_file(arguments)  # the file may change before the comparison is resumed
    project, name = given.pop("project", None), given.pop("name", None)
    epsilons = tuple(dict.fromkeys(epsilons))
    largest = _planned(given, epsilons, reporter=reporter)
    twin = _without_privacy(largest)
    asked = {
        "arguments": {key: str(value) for key, value in given.items() if key != "ledger"},
        "stock_epochs": stock_epochs,
        "twin": {key: str(value) for key, value in twin.items()},
    }
    if resume is None:
        place, name = Path(str(project or "runs/compare")), str(name or "compare")
        folder = ComparisonFolder.new(place, name, asked=asked, largest=largest)
    else:
        folder = ComparisonFolder.resumed(resume, asked=asked, largest=largest)
    contestants = {
        Contestant(kind="stock"): {},
        Contestant(kind="twin"): twin,
        **{Contestant(kind="private", epsilon=each): {"epsilon": each} for each in epsilons},
    }
    for number, (contestant, own) in enumerate(contestants.items(), start=1):
        if contestant.name in folder.names:
            continue
        reporter.stage(f"{number} of {len(contestants)}: {contestant.name}")
        job = Job(
            contestant=contestant,
            arguments={**given, **own},
            stock_epochs=stock_epochs,
            run_id=folder.run_id,
            folder=folder.path.resolve() / _folder_of(contestant),
        )
        fresh = resume is None and not folder.names
        with _keeping_what_can_go_on(job, folder.path, fresh=fresh):
            if not job.row.exists():  # else it was measured when the comparison was interrupted
                if not job.has_begun:  # what a killed one has left is in the way
                    shutil.rmtree(job.folder, ignore_errors=True)
                in_a_process(job)
            folder.add(job.measured())
        shutil.rmtree(job.folder, ignore_errors=True)
    return folder.comparison, folder.path


def _folder_of(contestant: Contestant) -> str:
    """Its own: another contestant must not go on with its run."""
    return f"{contestant.kind}-{contestant.epsilon}" if contestant.epsilon else contestant.kind


@contextmanager
def _keeping_what_can_go_on(job: Job, folder: Path, *, fresh: bool) -> Generator[None]:
    """Where a contestant does not come to its end, take away what would be of no use.

    Of a comparison that is `fresh`, begun just now and without a row, that is all of it.
    """
    try:
        yield
    except BaseException as error:
        if not (job.has_begun or job.row.exists()):
            shutil.rmtree(folder if fresh else job.folder, ignore_errors=True)
        kept = folder.exists()
        go_on = f"resume with: discreet compare resume={folder} and the same words"
        if isinstance(error, BudgetError) and job.contestant.kind != "private":
            error.do = (
                "A comparison also trains without privacy: compare on public images, which need "
                "no budget." + (" Nothing was recorded." if fresh else "")
            )
        elif kept and isinstance(error, (TeamError, BudgetError, StorageError)):
            error.do = "; then ".join(filter(None, [error.do and error.do.rstrip("."), go_on]))
        elif kept and not isinstance(error, DiscreetError):  # whose words would have to change
            error.add_note(go_on)
        raise


def _planned(
    given: Mapping[str, Any], epsilons: Sequence[float], *, reporter: Reporter
) -> PreparedRun:
    """The run at the largest ε, once every private run can begin: stock training stays done.

    Raises:
        DiscreetError: Anything that a private run would find wrong before its first step, or
            after the training without privacy that goes before it.
    """
    if not is_none(given.get("hours")):
        raise ConfigurationError(
            "contestants that each fit into a time of their own read different numbers of images",
            where=f"hours={given['hours']}",
            do="give batch= and steps=, as discreet plan tells them with hours=",
        )
    reporter.stage("reading the data set")
    inputs = read_inputs({**given, "epsilon": max(epsilons)}, reporter=SilentReporter())
    _check_comparable(inputs)

    def prepared(epsilon: float) -> PreparedRun:
        reporter.stage(f"preparing the run at ε = {epsilon:g}")
        run = decide(inputs.at(epsilon))
        if run.privacy.first_trainable is None:  # else it has looked at its stages already
            run.check_stages()
        return run

    *others, last = sorted(epsilons)
    for epsilon in others:
        prepared(epsilon)
    largest = prepared(last)
    open_trackers(largest.privacy.track)
    open_key(largest.privacy.sign)
    return largest


def _check_comparable(inputs: RunInputs) -> None:
    """Refuse what stock training does not do alike, or would keep the private runs from.

    Raises:
        ConfigurationError: Nothing is there to compare on, it is a classifier, or its weights
            are not to be taken.
        UnsafeArgumentError: The teacher might be the stock model of this very comparison.
    """
    if not inputs.dataset.val:
        raise ConfigurationError(
            "there are no validation images to compare on",
            where=f"data={inputs.settings['data']}",
            do="name some as val: in the data set file",
        )
    if inputs.task is CLASSIFY:
        raise ConfigurationError(
            "a comparison is of mAP, which whole images of one class have not",
            where=f"model={inputs.settings['model']}",
            do="give a model that finds objects, such as yolov8n.pt",
        )
    if inputs.from_scratch and not is_architecture(start_of(inputs.settings)[1]):
        raise ConfigurationError(
            "Ultralytics starts from the weights of a file all the same",
            where="pretrained=False",
            do="give the architecture itself, such as model=yolov8n.yaml",
        )
    if inputs.teacher is not None and inputs.teacher.may_know_anything:
        raise UnsafeArgumentError(
            "the weights do not say what they were trained on, and a comparison trains without "
            "privacy on these images: they might come from that",
            where=f"teacher={inputs.privacy.teacher}",
            do=NAMED_TEACHER,
        )


def _without_privacy(private: PreparedRun) -> dict[str, Any]:
    """Arguments of the same run without clipping and noise.

    The recipe may choose by ε: what it chose is given, since the twin has none.
    """
    chosen = {k: v for k, v in private.chosen.values().items() if v is not None}
    bare = {"noise_multiplier": 0, "max_grad_norm": _OUT_OF_REACH, "clipping": "flat"}
    return {**chosen, **bare}
