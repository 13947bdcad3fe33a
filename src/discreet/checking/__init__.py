"""Check a step before it runs: units do not meet, sums are bounded, everything gets noise.

    report.py     findings and their table
    subject.py    what is checked
    probes.py     all probes, and the run through them
    coupling.py   what one unit can do to another
    company.py    the same by rounding alone
    bounds.py     norms, clipping, sensitivity
    noising.py    noise, normaliser, charge: a whole step
    wiring.py     parameters, buffers, attributes, shapes
    substance.py  whether there is anything to compare
    locating.py   which module or loss term is at fault
    bench.py      runs steps for the probes
    passes.py     runs passes for them
    witness.py    sees what a step does
    held.py       gradients as plain tensors
    freezing.py   frozen randomness; leave everything as found
    altering.py   one unit of any batch, altered
    attributes.py state that is neither parameter nor buffer
    operations.py what a pass costs, and how coarsely it computes
    reaching.py   which parameters a loss depends on

Engines come in as callables: nothing here knows how gradients are computed.
"""

from discreet.checking.company import change_by_company
from discreet.checking.generic import check_step
from discreet.checking.probes import PROBES, run_checks
from discreet.checking.report import CheckReport, Finding
from discreet.checking.subject import Subject, Unit

__all__ = [
    "PROBES",
    "CheckReport",
    "Finding",
    "Subject",
    "Unit",
    "change_by_company",
    "check_step",
    "run_checks",
]
