"""Train the contestants of a comparison, one after the other, each in a process of its own.

So that one's memory is not another's, and that an interrupted comparison can go on: each row is
on disk as soon as it is measured, and a private run goes on where it was interrupted.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import uuid
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from discreet.accounting import PoissonSampledGaussian, default_delta, make_accountant
from discreet.arguments import PrivacyArguments, split_arguments, with_file
from discreet.comparing import Comparison, Contestant, Measured
from discreet.comparing.plot import write_plot
from discreet.data import DetectionDataset, grouped, load_dataset
from discreet.errors import BudgetError, ConfigurationError
from discreet.ledger import BudgetLedger
from discreet.statement.signing import open_key
from discreet.storage import make_folder, write_json, write_text
from discreet.terminal import Reporter, RichReporter, SilentReporter
from discreet.tracking import open_trackers
from discreet.yolo.checkpoint import RUN, RunState, claim_run_folder, dataset_digest
from discreet.yolo.inputs import read_inputs
from discreet.yolo.preparation import PreparedRun, decide

_STOCK_BATCH = 16
# No clipping: a bound that no gradient reaches.
_OUT_OF_REACH = 1e6
_NOT_PRIVATE = (
    "Models in this folder were trained without privacy on the images, or are compared with such "
    "models. Nothing here may be published as private.\n"
)
_RESULT = "comparison.json"
# What stock training takes over from the private runs.
_SHARED = ("imgsz", "device", "workers", "single_cls", "classes")


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One contestant's work, for its own process."""

    contestant: Contestant
    arguments: Mapping[str, Any]
    stock_epochs: int
    folder: Path

    @property
    def row(self) -> Path:
        """Where its process leaves what it measured."""
        return self.folder / "row.json"

    @property
    def run(self) -> Path:
        """Folder of its training."""
        return self.folder / "run"

    @property
    def has_begun(self) -> bool:
        """Whether its private run was begun already, and can go on."""
        return (self.run / "internal" / RUN).exists()


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
    dataset, twin = largest.dataset, _without_privacy(largest)
    if not dataset.val:
        raise ConfigurationError(
            "there are no validation images to compare on",
            where=f"data={given['data']}",
            do="name some as val: in the data set file",
        )
    asked: dict[str, Any] = {
        "arguments": {key: str(value) for key, value in given.items() if key != "ledger"},
        "stock_epochs": stock_epochs,
        "twin": {key: str(value) for key, value in twin.items()},
    }
    start = {
        "run": largest.state.to_json(),
        "validation": dataset_digest(replace(dataset, train=dataset.val, grouping=None)),
    }
    kept = {"asked": asked, "start": start}
    if resume is None:
        records = (*dataset.train, *dataset.val)
        folder = claim_run_folder(
            Path(str(project or "runs/compare")),
            name=str(name or "compare"),
            exist_ok=False,
            images={record.image.parent for record in records},
        )
        comparison = Comparison(population=len(dataset.units()))
        write_text(folder / "NOT-PRIVATE.txt", _NOT_PRIVATE)
        _write(comparison, folder, kept)
    else:
        folder, comparison = resume, _begun(resume, asked, start)
    contestants = [
        Contestant(kind="stock"),
        Contestant(kind="twin"),
        *(Contestant(kind="private", epsilon=epsilon) for epsilon in epsilons),
    ]
    done = {row.name for row in comparison.rows}
    for number, contestant in enumerate(contestants, start=1):
        if contestant.name in done:
            continue
        reporter.stage(f"{number} of {len(contestants)}: {contestant.name}")
        own = {"stock": {}, "twin": twin, "private": {"epsilon": contestant.epsilon}}
        job = _Job(
            contestant=contestant,
            arguments={**given, **own[contestant.kind]},
            stock_epochs=stock_epochs,
            folder=folder.resolve() / _folder_of(contestant),
        )
        with _keeping_what_can_go_on(job, folder, comparison):
            if not job.row.exists():  # else it was measured when the comparison was interrupted
                _in_a_process(job)
            row = Measured(**json.loads(job.row.read_text(encoding="utf-8")))
            comparison = comparison.with_row(row)
            _write(comparison, folder, kept)
        shutil.rmtree(job.folder, ignore_errors=True)
    return comparison, folder


def _folder_of(contestant: Contestant) -> str:
    """Its own: another contestant must not go on with its run."""
    return f"{contestant.kind}-{contestant.epsilon}" if contestant.epsilon else contestant.kind


@contextmanager
def _keeping_what_can_go_on(job: _Job, folder: Path, so_far: Comparison) -> Generator[None]:
    """Where a contestant does not come to its end, take away what would be of no use."""
    try:
        yield
    except BaseException as error:
        if not (job.has_begun or job.row.exists()):
            shutil.rmtree(job.folder if so_far.rows else folder, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt) and folder.exists():
            error.add_note(f"resume with: discreet compare resume={folder} and the same words")
        if isinstance(error, BudgetError) and job.contestant.kind != "private":
            error.do = (
                "A comparison also trains without privacy: compare on public images, which need "
                "no budget. Nothing was recorded."
            )
        raise


def _planned(
    given: Mapping[str, Any], epsilons: Sequence[float], *, reporter: Reporter
) -> PreparedRun:
    """The run at the largest ε, once every private run can begin: stock training stays done.

    Raises:
        DiscreetError: Anything that a private run would find wrong before its first step.
    """
    reporter.stage("reading the data set")
    inputs = read_inputs({**given, "epsilon": max(epsilons)}, reporter=SilentReporter())

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


def _without_privacy(private: PreparedRun) -> dict[str, Any]:
    """Arguments of the same run without clipping and noise.

    The recipe may choose by ε: what it chose is given, since the twin has none.
    """
    chosen = {k: v for k, v in private.chosen.values().items() if v is not None}
    bare = {"noise_multiplier": 0, "max_grad_norm": _OUT_OF_REACH, "clipping": "flat"}
    return {**chosen, **bare}


def _begun(folder: Path, asked: Mapping[str, Any], start: Mapping[str, Any]) -> Comparison:
    """What was measured so far, if the rest would be measured on the same."""
    try:
        facts = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        comparison = Comparison.from_json(facts)
        run, validation = RunState.from_json(facts["start"]["run"]), facts["start"]["validation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            "no comparison to resume there",
            where=f"resume={folder}",
            do="leave resume out to begin one",
        ) from error
    run.check_unchanged(RunState.from_json(start["run"]), of="comparison")
    if validation != start["validation"]:
        raise ConfigurationError(
            "the validation images, labels or class names are not as when the comparison began",
            where="resume",
            do="restore them, or start a new comparison",
        )
    if facts.get("asked") != asked:
        raise ConfigurationError(
            "the comparison was begun with other arguments",
            where=f"resume={folder}",
            do="give the same ones, or leave resume out to begin another",
        )
    return comparison


def _write(comparison: Comparison, folder: Path, kept: Mapping[str, Any]) -> None:
    write_text(folder / "comparison.csv", comparison.to_csv())
    write_text(folder / "comparison.md", comparison.to_markdown())
    write_plot(comparison, folder / "comparison.svg")
    write_json(folder / _RESULT, {**comparison.to_json(), **kept})


def _in_a_process(job: _Job) -> None:
    """Have a contestant measured; an interruption ends its process first, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=context,
        # Ctrl-C reaches both processes: only this one listens, and tells the other.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        process = pool.submit(os.getpid).result()
        measuring = pool.submit(_measure, job)
        try:
            measuring.result()
        except KeyboardInterrupt:
            os.kill(process, signal.SIGTERM)
            raise


def _end_once(*_: object) -> NoReturn:
    """End in order, and whole: a batch system tells this process as well as the one above it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(job: _Job) -> None:
    """Train and validate one contestant; runs in a process of its own."""
    signal.signal(signal.SIGTERM, _end_once)
    make_folder(job.folder)
    measure = _measure_stock if job.contestant.kind == "stock" else _measure_private
    write_json(job.row, asdict(measure(job)))


def _measure_stock(job: _Job) -> Measured:
    from discreet.yolo.evaluate import evaluate_weights
    from discreet.yolo.stock import train_stock

    settings: dict[str, Any]
    privacy, settings = split_arguments({**job.arguments, "epsilon": 1.0})
    dataset = _read(privacy, settings["data"])
    _charge_without_privacy(dataset, ledger=privacy.ledger)
    shared = {key: settings[key] for key in _SHARED if key in settings}
    done = train_stock(
        dataset,
        model=str(settings["model"]),
        epochs=job.stock_epochs,
        folder=job.folder,
        settings={"batch": _STOCK_BATCH, **shared},
    )
    peak = _peak_mib()
    metrics = evaluate_weights(
        done.weights, Path(settings["data"]), imgsz=int(settings.get("imgsz", 640))
    )
    return Measured(
        kind="stock",
        name=job.contestant.name,
        map50=metrics["map50"],
        map50_95=metrics["map50_95"],
        seconds_per_epoch=done.seconds / job.stock_epochs,
        epochs=job.stock_epochs,
        peak_mib=peak,
    )


def _read(privacy: PrivacyArguments, data: str) -> DetectionDataset:
    dataset = load_dataset(data, splits=("train", "val"))
    return grouped(dataset, file=privacy.groups, pattern=privacy.group_regex)


def _charge_without_privacy(dataset: DetectionDataset, *, ledger: str | None) -> None:
    """Have the data set's ledger know that a model without privacy saw all of its images."""
    seen = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=0.0, steps=1)
    book = BudgetLedger.open(ledger)
    try:
        run = book.reserve(
            run_id=uuid.uuid4().hex,
            name=dataset.yaml.parent.name,
            digests=[record.digest for record in dataset.train],
            units=dataset.units().of_images,
            planned=[seen],
            accountant=make_accountant("pld"),
            delta=default_delta(dataset.n),
            private=False,
            label="stock training of a comparison",
        )
        run.charge(seen)
        run.settle()
    finally:
        book.close()


def _measure_private(job: _Job) -> Measured:
    from discreet.api import train

    contestant = job.contestant  # its ε, or that it has none, is among the arguments
    given = {**job.arguments, "project": str(job.folder), "name": job.run.name, "val": True}
    if job.has_begun:  # the rest is as it began; a ledger's password is nowhere kept
        given = {"resume": str(job.run), "ledger": job.arguments.get("ledger")}
    # A child's words go to standard error: standard output may be kept for JSON.
    result = train(given, reporter=_ContestantReporter(sys.stderr))
    assert result.metrics is not None
    seconds = _step_seconds(result.internal / "steps.csv")
    epochs = result.record.steps.charged * result.record.sampling.sample_rate
    return Measured(
        kind=contestant.kind,
        name=contestant.name,
        map50=result.metrics["map50"],
        map50_95=result.metrics["map50_95"],
        seconds_per_epoch=seconds / epochs,
        epochs=epochs,
        peak_mib=_peak_mib(),
        epsilon=result.spent.epsilon if result.claim_valid else None,
        delta=result.spent.delta if result.claim_valid else None,
    )


class _ContestantReporter(RichReporter):
    """Says what a contestant spent, and names no release."""

    def finish(
        self, *, epsilon: float, delta: float, release: str, spender: str = "this training"
    ) -> None:
        """Print what the training spent."""
        del release  # the run's folder goes once it is measured
        self._show_spent(epsilon, delta, spender=spender)


def _step_seconds(journal: Path) -> float:
    with journal.open(encoding="utf-8", newline="") as stream:
        return sum(float(row["seconds"]) for row in csv.DictReader(stream))


def _peak_mib() -> float:
    """Peak memory in MiB: of the accelerator where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
