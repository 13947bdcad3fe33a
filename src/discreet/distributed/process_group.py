"""A team over torch's process group: what is sent, in which order, and what a failure does."""

from __future__ import annotations

import atexit
import json
import socket
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from discreet import errors
from discreet.clipping import ClippedSum
from discreet.distributed.team import SOLO, Team
from discreet.errors import DiscreetError, TeamError
from discreet.launched import Place, place_of_process

_SLOT = 1024  # bytes: what is shared in one round of messages, where it fits
_BUCKET = 1 << 23  # numbers that travel at once: few messages, little memory
_PATIENCE = timedelta(days=1)
_START_AGAIN = "what was charged stays charged: start all processes again with resume=FOLDER"


def join_team(*, timeout: float) -> Team:
    """The team of this process, as torchrun or another launcher of torch.distributed set it up.

    Args:
        timeout: Seconds after which a silent process counts as lost.

    Raises:
        TeamError: The processes do not find each other in this time.
    """
    place = place_of_process()
    if place.size == 1:
        return SOLO
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if not dist.is_initialized():  # else by an earlier run of this program
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
            atexit.register(_end_process_group)
        return ProcessGroup(place)
    except (RuntimeError, ValueError) as error:
        raise TeamError(
            f"the {place.size} processes of the run do not find each other "
            f"({str(error).splitlines()[0]})",
            where=str(place),
            do="start all of them with torchrun, within the time that team_timeout gives",
        ) from error


def _end_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass
class ProcessGroup:
    """The processes of torch's process group; facts go by gloo, GPUs' tensors by NCCL.

    Attributes:
        place: Which of them this one is.
    """

    place: Place

    def __post_init__(self) -> None:
        self._known: BaseException | None = None  # an error that all have heard of
        # Its connections notice the death of a process as the others do.
        self._patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._facts: Any = None  # the group that facts go by; None is that of all else

    @property
    def leads(self) -> bool:
        """Whether this one is the leader: the process of rank 0."""
        return self.place.rank == 0

    def total(self, part: ClippedSum) -> ClippedSum:
        """See `Team.total`."""
        counts = self.share([part.units, part.clipped, part.non_finite, part.sensitivity])
        if any(bound != part.sensitivity for *_, bound in counts):
            # One that clips to a larger bound would add more than the noise is made for.
            raise TeamError("the processes do not clip to one bound", do="please report this")
        for bucket in _buckets(part.sums.values()):
            flat = _flat(bucket)
            with self._reaching():
                dist.reduce(flat, dst=0)
            if self.leads:
                _spread(flat, bucket)
        units, clipped, non_finite = (sum(column) for column in list(zip(*counts, strict=True))[:3])
        return replace(
            part,
            sums=part.sums if self.leads else {},
            units=units,
            clipped=clipped,
            non_finite=non_finite,
        )

    def publish(self, tensors: Iterable[Tensor], fact: Any) -> Any:
        """See `Team.publish`."""
        fact = self.share(fact)[0]
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            with self._reaching():
                dist.broadcast(flat, src=0)
            if not self.leads:
                _spread(flat, bucket)
        return fact

    def share(self, fact: Any) -> list[Any]:
        """See `Team.share`."""
        messages = self._exchange({"fact": fact})
        for rank, message in enumerate(messages):
            if "error" in message:
                self._known = _error_from(message["error"], rank=rank, size=self.place.size)
                raise self._known
        return [message["fact"] for message in messages]

    def told(self, fact: Any) -> Any:
        """See `Team.told`."""
        data = _encoded(json.dumps(fact).encode() if self.leads else b"")
        size = self.share(len(data))[0]
        flat = data if self.leads else torch.zeros(size, dtype=torch.uint8)
        with self._reaching():
            dist.broadcast(flat, src=0, group=self._facts)
        return json.loads(flat.numpy().tobytes())

    def tell(self, error: Exception) -> None:
        """See `Team.tell`."""
        if error is not self._known:
            self._known = error
            with suppress(TeamError):
                self._exchange({"error": _facts_of(error)})

    @contextmanager
    def patiently(self) -> Generator[None]:
        """See `Team.patiently`."""
        self._facts = self._patient
        yield
        self._facts = None  # not after an error: the others hear of it there

    def leave(self, error: BaseException) -> None:
        """See `Team.leave`."""
        if isinstance(error, Exception):
            self.tell(error)
            if not self.leads:
                with suppress(TeamError):  # raised when the leader closes its connections
                    self._exchange({"error": _facts_of(error)})
        _end_process_group()

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no better type for gloo's
            self._known = TeamError(
                "another process of the run has ended or cannot be reached",
                where=f"{self.place}, on {socket.gethostname()}",
                do=_START_AGAIN,
            )
            raise self._known from error

    def _exchange(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Everyone's message, in the order of ranks."""
        data = _encoded(json.dumps(message).encode())
        sizes = torch.zeros(8, dtype=torch.uint8)
        sizes.view(torch.int64)[0] = len(data)
        first = self._gather(torch.cat([sizes, _padded(data[:_SLOT], _SLOT)]))
        lengths = [int(each[:8].clone().view(torch.int64)[0]) for each in first]
        texts = [each[8:] for each in first]
        if max(lengths) > _SLOT:
            texts = self._gather(_padded(data, max(lengths)))
        return [
            json.loads(text[:length].numpy().tobytes())
            for text, length in zip(texts, lengths, strict=True)
        ]

    def _gather(self, mine: Tensor) -> list[Tensor]:
        all_of_them = [torch.empty_like(mine) for _ in range(self.place.size)]
        with self._reaching():
            dist.all_gather(all_of_them, mine, group=self._facts)
        return all_of_them


# ---- numbers on the way ----


def _buckets(tensors: Iterable[Tensor]) -> Generator[list[Tensor]]:
    """Tensors of one type that travel together, in their order."""
    waiting: list[Tensor] = []
    for tensor in tensors:
        fits = sum(each.numel() for each in waiting) + tensor.numel() <= _BUCKET
        if waiting and not (fits and tensor.dtype == waiting[0].dtype):
            yield waiting
            waiting = []
        waiting.append(tensor)
    if waiting:
        yield waiting


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _encoded(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else _padded(None, 0)


def _padded(data: Tensor | None, size: int) -> Tensor:
    padded = torch.zeros(size, dtype=torch.uint8)
    if data is not None:
        padded[: len(data)] = data
    return padded


# ---- errors on the way: as text, never pickled ----


def _facts_of(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, DiscreetError):
        return {"what": f"{type(error).__name__}: {error}"}
    facts = {"type": type(error).__name__, "what": error.what, "where": error.where}
    return facts | {"do": error.do, "problems": list(getattr(error, "problems", ()))}


def _error_from(facts: Mapping[str, Any], *, rank: int, size: int) -> DiscreetError:
    kind = getattr(errors, facts.get("type", ""), None)
    if not (isinstance(kind, type) and issubclass(kind, DiscreetError)):
        return TeamError(
            f"process {rank + 1} of {size} has failed: {facts['what']}", do=_START_AGAIN
        )
    where = facts["where"]
    if rank:
        where = ", ".join(filter(None, [where, f"in process {rank + 1} of {size}"]))
    problems = {"problems": facts["problems"]} if facts["problems"] else {}
    return kind(facts["what"], where=where, do=facts["do"], **problems)
