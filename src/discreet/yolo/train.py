"""Private training inside Ultralytics' trainer: what is set up before the first step, and the end.

The steps between, and the path of one image through them, are in `discreet.yolo.loop`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, callbacks

from discreet.checking import CheckReport
from discreet.clipping import Clipping
from discreet.distributed import join_team
from discreet.errors import ConfigurationError, TeamError
from discreet.launched import Place
from discreet.ledger import RunAccounts
from discreet.planning import plan_rows, plan_warnings, recipe_rows
from discreet.randomness import make_source
from discreet.result import TrainingResult
from discreet.statement.record import PrivacyRecord
from discreet.statement.signing import open_key
from discreet.terminal import Reporter, SilentReporter, count
from discreet.tracking import open_trackers
from discreet.units import PrivacyUnits
from discreet.yolo import _compat, finishing, release
from discreet.yolo.class_features import public_photographs, standardise_classes
from discreet.yolo.dataset import ImageSettings, describe
from discreet.yolo.devices import fits
from discreet.yolo.distillation import DistilledLoss
from discreet.yolo.feature_cache import FeatureCache, features_of
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.images import TaskImages, open_images
from discreet.yolo.journal import StepJournal
from discreet.yolo.keeping import Keeper, open_accounts
from discreet.yolo.loop import StepLoop
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import (
    attach_settings,
    build_model,
    fast_layout,
    open_source,
    set_norm,
    train_mode,
)
from discreet.yolo.optimizer import build_optimizer, keep_average, learning_rate_factor
from discreet.yolo.parts import block_of, make_parts, rate_factors
from discreet.yolo.precision import in_single_precision, takes_bfloat16
from discreet.yolo.preparation import PreparedRun, prepare, team_timeout
from discreet.yolo.run_folder import RunFolder
from discreet.yolo.tasks import Task
from discreet.yolo.zoom import alike, enlarging


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
        given = {**(overrides or {}), **(privacy or {})}
        self.team = join_team(timeout=team_timeout(given))
        self.reporter: Reporter = (self.team.leads and reporter) or SilentReporter()
        try:
            self._begin(given, cfg, _callbacks)
        except BaseException as error:
            self.team.leave(error)
            raise

    def _begin(self, given: Mapping[str, Any], cfg: Any, _callbacks: dict[str, Any] | None) -> None:
        threads = torch.get_num_threads()
        self.prepared = self._prepare(given)
        self.plan = self.prepared.plan
        self.dataset = self.prepared.dataset
        self._source = self.prepared.source
        self._data = describe(self.dataset)
        leads, arguments = self.team.leads, self.prepared.privacy
        self.key = open_key(arguments.sign) if leads else None  # before anything is spent
        self.trackers = open_trackers(arguments.track) if leads else {}
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
            self.folder.hide()  # its copy of the arguments
            if not leads:
                self.folder.discard()
        except BaseException:
            self._leave_folder()
            raise
        self.last = self.release / release.WEIGHTS
        self.best = self.release / "best.pt"  # never written: choosing it would look at data
        self.result: TrainingResult | None = None
        self.stop = False
        self.keeper, self.loop = Keeper(self), StepLoop(self)

    def _prepare(self, given: Mapping[str, Any]) -> PreparedRun:
        return prepare(given, reporter=self.reporter, team=self.team)

    def _begin_folder(self) -> None:
        begin = RunFolder.begin if self.team.leads else RunFolder.of_follower
        self.folder = begin(self.prepared)
        self.run_dir, self.internal = self.folder.root, self.folder.internal
        self.release = self.folder.release
        self.accounts: RunAccounts | None = None
        self.check: CheckReport | None = None
        self.cache: FeatureCache | None = None
        self.executed = 0

    def _leave_folder(self) -> None:
        """Let the run's folder go; take it away if nothing was spent in it."""
        if self.prepared.resumed is not None or self.charged:
            self.folder.close()
            return
        if self.accounts is not None:
            self.accounts.withdraw()
        self.folder.discard()

    @cached_property
    def units(self) -> PrivacyUnits:
        """The privacy units that the sampler draws, and their images."""
        maximum = self.plan.mechanism.max_images_per_unit or 1
        return self.dataset.units(max_images=maximum)

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

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event, in the process that leads."""
        if self.team.leads:
            super().run_callbacks(event)

    def get_dataset(self) -> dict[str, Any]:
        """The validated data set; Ultralytics' own reader may download, execute and write."""
        return self._data

    def get_model(
        self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> nn.Module:
        """A model for the data set's classes, started from public weights."""
        del cfg, verbose
        if weights is not None and not self.prepared.from_scratch:
            self._source = enlarging(open_source(weights), self.prepared.zoom)
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
            self._train_and_publish(started)
        except BaseException as error:
            self.team.leave(error)
            raise

    def _train_and_publish(self, started: float) -> None:
        try:
            self._setup_train()
            self.check = self._check_step()
            self.loop.run()
            with self.team.patiently():
                self.result = self._finish(started)
        except (KeyboardInterrupt, TeamError, ConfigurationError) as end:
            if self.charged:
                self.keeper.save()
                devices = self.prepared.state.given.get("device")
                more = "" if devices is None or fits(devices, Place()) else f" device={devices}"
                hint = f"resume with: discreet train resume={self.run_dir}{more}"
                if isinstance(end, TeamError):
                    end.do = hint
                elif isinstance(end, ConfigurationError):  # such as too much at once
                    end.do = f"{end.do}; {hint} and that"
                else:
                    end.add_note(hint)
            raise
        finally:
            self._leave_folder()

    def _finish(self, started: float) -> TrainingResult:
        if not self.team.leads:
            return TrainingResult.from_json(self.team.told(None))
        result = finishing.finish(self, started=started)
        with suppress(TeamError):  # the run has ended well, whoever is gone by now
            self.team.told(result.to_json())
        return result

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
            standardise_classes(model, public_photographs(self.args.imgsz))
        make_parts(model, self.prepared.trainable, imgsz=self.args.imgsz)
        fast_layout(model)
        self.stages = self.prepared.stages_of(model)
        self.parameters = dict(self.stages[-1].parameters)
        self.front = FrozenFront(model)
        self.per_image_loss = self._make_loss(model)
        self.optimizer = build_optimizer(
            self.args.optimizer,
            self.parameters,
            lr=self.args.lr0,
            momentum=self.args.momentum,
            weight_decay=self.args.weight_decay,
            factors=rate_factors(model, norm_lr=privacy.norm_lr or 1.0),
        )
        if privacy.ema is not None:
            keep_average(self.optimizer, decay=privacy.ema)
        self.clipping = self.make_clipping(self.plan.mechanism.max_grad_norm)
        self.accounts = open_accounts(self) if self.team.leads else None
        self.journal = StepJournal(
            self.internal / "steps.csv" if self.team.leads else None,
            terms=self.per_image_loss.names,
        )
        self._restore()
        self.source = make_source(self.prepared.privacy.insecure_seed)
        self.amp = takes_bfloat16(self)
        self.ema = None
        self.tloss, self.loss_items, self.metrics = {}, {}, {}
        self._announce()
        self.run_callbacks("on_pretrain_routine_end")

    def _make_loss(self, model: nn.Module) -> PerImageLoss | DistilledLoss:
        privacy, teacher = self.prepared.privacy, self.prepared.teacher
        loss = PerImageLoss(model, balance=privacy.balance or 0.0)
        if teacher is None:
            return loss
        guide = alike(teacher.model, self._source)
        return DistilledLoss(loss, model, guide, gain=privacy.teacher_gain)

    def make_clipping(self, max_grad_norm: float) -> Clipping:
        """The run's clipping rule at another max grad norm."""
        model = cast(Any, self.model)
        mechanism = self.plan.mechanism.model_copy(update={"max_grad_norm": max_grad_norm})
        return mechanism.make_clipping({name: block_of(model, name) for name in self.parameters})

    def _restore(self) -> None:
        """Begin where the leader's folder says, with the leader's weights."""
        if self.team.leads:
            self.keeper.restore()
        fact = [self.executed, self.clipping.sensitivity]
        self.executed, bound = self.team.publish(self.model.state_dict().values(), fact)
        self.clipping.follow(bound)

    @property
    def task(self) -> Task:
        """What is trained."""
        return self.prepared.task

    def build_dataset(
        self, img_path: str = "", mode: str = "train", batch: int | None = None
    ) -> TaskImages:
        """The images of a split: augmented alone for training, letterboxed for validation."""
        del img_path
        train, partners = mode == "train", self.prepared.partners
        return open_images(
            self.task,
            self.dataset.train if train else self.dataset.val,
            ImageSettings(
                data=self._data,
                imgsz=self.args.imgsz,
                hyp=self.args,
                augment=train,
                seed=self.args.seed,
                rect=not train,
                batch_size=batch or 16,
                stride=max(int(cast(Any, self.model).stride.max()), 32),
                partners=partners.train if train and partners else (),
            ),
        )

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch on the device; pixels become shares, where the loader has not done so."""
        if batch["img"].dtype == torch.uint8:
            return super().preprocess_batch(batch)
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def predictions(self, batch: dict[str, Any]) -> Any:
        """The model's output for images, or for their features where these are known."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            predicted = self.front.rest(features_of(batch, self.front, self.cache))
        return in_single_precision(predicted) if self.amp else predicted

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

    def _announce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.parameters.values())
        if self.charged:
            left = self.plan.mechanism.steps - self.charged
            self.reporter.notice(
                f"resuming after {self.charged} charged steps, {self.executed} in the weights"
                + ("" if left else ": none is left, and the release is made again")
            )
        self.reporter.plan(
            [
                # Reasons first: on a screen, the guarantee stays above the progress.
                *recipe_rows(self.prepared.chosen),
                *plan_rows(self.plan, trainable=self.prepared.trainable, parameters=parameters),
                *self._first_rows(),
                *(() if self.prepared.teacher is None else self.prepared.teacher.rows()),
            ],
            plan_warnings(self.plan, parameters=parameters, secure=self.source.secure),
        )

    def _first_rows(self) -> list[tuple[str, str]]:
        first, *later = self.stages
        what = f"{self.prepared.privacy.first_trainable}, for {count(first.last_step, 'step')}"
        return [("trained alone at first", what)] if later else []

    def make_record(self, metrics: Mapping[str, float]) -> PrivacyRecord:
        """What ran, on record, with metrics where these may be published."""
        return finishing.record_of(self, metrics)


def default_callbacks() -> dict[str, list[Any]]:
    """Ultralytics' own callbacks, without its integrations."""
    return callbacks.get_default_callbacks()
