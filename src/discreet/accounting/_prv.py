"""Opacus' numerics of privacy random variables, held at their upper end.

Gopi, Lee and Wutschitz 2021, "Numerical Composition of Differential Privacy", Theorem 1.1: the
distribution composed on a mesh is within an error of the true one, in ε and in δ; the upper ends
are taken. The mesh follows from the errors, so that a large composition may ask for more memory
than there is; the error in ε is raised then. Whatever fails inside is an AccountingError.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from discreet.accounting._gaussian import GaussianTerm
from discreet.errors import AccountingError

# Error in ε of Opacus' own default; it is part of the result.
EPSILON_ERROR = 0.01
# Beyond this the bound on the domain is not proven any more, says Opacus' source.
_LARGEST_EPSILON_ERROR = 0.5
# Error in δ where δ is asked for: half of it may be claimed to be zero.
_DELTA_ERROR = 1e-11
_MOST_CELLS = 4_000_000
# Of the FFT, and of its T-th power.
_ROUNDING = 1e-12
_ROUNDING_PER_STEP = 4e-16


def rounding(terms: Sequence[GaussianTerm]) -> float:
    """Probability mass that floating point may have lost, to be taken off δ."""
    return _ROUNDING + _ROUNDING_PER_STEP * sum(term.steps for term in terms)


def prv_epsilon(terms: Sequence[GaussianTerm], *, delta: float, epsilon_error: float) -> float:
    """Upper end of ε at δ, of at least one term, all with noise.

    Raises:
        AccountingError: If the numerics fail.
    """
    usable = delta - rounding(terms)
    if usable <= 0:
        return math.inf
    delta_error = usable / 1000
    composed, error = _composed(terms, epsilon_error=epsilon_error, delta_error=delta_error)
    # Opacus searches only where ε = 0 is not enough, and fails where it is.
    if _delta_at(composed, -error, delta_error) <= usable:
        return 0.0
    with _failures_told():
        upper = float(composed.compute_epsilon(usable, delta_error, error)[2])
    return _a_number(upper)


def prv_delta(terms: Sequence[GaussianTerm], *, epsilon: float, epsilon_error: float) -> float:
    """Upper end of δ at ε, of at least one term, all with noise.

    Raises:
        AccountingError: If the numerics fail.
    """
    composed, error = _composed(terms, epsilon_error=epsilon_error, delta_error=_DELTA_ERROR)
    delta = _delta_at(composed, epsilon - error, _DELTA_ERROR) + rounding(terms)
    return min(1.0, _a_number(delta))


def _delta_at(composed: Any, epsilon: float, delta_error: float) -> float:
    with _failures_told():
        return float(composed.compute_delta_estimate(epsilon)) + delta_error


def _composed(
    terms: Sequence[GaussianTerm], *, epsilon_error: float, delta_error: float
) -> tuple[Any, float]:
    """Opacus' composed variable, and the error in ε that it was made for."""
    # Here, because it imports torch.
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV

    opacus: Any = PRVAccountant()  # Any: its public method gives ε only
    opacus.history = [(t.noise_multiplier, t.sample_rate, t.steps) for t in terms]
    error = epsilon_error
    with _failures_told():
        while True:
            domain = opacus._get_domain(
                prvs=[PoissonSubsampledGaussianPRV(q, sigma) for sigma, q, _ in opacus.history],
                num_self_compositions=[steps for *_, steps in opacus.history],
                eps_error=error,
                delta_error=delta_error,
            )
            if domain.size <= _MOST_CELLS:
                break
            error *= domain.size / _MOST_CELLS * 1.01
            if error > _LARGEST_EPSILON_ERROR:
                raise MemoryError(f"a mesh of {domain.size:,} points")
        composed = opacus._get_dprv(eps_error=error, delta_error=delta_error)
    total = float(np.sum(composed.pmf))
    if not abs(total - 1) < 1e-6:
        raise _failed(f"mass of {total:g}")
    return composed, error


def _a_number(value: float) -> float:
    if not math.isfinite(value):
        raise _failed(f"{value}")
    return max(0.0, value)


def _failed(why: object) -> AccountingError:
    return AccountingError(
        f"the prv accountant's numerics fail for these settings ({why})",
        where="accountant",
        do="use accountant=pld, which has no such limit",
    )


class _failures_told:  # noqa: N801
    """Whatever Opacus raises is an AccountingError; its warnings of log(0) and the like are not."""

    def __enter__(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._numpy = np.errstate(all="ignore")
        self._numpy.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object):
        self._numpy.__exit__(None, None, None)
        self._warnings.__exit__(None, None, None)
        if isinstance(
            error, RuntimeError | ValueError | ArithmeticError | MemoryError | LookupError
        ):
            raise _failed(error) from error
