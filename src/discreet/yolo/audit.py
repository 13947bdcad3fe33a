"""An audited run: the real trainer with canaries among its units.

White box (`attack=gradient`): canaries are units whose gradient is crafted; the attack reads every
step's noised gradient. Black box (`attack=image`): canaries are crafted images; the attack reads
their loss under the final weights. Either way, all canaries count in the population, a fair coin
of the run's own source says which are there, and the run's weights are for the audit only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from discreet.auditing import canaries as gradient
from discreet.auditing.canaries import CanaryWatch, GradientCanaries, fair_coins, rehearsed_guesses
from discreet.auditing.one_run import Guessing, fewest_canaries, reach
from discreet.auditing.result import AuditResult, judge
from discreet.auditing.scores import CanaryScores
from discreet.checking import CheckReport
from discreet.errors import ConfigurationError
from discreet.randomness import make_source
from discreet.result import TrainingResult
from discreet.statement.record import PrivacyRecord, with_audit
from discreet.storage import write_json
from discreet.terminal import Reporter
from discreet.yolo.canary_loops import GradientCanaryLoop, ImageCanaryLoop
from discreet.yolo.image_canaries import make_image_canaries
from discreet.yolo.membership import image_losses
from discreet.yolo.preparation import PreparedRun, prepare
from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

Attack = Literal["gradient", "image"]
DEFAULT_CANARIES: Mapping[Attack, int] = {"gradient": 5000, "image": 500}
_IMAGE_ADVERSARY = "sees the weights before and after the run; knows every canary, not its coin"
# An audit that could not prove this share of the claimed ε is not worth a run.
_USEFUL = 0.1


@dataclass(frozen=True, kw_only=True)
class AuditedRun:
    """A finished run with canaries.

    Attributes:
        result: What the attack proved.
        training: The run itself.
    """

    result: AuditResult
    training: TrainingResult

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object."""
        return {"audit": self.result.to_json(), **self.training.to_json()}


def audit_run(
    given: Mapping[str, Any],
    *,
    attack: Attack = "gradient",
    canaries: int | None = None,
    reporter: Reporter | None = None,
) -> AuditedRun:
    """Train with canaries, attack the run, and compare what the attack proves with the claim.

    Args:
        given: The arguments of `train`.
        attack: "gradient" (white box) or "image" (black box).
        canaries: Their number; see `DEFAULT_CANARIES`.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is spent or written.
    """
    count = DEFAULT_CANARIES[attack] if canaries is None else canaries
    if count < 1:
        raise ConfigurationError(
            f"expected canaries to be a whole number >= 1, got canaries={count}", where="canaries"
        )
    with TemporaryDirectory(prefix="discreet-canaries-") as folder:
        trainer = AuditedTrainer(
            {"name": "audit", **given},
            attack=attack,
            canaries=count,
            folder=Path(folder),
            reporter=reporter,
        )
        trainer.train()
    assert trainer.result is not None and trainer.audit is not None
    return AuditedRun(result=trainer.audit, training=trainer.result)


class AuditedTrainer(PrivateDetectionTrainer):
    """The private trainer, step for step, with canaries among the units that it draws.

    Args:
        given: See `audit_run`.
        attack: See `audit_run`.
        canaries: See `audit_run`.
        folder: An empty folder for image canaries.
        reporter: See `audit_run`.

    Attributes:
        audit: What the attack proved, once the run is over.
    """

    has_canaries = True

    def __init__(
        self,
        given: Mapping[str, Any],
        *,
        attack: Attack,
        canaries: int,
        folder: Path,
        reporter: Reporter | None = None,
    ) -> None:
        self._attack: Attack = attack
        self._count, self._folder = canaries, folder
        self._canary_records: tuple[Any, ...] = ()
        self.audit: AuditResult | None = None
        super().__init__(overrides=given, _callbacks=default_callbacks(), reporter=reporter)

    def _prepare(self, given: Mapping[str, Any]) -> PreparedRun:
        if str(given.get("resume", "")).lower() not in ("", "none", "false"):
            raise ConfigurationError(
                "an audit is not resumed: its coins are in no file",
                where="resume",
                do="run the audit anew",
            )
        if self.team.place.size > 1:
            raise ConfigurationError(
                "an audit runs in one process: its attack reads every step's gradient, and the "
                "coins of its canaries are no other process's to know",
                where="torchrun",
                do="run the audit alone; a run of several processes takes the same steps",
            )
        prepared = prepare(given, reporter=self.reporter, extra_units=self._count)
        self._units = len(prepared.dataset.units())
        if not math.isfinite(prepared.plan.promised.epsilon):
            raise ConfigurationError(
                "this run claims no ε that an audit could refute",
                where="noise_multiplier",
                do="audit a run with noise",
            )
        mechanism, noun = prepared.plan.mechanism, prepared.plan.mechanism.unit.noun
        if mechanism.sampling != "poisson" or mechanism.noise_schedule != "constant":
            raise ConfigurationError(
                "an audit knows Poisson samples and constant noise only",
                where="sampling, noise_schedule",
                do="leave them out for the audit",
            )
        self.reporter.notice(
            f"{self._count:,} canaries join the {self._units:,} training {noun}s: a fair coin each "
            "says whether it is really there, and all count in n. Right on every "
            f"one, the attack would prove ε >= {self._provable(prepared):.2f}, the most they can; "
            "where noise has it guess on the surest only, less. The weights are for the audit only."
        )
        return prepared if self._attack == "gradient" else self._with_images(prepared)

    def _provable(self, prepared: PreparedRun) -> float:
        """What the attack proves if it is right on every canary.

        Raises:
            ConfigurationError: So little that the run would be spent for nothing.
        """
        claimed, delta = prepared.plan.promised.epsilon, prepared.plan.mechanism.delta
        provable = reach(self._count, delta=delta, guesses=(Guessing(number=self._count),))
        if provable >= _USEFUL * claimed:
            return provable
        needed = fewest_canaries(_USEFUL * claimed, delta=delta)
        raise ConfigurationError(
            f"so few could prove ε >= {provable:.2f} at most, and {claimed:.2f} is claimed",
            where=f"canaries={self._count}",
            do="lower δ: at this one no number of canaries proves anything"
            if needed is None
            else f"nothing was spent; give {needed:,} at the very least; by default there are "
            f"{DEFAULT_CANARIES[self._attack]:,}",
        )

    def _with_images(self, prepared: PreparedRun) -> PreparedRun:
        source = make_source(prepared.privacy.insecure_seed)
        self._canary_records = make_image_canaries(
            self._folder,
            count=self._count,
            classes=prepared.dataset.nc,
            side=prepared.settings["imgsz"],
            stream=source.stream(),
        )
        train = (*prepared.dataset.train, *self._canary_records)
        dataset = dataclasses.replace(prepared.dataset, train=train)
        return dataclasses.replace(prepared, dataset=dataset)

    def _setup_train(self) -> None:
        super()._setup_train()
        cast(Any, self.model).audit_only = True  # travels inside the weights
        mechanism = self.plan.mechanism
        self._guesses: Sequence[Guessing] | None = None
        if self._attack == "image":
            self._included = fair_coins(self._count, self.source)
            self._losses_before = self._canary_losses()
            self.loop = ImageCanaryLoop(self, units=self._units, included=self._included)
            return
        if len(self.stages) > 1:
            raise ConfigurationError(
                "canaries of attack=gradient lie in what trains in every step",
                where="first_trainable",
                do="leave it out, or take attack=image",
            )
        canaries = GradientCanaries.place(
            self.parameters,
            self._count,
            max_grad_norm=mechanism.max_grad_norm,
            source=self.source,
        )
        self._watch = CanaryWatch(
            canaries,
            max_grad_norm=mechanism.max_grad_norm,
            noise_multiplier=mechanism.noise_multiplier,
            sample_rate=mechanism.sample_rate,
        )
        self.loop = GradientCanaryLoop(
            self, units=self._units, canaries=canaries, watch=self._watch
        )
        self._guesses = rehearsed_guesses(
            self._count,
            noise_multiplier=mechanism.noise_multiplier,
            sample_rate=mechanism.sample_rate,
            steps=mechanism.steps,
            delta=mechanism.delta,
            stream=self.source.stream(),
        )
        self.optimizer.register_step_pre_hook(self._observe)

    def _check_step(self) -> CheckReport:
        """The steps that the check tries have no canaries: they are no evidence."""
        report = super()._check_step()
        if self._attack == "gradient":
            self._watch.begin()
        return report

    def _observe(self, *_: Any) -> None:
        """Read what reaches the weights, in the last moment before it does."""
        batch = self.plan.mechanism.expected_batch_size
        self._watch.step(
            {
                name: cast(Any, parameter.grad).float() * batch
                for name, parameter in self.parameters.items()
            }
        )

    # ---- the verdict ----

    def _canary_losses(self) -> NDArray[np.float64]:
        return image_losses(
            self.model,
            self.per_image_loss,
            self._canary_records,
            data=self._data,
            imgsz=self.args.imgsz,
        )

    def _scores(self) -> CanaryScores:
        if self._attack == "gradient":
            return self._watch.scores()
        learnt = np.nan_to_num(self._losses_before - self._canary_losses())
        return CanaryScores(scores=learnt, included=self._included)

    def make_record(self, metrics: Mapping[str, float]) -> PrivacyRecord:
        """The run on record, with the verdict of the attack."""
        record = super().make_record(metrics)
        claim = record.claim
        self.audit = judge(
            self._scores(),
            attack=self._attack,
            adversary=gradient.ADVERSARY if self._attack == "gradient" else _IMAGE_ADVERSARY,
            claimed_epsilon=math.inf if claim.epsilon is None else claim.epsilon,
            delta=claim.delta,
            stream=self.source.stream(),
            guesses=self._guesses,
        )
        write_json(self.internal / "audit.json", self.audit.to_json())
        (self.reporter.warning if self.audit.refuted else self.reporter.notice)(self.audit.verdict)
        return with_audit(record, self.audit.to_json())
