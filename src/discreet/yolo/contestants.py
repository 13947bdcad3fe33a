"""One contestant of a comparison, trained and validated in a process of its own.

So that one's memory is not another's. A private run goes on where it was interrupted.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from pydantic import TypeAdapter

from discreet.accounting import PoissonSampledGaussian, default_delta, make_accountant
from discreet.comparing import Contestant, Measured
from discreet.errors import ConfigurationError, DiscreetError, TeamError
from discreet.ledger import BudgetLedger
from discreet.storage import make_folder, write_json
from discreet.terminal import RichReporter, SilentReporter
from discreet.yolo.checkpoint import RUN

if TYPE_CHECKING:
    from discreet.yolo.inputs import RunInputs

_STOCK_BATCH = 16
# What stock training and its validation take over from the private runs.
_TRAINED_WITH = ("imgsz", "device", "workers", "single_cls", "classes")
_VALIDATED_WITH = ("single_cls", "classes", "conf", "iou", "max_det", "agnostic_nms")
_LOOKS_EVERY, _ENDS_WITHIN = 1.0, 60.0  # seconds
_MEASURED = TypeAdapter(Measured)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One contestant's work, for its own process.

    Attributes:
        contestant: Who is measured.
        arguments: As for `discreet train`, with its own ε or without noise.
        stock_epochs: Epochs of Ultralytics' own training.
        run_id: By which the ledger knows that training.
        folder: Of its own: its run, and what was measured.
    """

    contestant: Contestant
    arguments: Mapping[str, Any]
    stock_epochs: int
    run_id: str
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

    def measured(self) -> Measured:
        """What its process left.

        Raises:
            ConfigurationError: If that cannot be read.
        """
        try:
            row = _MEASURED.validate_json(self.row.read_bytes())
            if (row.kind, row.name) != (self.contestant.kind, self.contestant.name):
                raise ValueError(f"it is of {row.name}")
            return row
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"this is not what {self.contestant.name} reached: {error}",
                where=str(self.row),
                do="remove the file, and resume: its contestant goes on, or is measured again",
            ) from error


def in_a_process(job: Job) -> None:
    """Have a contestant measured; an interruption ends its process first, in order.

    Raises:
        TeamError: Its process was ended from outside.
        DiscreetError: As its training does.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        max_workers=1,
        mp_context=context,
        # Ctrl-C reaches both processes: only this one listens, and tells the other.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        process: int | None = None
        try:
            process = pool.submit(os.getpid).result()
            pool.submit(_measure, job).result()
        except BrokenProcessPool as error:
            raise TeamError(
                "its process was ended by the system, as where memory runs out",
                where=job.contestant.name,
                do="begin another comparison with a smaller imgsz, or free memory",
            ) from error
        except KeyboardInterrupt:
            if process is not None:
                os.kill(process, signal.SIGTERM)
            raise


def _end_once(*_: object) -> NoReturn:
    """End in order, and whole: a batch system tells this process as well as the one above it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """End in order once nobody is there to hear: a killed comparison leaves nobody training."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ENDS_WITHIN)
    os._exit(1)


def _measure(job: Job) -> None:
    """Train and validate one contestant; runs in a process of its own."""
    signal.signal(signal.SIGTERM, _end_once)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    make_folder(job.folder)
    measure = _measure_stock if job.contestant.kind == "stock" else _measure_private
    try:
        measured = measure(job)
    except DiscreetError:
        raise
    except Exception as error:  # it may be of a kind that another process cannot read
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    write_json(job.row, asdict(measured))


def _measure_stock(job: Job) -> Measured:
    from discreet.yolo._compat import load_weights
    from discreet.yolo.evaluate import evaluate_split
    from discreet.yolo.inputs import read_inputs, start_of
    from discreet.yolo.stock import train_stock

    # As a private run reads them: the same images, start and image size for all.
    inputs = read_inputs({**job.arguments, "epsilon": 1.0}, reporter=SilentReporter())
    settings = inputs.settings
    _charge_without_privacy(inputs, run_id=job.run_id)
    argument, start = start_of(settings)
    done = train_stock(
        inputs.dataset,
        model=str(settings["model"]),
        weights=start if argument == "pretrained" else None,
        epochs=job.stock_epochs,
        folder=job.folder,
        settings={"batch": _STOCK_BATCH, **_given(settings, _TRAINED_WITH)},
    )
    peak = _peak_mib()
    metrics = evaluate_split(
        load_weights(done.weights),
        inputs.dataset,
        imgsz=settings["imgsz"],
        settings=_given(settings, _VALIDATED_WITH),
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


def _given(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _charge_without_privacy(inputs: RunInputs, *, run_id: str) -> None:
    """Have the data set's ledger know that a model without privacy saw all of its images.

    Once: a comparison that was killed begins its stock training again.
    """
    seen = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=0.0, steps=1)
    dataset = inputs.dataset
    book = BudgetLedger.open(inputs.privacy.ledger)
    try:
        if book.knows(run_id):
            run = book.reopen(run_id)
        else:
            run = book.reserve(
                run_id=run_id,
                name=dataset.yaml.parent.name,
                digests=[record.digest for record in dataset.train],
                units=dataset.units().of_images,
                planned=[seen],
                accountant=make_accountant("pld"),
                delta=default_delta(dataset.n),
                private=False,
                label="stock training of a comparison",
            )
        if run.remaining:
            run.charge(seen)
        run.settle()
    finally:
        book.close()


def _measure_private(job: Job) -> Measured:
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
