"""From a target ε to the noise that keeps it, and the δ that goes without saying."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Decimal

from scipy import optimize

from discreet import _validate
from discreet.accounting.accountant import Accountant
from discreet.accounting.events import Event
from discreet.errors import AccountingError, ConfigurationError

# Noise as large as ten thousand clipped units together drowns the sum of any batch that fits the
# machines this runs on; a target that wants more is a mistake.
MAX_NOISE_MULTIPLIER = 1e4
# Noise of a hundredth of one unit's contribution protects nothing; less is never proposed.
MIN_NOISE_MULTIPLIER = 1e-2

_SIGNIFICANT_DIGITS = 5
_SEARCH_TOLERANCE = 2e-3  # of the logarithm of the noise multiplier
_SMALLEST_RAISE = 1e-4
_SLOPE_WIDTH = 1e-2
_CORRECTIONS = 4
# Relative distance below the target at which ε is as good as met.
_CLOSE_ENOUGH = 4e-4

# Below so many units δ < 1/n says nothing.
_FEW_UNITS = 100
_DELTA_OF_FEW = 1e-5


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    delta: float,
    events: Callable[[float], Sequence[Event]],
    accountant: Accountant,
) -> float:
    """Smallest noise multiplier whose ε is at or under the target.

    The result errs towards privacy: it is rounded up to five significant digits, and that very
    number, the one to publish, is checked with `accountant`.

    Args:
        target_epsilon: The ε not to exceed.
        delta: δ of the guarantee.
        events: All that is planned, given the noise multiplier: one event for a plain run,
            several for a noise schedule that scales with it. More noise must not cost more.
        accountant: Computes ε; it is asked about 15 times, mostly in its coarse form.

    Returns:
        A noise multiplier between 0.01 and 10,000, above the smallest possible one by at most
        about a thousandth, or 0.01 where less would do.

    Raises:
        AccountingError: If the target is not a finite number above 0, no noise multiplier
            up to 10,000 reaches it, or the accountant does not know an event.
        ConfigurationError: If another argument is out of range, or nothing is planned.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise AccountingError(
            f"expected epsilon a finite number > 0, got epsilon={target_epsilon!r}",
            where="epsilon",
            do="ask for an ε such as 8, or give noise_multiplier= instead",
        )
    _validate.open_unit_interval(delta=delta)
    if all(event.steps == 0 for event in events(1.0)):
        raise ConfigurationError("expected steps >= 1, got a plan of none", where="steps")

    def epsilon(noise_multiplier: float, by: Accountant) -> float:
        return by.epsilon(events(noise_multiplier), delta=delta)

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
        slope = (excess(found) - excess(found - _SLOPE_WIDTH)) / _SLOPE_WIDTH
        for _ in range(_CORRECTIONS):
            if not (0 < spent < math.inf and slope < 0 and _off(spent, target_epsilon)):
                break
            # Aimed at the middle of what is close enough, so that rounding does not miss it.
            aim = math.log(target_epsilon * (1 - _CLOSE_ENOUGH / 2) / spent)
            better = math.log(noise_multiplier) + aim / slope
            candidate = _round_up(math.exp(min(max(better, low), high)))
            if candidate == noise_multiplier:
                break
            spent_there = epsilon(candidate, accountant)
            if 0 < spent_there < math.inf:
                slope = math.log(spent_there / spent) / math.log(candidate / noise_multiplier)
            if spent_there <= target_epsilon or spent > target_epsilon:
                noise_multiplier, spent = candidate, spent_there

    raised = 1 + _SMALLEST_RAISE
    while spent > target_epsilon:
        if noise_multiplier >= MAX_NOISE_MULTIPLIER:
            raise _unreachable(target_epsilon, spent, delta, events(noise_multiplier))
        noise_multiplier = min(_round_up(noise_multiplier * raised), MAX_NOISE_MULTIPLIER)
        spent, raised = epsilon(noise_multiplier, accountant), raised * raised
    return noise_multiplier


def default_delta(n: int) -> float:
    """The largest power of ten strictly below 1/n: 1e-4 for n = 1008 and for n = 1000.

    δ at or above 1/n would allow a mechanism that publishes one whole unit. Below a hundred
    units 1/n bounds nothing worth having, and the customary 1e-5 is returned.

    Args:
        n: Number of privacy units, at least 1.
    """
    _validate.positive_int(n=n)
    if n < _FEW_UNITS:
        return _DELTA_OF_FEW
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
    target: float, spent: float, delta: float, planned: Sequence[Event]
) -> AccountingError:
    steps = sum(event.steps for event in planned)
    rates = sorted({rate for event in planned if (rate := getattr(event, "sample_rate", 0))})
    at = f" at sample rate {rates[0]:g}" if len(rates) == 1 else ""
    return AccountingError(
        f"no noise multiplier up to {MAX_NOISE_MULTIPLIER:,.0f} reaches ε = {target:g} at "
        f"δ = {delta:g} with {steps} steps{at}; that much noise still has ε = {spent:.3g}",
        where="epsilon",
        do="raise epsilon or delta, or train fewer epochs, or on more images",
    )
