"""One pass of the layer-wise engine: which layers ran, and what each image's gradients are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from discreet.errors import DiscreetError, UnsupportedLayerError
from discreet.gradients.arena import Arena, Lease, Wish
from discreet.gradients.folding import Folding, deferred
from discreet.gradients.records import Held, Record, RecordedGradients, SideBySide, Units
from discreet.gradients.selection import Selection

SMALL = 4096  # entries up to which gradients of different parameters share one matrix


class Reproducible(Protocol):
    """Can compute a weighted sum of gradients again, from less than the gradients."""

    @property
    def positions(self) -> int:
        """T: multiply-adds for each entry of the parameter and each image."""
        ...

    def record(self, squared: Tensor) -> Record:
        """The record, given the squared norms, (U,)."""
        ...


class Tape:
    """Collects records while the backward pass runs.

    Attributes:
        parameters: Dotted name to parameter, all that are wanted.
        selection: The engine's memory of the fastest method per layer and shape.
        folding: The engine's memory of which convolutions take in the BatchNorm behind them.
        units: Which images belong together; None where every image is a unit.
        leaves: Extra leaves of the graph, which the backward pass must reach.
        calls: Layers in the order of their calls.
        recording: Whether the backward pass that runs is the one that gives the gradients: not
            one inside the losses, nor a probe.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        selection: Selection,
        folding: Folding,
        arena: Arena,
        units: Units | None = None,
    ) -> None:
        self.parameters = parameters
        self.selection = selection
        self.folding = folding
        self.units = units
        self.leaves: list[Tensor] = []
        self._records: dict[str, Record] = {}
        self._small: SideBySide | None = None
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._uses: Counter[str] = Counter()
        self._images: dict[str, int] = {}
        self.calls: list[str] = []
        self.recording = False
        self._silenced: Tensor | None = None
        self._mixed: list[str] = []
        self._arena = arena
        self._lease: Lease | None = None
        self._wishes: dict[str, Wish] = {}
        self._kept = 0

    def start(self, images: int) -> None:
        """The losses are there, so many of them.

        Raises:
            UnsupportedLayerError: A layer saw another number of rows.
        """
        self._check_images(images)
        small = {name: p for name, p in self.parameters.items() if p.numel() <= SMALL}
        examples = self._examples(images)
        self._small, self._lease = SideBySide(small, examples), self._arena.lease(examples)

    @contextmanager
    def record(self) -> Generator[None, None, None]:
        """The backward pass that runs meanwhile gives the gradients."""
        self.recording = True
        try:
            yield
        finally:
            self.recording = False

    def release(self, images: int) -> RecordedGradients:
        """Hand over the gradients; layers that still know this tape keep nothing alive."""
        examples = self._examples(images)
        found = RecordedGradients(
            self.parameters, self._records, examples, small=self._small, memory=self._lease
        )
        if self._wishes:
            self._arena.plan(self._wishes, kept=self._kept, examples=examples)
        self._records, self._small, self._lease, self.leaves = {}, None, None, []
        return found

    def _examples(self, images: int) -> int:
        return images if self.units is None else self.units.count

    def wants(self, parameter: Tensor | None) -> bool:
        """Whether this parameter's per-image gradients are asked for."""
        return parameter is not None and id(parameter) in self._names

    @property
    def running(self) -> bool:
        """Whether a backward pass of the engine's own runs, not one inside the losses."""
        return self.recording or self._silenced is not None

    def collects(self, parameter: Tensor | None) -> bool:
        """Whether they are to be added to the tape now."""
        return self.recording and self.wants(parameter)

    def enter(self, layer: str, images: int, *parameters: Tensor | None) -> None:
        """A layer runs forward, with `images` rows in dimension 0."""
        if not torch.is_grad_enabled():
            return
        self.calls.append(layer)
        self._images.setdefault(layer, images)
        if self._images[layer] != images:
            self._images[layer] = -1
        self._uses.update(self._names[id(p)] for p in parameters if p is not None and self.wants(p))

    def used_once(self, parameter: Tensor) -> bool:
        """Whether only one layer call contributes to this parameter."""
        return self._uses[self._names[id(parameter)]] == 1

    def _check_images(self, images: int) -> None:
        """Every layer saw as many rows as there are losses.

        Raises:
            UnsupportedLayerError: A layer did not; its rows are not images.
        """
        for layer, rows in self._images.items():
            if rows != images:
                found = "varying numbers of" if rows < 0 else rows
                raise UnsupportedLayerError(
                    f"{images} images gave it {found} rows, so a row is not an image",
                    where=layer,
                    do="freeze the layer, or keep images in dimension 0 of its input",
                )

    @contextmanager
    def probe(self, silenced: Tensor) -> Generator[None, None, None]:
        """The backward pass that runs meanwhile leaves out the losses of some images.

        Args:
            silenced: Which ones, bool (B,).

        Raises:
            UnsupportedLayerError: A gradient reached the row of such an image, so a row is not
                an image, or images are mixed.
        """
        self._silenced, self._mixed = silenced, []
        try:
            yield
        finally:
            self._silenced = None
        if self._mixed:
            raise UnsupportedLayerError(
                "the loss of one image depends on another image's rows here",
                where=self._mixed[-1],
                do="keep images in dimension 0 of every layer, and losses and layers free of "
                "statistics of the batch",
            )

    def observe(self, layer: str, grad: Tensor) -> None:
        """The gradient of a layer's output, (B, …), passes by."""
        if self._silenced is None:
            return
        rows = grad.detach()[self._silenced]
        # Not finite proves nothing: a silenced image's own overflow gives 0 × inf.
        if bool(((rows != 0) & torch.isfinite(rows)).any()):
            self._mixed.append(layer)

    def kept(self, entries: int) -> None:
        """The forward pass kept so many numbers for the backward pass."""
        self._kept += entries

    def place(self, parameter: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Memory for this parameter's gradients if they will be held, (B, P)."""
        name = self._names[id(parameter)]
        direct = self.units is None and dtype == torch.float32 and self.used_once(parameter)
        if self._lease is None or not direct:
            return None
        return self._lease.place(name, parameter.numel())

    def add(self, parameter: Tensor, record: Record, otherwise: Reproducible | None = None) -> None:
        """One layer call's contribution; contributions add before norms are taken.

        Args:
            parameter: What the gradients are of.
            record: Gradients of the images.
            otherwise: What to keep instead if the gradients are not to be held.
        """
        if not self.recording:
            return
        name = self._names[id(parameter)]
        if self._small is not None and name in self._small:
            gradients = record.per_example()
            self._small.add(name, gradients if self.units is None else self.units.sum(gradients))
            return
        if self.units is not None:
            record = Held(self.units.sum(record.per_example()))
        earlier = self._records.get(name)
        if earlier is not None:
            record = Held(earlier.per_example() + record.per_example())
        elif self.used_once(parameter):
            squared = record.squared_norms()  # while the gradient is in cache
            if otherwise is not None:
                entries = parameter.numel()
                self._wishes[name] = Wish(entries=entries, positions=otherwise.positions)
                if self._lease is None or self._lease.place(name, entries) is None:
                    record = otherwise.record(squared)
        self._records[name] = record


class LayerCall(ABC):
    """One call of one layer: how its forward pass runs and what its gradients are.

    Attributes:
        tape: Where gradients go.
        layer: Dotted name of the layer.
    """

    def __init__(self, tape: Tape, layer: str) -> None:
        self.tape, self.layer = tape, layer

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output of the layer, and tensors to save for the backward pass."""

    @abstractmethod
    def backward(self, grad: Tensor, saved: tuple[Tensor, ...], need_input: bool) -> Tensor | None:
        """Add per-image gradients to the tape; return the input's gradient if needed.

        Args:
            grad: Gradient of the output, any layout, of the output's dtype.
            saved: What `forward` saved.
            need_input: Whether the input's gradient is wanted.
        """


class _Node(torch.autograd.Function):
    """The layer in autograd's graph: no gradient of the batch is ever computed for weights."""

    @staticmethod
    def forward(ctx: Any, call: LayerCall, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.call, ctx.parameters = call, parameters
        output, saved = call.forward(x)
        ctx.save_for_backward(*saved)
        # The input, and what the activation behind the layer keeps of the output.
        call.tape.kept(x.numel() + output.numel())
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        call: LayerCall = ctx.call
        if torch.is_grad_enabled():
            raise UnsupportedLayerError(
                "gradients of gradients (create_graph=True) are not known here",
                where=call.layer,
                do="freeze the layer, leave such terms out of the losses, or use engine=reference",
            )
        call.tape.observe(call.layer, grad)
        # Detached: a record that kept a tensor of the graph would keep the graph, and the graph
        # keeps the record. Python cannot see that circle, and would never free it.
        saved = tuple(t if t.grad_fn is None else t.detach() for t in ctx.saved_tensors)
        with _named(call.layer):
            grad_input = call.backward(grad, saved, ctx.needs_input_grad[1])
        if call.tape.running:
            return None, grad_input, *[None] * len(ctx.parameters)
        return None, grad_input, *[_refused(call.layer, like) for like in ctx.parameters]


def _refused(layer: str, like: Tensor) -> Tensor:
    """What a gradient taken inside the losses gets of a parameter: an error, if it is used."""

    def resolve(_by: nn.Module | None) -> Tensor:
        raise UnsupportedLayerError(
            "the losses ask for the gradient of its parameters",
            where=layer,
            do="inside the losses, take gradients of inputs only, by torch.autograd.grad",
        )

    return deferred(like.shape, like, resolve)


@contextmanager
def _named(layer: str) -> Generator[None, None, None]:
    """Errors of PyTorch say which layer met them."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, DiscreetError):
            error.add_note(f"in layer {layer}")
        raise


def run(call: LayerCall, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Run one layer call as one node of autograd's graph.

    Args:
        call: The rule's work.
        x: The layer's input, images in dimension 0.
        parameters: The layer's parameters, so that the node is part of the graph.

    Raises:
        UnsupportedLayerError: The layer runs where such a node cannot be.
    """
    where = (
        "inside a torch.func transform (vmap, grad, …)"
        if _transformed()
        else "inside torch.compile"
        if torch.compiler.is_compiling()
        else None
    )
    if where is not None:
        raise UnsupportedLayerError(
            f"it runs {where}, where gradients per image cannot be recorded",
            where=call.layer,
            do="call the layer directly, or freeze it",
        )
    wanted = [p for p in parameters if p is not None and call.tape.wants(p)]
    with _named(call.layer):
        call.tape.enter(call.layer, len(x), *wanted)
        return _Node.apply(call, x, *wanted)  # pyright: ignore[reportReturnType]


def _transformed() -> bool:
    functorch: Any = torch._C._functorch  # pyright: ignore
    return functorch.peek_interpreter_stack() is not None


def as_float(tensor: Tensor) -> Tensor:
    """Half precisions become float32; float32 and float64 stay."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
