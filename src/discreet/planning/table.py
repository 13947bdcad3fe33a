"""The same request with other batch sizes and epochs, side by side."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from discreet.accounting import calibrate_noise_multiplier, make_accountant
from discreet.accounting.calibration import MAX_NOISE_MULTIPLIER, MIN_NOISE_MULTIPLIER
from discreet.config import MechanismConfig, steps_for
from discreet.errors import DiscreetError
from discreet.planning.cost import StepTime
from discreet.planning.figures import ACCOUNTANTS, Figures, prv_answers
from discreet.planning.training import TrainingPlan

_BATCHES, _EPOCHS = 4, 3
_DIGITS = 4
_SECANTS = 6
_USUAL_SLOPE = -1.3  # of log ε against log σ
_TIGHT = 5e-3  # relative distance below the target that is close enough to compare runs


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the table.

    Attributes:
        expected_batch_size: Expected images in a step, B.
        epochs: Expected passes over the images; not whole where steps were asked for.
        steps: Steps.
        sample_rate: q = B / n.
        noise_multiplier: σ; None where no noise reaches the target.
        noise_per_coordinate: σ / B, relative to a clipped image; None without σ.
        epsilon: By accountant, about 1 % loose except in the requested run.
        seconds: Expected time; None if nothing was measured.
        requested: Whether it is the run that was asked for.
    """

    expected_batch_size: int
    epochs: float
    steps: int
    sample_rate: float
    noise_multiplier: float | None
    noise_per_coordinate: float | None
    epsilon: Mapping[str, float | None]
    seconds: float | None
    requested: bool


def table_of(
    plan: TrainingPlan,
    figures: Figures,
    *,
    epochs: float,
    time: StepTime | None,
    states: float = math.inf,
    images_per_unit: float = 1.0,
    tell: Callable[[int, int], None] | None = None,
) -> tuple[Cell, ...]:
    """The request among its neighbours, by batch size, then epochs.

    With a target ε, every cell has the noise that meets it; with a given noise, the same noise.

    Args:
        plan: The requested run.
        figures: Its ε.
        epochs: Its expected passes over the images, as asked.
        time: What a step takes, if it was measured.
        states: As in `StepTime.seconds`.
        images_per_unit: Images that a drawn unit costs on average.
        tell: Called with (cells done, cells in all).
    """
    own = plan.mechanism
    search = _NoiseSearch(plan)
    batches = batches_around(own.expected_batch_size, own.population)
    choices = epochs_around(epochs)
    total = len(batches) * len(choices)
    cells: list[Cell] = []
    for batch in batches:
        for passes in choices:
            if batch == own.expected_batch_size and passes == epochs:
                run, noise, epsilon = own, own.noise_multiplier, figures.epsilon
            else:
                run = resized(own, batch=batch, epochs=passes)
                noise, known = search.noise(run)
                epsilon = _epsilon(run, noise, own.delta, known=known)
            cells.append(
                Cell(
                    expected_batch_size=batch,
                    epochs=passes,
                    steps=run.steps,
                    sample_rate=run.sample_rate,
                    noise_multiplier=noise,
                    noise_per_coordinate=None if noise is None else noise / batch,
                    epsilon=epsilon,
                    seconds=time
                    and time.seconds(
                        steps=run.steps, expected_images=batch * images_per_unit, states=states
                    ),
                    requested=epsilon is figures.epsilon,
                )
            )
            if tell is not None:
                tell(len(cells), total)
    return tuple(cells)


def batches_around(batch: int, population: int) -> list[int]:
    """Up to four batch sizes, halves and doubles, the given one among them."""
    sizes = {batch}
    larger, smaller = batch, batch
    while len(sizes) < _BATCHES and (larger < population or smaller > 1):
        if larger < population:
            larger = min(2 * larger, population)
            sizes.add(larger)
        if len(sizes) < _BATCHES and smaller > 1:
            smaller = math.ceil(smaller / 2)
            sizes.add(smaller)
    return sorted(sizes)


def epochs_around(epochs: float) -> list[float]:
    """Three numbers of epochs, a half and a double, the given one among them."""
    half = epochs / 2
    if half < 1:
        return [epochs, 2 * epochs, 4 * epochs]
    return [float(math.floor(half)), epochs, 2 * epochs]


def resized(mechanism: MechanismConfig, *, batch: int, epochs: float) -> MechanismConfig:
    """The same with another expected batch size and number of passes; a cap grows with it."""
    changes: dict[str, int] = {
        "expected_batch_size": batch,
        "steps": steps_for(
            epochs=epochs, population=mechanism.population, expected_batch_size=batch
        ),
    }
    if mechanism.largest_batch is not None:
        scale = batch / mechanism.expected_batch_size
        changes["largest_batch"] = max(batch, math.ceil(mechanism.largest_batch * scale))
    return mechanism.model_copy(update=changes)


def _epsilon(
    run: MechanismConfig, noise: float | None, delta: float, *, known: Mapping[str, float]
) -> dict[str, float | None]:
    """ε by every accountant that answers, those already known not asked again."""
    found: dict[str, float | None] = dict.fromkeys(ACCOUNTANTS)
    if noise is None:
        return found
    for name in ACCOUNTANTS:
        if name in known:
            found[name] = known[name]
        elif name != "prv" or prv_answers(found["pld"]):
            with contextlib.suppress(DiscreetError):
                accountant = make_accountant(name).coarse()
                found[name] = accountant.epsilon(
                    run.with_noise(noise).planned_events(), delta=delta
                )
    return found


class _NoiseSearch:
    """The noise that other runs need for the same ε, each found from the one before.

    log ε is close to linear in log σ: two or three questions where a calibration from nothing
    asks fifteen. The coarse accountant is an upper bound: noise that meets the target by it,
    meets the target.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self._target, self._delta = plan.target_epsilon, plan.mechanism.delta
        self._given = plan.mechanism.noise_multiplier
        self._name = plan.mechanism.accountant
        self._accountant = plan.mechanism.make_accountant().coarse()
        self._run, self._noise, self._slope = plan.mechanism, self._given, _USUAL_SLOPE

    def noise(self, run: MechanismConfig) -> tuple[float | None, dict[str, float]]:
        """Noise for a run, None if none reaches the target; and its ε by accountant, if known."""
        if self._target is None:
            return self._given, {}
        # Over full batches σ grows with √T, over rare samples hardly: halfway is a good start.
        growth = math.sqrt(_work(run) / _work(self._run))
        noise = _rounded_up(min(max(self._noise * math.sqrt(growth), 0.05), 1e3))
        spent = self._spent(run, noise)
        for _ in range(_SECANTS):
            off = math.log(spent / self._target)
            if -_TIGHT <= off <= 0:
                self._run, self._noise = run, noise
                return noise, {self._name: spent}
            move = min(max((-_TIGHT / 2 - off) / self._slope, -1.5), 1.5)
            better = _rounded_up(noise * math.exp(move))
            if better == noise or not MIN_NOISE_MULTIPLIER <= better <= MAX_NOISE_MULTIPLIER:
                break
            there = self._spent(run, better)
            self._slope = min(math.log(there / spent) / math.log(better / noise), -0.05)
            noise, spent = better, there
        return self._calibrated(run)

    def _spent(self, run: MechanismConfig, noise: float) -> float:
        epsilon = self._accountant.epsilon(
            run.with_noise(noise).planned_events(), delta=self._delta
        )
        return min(max(epsilon, 1e-9), 1e9)

    def _calibrated(self, run: MechanismConfig) -> tuple[float | None, dict[str, float]]:
        assert self._target is not None
        try:
            noise = calibrate_noise_multiplier(
                target_epsilon=self._target,
                delta=self._delta,
                events=lambda sigma: run.with_noise(sigma).planned_events(),
                accountant=self._accountant,
            )
        except DiscreetError:
            return None, {}
        return noise, {}


def _work(run: MechanismConfig) -> float:
    return run.sample_rate * run.sample_rate * run.steps


def _rounded_up(noise: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(noise)) + 1 - _DIGITS)
    return math.ceil(noise / unit - 1e-9) * unit


def best_noise(cells: Sequence[Cell], *, epochs: float) -> Cell | None:
    """The run of as many epochs with the least noise over all its steps: σ / (B √T)."""
    alike = [cell for cell in cells if cell.epochs == epochs and cell.noise_per_coordinate]
    return min(
        alike,
        key=lambda cell: (cell.noise_per_coordinate or math.inf) / math.sqrt(cell.steps),
        default=None,
    )
