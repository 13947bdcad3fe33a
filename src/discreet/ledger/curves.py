"""Rényi bounds that are kept beside each run, so that a thousand runs add up in no time.

A curve is the Rényi divergence of some steps at each of `ORDERS`. Curves of runs on one image add
up (Mironov 2017, Proposition 1), and the sum turns into an upper bound on ε (Canonne, Kamath,
Steinke 2020, Proposition 12, as dp-accounting computes it). The bound is looser than a privacy
loss distribution, so it can prove that a budget is kept, and never that it is crossed.

Only for neighbours that differ by adding or removing one unit: the library has no such curve for
other relations. A mechanism without one has the curve ∞: nothing is proven by it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import dp_accounting
import numpy as np
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from numpy.typing import NDArray

from discreet.accounting import Event

ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 20)),
    *(3 + x / 2 for x in range(14)),
    *range(10, 32),
    *range(32, 64, 4),
    *(64, 80, 96, 128, 192, 256, 512, 1024),
)
_ROUNDING_PER_STEP = 1e-13  # dp-accounting sums up to about a thousand rounded terms per order

Curve = NDArray[np.float64]  # (len(ORDERS),)


def curve_of(events: Sequence[Event]) -> Curve:
    """Rényi divergence of the events at each of `ORDERS`; ∞ where there is no bound."""
    library = dp_accounting.rdp.RdpAccountant(orders=list(ORDERS))
    unknown = np.full(len(ORDERS), np.inf)
    absl = logging.getLogger("absl")  # tells every order that it leaves out for small noise
    disabled, absl.disabled = absl.disabled, True
    try:
        with np.errstate(all="ignore"):
            for event in events:
                described = event.to_dp_event()
                if not library.supports(described):
                    return unknown
                library.compose(described)
    except (OverflowError, ZeroDivisionError, FloatingPointError, ValueError):
        return unknown
    finally:
        absl.disabled = disabled
    steps = sum(event.steps for event in events)
    curve = np.maximum(np.asarray(library.rdp, dtype=np.float64), 0) + steps * _ROUNDING_PER_STEP
    return np.where(np.isfinite(curve), curve, np.inf)


def pack(curve: Curve) -> bytes:
    """A curve as it is stored."""
    return curve.astype("<f8").tobytes()


def total_of(packed: Iterable[bytes]) -> Curve:
    """Sum of stored curves; ∞ if one was stored for other orders."""
    total = np.zeros(len(ORDERS))
    for stored in packed:
        if len(stored) != 8 * len(ORDERS):
            return np.full(len(ORDERS), np.inf)
        total = total + np.frombuffer(stored, dtype="<f8")
    return total


def epsilon_bound(curve: Curve, *, delta: float) -> float:
    """Upper bound on ε at δ; ∞ if the curve says nothing."""
    usable = np.isfinite(curve)
    if not usable.any():
        return float("inf")
    orders = [order for order, finite in zip(ORDERS, usable, strict=True) if finite]
    epsilon = float(compute_epsilon(orders, list(curve[usable]), delta)[0])
    return epsilon if epsilon >= 0 else float("inf")  # also where it came to no number
