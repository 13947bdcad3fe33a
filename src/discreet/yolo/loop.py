"""The steps of a private run, and the path of one image through them.

Drawn by the Poisson sampler, an image is loaded and augmented alone, and goes through a model
whose normalisations do not mix images to a loss of its own and a gradient of its own; clipped,
summed, noised, charged, and only then in the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor, nn

from discreet.accounting import Event
from discreet.errors import BudgetError, LedgerError
from discreet.gradients import GradientEngine, make_engine
from discreet.noise import DrawnAhead
from discreet.step import StepReport, private_step
from discreet.yolo.feature_cache import cache_for
from discreet.yolo.loading import MicroBatches, StepParts
from discreet.yolo.microbatch import automatic_size, even_size, filled, halves, images_in, units_of
from discreet.yolo.optimizer import set_learning_rates
from discreet.yolo.precision import too_many_at_once
from discreet.yolo.stages import Stage

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer


class StepLoop:
    """All steps that a trainer still has to run.

    Args:
        trainer: A trainer that is set up; its callbacks are fired, its reporter is told.
    """

    def __init__(self, trainer: PrivateDetectionTrainer) -> None:
        self.trainer = trainer
        self._epoch = 0
        self._epsilons: Mapping[int, float] = {}  # after each epoch, as planned

    def run(self) -> None:
        """Run the steps that are planned and not charged yet, or as many as the budget pays.

        Raises:
            BudgetError: It does not pay for the first one.
            LedgerError: A step ran that is not on record, or a record cannot be written.
        """
        trainer, team = self.trainer, self.trainer.team
        self._charge_the_rest_of_a_shuffled_epoch()
        step = team.told(trainer.charged) + 1
        parts = self.load_ahead(first_step=step)
        self._epsilons = trainer.plan.epsilon_by_epoch() if team.leads else {}
        trainer.reporter.start(trainer.plan.mechanism.steps)
        trainer.run_callbacks("on_train_start")
        for stage in trainer.stages:
            steps = range(step, stage.last_step + 1)
            if steps and not self._run_stage(stage, steps, parts):
                break
            step = max(step, stage.last_step + 1)
        trainer.cache = None

    def _run_stage(self, stage: Stage, steps: range, parts: StepParts) -> bool:
        """Run steps of one stage; whether they all ran."""
        trainer = self.trainer
        entries = {name: parameter.numel() for name, parameter in stage.parameters.items()}
        entries = entries if trainer.team.leads else {}  # nobody else makes noise
        engine = make_engine(
            trainer.prepared.performance.engine, cast(Any, trainer.model), stage.parameters
        )
        with stage.alone(trainer.parameters), DrawnAhead(trainer.source, entries) as noise:
            take = partial(self._step, parameters=stage.parameters, engine=engine, noise=noise)
            return self._run_steps(steps, parts, take)

    def _run_steps(self, steps: range, parts: StepParts, take: Callable[..., StepReport]) -> bool:
        trainer, plan, team = self.trainer, self.trainer.plan, self.trainer.team
        for step in steps:
            if plan.epoch_of(step) != self._epoch:
                self._epoch = plan.epoch_of(step)
                trainer.epoch = self._epoch - 1
                trainer.run_callbacks("on_train_epoch_start")
            trainer.lr = set_learning_rates(trainer.optimizer, trainer.learning_rate_factor(step))
            trainer.run_callbacks("on_train_batch_start")
            began = time.monotonic()
            try:
                report = take(step, parts.next_step())
            except BudgetError as error:
                team.tell(error)
                self._end_at_the_budget(error)
                return False
            losses = team.share(trainer.journal.take_losses())
            if team.leads:
                self._require_charged(step)
                self.write_journal(step, report, losses, seconds=time.monotonic() - began)
                trainer.run_callbacks("on_train_batch_end")
                trainer.reporter.step(step)
                trainer.keeper.save_where_cheap()
                if step == plan.last_step_of(self._epoch) or trainer.stop:
                    self._end_epoch(self._epoch, self._epsilons[self._epoch])
            else:
                trainer.executed += 1
            if team.told(trainer.stop):  # a callback's wish
                return False
        return True

    # ---- the path of one image ----

    def draws(self, *, first_step: int) -> Iterator[Sequence[int]]:
        """The units of each step, the same in all processes of the team."""
        trainer, mechanism = self.trainer, self.trainer.plan.mechanism
        sampler = mechanism.make_sampler()
        steps = range(first_step, mechanism.steps + 1)
        # A fresh key for every draw, known to the whole team and kept in memory alone.
        keys: list[int] = trainer.team.told([trainer.source.key() for _ in steps])
        return (cast(Sequence[int], sampler.draw(trainer.source.stream_of(key))) for key in keys)

    def load_ahead(self, *, first_step: int) -> StepParts:
        """This process's share of each draw, loaded in parts that fit its memory."""
        trainer = self.trainer
        dataset, performance = trainer.build_dataset(mode="train"), trainer.prepared.performance
        place = trainer.team.place
        draws = self.draws(first_step=first_step)
        mine = (draw[place.rank :: place.size] for draw in draws)  # units, dealt in turn
        trainer.cache = cache_for(trainer.front, dataset, gib=performance.feature_cache)
        return MicroBatches(
            dataset,
            trainer.units.chosen(mine, trainer.source),  # some images of each
            first_step=first_step,
            micro_batch_size=self.images_of_a_part,
            workers=performance.workers,
            pin_memory=trainer.device.type == "cuda",
            views=trainer.prepared.views,
            cache=trainer.cache,
            even=trainer.amp,
        )

    @property
    def images_of_a_part(self) -> int:
        """Most images that go through the model at once, units of more aside.

        In bfloat16 there are always so many: see `filled`.
        """
        trainer, mechanism = self.trainer, self.trainer.plan.mechanism
        most = trainer.prepared.performance.micro_batch_size or self._fitting
        if not trainer.amp:
            return most
        units = mechanism.expected_batch_size / trainer.team.place.size
        return even_size(most, units=units, of_a_unit=self.images_of_a_unit)

    @property
    def expected_images(self) -> float:
        """Images that a step is expected to read, if all units are as large as may be."""
        return self.trainer.plan.mechanism.expected_batch_size * self.images_of_a_unit

    @property
    def images_of_a_unit(self) -> int:
        """Most images, views included, that a step reads of a unit."""
        trainer = self.trainer
        return trainer.prepared.views * (trainer.plan.mechanism.max_images_per_unit or 1)

    @cached_property
    def _fitting(self) -> int:
        """Images that fit the memory, the same in all processes of the team."""
        trainer = self.trainer
        return trainer.team.told(
            automatic_size(
                trainer.model,
                trainer.parameters,
                imgsz=trainer.args.imgsz,
                device=trainer.device,
                sharing=trainer.team.place.local_size,
            )
        )

    def gradients_of(self, engine: GradientEngine, batch: dict[str, Any]) -> Any:
        """Gradient of each unit's loss, and the losses to the journal.

        Args:
            engine: Computes it.
            batch: A part of a step, as the loader gives it.
        """
        trainer = self.trainer
        if "img" in batch:
            batch = trainer.preprocess_batch(dict(batch))  # it writes into what it is given
        units, weights = units_of(batch, trainer.device)
        images = images_in(batch)
        if trainer.amp:
            size = self.images_of_a_part
            batch, units, weights = filled(batch, units, weights, size=size, device=trainer.device)
        terms = torch.zeros(0)

        def losses() -> Tensor:  # an engine may ask twice
            nonlocal terms
            terms = trainer.per_image_loss(trainer.predictions(batch), batch)
            return terms.sum(1) * weights  # a unit's loss is the mean over its images and views

        gradients = engine.per_example_gradients(losses, units)
        trainer.journal.add_losses(terms.detach()[:images])
        return gradients

    def _step(
        self,
        step: int,
        parts: Iterator[dict[str, Any]],
        *,
        parameters: Mapping[str, nn.Parameter],
        engine: GradientEngine,
        noise: DrawnAhead,
    ) -> StepReport:
        trainer, mechanism = self.trainer, self.trainer.plan.mechanism
        return private_step(
            parts,
            parameters=parameters,
            gradients_of=partial(self.gradients_of, engine),
            clipping=trainer.clipping,
            mechanism=noise.scaled_by(mechanism.make_mechanism(step)),
            expected_batch_size=mechanism.expected_batch_size,
            source=trainer.source,
            charge=partial(self.charge, mechanism.step_event(step)),
            optimizer=trainer.optimizer,
            split=self._refuse_fewer if trainer.amp else halves,
            team=trainer.team,
        )

    def _refuse_fewer(self, batch: dict[str, Any]) -> NoReturn:
        """In bfloat16 a part of fewer images would be filled up again, and may round otherwise.

        Raises:
            ConfigurationError: Always.
        """
        raise too_many_at_once(max(images_in(batch), self.images_of_a_part))

    def charge(self, event: Event) -> None:
        """Charge a step in the ledger; its update may only follow."""
        accounts = self.trainer.accounts
        assert accounts is not None
        accounts.charge(event)
        self.trainer.executed += event.steps  # nothing can come between it and its update

    # ---- around a step ----

    def _charge_the_rest_of_a_shuffled_epoch(self) -> None:
        # An interrupted epoch is dealt anew, so what is left of the old one counts as run.
        mechanism, accounts = self.trainer.plan.mechanism, self.trainer.accounts
        if mechanism.sampling == "shuffle" and accounts is not None:
            while (
                accounts.charged % mechanism.steps_per_epoch and accounts.charged < mechanism.steps
            ):
                accounts.charge(mechanism.step_event(accounts.charged + 1))

    def _end_at_the_budget(self, error: BudgetError) -> None:
        """Release what was trained so far: the step that did not fit was not applied."""
        trainer = self.trainer
        if not trainer.executed:
            raise error
        trainer.reporter.warning(f"{error.what}: the run ends after {trainer.charged} steps")

    def _require_charged(self, step: int) -> None:
        charged = self.trainer.charged
        if charged != step:
            raise LedgerError(
                f"step {step} ran, and {charged} were charged",
                where=str(self.trainer.internal),
                do="its weights are not covered by any claim: do not share them, and report this",
            )

    def write_journal(
        self, step: int, report: StepReport, losses: Sequence[Sequence[float]], *, seconds: float
    ) -> None:
        """Note a step in the journal, which stays inside.

        Args:
            step: Its number, from 1.
            report: What it did.
            losses: Sums of each process, by term.
            seconds: How long it took.
        """
        self.trainer.journal.write(
            step=step,
            report=report,
            losses=[sum(of_all) for of_all in zip(*losses, strict=True)],
            learning_rate=self.trainer.optimizer.param_groups[0]["lr"],
            seconds=seconds,
        )

    def _end_epoch(self, epoch: int, epsilon: float) -> None:
        trainer, epochs = self.trainer, self.trainer.plan.epochs
        trainer.run_callbacks("on_train_epoch_end")
        if epoch % max(1, trainer.args.save_period) == 0 or epoch == epochs:
            trainer.keeper.save()
        trainer.reporter.epoch(
            epoch=epoch, epochs=epochs, epsilon=epsilon, target=trainer.plan.target_epsilon
        )
        trainer.run_callbacks("on_fit_epoch_end")
