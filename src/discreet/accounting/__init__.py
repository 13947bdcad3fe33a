"""What ran, what it costs, and how much noise a budget needs."""

from discreet.accounting.accountant import (
    Accountant,
    AccountantName,
    PldAccountant,
    RdpAccountant,
    epsilon_per_step_count,
    make_accountant,
)
from discreet.accounting.calibration import calibrate_noise_multiplier, default_delta
from discreet.accounting.events import Event, PoissonSampledGaussian, event_from_json, merge

__all__ = [
    "Accountant",
    "AccountantName",
    "Event",
    "PldAccountant",
    "PoissonSampledGaussian",
    "RdpAccountant",
    "calibrate_noise_multiplier",
    "default_delta",
    "epsilon_per_step_count",
    "event_from_json",
    "make_accountant",
    "merge",
]
