"""Check the trainer's own step: its model, loss, augmentation, loader, noise and optimizer.

Before a run the step is tried on stand-ins, images and boxes made here, so that nothing private
decides whether it passes; only bit-for-bit comparisons of the loader touch private images. On
its own, `discreet check` uses the user's images throughout.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from discreet import checking
from discreet.checking import CheckReport, Subject, Unit, run_checks
from discreet.clipping import PerExampleGradients
from discreet.errors import ConfigurationError
from discreet.gradients import ENGINES, make_engine
from discreet.noise import DrawnAhead, Mechanism
from discreet.randomness import RandomSource
from discreet.step import is_out_of_memory
from discreet.terminal import Reporter
from discreet.yolo import checking_data, checking_features, checking_plan, checking_units, loop
from discreet.yolo.batches import images_of, joined, with_image
from discreet.yolo.microbatch import units_of
from discreet.yolo.model import fast_layout
from discreet.yolo.precision import too_many_at_once
from discreet.yolo.stand_ins import StandIns
from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

Batch = dict[str, Any]

_STAND_INS, _REAL = 4, 6
_MOST_IMAGES = 2  # of a unit: enough to see that they are averaged, and little to wait for
_OBJECTS = (3, 1, 0, 7)  # of the stand-ins, in turn
# A layer that few numbers leave rounds one image in a dozen otherwise: the smaller images are, the
# more of them are looked at.
_STAND_INS_IN_COMPANY, _PIXELS_IN_COMPANY, _PARTS_IN_COMPANY = 256, 64 * 320**2, 16


def check_trainer(
    trainer: PrivateDetectionTrainer,
    *,
    full: bool = False,
    real: bool = False,
    without: Sequence[str] = (),
) -> CheckReport:
    """Run the probes on a trainer that is set up and has not begun.

    Args:
        trainer: The trainer; left as it was.
        full: Go through all variants, engines and statistics.
        real: Use the user's images for the step; stand-ins otherwise.
        without: Names of probes to leave out.
    """
    maker = stand_ins_of(trainer)
    with _unlogged(trainer), _within_memory(trainer):
        return run_checks(
            subject_of(trainer, real=real),
            full=full,
            without=without,
            more={
                **checking_data.probes(trainer, full=full),
                **checking_features.probes(trainer, stand_ins(maker, range(4)), full=full),
                **checking_plan.probes(trainer),
                **checking_units.probes(trainer),
            },
        )


def require_passed(trainer: PrivateDetectionTrainer) -> CheckReport:
    """The short check at the start of every run.

    Raises:
        CheckError: A probe failed; nothing has been spent.
    """
    trainer.reporter.stage("checking the step")
    report = check_trainer(trainer)
    report.require()
    return report


def change_by_company(trainer: PrivateDetectionTrainer) -> float:
    """How far a stand-in's gradient depends on who is beside it, as a share of its length."""
    maker, size = stand_ins_of(trainer), trainer.loop.images_of_a_part
    if size == 1:  # then each is alone
        return 0.0
    side = maker.size * trainer.prepared.zoom
    images = min(_STAND_INS_IN_COMPANY, _PIXELS_IN_COMPANY // side**2)
    parts = min(_PARTS_IN_COMPANY, images // size)
    subject = replace(
        subject_of(trainer, real=False),
        units=range(max(2, parts) * size),
        batch_of=lambda units: stand_ins(maker, [unit.number for unit in units]),
    )
    trainer.reporter.stage("measuring what bfloat16 rounds")
    with _unlogged(trainer):
        return checking.change_by_company(subject, sizes=[size])


def subject_of(trainer: PrivateDetectionTrainer, *, real: bool) -> Subject:
    """The trainer's step, as the probes want it."""
    mechanism = trainer.plan.mechanism
    entries = {name: parameter.numel() for name, parameter in trainer.parameters.items()}
    units = _with_objects_first(trainer)[:_REAL] if real else list(range(_STAND_INS))
    if len(units) < 2:  # one unit has no neighbours: stand-ins can have some
        real, units = False, list(range(_STAND_INS))
    images = _images_of_units(trainer, units, real=real)
    everyone = [image for unit in units for image in images[unit]]
    batches = checking_data.RealBatches(trainer, everyone) if real else None
    name = trainer.prepared.performance.engine
    maker = stand_ins_of(trainer)

    def batch_of(wanted: Sequence[Unit]) -> Batch:
        numbers = [image for unit in wanted for image in images[unit.number]]
        batch = stand_ins(maker, numbers) if batches is None else batches(numbers)
        sizes = [len(images[unit.number]) for unit in wanted]
        place = 0
        for unit, size in zip(wanted, sizes, strict=True):
            for image in range(place, place + size) if unit.alteration is not None else ():
                batch = altered(maker, batch, image, cast(str, unit.alteration))
            place += size
        return {**batch, "unit_sizes": sizes} if max(sizes, default=1) > 1 else batch

    def gradients_from(name: str) -> Callable[[Batch], PerExampleGradients]:
        engine = make_engine(name, cast(Any, trainer.model), trainer.parameters)
        return partial(trainer.loop.gradients_of, engine)

    def other_engine(name: str) -> Callable[[Batch], PerExampleGradients]:
        gradients_of = gradients_from(name)

        def compute(batch: Batch) -> PerExampleGradients:
            with _plain_layout(cast(Any, trainer.model)):
                return gradients_of(batch)

        return compute

    @contextmanager
    def mechanism_of(source: RandomSource) -> Generator[Mechanism]:
        with DrawnAhead(source, entries) as noise:
            yield noise.scaled_by(mechanism.make_mechanism(step=1))

    return Subject(
        model=cast(Any, trainer.model),
        parameters=trainer.parameters,
        batch_of=batch_of,
        losses_of=partial(_losses_of, trainer),
        gradients_of=gradients_from(name),
        clipping_of=trainer.make_clipping,
        max_grad_norm=mechanism.max_grad_norm,
        mechanism_of=mechanism_of,
        noise_multiplier=mechanism.noise_multiplier,
        source=checking_data.source_of(trainer),
        expected_batch_size=mechanism.expected_batch_size,
        optimizer=trainer.optimizer,
        units=units,
        alterations=maker.alterations,
        terms=trainer.per_image_loss.names,
        exactly=partial(_exactly, trainer) if trainer.amp else None,
        engines={other: other_engine(other) for other in ENGINES if other != name},
        step=loop.private_step,  # as the trainer's loop knows it
    )


def _losses_of(trainer: PrivateDetectionTrainer, batch: Batch) -> Tensor:
    batch = trainer.preprocess_batch(dict(batch))
    terms = trainer.per_image_loss(trainer.predictions(batch), batch)
    units, weights = units_of(batch, trainer.device)
    return terms if units is None else units.sum(terms * cast(Tensor, weights)[:, None])


def _with_objects_first(trainer: PrivateDetectionTrainer) -> list[int]:
    """Units by number: with objects, whose terms can meet, and of many images first."""
    records, members = trainer.dataset.train, trainer.units.members

    def place(unit: int) -> tuple[bool, int]:
        is_empty = not any(len(records[image].classes) for image in members[unit])
        return is_empty, -len(members[unit])

    return sorted(range(len(members)), key=place)


def _images_of_units(
    trainer: PrivateDetectionTrainer, units: Sequence[int], *, real: bool
) -> dict[int, Sequence[int]]:
    """Numbers of the images of each unit of the probes: one, or a few where a run reads more."""
    views = trainer.prepared.views
    most = min(_MOST_IMAGES, trainer.loop.images_of_a_unit)
    if real:
        return {unit: (trainer.units.members[unit] * views)[:most] for unit in units}
    return {unit: [unit + i * _STAND_INS for i in range(1 + (unit + 1) % most)] for unit in units}


@contextmanager
def _exactly(trainer: PrivateDetectionTrainer) -> Generator[None]:
    amp, trainer.amp = trainer.amp, False
    try:
        yield
    finally:
        trainer.amp = amp


@contextmanager
def _plain_layout(model: torch.nn.Module) -> Generator[None]:
    """Channels before pixels: PyTorch's backward pass of GroupNorm is off by 1e-2 otherwise."""
    model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    try:
        yield
    finally:
        fast_layout(model)


@contextmanager
def _within_memory(trainer: PrivateDetectionTrainer) -> Generator[None]:
    """Say what to do where the images of a pass do not fit.

    Raises:
        ConfigurationError: They do not.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if trainer.amp:
            raise too_many_at_once(trainer.loop.images_of_a_part) from None
        raise ConfigurationError(
            "the few images that the step is checked on do not fit the memory at once",
            where=f"imgsz={trainer.args.imgsz}",
            do="free memory, or give a smaller imgsz=, zoom= or model=, or a trainable= of less",
        ) from None


class _NoJournal:
    """Keeps no losses."""

    def add_losses(self, terms: Tensor) -> None:
        """Forget them."""


@contextmanager
def _unlogged(trainer: PrivateDetectionTrainer) -> Generator[None]:
    journal = trainer.journal
    trainer.journal = cast(Any, _NoJournal())
    try:
        yield
    finally:
        trainer.journal = journal


# ---- batches ----


def stand_ins_of(trainer: PrivateDetectionTrainer) -> StandIns:
    """Who makes images like those that the trainer loads."""
    return StandIns(
        task=trainer.task,
        size=int(trainer.args.imgsz),
        classes=trainer.dataset.nc,
        kpt_shape=trainer.data.get("kpt_shape"),
        mask_ratio=int(trainer.args.mask_ratio),
    )


def stand_ins(maker: StandIns, numbers: Sequence[int]) -> Batch:
    """A batch of made-up images, in the form in which the loader gives it."""
    return joined(
        [
            maker.image(
                _OBJECTS[number % len(_OBJECTS)], torch.Generator().manual_seed(1000 + number)
            )
            for number in numbers
        ]
    )


def altered(maker: StandIns, batch: Mapping[str, Any], place: int, alteration: str) -> Batch:
    """The batch with one image altered.

    Args:
        maker: Makes what is put in its place.
        batch: What the loader gave.
        place: Position of the image.
        alteration: One of the maker's.
    """
    alone = images_of(batch, place, place + 1)
    return with_image(batch, place, maker.altered(alone, alteration, 2000 + place))


# ---- on its own ----


class _Rehearsal(PrivateDetectionTrainer):
    """A trainer that is set up in a folder that goes away, and trains nothing."""

    full = False
    report: CheckReport | None = None

    def _do_train(self) -> None:
        try:
            self._setup_train()
            self.reporter.stage("checking the step")
            self.report = check_trainer(self, full=self.full, real=True)
        finally:
            self._leave_folder()

    def _restore(self) -> None:
        """Nothing goes on from anywhere."""

    def _announce(self) -> None:
        """The plan is not what was asked for."""


def check_arguments(
    given: Mapping[str, Any], *, full: bool = False, reporter: Reporter | None = None
) -> CheckReport:
    """Check what `train` would run with these arguments. Charges nothing, leaves no folder.

    Args:
        given: Arguments as for `train`.
        full: Go through all variants, engines and statistics.
        reporter: Who is told of the progress.

    Raises:
        DiscreetError: Anything that is wrong with arguments, data, model.
    """
    with tempfile.TemporaryDirectory(prefix="discreet-check-") as folder:
        arguments = {k: v for k, v in given.items() if k not in {"resume", "exist_ok"}}
        arguments |= {"project": str(Path(folder) / "runs"), "name": "check"}
        arguments |= {"ledger": str(Path(folder) / "ledger.sqlite")}  # nothing is reserved
        trainer = _Rehearsal(overrides=arguments, _callbacks=default_callbacks(), reporter=reporter)
        trainer.full = full
        trainer.train()
        assert trainer.report is not None
        return trainer.report
