"""Private training inside Ultralytics' trainer: one short loop over steps.

The path of one image: drawn by the Poisson sampler, loaded and augmented alone, through a model
whose normalisations do not mix images, to a loss of its own and a gradient of its own; clipped,
summed, noised, charged, and only then in the weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import psutil
import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, callbacks

from discreet.accounting import Event
from discreet.checking import CheckReport
from discreet.clipping import Clipping
from discreet.errors import BudgetError, LedgerError
from discreet.gradients import GradientEngine, make_engine
from discreet.gradients.records import Units
from discreet.ledger import OWN_RECORD, BudgetLedger, RunAccounts
from discreet.noise import DrawnAhead
from discreet.planning import plan_rows, plan_warnings, recipe_rows
from discreet.randomness import make_source
from discreet.result import TrainingResult
from discreet.statement.record import PrivacyRecord
from discreet.statement.signing import open_key
from discreet.step import StepReport, private_step
from discreet.storage import check_space
from discreet.terminal import Reporter, SilentReporter
from discreet.tracking import open_trackers
from discreet.yolo import _compat, finishing, release
from discreet.yolo.checkpoint import CHECKPOINT, Checkpoint
from discreet.yolo.class_features import standardise_classes
from discreet.yolo.dataset import MicroBatches, StepParts, describe
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.images import TaskImages, open_images
from discreet.yolo.journal import StepJournal
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import automatic_size, halves
from discreet.yolo.model import (
    attach_settings,
    build_model,
    fast_layout,
    open_source,
    set_norm,
    train_mode,
)
from discreet.yolo.optimizer import build_optimizer, learning_rate_factor
from discreet.yolo.parts import block_of, normalisation_parameters, select_trainable
from discreet.yolo.preparation import PreparedRun, prepare
from discreet.yolo.run_folder import RunFolder
from discreet.yolo.tasks import Task

# The optimizer's state is still empty in the first one, and a new one is written beside the old.
_CHECKPOINTS_OF_SPACE = 8
_SAVING_SHARE = 100  # training time between checkpoints, over the time that one takes


class PrivateDetectionTrainer(DetectionTrainer):
    """Trains a detector with DP-SGD; fires Ultralytics' callbacks, never its leaks.

    Use `PrivateDetectionTrainer.configure(epsilon=8)` as the `trainer=` of Ultralytics' own
    `YOLO(...).train`, or `discreet.PrivateYOLO`, which does the same.

    Args:
        cfg: Ultralytics' base configuration.
        overrides: Arguments, as `YOLO.train` hands them over; privacy arguments may be among
            them.
        _callbacks: Ultralytics callbacks by event.
        privacy: Privacy arguments, by name.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong with arguments, data, model or disk, before
            anything is spent or written.
    """

    has_canaries = False
    """Whether an audit's canaries are among the training records."""

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: Mapping[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
        *,
        privacy: Mapping[str, Any] | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.reporter: Reporter = reporter or SilentReporter()
        threads = torch.get_num_threads()
        given = {**(overrides or {}), **(privacy or {})}
        self.prepared = self._prepare(given)
        self.plan = self.prepared.plan
        self.dataset = self.prepared.dataset
        self._source = self.prepared.source
        self._data = describe(self.dataset)
        self.key = open_key(self.prepared.privacy.sign)  # before anything is spent
        self.trackers = open_trackers(self.prepared.privacy.track)
        self._begin_folder()
        known = {k: v for k, v in self.prepared.settings.items() if k not in {"project", "name"}}
        known |= {"save_dir": str(self.internal), "epochs": self.plan.epochs}
        known |= {"batch": self.plan.mechanism.expected_batch_size}
        try:
            with _compat.no_integrations():
                super().__init__(cfg, known, _callbacks)
            # Choosing a CPU, Ultralytics leaves one core idle: on two cores, half of them.
            torch.set_num_threads(threads)
            self.wdir.rmdir()  # made by Ultralytics, never used
        except BaseException:
            self._leave_folder()
            raise
        self.last = self.release / release.WEIGHTS
        self.best = self.release / "best.pt"  # never written: choosing it would look at data
        self.result: TrainingResult | None = None
        self.stop = False

    def _prepare(self, given: Mapping[str, Any]) -> PreparedRun:
        return prepare(given, reporter=self.reporter)

    def _begin_folder(self) -> None:
        self.folder = RunFolder.begin(self.prepared)
        self.run_dir, self.internal = self.folder.root, self.folder.internal
        self.release = self.folder.release
        self.accounts: RunAccounts | None = None
        self.check: CheckReport | None = None
        self.executed = 0

    def _leave_folder(self) -> None:
        """Let the run's folder go; take it away if nothing was spent in it."""
        if self.prepared.resumed is not None or self.charged:
            self.folder.close()
            return
        if self.accounts is not None:
            self.accounts.withdraw()
        self.folder.discard()

    @property
    def digests(self) -> list[bytes]:
        """What the ledger knows the units by, in the order of their numbers."""
        return [record.digest for record in self.dataset.train]

    @property
    def charged(self) -> int:
        """Steps charged so far."""
        return 0 if self.accounts is None else self.accounts.charged

    @classmethod
    def configure(cls, *, reporter: Reporter | None = None, **privacy: Any) -> Any:
        """A trainer for `YOLO(...).train(trainer=…)` with these privacy arguments."""
        return partial(cls, privacy=privacy, reporter=reporter)

    # ---- what Ultralytics asks of a trainer ----

    def get_dataset(self) -> dict[str, Any]:
        """The validated data set; Ultralytics' own reader may download, execute and write."""
        return self._data

    def get_model(
        self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> nn.Module:
        """A model for the data set's classes, started from public weights."""
        del cfg, verbose
        if weights is not None and not self.prepared.from_scratch:
            self._source = open_source(weights)
        return build_model(
            self._source,
            names=self.dataset.names,
            imgsz=self.prepared.settings["imgsz"],
            kpt_shape=self._data.get("kpt_shape"),
            remap=self.prepared.settings.get("cls_remap", True),
            pretrained=not self.prepared.from_scratch,
        )

    def _do_train(self) -> None:
        started = time.monotonic()
        try:
            self._setup_train()
            self.check = self._check_step()
            self._train_steps()
            finishing.finish(self, started=started)
        except KeyboardInterrupt as interrupt:
            if self.charged:
                self._save_checkpoint()
                interrupt.add_note(f"resume with: discreet train resume={self.run_dir}")
            raise
        finally:
            self._leave_folder()

    def _check_step(self) -> CheckReport:
        from discreet.yolo.checking import require_passed  # it imports this module

        return require_passed(self)

    def _setup_train(self) -> None:
        if not isinstance(cast(Any, self.model), nn.Module):  # still the name of a file
            self.model = self.get_model()
        model = cast(Any, self.model)
        attach_settings(model, vars(self.args))
        model.nc, model.names = self.dataset.nc, self._data["names"]
        if "kpt_shape" in self._data:
            model.kpt_shape = self._data["kpt_shape"]
        set_norm(model, self.prepared.norm)
        model.to(self.device)
        train_mode(model)
        privacy = self.prepared.privacy
        if privacy.standardise:
            standardise_classes(model)
        fast_layout(model)
        self.parameters = select_trainable(
            model, self.prepared.trainable, freeze=self.args.freeze, imgsz=self.args.imgsz
        )
        self.per_image_loss = PerImageLoss(model, balance=privacy.balance or 0.0)
        self.optimizer = build_optimizer(
            self.args.optimizer,
            self.parameters,
            lr=self.args.lr0,
            momentum=self.args.momentum,
            weight_decay=self.args.weight_decay,
            norms=normalisation_parameters(model),
            norm_lr=privacy.norm_lr or 1.0,
        )
        self.clipping = self.make_clipping(self.plan.mechanism.max_grad_norm)
        self.accounts = self._open_accounts()
        self.journal = StepJournal(self.internal / "steps.csv", terms=self.per_image_loss.names)
        self._restore()
        self.source = make_source(self.prepared.privacy.insecure_seed)
        self.amp = self.args.amp == "bf16"
        self.front = self._frozen_front()
        self.ema = None
        self.tloss, self.loss_items, self.metrics = {}, {}, {}
        self._announce()
        self.run_callbacks("on_pretrain_routine_end")

    def _frozen_front(self) -> FrozenFront | None:
        memory = min(
            self.prepared.performance.feature_memory, psutil.virtual_memory().available // 4
        )
        return FrozenFront.of(
            cast(Any, self.model),
            self.parameters,
            settings=vars(self.args),
            device=self.device,
            memory=0 if self.amp else memory,
        )

    def make_clipping(self, max_grad_norm: float) -> Clipping:
        """The run's clipping rule at another max grad norm."""
        model = cast(Any, self.model)
        mechanism = self.plan.mechanism.model_copy(update={"max_grad_norm": max_grad_norm})
        return mechanism.make_clipping({name: block_of(model, name) for name in self.parameters})

    def _open_accounts(self) -> RunAccounts:
        prepared, mechanism = self.prepared, self.plan.mechanism
        # An interrupted run that has charged has a ledger: another place is a mistake.
        create = not (self.internal / OWN_RECORD).exists()
        ledger = BudgetLedger.open(prepared.privacy.ledger, create=create)
        private = not prepared.reasons_against
        if RunAccounts.exist(self.internal, ledger=ledger, run_id=prepared.state.run_id):
            return RunAccounts.go_on(
                self.internal,
                ledger=ledger,
                run_id=prepared.state.run_id,
                digests=self.digests,
                mechanism=mechanism,
                private=private,
            )
        return RunAccounts.begin(
            self.internal,
            ledger=ledger,
            run_id=prepared.state.run_id,
            label=str(self.run_dir),
            name=self.dataset.yaml.parent.name,
            digests=self.digests,
            mechanism=mechanism,
            private=private,
        )

    def _restore(self) -> None:
        """Go on from the last checkpoint; prove that the disk takes one before the first step."""
        assert self.accounts is not None
        checkpoint = Checkpoint.load(self.internal, seal=self.accounts.seal)
        if checkpoint is not None:
            checkpoint.restore(self.model, self.optimizer)
            self.executed = checkpoint.executed
            self.clipping = self.make_clipping(checkpoint.max_grad_norm)
        if self.executed > self.charged:
            raise LedgerError(
                f"the weights hold {self.executed} steps, the ledger only {self.charged}",
                where=str(self.internal),
                do="restore the ledger from a backup; without it the run cannot go on",
            )
        self._save_checkpoint()
        size = (self.internal / CHECKPOINT).stat().st_size
        check_space(self.internal, needed=_CHECKPOINTS_OF_SPACE * size)

    def _train_steps(self) -> None:
        entries = {name: parameter.numel() for name, parameter in self.parameters.items()}
        with DrawnAhead(self.source, entries) as noise:
            self._run_steps(noise)

    def _run_steps(self, noise: DrawnAhead) -> None:
        mechanism, plan = self.plan.mechanism, self.plan
        self._charge_the_rest_of_a_shuffled_epoch()
        micro_batches = self._load_ahead(first_step=self.charged + 1)
        epsilons = plan.epsilon_by_epoch()
        self.reporter.start(mechanism.steps)
        self.run_callbacks("on_train_start")
        epoch = 0
        engine = make_engine(self.prepared.performance.engine, self.model, self.parameters)
        for step in range(self.charged + 1, mechanism.steps + 1):
            if plan.epoch_of(step) != epoch:
                epoch = plan.epoch_of(step)
                self.epoch = epoch - 1
                self.run_callbacks("on_train_epoch_start")
            self._set_learning_rate(step)
            self.run_callbacks("on_train_batch_start")
            began = time.monotonic()
            try:
                report = private_step(
                    micro_batches.next_step(),
                    parameters=self.parameters,
                    gradients_of=partial(self._gradients_of, engine),
                    clipping=self.clipping,
                    mechanism=noise.scaled_by(mechanism.make_mechanism(step)),
                    expected_batch_size=mechanism.expected_batch_size,
                    source=self.source,
                    charge=partial(self._charge, mechanism.step_event(step)),
                    optimizer=self.optimizer,
                    split=halves,
                )
            except BudgetError as error:
                self._end_at_the_budget(error)
                break
            self._require_charged(step)
            self._write_journal(step, report, seconds=time.monotonic() - began)
            self.run_callbacks("on_train_batch_end")
            self.reporter.step(step)
            self._save_checkpoint_where_cheap()
            if step == plan.last_step_of(epoch) or self.stop:
                self._end_epoch(epoch, epsilons[epoch])
            if self.stop:
                break

    def _require_charged(self, step: int) -> None:
        if self.charged != step:
            raise LedgerError(
                f"step {step} ran, and {self.charged} were charged",
                where=str(self.internal),
                do="its weights are not covered by any claim: do not share them, and report this",
            )

    def _charge_the_rest_of_a_shuffled_epoch(self) -> None:
        # An interrupted epoch is dealt anew, so what is left of the old one counts as run.
        mechanism = self.plan.mechanism
        if mechanism.sampling == "shuffle":
            assert self.accounts is not None
            while self.charged % mechanism.steps_per_epoch and self.charged < mechanism.steps:
                self.accounts.charge(mechanism.step_event(self.charged + 1))

    def _end_at_the_budget(self, error: BudgetError) -> None:
        """Release what was trained so far: the step that did not fit was not applied."""
        if not self.executed:
            raise error
        self.reporter.warning(f"{error.what}: the run ends after {self.charged} steps")
        self.stopped_by_budget = True

    # ---- the path of one image ----

    def _draws(self, *, first_step: int) -> Iterator[Sequence[int]]:
        sampler = self.plan.mechanism.make_sampler()
        for _ in range(first_step, self.plan.mechanism.steps + 1):
            yield cast(Sequence[int], sampler.draw(self.source.stream()))

    def _load_ahead(self, *, first_step: int) -> StepParts:
        dataset = self.build_dataset(mode="train")
        size = self.prepared.performance.micro_batch_size or automatic_size(
            self.model, self.parameters, imgsz=self.args.imgsz, device=self.device
        )
        return MicroBatches(
            dataset,
            self._draws(first_step=first_step),
            first_step=first_step,
            micro_batch_size=size,
            workers=self.prepared.performance.workers,
            pin_memory=self.device.type == "cuda",
            views=self.prepared.privacy.views or 1,
        )

    @property
    def task(self) -> Task:
        """What is trained."""
        return self.prepared.task

    def build_dataset(
        self, img_path: str = "", mode: str = "train", batch: int | None = None
    ) -> TaskImages:
        """The images of a split: augmented alone for training, letterboxed for validation."""
        del img_path
        train = mode == "train"
        return open_images(
            self.task,
            self.dataset.train if train else self.dataset.val,
            data=self._data,
            imgsz=self.args.imgsz,
            hyp=self.args,
            augment=train,
            seed=self.args.seed,
            rect=not train,
            batch_size=batch or 16,
            stride=max(int(cast(Any, self.model).stride.max()), 32),
        )

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device; pixels become shares, where the loader has not done so."""
        if batch["img"].dtype == torch.uint8:
            return super().preprocess_batch(batch)
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _gradients_of(self, engine: GradientEngine, batch: dict[str, Any]) -> Any:
        pixels = batch["img"]
        batch = self.preprocess_batch(dict(batch))  # it writes into what it is given
        views = int(batch.get("views", 1))
        units = _views_together(len(batch["img"]), views, self.device) if views > 1 else None
        terms = torch.zeros(0)

        def losses() -> Tensor:  # an engine may ask twice
            nonlocal terms
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                predictions = self._predict(batch["img"], pixels)
            terms = self.per_image_loss(predictions, batch)
            return terms.sum(1) / views  # an image's loss is the mean over its views

        gradients = engine.per_example_gradients(losses, units)
        self.journal.add_losses(terms.detach())
        return gradients

    def _predict(self, images: Tensor, pixels: Tensor) -> Any:
        if self.front is not None:
            return self.front.predict(images, pixels=pixels)
        return self.model(images)

    def _charge(self, event: Event) -> None:
        assert self.accounts is not None
        self.accounts.charge(event)
        self.executed += event.steps  # its update follows, and nothing can come between

    # ---- telling, keeping, finishing ----

    def learning_rate_factor(self, step: int) -> float:
        """Factor on the initial learning rate in the `step`-th step, from 1."""
        mechanism = self.plan.mechanism
        steps_per_epoch = mechanism.population / mechanism.expected_batch_size
        return learning_rate_factor(
            step,
            steps=mechanism.steps,
            final=self.args.lrf,
            cosine=self.args.cos_lr,
            warmup=self.args.warmup_epochs * steps_per_epoch,
        )

    def _set_learning_rate(self, step: int) -> None:
        factor = self.learning_rate_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.lr = {f"lr/pg{i}": g["lr"] for i, g in enumerate(self.optimizer.param_groups)}

    def _write_journal(self, step: int, report: StepReport, *, seconds: float) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        self.journal.write(step=step, report=report, learning_rate=rate, seconds=seconds)

    def _end_epoch(self, epoch: int, epsilon: float) -> None:
        self.run_callbacks("on_train_epoch_end")
        if epoch % max(1, self.args.save_period) == 0 or epoch == self.plan.epochs:
            self._save_checkpoint()
        self.reporter.epoch(
            epoch=epoch,
            epochs=self.plan.epochs,
            epsilon=epsilon,
            target=self.plan.target_epsilon,
        )
        self.run_callbacks("on_fit_epoch_end")

    def _save_checkpoint(self) -> None:
        assert self.accounts is not None
        began = time.monotonic()
        Checkpoint(
            executed=self.executed,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            max_grad_norm=self.clipping.sensitivity,
        ).save(self.internal, seal=self.accounts.seal)
        self._saved_at = time.monotonic()
        self._saving_takes = self._saved_at - began

    def _save_checkpoint_where_cheap(self) -> None:
        """Keep what a crash may lose small, for a hundredth of the time."""
        if time.monotonic() - self._saved_at > _SAVING_SHARE * self._saving_takes:
            self._save_checkpoint()

    def _announce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.parameters.values())
        if self.charged:
            self.reporter.notice(
                f"resuming after {self.charged} charged steps, {self.executed} in the weights"
            )
        self.reporter.plan(
            [
                *plan_rows(self.plan, trainable=self.prepared.trainable, parameters=parameters),
                *recipe_rows(self.prepared.chosen),
            ],
            plan_warnings(self.plan, parameters=parameters, secure=self.source.secure),
        )

    def make_record(self, metrics: Mapping[str, float]) -> PrivacyRecord:
        """What ran, on record, with metrics where these may be published."""
        return finishing.record_of(self, metrics)


def _views_together(images: int, views: int, device: torch.device) -> Units:
    """The views of an image, one behind the other, as one unit."""
    index = torch.arange(images, device=device) // views
    return Units(index=index, count=images // views)


def default_callbacks() -> dict[str, list[Any]]:
    """Ultralytics' own callbacks, without its integrations."""
    return callbacks.get_default_callbacks()
