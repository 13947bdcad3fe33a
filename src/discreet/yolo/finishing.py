"""The end of a run: from trained weights to a release that speaks for itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from discreet.ledger import Spent
from discreet.privacy import PrivacySpent
from discreet.result import TrainingResult
from discreet.statement.record import PrivacyRecord, make_record
from discreet.statement.report import ValidationFigures
from discreet.statement.schema import (
    PartnerData,
    PretrainingData,
    Teacher,
    Training,
    ValidationData,
)
from discreet.storage import write_json
from discreet.tracking import public_run
from discreet.yolo import release
from discreet.yolo.checkpoint import dataset_digest
from discreet.yolo.distillation import DistilledLoss
from discreet.yolo.evaluate import evaluate
from discreet.yolo.figures import validation_figures
from discreet.yolo.optimizer import use_average

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer


def finish(trainer: PrivateDetectionTrainer, *, started: float) -> TrainingResult:
    """Validate, publish and settle; `trainer.result` tells callbacks the outcome.

    Args:
        trainer: A trainer whose steps are over.
        started: When the run began, by the monotonic clock.

    Raises:
        ReleaseError: Something private would be in the release; nothing is published.
        StorageError: The disk refuses.
    """
    assert trainer.accounts is not None
    prepared, reporter = trainer.prepared, trainer.reporter
    use_average(trainer.optimizer)
    released = release.releasable(cast(Any, trainer.model), args=vars(trainer.args))
    metrics, figures = _validate(trainer, released) if trainer.args.val else ({}, None)
    record = release.publish(
        trainer.release,
        staging=trainer.internal / "release.part",
        released=released,
        record=trainer.make_record(metrics),
        key=trainer.key,
        words=release.private_words(
            trainer.dataset,
            run=trainer.run_dir,
            privacy=prepared.privacy,
            settings=vars(trainer.args),
            public=(
                trainer.task.name,
                prepared.trainable,
                prepared.norm,
                prepared.performance.engine,
                *(f.probe for f in (trainer.check.findings if trainer.check else ())),
            ),
            model=released,
            teacher=prepared.privacy.teacher,
        ),
        validation=figures,
    )
    epsilon = float("inf") if record.claim.epsilon is None else record.claim.epsilon
    result = trainer.result = TrainingResult(
        spent=PrivacySpent(epsilon=epsilon, delta=record.claim.delta),
        claim_valid=record.claim_valid,
        release=trainer.release,
        internal=trainer.internal,
        metrics=metrics or None,
        validation_data=prepared.privacy.val_data,
        record=record,
        seconds=time.monotonic() - started,
    )
    trainer.accounts.settle()
    write_json(trainer.internal / "metrics.json", metrics)
    if prepared.privacy.val_data == "public":
        trainer.metrics = dict(metrics)
    trainer.run_callbacks("on_model_save")
    trainer.run_callbacks("on_train_end")
    _track(trainer, record)
    for warning in record.warnings:
        reporter.warning(warning)
    reporter.finish(epsilon=epsilon, delta=record.claim.delta, release=str(trainer.release))
    return result


def _track(trainer: PrivateDetectionTrainer, record: PrivacyRecord) -> None:
    """Tell trackers; the release is made, so that their failure costs nothing."""
    if not trainer.trackers:
        return
    plan = trainer.plan
    epsilons = {plan.last_step_of(e): value for e, value in plan.epsilon_by_epoch().items()}
    run = public_run(
        record,
        epsilons=epsilons,
        learning_rates={
            step: trainer.args.lr0 * trainer.learning_rate_factor(step) for step in epsilons
        },
    )
    for name, tracker in trainer.trackers.items():
        try:
            tracker.publish(run, trainer.internal)
        except Exception as error:  # whatever a foreign service may raise
            trainer.reporter.warning(f"{name} was not told of the run: {error}")


def _validate(
    trainer: PrivateDetectionTrainer, released: nn.Module
) -> tuple[dict[str, float], ValidationFigures | None]:
    """Metrics of what is released on the validation images, and figures if these are public."""
    trainer.reporter.stage(f"validating on {len(trainer.dataset.val)} images")
    public = trainer.prepared.privacy.val_data == "public"
    model = deepcopy(released).float().to(trainer.device)
    dataset = trainer.build_dataset(mode="val")
    trainer.validator, metrics = evaluate(
        model,
        dataset,
        args=trainer.args,
        data=trainer.data,
        folder=trainer.internal,
        callbacks=trainer.callbacks if public else None,
    )
    if not public or not trainer.task.pictures:
        return metrics, None
    # Whether an image looks like a private one has no say in what is shown: that would tell.
    return metrics, validation_figures(trainer.validator, model, cast(Any, dataset))


def record_of(trainer: PrivateDetectionTrainer, metrics: Mapping[str, float]) -> PrivacyRecord:
    """What the trainer ran, on record; metrics only where the validation images are public."""
    assert trainer.accounts is not None
    prepared, privacy = trainer.prepared, trainer.prepared.privacy
    mechanism = trainer.plan.mechanism
    public = privacy.val_data == "public" and bool(metrics)
    return make_record(
        mechanism=mechanism,
        events=trainer.accounts.events,
        total=_total(trainer),
        executed_steps=trainer.executed,
        resumes=trainer.folder.resumes,
        source=trainer.source,
        reasons=prepared.reasons_against,
        training=Training(
            trainable=prepared.trainable,
            trained_parameters=sum(p.numel() for p in trainer.parameters.values()),
            norm=prepared.norm,
            engine=prepared.performance.engine,
        ),
        validation=ValidationData(
            access=privacy.val_data if trainer.args.val else "none", metrics_are_released=public
        ),
        pretraining=PretrainingData(
            access="none" if prepared.from_scratch else "public",
            sha256=None if prepared.from_scratch else prepared.starting_weights,
        ),
        configuration=release.public_settings(vars(trainer.args))
        | {
            "task": trainer.task.name,
            # What the recipe chose that no other field of the record tells.
            "recipe": privacy.recipe,
            "first_trainable": privacy.first_trainable,
            "first_steps": trainer.stages[0].last_step if len(trainer.stages) > 1 else None,
            "norm_lr": privacy.norm_lr,
            "ema": privacy.ema,
            "balance": privacy.balance,
            "standardise": privacy.standardise,
            "zoom": privacy.zoom,
            "views": privacy.views,
        },
        metrics=metrics if public else None,
        accelerator=release.accelerator(trainer.device),
        check=None if trainer.check is None else trainer.check.summary(),
        canaries=trainer.has_canaries,
        grouping=trainer.dataset.grouping,
        teacher=_teacher(trainer),
        partners=_partners(trainer),
    )


def _partners(trainer: PrivateDetectionTrainer) -> PartnerData | None:
    public = trainer.prepared.partners
    if public is None:
        return None
    return PartnerData(access="public", images=public.n, blake2b=dataset_digest(public))


def _teacher(trainer: PrivateDetectionTrainer) -> Teacher | None:
    teacher, loss = trainer.prepared.teacher, trainer.per_image_loss
    if teacher is None or not isinstance(loss, DistilledLoss):
        return None
    return teacher.statement(gain=loss.gain, terms=loss.match.terms)


def _total(trainer: PrivateDetectionTrainer) -> Spent:
    """What all runs together have spent, a private teacher's among them."""
    assert trainer.accounts is not None
    mechanism, accounts = trainer.plan.mechanism, trainer.accounts
    total = accounts.total(trainer.digests, units=trainer.units.of_images, mechanism=mechanism)
    if trainer.prepared.teacher is None:
        return total
    return trainer.prepared.teacher.counted_in(
        total,
        own=accounts.events,
        mechanism=mechanism,
        ledger=accounts.ledger,
        digests=trainer.digests,
    )
