"""One step, many times: what couples units is found by what it publishes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from discreet.accounting import (
    Event,
    PoissonSampledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)
from discreet.auditing.result import AuditResult, judge
from discreet.auditing.trials import ADVERSARY, step_trials
from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.randomness import InsecureSource
from discreet.step import private_step
from discreet.yolo.loss import PerImageLoss

from ..yolo.conftest import make_batch, make_model

DELTA, EPSILON, TRIALS, MAX_GRAD_NORM = 1e-5, 2.0, 600, 1.0
OTHERS = 12
LAST_LAYERS = ".cv3.0.2."  # a small part of the model: an audit may look at what it likes


def noise_multiplier() -> float:
    def one_step(sigma: float) -> list[Event]:
        return [PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=sigma, steps=1)]

    accountant = make_accountant("pld")
    found = calibrate_noise_multiplier(
        target_epsilon=EPSILON, delta=DELTA, events=one_step, accountant=accountant
    )
    assert accountant.epsilon(one_step(found), delta=DELTA) <= EPSILON
    return found


def neighbours() -> Mapping[bool, dict[str, Tensor]]:
    """A batch with one glaring image, and the same without it."""
    batch = make_batch([*[1, 2, 3] * 4, 2])
    batch["img"][OTHERS] = (batch["img"][OTHERS] > 0.5).float() * 30
    mine = batch["batch_idx"] < OTHERS
    without = {"img": batch["img"][:OTHERS]} | {
        key: batch[key][mine] for key in ("batch_idx", "cls", "bboxes")
    }
    return {True: batch, False: without}


def audit_of(model: nn.Module, *, mixing: bool) -> AuditResult:
    """Audit a step of this model, whose claim is ε = 2 with one unit more or less."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad and LAST_LAYERS in n}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in parameters)
    loss = PerImageLoss(model)
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    clipping = FlatClipping(max_grad_norm=MAX_GRAD_NORM)
    rows = rows_of if mixing else rows_of_engine
    gradients = {w: rows(model, loss, batch, parameters) for w, batch in neighbours().items()}
    source = InsecureSource(11)
    noise = GaussianMechanism(noise_multiplier=noise_multiplier())

    def step(included: bool) -> Mapping[str, Tensor]:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name])
        private_step(
            [included],
            parameters=parameters,
            gradients_of=gradients.__getitem__,
            clipping=clipping,
            mechanism=noise,
            expected_batch_size=1.0,
            source=source,
            charge=lambda: None,
            optimizer=torch.optim.SGD(parameters.values(), lr=1.0),
        )
        return {name: start[name] - parameters[name].detach() for name in parameters}

    scores = step_trials(
        step,
        known={world: clipping.clip_and_sum(found).sums for world, found in gradients.items()},
        trials=TRIALS,
        source=source,
    )
    return judge(
        scores,
        attack="trials",
        adversary=ADVERSARY,
        claimed_epsilon=EPSILON,
        delta=DELTA,
        stream=source.stream(),
    )


class Rows:
    """Per-unit gradients as they are, (B, …) by parameter."""

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        self.rows = rows

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        return {name: rows.flatten(1).square().sum(1) for name, rows in self.rows.items()}

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.einsum("b,b...->...", weights[name], r) for name, r in self.rows.items()
        }


def rows_of_engine(
    model: nn.Module,
    loss: PerImageLoss,
    batch: dict[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
) -> Rows:
    """What the engine gives, written out: the trials ask for it again and again."""
    found = make_engine("discreet", model, parameters).per_example_gradients(
        lambda: loss(model(batch["img"]), batch).sum(1)
    )
    each = [
        found.weighted_sum(dict.fromkeys(parameters, one)) for one in torch.eye(len(batch["img"]))
    ]
    return Rows({name: torch.stack([sums[name] for sums in each]) for name in parameters})


def rows_of(
    model: nn.Module,
    loss: PerImageLoss,
    batch: dict[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
) -> Rows:
    """Gradient of each image's own loss, by autograd: it refuses no layer that mixes images."""
    losses = loss(model(batch["img"]), batch).sum(1)
    each = [
        torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        for value in losses
    ]
    return Rows(
        {
            name: torch.stack(
                [torch.zeros_like(p) if g[i] is None else g[i] for g in each]
            ).detach()
            for i, (name, p) in enumerate(parameters.items())
        }
    )


@pytest.fixture(scope="module")
def frozen() -> AuditResult:
    return audit_of(make_model("frozen"), mixing=False)


def test_a_correct_step_is_not_refuted(frozen: AuditResult):
    assert not frozen.refuted
    assert frozen.rates.epsilon <= EPSILON  # trials are independent: this bound holds too
    assert frozen.one_run.epsilon > 0  # one draw of a few trials: how strong it is, is chance


def test_group_norm_is_not_refuted():
    assert not audit_of(make_model("group"), mixing=False).refuted


def test_batch_norm_in_training_mode_is_refuted(frozen: AuditResult):
    model = make_model("frozen")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    result = audit_of(model, mixing=True)
    assert result.refuted
    assert result.one_run.epsilon > frozen.one_run.epsilon


def test_the_rows_are_the_engine_s():
    """What refutes BatchNorm is its mode, not the way that its gradients are computed."""
    assert not audit_of(make_model("frozen"), mixing=True).refuted


def test_scores_are_zero_without_and_one_with_the_unit():
    known = {True: {"a": torch.tensor([3.0, 1.0])}, False: {"a": torch.tensor([1.0, 1.0])}}
    scores = step_trials(known.__getitem__, known=known, trials=50, source=InsecureSource(1))
    assert np.array_equal(scores.scores, scores.included.astype(float))
