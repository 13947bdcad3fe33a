"""A student of public images that a private teacher labelled: the teacher's claim, unchanged.

Whatever is made of a private model without looking at private images again is as private as the
model (post-processing). So the student is trained as Ultralytics trains, and its record is the
teacher's, with the student's own weights, settings and metrics.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from torch import nn

from discreet.arguments.students import StudentArguments
from discreet.data import DetectionDataset, load_dataset
from discreet.errors import ConfigurationError, LedgerError, ModelError, UnsafeArgumentError
from discreet.launched import Place
from discreet.privacy import PrivacySpent
from discreet.recipes import DEFAULT_IMGSZ
from discreet.result import TrainingResult
from discreet.statement.record import PrivacyRecord, this_machine, this_software
from discreet.statement.report import ValidationFigures
from discreet.statement.schema import PretrainingData, Training, ValidationData
from discreet.statement.signing import open_key
from discreet.storage import make_folder
from discreet.terminal import Reporter
from discreet.yolo import release
from discreet.yolo._compat import load_weights
from discreet.yolo.checkpoint import RunState, claim_run_folder, file_digest
from discreet.yolo.dataset import describe
from discreet.yolo.devices import check_device, device_of
from discreet.yolo.distillation import freeze
from discreet.yolo.evaluate import evaluate, open_split
from discreet.yolo.figures import validation_figures
from discreet.yolo.images import require_public, runs_on
from discreet.yolo.labelling import label_images
from discreet.yolo.model import is_architecture, is_finite, known_task, open_source
from discreet.yolo.provenance import PrivateImages, require_public_start
from discreet.yolo.stock import train_stock
from discreet.yolo.tasks import DETECT
from discreet.yolo.teacher import Teacher, open_teacher

_PROJECT = Path("runs/private")
_NAME = "student"


def train_student(asked: StudentArguments, *, reporter: Reporter) -> TrainingResult:
    """Label public images with a private teacher, and train a student on them.

    Args:
        asked: What was asked for.
        reporter: Who is told of the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is written.
    """
    started = time.monotonic()
    device = check_device(device_of(asked.settings.get("device"), Place()))  # one, or none
    teacher = open_teacher(asked.teacher, vouched=False, dataset=None)
    assert teacher.record is not None  # a public one is refused: nobody vouches for it here
    if known_task(teacher.model) is not DETECT:
        raise _not_a_detector(f"teacher={asked.teacher}", do="give the release of a YOLO detector")
    if known_task(open_source(asked.model)).name != DETECT.name:
        raise _not_a_detector(f"model={asked.model}", do="give a detector, such as yolov8n.pt")
    runs = teacher.runs_behind()
    private = [PrivateImages.named_by(Path(str(run.given["data"]))) for run in runs]
    if not is_architecture(asked.model):
        require_public_start(Path(asked.model), argument="model", private=private)
    key = open_key(asked.sign)
    reporter.stage(f"reading {asked.public_data}")
    public = load_dataset(asked.public_data, progress=reporter.stage_progress, labels_wanted=False)
    where = f"public_data={asked.public_data}"
    require_public(public, ledger=asked.ledger, where=where)
    _require_others(public, runs, private, where=where)
    settings = asked.settings
    imgsz = int(settings.get("imgsz") or teacher.record.configuration.get("imgsz") or DEFAULT_IMGSZ)  # pyright: ignore[reportArgumentType]
    root = claim_run_folder(
        Path(str(settings.get("project") or _PROJECT)),
        name=str(settings.get("name") or _NAME),
        exist_ok=False,
        images={record.image.parent for record in (*public.train, *public.val)},
    )
    internal = root / "internal"
    make_folder(internal)
    reporter.stage(f"labelling {public.n:,} public images")
    labelled = label_images(
        freeze(teacher.model.to(device)),
        public.train,
        imgsz=imgsz,
        conf=asked.conf,
        iou=float(settings.get("iou", 0.7)),
        max_det=int(settings.get("max_det", 300)),
        folder=internal / "labels",
        progress=reporter.stage_progress,
    )
    if not any(len(record.classes) for record in labelled):
        shutil.rmtree(root, ignore_errors=True)  # nothing was made
        raise ConfigurationError(
            "the teacher finds nothing in any of the public images",
            where=where,
            do="use images of what it was trained to find, or a lower conf",
        )
    names = tuple(str(name) for name in _names(teacher.model))
    # Ultralytics asks for validation images, and looks at none of them here.
    unlabelled = tuple(dataclasses.replace(record, label=None) for record in public.val)
    taught = dataclasses.replace(public, names=names, train=labelled, val=unlabelled)
    reporter.stage(f"training on {public.n:,} public images")
    done = train_stock(
        taught,
        model=asked.model,
        epochs=asked.epochs,
        folder=internal.resolve() / "stock",
        settings={**asked.stock, "imgsz": imgsz},
    )
    student = load_weights(done.weights)
    if not is_finite(student):
        raise ModelError(
            "its training has diverged: weights of it are not finite numbers",
            where=f"model={asked.model}",
            do="give a smaller lr0",
        )
    released = release.releasable(student, args={"imgsz": imgsz, "task": "detect"})
    comparable = public.names == names
    metrics, figures = (
        _validate(student.to(device), public, imgsz=imgsz, folder=internal)
        if comparable
        else ({}, None)
    )
    record = release.publish(
        root / "release",
        staging=internal / "release.part",
        released=released,
        record=_record(asked, teacher, student=released, metrics=metrics, imgsz=imgsz, n=public.n),
        key=key,
        words=release.private_words(
            public,
            run=root,
            settings={"model": asked.model},
            public=(),
            model=released,
            teacher=str(asked.teacher),
        ),
        validation=figures,
    )
    epsilon = float("inf") if record.claim.epsilon is None else record.claim.epsilon
    spent = PrivacySpent(epsilon=epsilon, delta=record.claim.delta)
    reporter.finish(
        epsilon=epsilon,
        delta=spent.delta,
        release=str(root / "release"),
        spender="nothing was spent here; the teacher, whose claim this is,",
    )
    return TrainingResult(
        spent=spent,
        claim_valid=record.claim_valid,
        release=root / "release",
        internal=internal,
        metrics=metrics or None,
        validation_data="public",
        record=record,
        seconds=time.monotonic() - started,
    )


def _require_others(
    public: DetectionDataset,
    runs: Sequence[RunState],
    private: Sequence[PrivateImages],
    *,
    where: str,
) -> None:
    """Refuse the images that the teacher was trained on, or its own, as far as their folders tell.

    The ledger that was asked for knows them only if these runs were charged in it. What else was
    charged in theirs is no part of the teacher: public images may be on record there as well.

    Args:
        public: The images that it labels.
        runs: The teacher's run, and that of its own teacher.
        private: Their images.
        where: The argument that gives the public ones.

    Raises:
        UnsafeArgumentError: Some of them are among these.
    """
    records = (*public.train, *public.val)
    behind, on_record = {run.run_id for run in runs}, False
    for ledger in {run.given.get("ledger") for run in runs}:
        with suppress(LedgerError):  # it may be another machine's
            charged = runs_on(records, ledger=ledger, create=False)
            on_record |= any(run.id in behind for run in charged)
    images = [record.image for record in records]
    if on_record or any(theirs.has_any_of(images) for theirs in private):
        raise UnsafeArgumentError(
            "the teacher was trained on images of it, and they are private",
            where=where,
            do="use public images that it has not seen",
        )


def _not_a_detector(where: str, *, do: str) -> ModelError:
    return ModelError("boxes that a detector draws are labels for another one", where=where, do=do)


def _names(model: nn.Module) -> list[str]:
    names: Any = model.names
    return [names[number] for number in sorted(names)]


def _validate(
    student: nn.Module, public: DetectionDataset, *, imgsz: int, folder: Path
) -> tuple[dict[str, float], ValidationFigures]:
    """Metrics on the public validation images, and figures for the report."""
    images, args = open_split(known_task(student), public, imgsz=imgsz)
    validator, metrics = evaluate(
        student.eval(), images, args=args, data=describe(public), folder=folder
    )
    return metrics, validation_figures(validator, student, cast(Any, images))


def _record(
    asked: StudentArguments,
    teacher: Teacher,
    *,
    student: nn.Module,
    metrics: dict[str, float],
    imgsz: int,
    n: int,
) -> PrivacyRecord:
    """The teacher's record, as that of what was made of it."""
    before = teacher.record
    assert before is not None
    weights = file_digest(Path(asked.model)) or None
    return before.model_copy(
        update={
            "teacher": teacher.statement(public_images=n),
            "data": before.data.model_copy(
                update={
                    "validation": ValidationData(
                        access="public" if metrics else "none", metrics_are_released=bool(metrics)
                    ),
                    "pretraining": PretrainingData(
                        access="public" if weights else "none", sha256=weights
                    ),
                }
            ),
            "training": Training(
                trainable="all",
                trained_parameters=sum(parameter.numel() for parameter in student.parameters()),
                norm="batch",
                engine="ultralytics",
            ),
            "configuration": {
                **{k: v for k, v in asked.stock.items() if k in release.PUBLIC_SETTINGS},
                "batch": asked.batch,
                "conf": asked.conf,
                "epochs": asked.epochs,
                "imgsz": imgsz,
            },
            "metrics": metrics or None,
            "audit": None,
            "weights": None,
            "signer": None,
            "software": this_software(),
            "hardware": this_machine(accelerator=None),
        }
    )
