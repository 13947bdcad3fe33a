"""Runs the parts of a step for the probes, each once, with frozen randomness.

B is the number of units of a batch, P the number of entries of one parameter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from discreet.checking.attributes import Leaves, different, same
from discreet.checking.freezing import (
    SEED,
    Snapshot,
    cuda_devices,
    frozen_randomness,
    has_dropout,
    random_state,
    reseeding,
    seed_all,
    without_dropout,
)
from discreet.checking.held import Held, hold, relative
from discreet.checking.operations import Operations
from discreet.checking.reaching import parameters_behind
from discreet.checking.subject import Subject, Unit
from discreet.checking.witness import RefusedError, Update, Witness, refuse
from discreet.clipping import ClippedSum, PerExampleGradients
from discreet.errors import CheckError, DiscreetError
from discreet.randomness import InsecureSource, RandomSource

Units = tuple[Unit, ...]
# Norms of the gradients that a step is tried on, over C: one unit is left as it is, one is clipped.
_SHARES_OF_BOUND = (0.4, 10.0)
# Batches of another size run other kernels, which round differently. What rounding does to a
# gradient is measured by moving every parameter by about one unit in its last place; kernels
# round once per layer and in each sum, so a multiple of that is allowed.
ROUNDINGS = 30.0
# Nothing below this can be told from rounding, and a coupling of 1e-3 is always seen.
SAME_SIZE, OTHER_SIZE, LARGEST = 1e-5, 1e-4, 5e-4
# Where parameters are coarser than float32, so many units in the last place.
_ULPS = 8


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One run of the engine on a batch.

    Attributes:
        held: Its gradients.
        norms: The norms that the engine told, name to (B,).
        mixed: The engine's sum with weights of its own for each unit.
        weights: These weights, (B,).
        touched: Tensors of the model that it changed.
        left: What it left changed in attributes.
    """

    held: Held
    norms: Mapping[str, Tensor]
    mixed: Mapping[str, Tensor]
    weights: Tensor
    touched: tuple[str, ...]
    left: Leaves


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """What one run of the engine on a large batch gives, without each unit's gradient.

    Attributes:
        norms: Norm of each unit's gradient per parameter, float64 (parameters, B).
        weights: Weight of each unit in `mixed`, (B,); 0 for the last, which may be altered.
        mixed: The engine's sum with these weights, (all P,).
    """

    norms: Tensor
    weights: Tensor
    mixed: Tensor


class Bench:
    """The subject, mounted: passes and steps on request, the model as found in between.

    Args:
        subject: What is checked.
        snapshot: The state that every pass and step begins from.
    """

    def __init__(self, subject: Subject, snapshot: Snapshot) -> None:
        self.subject = subject
        self.snapshot = snapshot
        self._devices = cuda_devices(subject.model)
        self._passes: dict[tuple[Units, bool], Pass | DiscreetError] = {}
        self._losses: dict[tuple[Units, bool], tuple[Tensor, bool]] = {}
        self._shapes: dict[Units, list[tuple[int, ...]]] = {}
        self._updates: dict[Any, Update] = {}
        self._clipped: dict[Any, ClippedSum] = {}
        self._rounding: float | None = None
        self._counted: Operations | None = None
        self._left: dict[Units, Leaves] = {}
        self._reached: list[nn.Parameter] | None = None
        self._crowds: dict[tuple[Units, bytes], Crowd] = {}
        # Whether calm passes differ from ordinary ones at all.
        self._calmed = subject.exactly is not None or has_dropout(subject.model)

    # ---- forward and backward ----

    @contextmanager
    def calm(self, *, quiet: bool = False) -> Generator[None]:
        """Frozen randomness, tensors put back; with `quiet`, no dropout and full precision."""
        model, exactly = self.subject.model, self.subject.exactly
        with ExitStack() as stack:
            stack.enter_context(frozen_randomness(self._devices))
            # Each forward pass anew: an engine may ask for the losses twice.
            stack.enter_context(reseeding(model))
            if quiet:
                stack.enter_context(without_dropout(model))
            if quiet and exactly is not None:
                stack.enter_context(exactly())
            try:
                yield
            finally:
                self.snapshot.restore_tensors()

    def losses(self, units: Units, *, quiet: bool = False) -> Tensor:
        """Loss terms of each unit, (B, T), float64."""
        return self._run_losses(units, quiet)[0]

    def _run_losses(self, units: Units, quiet: bool) -> tuple[Tensor, bool]:
        key = units, quiet and self._calmed
        if key not in self._losses:
            with self.calm(quiet=quiet), torch.enable_grad(), self._noting_shapes(units):
                batch = self.subject.batch_of(units)
                torch.manual_seed(SEED)  # making the batch may have drawn
                before = random_state(self._devices)
                with self._counting(units):
                    values = self._computed_losses(batch, units)
                if self._reached is None:
                    self._reached = parameters_behind(values)
                values = values.detach()
                drew = random_state(self._devices) != before
                self._left.setdefault(units, self.snapshot.attributes.changed())
            values = values.double().cpu()
            self._losses[key] = (values[:, None] if values.dim() == 1 else values), drew
        return self._losses[key]

    def _computed_losses(self, batch: Any, units: Units) -> Tensor:
        try:
            return self.subject.losses_of(batch)
        except DiscreetError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckError(
                f"model or loss fails on a batch of {len(units)}: {error}",
                do="any number of units may be drawn: let both run on each number, from one",
            ) from error

    def reached(self) -> list[nn.Parameter]:
        """Every parameter, of the model or not, that the losses have a gradient for."""
        self.losses(plain(self.subject.units[:2]))
        assert self._reached is not None
        return self._reached

    def repeats(self, units: Units) -> bool:
        """Whether the same batch comes again, whatever the state of all random generators."""
        made: list[list[Any]] = []
        for seed in (SEED, SEED + 1):
            with self.calm():
                seed_all(seed)
                made.append(pytree.tree_leaves(self.subject.batch_of(units)))
        one, other = made
        return len(one) == len(other) and all(
            same(a, b)
            for a, b in zip(one, other, strict=True)
            if isinstance(a, Tensor | np.ndarray | int | float | str)
        )

    def input_shapes(self, units: Units) -> list[tuple[int, ...]]:
        """Shape of one unit in each tensor that the model takes."""
        self.losses(units)
        return self._shapes[units]

    @contextmanager
    def _noting_shapes(self, units: Units) -> Generator[None]:
        shapes = self._shapes.setdefault(units, [])
        shapes.clear()

        def note(_: Any, args: Any, kwargs: Any) -> None:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == len(units):
                    shapes.append(tuple(leaf.shape[1:]))

        handle = self.subject.model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def left(self, units: Units) -> Leaves:
        """What a forward pass leaves changed in attributes, and maybe what making its batch does.

        Args:
            units: A batch.
        """
        self.losses(units)
        return self._left[units]

    def left_by_losses(self, units: Units) -> Leaves:
        """The same, of model and loss alone, in a pass of its own: forward and backward."""
        with self.calm():
            batch = self.subject.batch_of(units)
            before = self.snapshot.attributes.changed()
            self._backward(self._computed_losses(batch, units))
            return different(self.snapshot.attributes.changed(), before)

    def _backward(self, losses: Tensor) -> None:
        wanted = [p for p in self.subject.parameters.values() if p.requires_grad]
        if wanted and losses.requires_grad:
            torch.autograd.grad(losses.sum(), wanted, allow_unused=True)

    def operations(self) -> float:
        """Floating-point operations of one unit's forward pass."""
        return self._count().total

    def _count(self) -> Operations:
        if self._counted is None:
            self.losses(plain(self.subject.units[:1]))
        assert self._counted is not None
        return self._counted

    @contextmanager
    def _counting(self, units: Units) -> Generator[None]:
        """Only in passes that are compared with some tolerance: counting may stop compilers."""
        if len(units) > 1 or self._counted is not None:
            yield
            return
        with Operations() as counted:
            yield
        self._counted = counted

    def comparable(self, *units: Units) -> bool | None:
        """How batches of different sizes can be compared.

        Returns:
            False: as they are. True: without dropout and in full precision. None: not at all,
            since random numbers of one unit depend on how many there are.
        """
        if not self._calmed and not any(self._run_losses(u, False)[1] for u in units):
            return False
        return None if any(self._run_losses(u, True)[1] for u in units) else True

    def gradients(self, units: Units, *, quiet: bool = False) -> Pass:
        """Per-unit gradients from the run's engine.

        Raises:
            DiscreetError: The engine refuses the model.
        """
        key = units, quiet and self._calmed
        if key not in self._passes:
            try:
                self._passes[key] = self._run_engine(units, quiet)
            except DiscreetError as error:
                self._passes[key] = error
        found = self._passes[key]
        if isinstance(found, DiscreetError):
            raise found
        return found

    def _run_engine(self, units: Units, quiet: bool) -> Pass:
        with self.calm(quiet=quiet):
            batch = self.subject.batch_of(units)
            found = self._noted(self.subject.gradients_of(batch))
        if len(found.weights) != len(units):
            raise CheckError(
                f"{len(units)} units give {len(found.weights)} gradients, each clipped by itself",
                where="the engine",
                do="add the gradients of all images of a unit before norms are taken",
            )
        return found

    def _noted(self, found: PerExampleGradients) -> Pass:
        touched = tuple(self.snapshot.changed())
        left = self.snapshot.attributes.changed()
        norms = {name: value.clone() for name, value in found.squared_norms.items()}
        held = hold(found, norms)
        any_norm = next(iter(norms.values()))
        weights = torch.linspace(0.25, 1.0, len(any_norm), device=any_norm.device)
        mixed = found.weighted_sum(dict.fromkeys(norms, weights))
        mixed = {name: value.clone() for name, value in mixed.items()}
        return Pass(
            held=held, norms=norms, mixed=mixed, weights=weights, touched=touched, left=left
        )

    def crowd(self, units: Units, weights: Tensor | None = None) -> Crowd:
        """Gradients of a large batch, as sums: each unit's own would not fit in memory.

        Args:
            units: A batch.
            weights: Weights of the sum; by default such that each unit counts alike, but not
                the same as another, and the last not at all.
        """
        key = units, b"" if weights is None else weights.cpu().numpy().tobytes()
        if key not in self._crowds:
            with self.calm():
                found = self.subject.gradients_of(self.subject.batch_of(units))
                norms = torch.stack([v.double() for v in found.squared_norms.values()]).sqrt()
                chosen = _even_weights(norms) if weights is None else weights
                summed = found.weighted_sum(dict.fromkeys(found.squared_norms, chosen))
                mixed = torch.cat([value.detach().flatten() for value in summed.values()]).clone()
            self._crowds[key] = Crowd(norms=norms, weights=chosen, mixed=mixed)
        return self._crowds[key]

    def other_engine(self, name: str, units: Units) -> Held:
        """Per-unit gradients from one of the subject's other engines.

        Raises:
            DiscreetError: It refuses the model.
        """
        with self.calm(quiet=True):
            found = self.subject.engines[name](self.subject.batch_of(units))
            return hold(found, found.squared_norms)

    def rounding(self, unit: Unit) -> float:
        """Relative change of a unit's gradient when every parameter moves by a rounding."""
        if self._rounding is None:
            plain = self.gradients((unit,), quiet=True).held
            with self.calm(quiet=True):
                _jitter(self.subject.model)
                found = self.subject.gradients_of(self.subject.batch_of((unit,)))
                moved = hold(found, found.squared_norms)
            self._rounding = relative(moved.flat(0), plain.flat(0))
        return self._rounding

    def limit(self, unit: Unit, moved: float) -> float:
        """Largest relative deviation between batch sizes that may be rounding.

        Args:
            unit: Whose gradient it is.
            moved: The deviation; rounding is measured only where it matters.
        """
        if moved <= OTHER_SIZE:
            return OTHER_SIZE
        return min(max(ROUNDINGS * self.rounding(unit), OTHER_SIZE), self.largest)

    @property
    def largest(self) -> float:
        """Largest relative deviation that any rounding of the types computed in explains."""
        types = {p.dtype for p in self.subject.parameters.values()}
        return max(LARGEST, *(_ULPS * torch.finfo(t).eps for t in types), _ULPS * self._coarsest())

    def _coarsest(self) -> float:
        """Machine epsilon of products in quiet passes: under autocast not the parameters'."""
        return 0.0 if self.subject.exactly is not None else self._count().coarsest

    # ---- the step ----

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


def _even_weights(norms: Tensor) -> Tensor:
    """Float32 (B,) for norms per parameter, (parameters, B)."""
    whole = norms.square().sum(0).sqrt()
    shares = torch.linspace(0.5, 1.0, norms.shape[1], dtype=torch.float64, device=norms.device)
    weights = torch.where(torch.isfinite(whole) & (whole > 0), shares / whole, 0.0)
    weights[-1] = 0.0
    return weights.float()


def _jitter(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                ulps = torch.randint(-1, 2, parameter.shape, generator=generator)
                step = torch.finfo(parameter.dtype).eps * ulps.to(parameter.device)
                parameter.mul_((1 + step).to(parameter.dtype))


def plain(numbers: Sequence[int]) -> Units:
    """Units as they are."""
    return tuple(Unit(number=number) for number in numbers)
