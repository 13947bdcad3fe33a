"""All probes, and the run through them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from discreet.arithmetic import exact_arithmetic
from discreet.checking import bounds, coupling, noising, substance, wiring
from discreet.checking.bench import Bench
from discreet.checking.freezing import Snapshot, cuda_devices, frozen_randomness
from discreet.checking.report import CheckReport, Finding
from discreet.checking.subject import Subject
from discreet.errors import CheckError, ConfigurationError, DiscreetError


class Probe(Protocol):
    """Looks at one property of a step."""

    def __call__(self, bench: Bench, *, full: bool) -> Finding:
        """Run the parts of the step that it needs, and judge.

        Args:
            bench: The subject.
            full: Whether to go through all variants.
        """
        ...


# In this order: cheap and plain ones first.
PROBES: Mapping[str, Probe] = {
    "parameters": wiring.parameters,
    "engine": wiring.engine,
    "substance": substance.substance,
    "state": wiring.state,
    "shapes": wiring.shapes,
    "losses": coupling.losses,
    "contributions": coupling.contributions,
    "norms": bounds.norms,
    "sensitivity": bounds.sensitivity,
    "additivity": bounds.additivity,
    "noise": noising.noise,
    "once": noising.once,
    "normaliser": noising.normaliser,
    "empty draw": noising.empty_draw,
    "non-finite": noising.non_finite,
    "charge": noising.charge,
    "engines": bounds.engines,
}
ONLY_FULL = frozenset({"engines"})


def run_checks(
    subject: Subject,
    *,
    full: bool = False,
    without: Collection[str] = (),
    more: Mapping[str, Callable[[], Finding]] | None = None,
) -> CheckReport:
    """Run all probes. The model and the optimizer are left as they were found.

    Args:
        subject: The step under test.
        full: Go through all variants.
        without: Names of probes to leave out.
        more: Probes that need no bench, by name.

    Raises:
        ConfigurationError: A name in `without` is none of a probe.
    """
    known = (*PROBES, *(more or {}))
    unknown = [name for name in without if name not in known]
    if unknown:
        raise ConfigurationError(
            f"no probe is called {unknown[0]!r}",
            where="without",
            do=f"the probes are {', '.join(known)}",
        )
    snapshot = Snapshot(subject.model, subject.optimizer, subject.holders)
    findings: list[Finding] = []
    with exact_arithmetic():
        try:
            bench = Bench(subject, snapshot)
            for name, probe in PROBES.items():
                if name not in without and (full or name not in ONLY_FULL):
                    findings.append(_run(name, lambda p=probe: p(bench, full=full), findings))
        finally:
            snapshot.restore()
        with frozen_randomness(cuda_devices(subject.model)):
            for name, extra in (more or {}).items():
                if name not in without:
                    findings.append(_run(name, extra, findings))
    return CheckReport(findings=tuple(findings))


def _run(name: str, probe: Callable[[], Finding], before: Sequence[Finding]) -> Finding:
    """A refusal is told once; the other probes then have nothing to look at."""
    try:
        return probe()
    except CheckError as error:
        if any(_is_told(error, finding) for finding in before):
            return Finding(probe=name, compared="", verdict="not run", what="fails as above")
        where = (error.where,) if error.where else ()
        return Finding(
            probe=name,
            compared="the model runs on any number of units",
            verdict="failed",
            where=where,
            what=error.what,
            do=error.do or "",
        )
    except DiscreetError:
        return Finding(probe=name, compared="", verdict="not run", what="the engine refuses")


def _is_told(error: CheckError, finding: Finding) -> bool:
    if finding.verdict != "failed":
        return False
    return finding.what == error.what or (finding.probe, error.where) == ("engine", "the engine")
