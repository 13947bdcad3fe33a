"""Runs steps for the probes, each once, with frozen randomness; and passes, see `Passes`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from discreet.checking.freezing import Snapshot
from discreet.checking.held import Held
from discreet.checking.passes import Passes, Units
from discreet.checking.subject import Subject
from discreet.checking.witness import RefusedError, Update, Witness, refuse
from discreet.clipping import ClippedSum, PerExampleGradients
from discreet.randomness import InsecureSource, RandomSource

# Norms of the gradients that a step is tried on, over C: one unit is left as it is, one is clipped.
_SHARES_OF_BOUND = (0.4, 10.0)


class Bench(Passes):
    """The subject, mounted: passes and steps on request, the model as found in between.

    Args:
        subject: What is checked.
        snapshot: The state that every pass and step begins from.
    """

    def __init__(self, subject: Subject, snapshot: Snapshot) -> None:
        super().__init__(subject, snapshot)
        self._updates: dict[Any, Update] = {}
        self._clipped: dict[Any, ClippedSum] = {}

    def step(
        self,
        units: Units,
        parts: Sequence[Sequence[int]],
        *,
        seed: int | None = None,
        spoilt: Sequence[float] = (),
    ) -> Update:
        """Run the run's step on gradients that the engine gave before, scaled: see `scaled`.

        Args:
            units: A batch.
            parts: Micro-batches, as positions in it; none for an empty draw.
            seed: Seed of the noise, and the step is run once; the run's own source if not given.
            spoilt: Factor of the first entry of each gradient of each part.
        """
        if seed is None:
            return self._step(self._replayed(units, parts, spoilt), self.subject.source)
        key = units if parts else (), tuple(map(tuple, parts)), seed, str(spoilt)
        if key not in self._updates:
            source = InsecureSource(seed)
            self._updates[key] = self._step(self._replayed(units, parts, spoilt), source)
        return self._updates[key]

    def live_step(self, units: Units) -> Update:
        """Run the run's step with its engine at work."""
        return self._step([units], InsecureSource(0))

    def refused_step(self, units: Units) -> tuple[str, ...]:
        """Tensors of the model that a step changes whose charge is refused."""
        return self._step(self._replayed(units, [[0]]), InsecureSource(0), refuse).changed

    def _replayed(
        self, units: Units, parts: Sequence[Sequence[int]], spoilt: Sequence[float] = ()
    ) -> Sequence[Held | Units]:
        if not parts:
            return []
        held = self.scaled(units)
        chosen = [held.only(*part) for part in parts]
        return [part.with_first_entry_times(*spoilt) for part in chosen] if spoilt else chosen

    def scaled(self, units: Units) -> Held:
        """Gradients of a batch, each scaled to a public multiple of C, some below, some above.

        Beside a C far above all norms the true ones would be lost in the rounding of the noise.
        """
        held = self.gradients(units).held
        norms = [held.norm(i) for i in range(len(units))]
        shares = itertools.cycle(_SHARES_OF_BOUND)
        sizes = [
            self.subject.max_grad_norm * share for share in itertools.islice(shares, len(norms))
        ]
        usable = [0 < norm < float("inf") for norm in norms]
        return held.times(
            *(s / n if good else 1.0 for s, n, good in zip(sizes, norms, usable, strict=True))
        )

    def _step(
        self,
        parts: Sequence[Held | Units],
        source: RandomSource,
        charge: Callable[[], None] | None = None,
    ) -> Update:
        subject = self.subject

        def gradients_of(part: Held | Units) -> PerExampleGradients:
            if isinstance(part, Held):
                return part
            found = subject.gradients_of(subject.batch_of(part))
            self._passes.setdefault((part, False), self._noted(found))
            return found

        witness = Witness(subject, self.snapshot)
        with self.calm(), witness, subject.mechanism_of(source) as mechanism:
            with suppress(RefusedError):
                subject.step(
                    iter(parts),
                    parameters=subject.parameters,
                    gradients_of=gradients_of,
                    clipping=subject.clipping_of(subject.max_grad_norm),
                    mechanism=mechanism,
                    expected_batch_size=subject.expected_batch_size,
                    source=source,
                    charge=charge or witness.count_charge,
                    optimizer=subject.optimizer,
                )
            return witness.update()

    def clipped(self, units: Units, positions: Sequence[int], clip: float) -> ClippedSum:
        """Clipped sum of some units of a batch, by the run's clipping at another C."""
        key = units, tuple(positions), clip
        if key not in self._clipped:
            held = self.gradients(units).held.only(*positions)
            self._clipped[key] = self.subject.clipping_of(clip).clip_and_sum(held)
        return self._clipped[key]

    def stepped(self, units: Units, positions: Sequence[int]) -> ClippedSum:
        """Clipped sum that `step` has for a single part."""
        held = self.scaled(units).only(*positions)
        return self.subject.clipping_of(self.subject.max_grad_norm).clip_and_sum(held)
