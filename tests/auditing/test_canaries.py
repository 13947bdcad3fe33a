"""Canaries in the real private step: correct runs are never refuted, broken ones are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from discreet.accounting import calibrate_noise_multiplier, make_accountant
from discreet.auditing.canaries import (
    GREED,
    GradientCanaries,
    fair_coins,
    rehearsed_guesses,
    step_evidence,
)
from discreet.auditing.harness import audit_steps
from discreet.auditing.one_run import Guessing
from discreet.auditing.result import AuditResult, judge
from discreet.auditing.scores import CanaryScores
from discreet.clipping import ClippedSum, FlatClipping, PerExampleGradients
from discreet.config import MechanismConfig
from discreet.errors import ConfigurationError
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.randomness import InsecureSource, RandomSource, SecureSource

REAL, SIDE, STEPS, DELTA = 60, 80, 8, 1e-5


class NoClipping(FlatClipping):
    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        count = len(next(iter(gradients.squared_norms.values())))
        ones = dict.fromkeys(gradients.squared_norms, torch.ones(count))
        return ClippedSum(sums=gradients.weighted_sum(ones), sensitivity=self.sensitivity)


@dataclass(frozen=True, kw_only=True)
class NoiseOfTheBatch(GaussianMechanism):
    """Noise divided as if it were averaged already."""

    divisor: float = 1.0

    def privatise(self, clipped: ClippedSum, source: RandomSource) -> dict[str, Tensor]:
        weak = GaussianMechanism(noise_multiplier=self.noise_multiplier / self.divisor)
        return weak.privatise(clipped, source)


def claim_of(epsilon: float, *, canaries: int, sample_rate: float = 0.5) -> MechanismConfig:
    population = REAL + canaries
    batch = round(population * sample_rate)

    def claim(noise_multiplier: float) -> MechanismConfig:
        return MechanismConfig(
            population=population,
            expected_batch_size=batch,
            steps=STEPS,
            noise_multiplier=noise_multiplier,
            max_grad_norm=1.0,
            delta=DELTA,
        )

    return claim(
        calibrate_noise_multiplier(
            target_epsilon=epsilon,
            delta=DELTA,
            events=lambda sigma: claim(sigma).planned_events(),
            accountant=make_accountant("pld"),
        )
    )


@cache
def rehearsed(claim: MechanismConfig, canaries: int) -> tuple[Guessing, ...]:
    return rehearsed_guesses(
        canaries,
        noise_multiplier=claim.noise_multiplier,
        sample_rate=claim.sample_rate,
        steps=claim.steps,
        delta=claim.delta,
        stream=InsecureSource(0).stream(),
    )


def audited(
    claim: MechanismConfig, canaries: int, *, seed: int, claimed: float, **planted: object
) -> AuditResult:
    torch.manual_seed(seed)
    model = nn.Linear(SIDE, SIDE)
    data, wanted = torch.randn(REAL, SIDE), torch.randn(REAL, SIDE)
    parameters = dict(model.named_parameters())
    engine = make_engine("discreet", model, parameters)

    def gradients_of(units: np.ndarray) -> PerExampleGradients:
        batch = torch.from_numpy(units)
        return engine.per_example_gradients(
            lambda: (model(data[batch]) - wanted[batch]).square().sum(1)
        )

    source = InsecureSource(seed)
    scores = audit_steps(
        parameters=parameters,
        gradients_of=gradients_of,
        canaries=canaries,
        claim=claim,
        source=source,
        **planted,
    )
    return judge(
        scores,
        attack="gradient",
        adversary="",
        claimed_epsilon=claimed,
        delta=claim.delta,
        stream=source.stream(),
        guesses=rehearsed(claim, canaries),
    )


@pytest.fixture(scope="module")
def claim() -> MechanismConfig:
    return claim_of(8, canaries=4000)


@pytest.mark.slow
def test_twenty_correct_runs_are_not_refuted_and_show_three_tenths_of_epsilon(
    claim: MechanismConfig,
):
    promised = claim.planned().epsilon
    results = [audited(claim, 4000, seed=s, claimed=promised) for s in range(20)]
    bounds = [result.one_run.epsilon for result in results]
    assert not any(result.refuted for result in results)
    assert np.median(bounds) >= 0.3 * 8
    assert max(bounds) > 0.3 * 8


# A thousand canaries could prove 5.5 at most, so the claim is below that.
@pytest.fixture(scope="module")
def modest() -> MechanismConfig:
    return claim_of(3, canaries=1000)


def test_a_correct_run_of_the_modest_claim_is_not_refuted(modest: MechanismConfig):
    results = [audited(modest, 1000, seed=100 + s, claimed=3) for s in range(5)]
    assert not any(result.refuted for result in results)


@pytest.mark.parametrize(
    "planted",
    [
        {"noise": GaussianMechanism(noise_multiplier=0.0)},
        {"clipping": NoClipping(max_grad_norm=1.0)},
        {
            "clipping": FlatClipping(max_grad_norm=5.0),
            "noise": GaussianMechanism(noise_multiplier=0.3),
        },
        {"noise": NoiseOfTheBatch(noise_multiplier=1.0, divisor=100.0)},
    ],
    ids=["without noise", "without clipping", "wrong clip norm", "noise divided by the batch"],
)
def test_broken_runs_are_refuted(modest: MechanismConfig, planted: Mapping[str, object]):
    result = audited(modest, 1000, seed=1, claimed=3, **planted)
    assert result.refuted
    assert result.verdict.startswith("REFUTED")


def test_a_claim_beyond_reach_says_so(modest: MechanismConfig):
    result = audited(modest, 1000, seed=2, claimed=30)
    assert not result.refuted
    assert "cannot refute" in result.verdict


def test_the_result_is_plain_json(modest: MechanismConfig):
    import json

    facts = json.loads(json.dumps(audited(modest, 1000, seed=3, claimed=3).to_json()))
    assert facts["canaries"] == 1000 and facts["refuted"] is False
    assert set(facts["conditional"]) == {"gaussian_rates", "gaussian_one_run"}


# ---- the pieces ----


def parameters() -> dict[str, Tensor]:
    return {"a": torch.zeros(3, 4), "b": torch.zeros(5)}


def place(count: int = 12) -> GradientCanaries:
    return GradientCanaries.place(parameters(), count, max_grad_norm=2.0, source=InsecureSource(4))


def test_canaries_have_coordinates_of_their_own():
    canaries = place(17)  # as many as there are coordinates
    assert sorted(np.concatenate([c for c, _ in canaries.places.values()])) == list(range(17))
    assert sorted(canaries.places["a"][1]) == list(range(12))
    assert sorted(canaries.places["b"][1]) == list(range(5))


def test_more_canaries_than_coordinates_are_refused():
    with pytest.raises(ConfigurationError, match="17"):
        place(18)


def test_a_canary_s_contribution_is_clipped_like_an_image_s():
    canaries = replace(place(), included=np.ones(12, dtype=bool))
    drawn = np.array([1, 4, 11])
    gradients = canaries.gradients(drawn, parameters())
    assert sum(gradients.squared_norms.values()).tolist() == [(GREED * 2.0) ** 2] * 3
    clipped = FlatClipping(max_grad_norm=2.0).clip_and_sum(gradients)
    assert (clipped.units, clipped.clipped) == (3, 3)
    read = canaries.read(clipped.sums)
    assert np.flatnonzero(read).tolist() == [1, 4, 11]
    assert read[drawn] == pytest.approx(2.0, rel=1e-5)
    assert read.max() <= 2.0


def test_canaries_that_are_out_contribute_nothing():
    canaries = replace(place(), included=np.arange(12) == 4)
    clipped = FlatClipping(max_grad_norm=2.0).clip_and_sum(
        canaries.gradients(np.arange(12), parameters())
    )
    assert clipped.units == 1
    assert np.flatnonzero(canaries.read(clipped.sums)).tolist() == [4]


def test_coins_are_fair_and_fresh():
    coins = fair_coins(100_000, SecureSource())
    assert abs(coins.mean() - 0.5) < 0.01
    assert (fair_coins(64, SecureSource()) != fair_coins(64, SecureSource())).any()


def test_evidence_is_the_likelihood_ratio():
    from scipy.stats import norm

    seen = np.array([-2.0, 0.0, 0.7, 5.0])
    q, sigma = 0.3, 0.9
    expected = np.log(
        (q * norm.pdf(seen, 1, sigma) + (1 - q) * norm.pdf(seen, 0, sigma))
        / norm.pdf(seen, 0, sigma)
    )
    assert step_evidence(seen, noise_multiplier=sigma, sample_rate=q) == pytest.approx(expected)
    certain = step_evidence(seen, noise_multiplier=sigma, sample_rate=1.0)
    assert certain == pytest.approx((2 * seen - 1) / (2 * sigma**2))


def test_rehearsals_never_see_the_coins():
    """The numbers of guesses depend on the mechanism and a stream, on nothing of the run."""
    import inspect

    names = set(inspect.signature(rehearsed_guesses).parameters)
    assert names == {"canaries", "noise_multiplier", "sample_rate", "steps", "delta", "stream"}
    assert CanaryScores not in inspect.signature(rehearsed_guesses).parameters.values()
