"""What ran, what it costs, and how much noise a budget needs."""

from discreet.accounting.accountant import (
    Accountant,
    AccountantName,
    PldAccountant,
    PrvAccountant,
    RdpAccountant,
    epsilon_of_runs,
    make_accountant,
)
from discreet.accounting.calibration import calibrate_noise_multiplier, default_delta
from discreet.accounting.events import (
    AdaptivelyClippedGaussian,
    Event,
    PoissonSampledGaussian,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
    event_from_json,
    merge,
)
from discreet.accounting.gaussian_dp import GaussianDp, gaussian_dp, trade_off_curve
from discreet.accounting.groups import group_epsilon
from discreet.accounting.prefixes import epsilon_per_prefix, epsilon_per_step_count

__all__ = [
    "Accountant",
    "AccountantName",
    "AdaptivelyClippedGaussian",
    "Event",
    "GaussianDp",
    "PldAccountant",
    "PoissonSampledGaussian",
    "PrvAccountant",
    "RdpAccountant",
    "ShuffledGaussian",
    "TruncatedPoissonSampledGaussian",
    "calibrate_noise_multiplier",
    "default_delta",
    "epsilon_of_runs",
    "epsilon_per_prefix",
    "epsilon_per_step_count",
    "event_from_json",
    "gaussian_dp",
    "group_epsilon",
    "make_accountant",
    "merge",
    "trade_off_curve",
]
