"""One private step, in the order that the guarantee needs.

    draw → per-unit gradients → clip and sum → noise → charge → update

Where several processes train together, each sums its own units; then one of them, the leader, has
the whole sum, adds noise once, charges once, updates, and hands the new weights to the others.

Everything is passed as a value: no hook, no flag on a tensor, no accounting by side effect.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from discreet.arithmetic import exact_arithmetic
from discreet.clipping import ClippedSum, Clipping, PerExampleGradients
from discreet.distributed import SOLO, Team
from discreet.noise import Mechanism
from discreet.randomness import RandomSource

MicroBatch = TypeVar("MicroBatch")


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What happened inside a step. Private: for the internal log only.

    Attributes:
        units: How many units were drawn.
        clipped: How many were scaled down.
        non_finite: How many contributed zero because their gradient was not finite.
    """

    units: int
    clipped: int
    non_finite: int


def sum_clipped(
    micro_batches: Iterable[MicroBatch],
    *,
    parameters: Mapping[str, nn.Parameter],
    gradients_of: Callable[[MicroBatch], PerExampleGradients],
    clipping: Clipping,
    split: Callable[[MicroBatch], Sequence[MicroBatch]] | None = None,
) -> ClippedSum:
    """Clipped sum of one draw, accumulated over micro-batches of distinct units.

    Args:
        micro_batches: Parts of the draw; none at all for an empty draw.
        parameters: Every trainable parameter by name. Each gets an entry in the sum, whether
            or not a micro-batch touched it.
        gradients_of: Per-unit gradients of one part.
        clipping: The clipping rule.
        split: Halves a part that does not fit the memory; what comes back as one part cannot
            be split further. Only the memory used depends on it, never the sum's meaning.

    Returns:
        The sum, whose sensitivity is the clipping rule's: units are distinct, so one unit is in
        one part only.
    """
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    units = clipped = non_finite = 0
    with exact_arithmetic():  # or who else is drawn decides how a gradient is rounded
        for part in _parts(micro_batches, gradients_of, clipping, split):
            if part.sums.keys() != sums.keys():
                raise RuntimeError("gradients and trainable parameters do not have the same names")
            for name, value in part.sums.items():
                sums[name] += value
            units, clipped = units + part.units, clipped + part.clipped
            non_finite += part.non_finite
    return ClippedSum(
        sums=sums,
        sensitivity=clipping.sensitivity,
        units=units,
        clipped=clipped,
        non_finite=non_finite,
    )


def _parts(
    micro_batches: Iterable[MicroBatch],
    gradients_of: Callable[[MicroBatch], PerExampleGradients],
    clipping: Clipping,
    split: Callable[[MicroBatch], Sequence[MicroBatch]] | None,
) -> Iterator[ClippedSum]:
    for micro_batch in micro_batches:
        waiting = [micro_batch]
        while waiting:
            current = waiting.pop()
            halves: Sequence[MicroBatch] = ()
            try:
                clipped = clipping.clip_and_sum(gradients_of(current))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if split is None or not is_out_of_memory(error):
                    raise
                halves = split(current)
                if len(halves) < 2:
                    raise
            else:
                yield clipped
            # Outside the handler: its traceback would keep the failed attempt's tensors alive.
            waiting.extend(halves)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a pass failed because its examples do not fit the memory, on a GPU or a CPU."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C back until the block is done: a charge without its update would be wasted.

    And whatever else was made to end the run in order, as the command line does with SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def private_step(
    micro_batches: Iterable[MicroBatch],
    *,
    parameters: Mapping[str, nn.Parameter],
    gradients_of: Callable[[MicroBatch], PerExampleGradients],
    clipping: Clipping,
    mechanism: Mechanism,
    expected_batch_size: float,
    source: RandomSource,
    charge: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    split: Callable[[MicroBatch], Sequence[MicroBatch]] | None = None,
    team: Team = SOLO,
) -> StepReport:
    """Run one step of DP-SGD (Abadi et al. 2016, Algorithm 1).

    Args:
        micro_batches: See `sum_clipped`; of a team, this process's units.
        parameters: See `sum_clipped`; the optimizer must hold no other trainable parameter.
        gradients_of: See `sum_clipped`.
        clipping: See `sum_clipped`.
        mechanism: The noise.
        expected_batch_size: Public divisor of the noised sum; never the drawn size.
        source: Random streams for the noise.
        charge: Records the step durably. Called before the update is visible; if it raises,
            the model is untouched.
        optimizer: Updates the parameters from the noised mean.
        split: See `sum_clipped`.
        team: The processes that take this step together. Noise, charge and optimizer are the
            leader's alone; the others take over its parameters.

    Raises:
        TeamError: A process is lost. Without its charge, no update was made anywhere.
    """
    clipped = team.total(
        sum_clipped(
            micro_batches,
            parameters=parameters,
            gradients_of=gradients_of,
            clipping=clipping,
            split=split,
        )
    )
    if team.leads:
        noised: dict[str, Tensor] = mechanism.privatise(clipped, source)
        with _uninterrupted():
            charge()
            for name, parameter in parameters.items():
                parameter.grad = (noised[name] / expected_batch_size).to(parameter.dtype)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clipping.end_step(clipped, expected_batch_size=expected_batch_size, source=source)
    clipping.follow(team.publish(parameters.values(), clipping.sensitivity))
    return StepReport(units=clipped.units, clipped=clipped.clipped, non_finite=clipped.non_finite)
