"""One pass of the layer-wise engine: which layers ran, and what each image's gradients are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from discreet.errors import UnsupportedLayerError
from discreet.gradients.folding import Folding
from discreet.gradients.records import Held, Record
from discreet.gradients.selection import Selection


class Tape:
    """Collects records while the backward pass runs.

    Attributes:
        parameters: Dotted name to parameter, all that are wanted.
        selection: The engine's memory of the fastest method per layer and shape.
        folding: The engine's memory of which convolutions take in the BatchNorm behind them.
        leaves: Extra leaves of the graph, which the backward pass must reach.
        records: Dotted parameter name to what is known of its per-image gradients.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], selection: Selection, folding: Folding
    ) -> None:
        self.parameters = parameters
        self.selection = selection
        self.folding = folding
        self.leaves: list[Tensor] = []
        self.records: dict[str, Record] = {}
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._uses: Counter[str] = Counter()
        self._images: dict[str, int] = {}
        self._silenced: Tensor | None = None
        self._mixed: list[str] = []
        self._handed: dict[int, tuple[Tensor, nn.Module]] = {}

    def release(self) -> dict[str, Record]:
        """Hand over the records; layers that still know this tape keep nothing alive."""
        records, self.records = self.records, {}
        self.leaves = []
        return records

    def wants(self, parameter: Tensor | None) -> bool:
        """Whether this parameter's per-image gradients are asked for."""
        return parameter is not None and id(parameter) in self._names

    def enter(self, layer: str, images: int, *parameters: Tensor | None) -> None:
        """A layer runs forward, with `images` rows in dimension 0."""
        if not torch.is_grad_enabled():
            return
        self._images.setdefault(layer, images)
        if self._images[layer] != images:
            self._images[layer] = -1
        self._uses.update(self._names[id(p)] for p in parameters if p is not None and self.wants(p))

    def used_once(self, parameter: Tensor) -> bool:
        """Whether only one layer call contributes to this parameter."""
        return self._uses[self._names[id(parameter)]] == 1

    def hand_over(self, output: Tensor, norm: nn.Module) -> None:
        """This output of a convolution is already normalised."""
        self._handed[id(output)] = (output, norm)

    def claim(self, x: Tensor, norm: nn.Module) -> bool:
        """Whether a BatchNorm's input is already normalised by this very BatchNorm."""
        if id(x) in self._handed and self._handed[id(x)][1] is norm:
            del self._handed[id(x)]
            return True
        return False

    @property
    def unclaimed(self) -> bool:
        """Whether something other than its BatchNorm received a normalised output."""
        return bool(self._handed)

    def check_images(self, images: int) -> None:
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

    def start_probe(self, silenced: Tensor) -> None:
        """The next backward pass leaves out the losses of `silenced` images, bool (B,)."""
        self._silenced, self._mixed = silenced, []

    def end_probe(self) -> None:
        """No gradient reached a silenced image.

        Raises:
            UnsupportedLayerError: One did, so a row is not an image, or images are mixed.
        """
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

    def add(self, parameter: Tensor, record: Record) -> None:
        """One layer call's contribution; contributions add before norms are taken."""
        if self._silenced is not None:
            return
        name = self._names[id(parameter)]
        earlier = self.records.get(name)
        if earlier is not None:
            record = Held(earlier.per_image() + record.per_image())
        elif self.used_once(parameter):
            record.squared_norms()  # while the gradient is in cache
        self.records[name] = record


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
        ctx.call, ctx.parameters = call, len(parameters)
        output, saved = call.forward(x)
        ctx.save_for_backward(*saved)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        call: LayerCall = ctx.call
        call.tape.observe(call.layer, grad)
        # Detached: a record that kept a tensor of the graph would keep the graph, and the graph
        # keeps the record. Python cannot see that circle, and would never free it.
        saved = tuple(t if t.grad_fn is None else t.detach() for t in ctx.saved_tensors)
        grad_input = call.backward(grad, saved, ctx.needs_input_grad[1])
        return None, grad_input, *[None] * ctx.parameters


def run(
    call: LayerCall, x: Tensor, *parameters: Tensor | None, module: nn.Module | None = None
) -> Tensor:
    """Run one layer call as one node of autograd's graph.

    Args:
        call: The rule's work.
        x: The layer's input, images in dimension 0.
        parameters: The layer's parameters, so that the node is part of the graph.
        module: The layer, if the search for foldable pairs should know it.
    """
    with call.tape.folding.layer(x, module):
        wanted = [p for p in parameters if p is not None and call.tape.wants(p)]
        call.tape.enter(call.layer, len(x), *wanted)
        return _Node.apply(call, x, *wanted)  # pyright: ignore[reportReturnType]


def as_float(tensor: Tensor) -> Tensor:
    """Half precisions become float32; float32 and float64 stay."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
