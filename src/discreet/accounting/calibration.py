"""From a target ε to the noise that keeps it, and the δ that goes without saying."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal

from scipy import optimize

from discreet import _validate
from discreet.accounting.accountant import Accountant
from discreet.accounting.events import PoissonSampledGaussian
from discreet.errors import AccountingError

# Noise as large as ten thousand clipped units together drowns the sum of any batch that fits the
# machines this runs on; a target that wants more is a mistake.
MAX_NOISE_MULTIPLIER = 1e4
# Noise of a hundredth of one unit's contribution protects nothing; less is never proposed.
MIN_NOISE_MULTIPLIER = 1e-2

_SIGNIFICANT_DIGITS = 5
_SEARCH_TOLERANCE = 1e-4  # of the logarithm of the noise multiplier
_SLOPE_WIDTH = 1e-2
_CORRECTIONS = 4
# Relative distance below the target at which ε is as good as met.
_CLOSE_ENOUGH = 3e-4


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: Accountant,
) -> float:
    """Smallest noise multiplier whose ε is at or under the target.

    The result errs towards privacy: it is rounded up to five significant digits, and that very
    number, the one to publish, is checked with `accountant`.

    Args:
        target_epsilon: The ε not to exceed.
        delta: δ of the guarantee.
        sample_rate: Probability q of a unit to be drawn in one step.
        steps: Number of steps T, at least 1.
        accountant: Computes ε; it is asked about 15 times, mostly in its coarse form.

    Returns:
        A noise multiplier between 0.01 and 10,000, above the smallest possible one by at most
        about a thousandth, or 0.01 where less would do.

    Raises:
        AccountingError: If the target is not a finite number above 0, or no noise multiplier
            up to 10,000 reaches it.
        ConfigurationError: If another argument is out of range.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise AccountingError(
            f"expected epsilon a finite number > 0, got epsilon={target_epsilon!r}",
            where="epsilon",
            do="ask for an ε such as 8, or give noise_multiplier= instead",
        )
    _validate.open_unit_interval(delta=delta)
    _validate.positive_int(steps=steps)

    def epsilon(noise_multiplier: float, by: Accountant) -> float:
        event = PoissonSampledGaussian(
            sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps
        )
        return by.epsilon([event], delta=delta)

    @functools.cache
    def excess(log_noise_multiplier: float) -> float:
        """How far above the target, as a logarithm; clipped, so that 0 and ∞ are numbers."""
        ratio = epsilon(math.exp(log_noise_multiplier), quick) / target_epsilon
        return math.log(min(max(ratio, 1e-9), 1e9))

    quick = accountant.coarse()
    low, high = _bracket(excess)
    found = high
    if low < high:
        found = float(optimize.brentq(excess, low, high, xtol=_SEARCH_TOLERANCE))  # pyright: ignore[reportArgumentType]
    noise_multiplier = _round_up(math.exp(found))
    spent = epsilon(noise_multiplier, accountant)

    if low < high:
        # The coarse search is a little off; its slope says how far to go.
        slope = (excess(found + _SLOPE_WIDTH) - excess(found - _SLOPE_WIDTH)) / (2 * _SLOPE_WIDTH)
        for _ in range(_CORRECTIONS):
            if not (0 < spent < math.inf and slope < 0 and _off(spent, target_epsilon)):
                break
            better = math.log(noise_multiplier) + math.log(target_epsilon / spent) / slope
            candidate = _round_up(math.exp(min(max(better, low), high)))
            if candidate == noise_multiplier:
                break
            spent_there = epsilon(candidate, accountant)
            if 0 < spent_there < math.inf:
                slope = math.log(spent_there / spent) / math.log(candidate / noise_multiplier)
            if spent_there <= target_epsilon or spent > target_epsilon:
                noise_multiplier, spent = candidate, spent_there

    raised = 1 + _SEARCH_TOLERANCE
    while spent > target_epsilon:
        if noise_multiplier >= MAX_NOISE_MULTIPLIER:
            raise _unreachable(target_epsilon, spent, delta, sample_rate, steps)
        noise_multiplier = min(_round_up(noise_multiplier * raised), MAX_NOISE_MULTIPLIER)
        spent, raised = epsilon(noise_multiplier, accountant), raised * raised
    return noise_multiplier


def default_delta(n: int) -> float:
    """The largest power of ten strictly below 1/n: 1e-4 for n = 1008 and for n = 1000.

    δ at or above 1/n would allow a mechanism that publishes one whole unit.

    Args:
        n: Number of privacy units, at least 1.
    """
    _validate.positive_int(n=n)
    # A number of d digits is below 10^d.
    return float(f"1e-{len(str(int(n)))}")


def _bracket(excess: Callable[[float], float]) -> tuple[float, float]:
    """Logarithms between which the target is met; equal where the search has hit its limits."""
    smallest, largest = math.log(MIN_NOISE_MULTIPLIER), math.log(MAX_NOISE_MULTIPLIER)
    low = high = 0.0
    if excess(high) > 0:
        while excess(high) > 0:
            if high == largest:
                return largest, largest
            low, high = high, min(high + math.log(2), largest)
    else:
        while excess(low) <= 0:
            if low == smallest:
                return smallest, smallest
            low, high = max(low - math.log(2), smallest), low
    return low, high


def _off(spent: float, target: float) -> bool:
    return not target * (1 - _CLOSE_ENOUGH) <= spent <= target


def _round_up(value: float) -> float:
    """Up to the next number of five significant digits."""
    number = Decimal(value * (1 - 1e-12))  # logarithm and back may have gone up by a rounding
    unit = Decimal(1).scaleb(number.adjusted() + 1 - _SIGNIFICANT_DIGITS)
    return float(number.quantize(unit, rounding=ROUND_CEILING))


def _unreachable(
    target: float, spent: float, delta: float, sample_rate: float, steps: int
) -> AccountingError:
    return AccountingError(
        f"no noise multiplier up to {MAX_NOISE_MULTIPLIER:,.0f} reaches ε = {target:g} at "
        f"δ = {delta:g} with {steps} steps at sample rate {sample_rate:g}; that much noise still "
        f"has ε = {spent:.3g}",
        where="epsilon",
        do="raise epsilon or delta, or train fewer epochs, or on more images",
    )
