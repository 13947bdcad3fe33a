"""A model that enlarges its images before its first layer looks at them.

Pretrained weights know objects as large as those of the images that they were trained on. In
images far smaller than those, the same objects are a few pixels wide, and hardly a pretrained
feature answers. Training on private images cannot mend that: what it would have to move is most
of the network, and noise grows with what moves. Enlarged images are in reach of the features
that are there, and nothing is spent. Each of the model's cells then sees a smaller piece of the
image, its strides shrink, and a pass takes zoom² times the work.

The enlarging layer is one that architectures list (`nn.Upsample`), so that a released model is
one of Ultralytics' own like any other, and takes images of the size that the user asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn
from ultralytics.nn.modules import Segment

from discreet.errors import ConfigurationError

_LAYER = "nn.Upsample"
_LARGEST_SIDE = 1 << 16  # a checkpoint may say anything; more is no photograph of objects
_INHERITED = ("names", "args", "task", "kpt_shape")


def enlarging(source: nn.Module, zoom: int) -> nn.Module:
    """The same model behind a layer that enlarges images, with all of the source's weights.

    Args:
        source: A model of Ultralytics; left as it is.
        zoom: How many times larger the sides become; 1 gives the source itself.

    Raises:
        ConfigurationError: The model draws masks, which Ultralytics' validation compares with
            masks of a quarter of the image's own size.
    """
    if zoom == 1:
        return source
    old: Any = source
    if isinstance(old.model[-1], Segment):
        raise ConfigurationError(
            "masks of enlarged images do not fit those that Ultralytics validates them by",
            where=f"zoom={zoom}",
            do="leave zoom out, or give a larger imgsz",
        )
    new: Any = cast(Any, type(source))(_with_first_layer(old.yaml, zoom), verbose=False)
    for layer, behind in zip(old.model, new.model[1:], strict=True):
        behind.load_state_dict(layer.state_dict())
    for name in _INHERITED:
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    return new


def alike(model: nn.Module, other: nn.Module) -> nn.Module:
    """A model that enlarges images as much as another does, if both have learned from one size."""
    same = trained_at(model) == trained_at(other)
    return enlarging(model, zoom_of(other)) if same and zoom_of(model) == 1 else model


def _with_first_layer(architecture: Mapping[str, Any], zoom: int) -> dict[str, Any]:
    backbone, head = (
        [[_all_moved(sources), *rest] for sources, *rest in architecture[part]]
        for part in ("backbone", "head")
    )
    # Size, scale and mode: smooth, as photographs are.
    first = [-1, 1, _LAYER, [None, zoom, "bilinear"]]
    return {**architecture, "backbone": [first, *backbone], "head": head}


def _moved(layer: int) -> int:
    """A layer's number, one on; negative numbers count from where they stand."""
    return layer + 1 if layer >= 0 else layer


def _all_moved(sources: int | Sequence[int]) -> int | list[int]:
    return _moved(sources) if isinstance(sources, int) else [_moved(source) for source in sources]


def moved_layers(layers: int | Sequence[int | str] | None) -> int | list[int | str] | None:
    """Layers that a user names by the source's numbers, by those behind the enlarging layer.

    Args:
        layers: As `freeze=`: the first N, or numbers and parts of names such as `22.cv2`.
    """
    if layers is None or isinstance(layers, int):
        return layers and layers + 1
    return [_moved(part) if isinstance(part, int) else _renamed(part) for part in layers]


def _renamed(part: str) -> str:
    number, *rest = part.split(".")
    return ".".join([str(int(number) + 1), *rest]) if number.isdecimal() else part


def zoom_of(model: nn.Module) -> int:
    """How many times larger a model makes the sides of its images; 1 if it does not."""
    first = cast(Any, model).model[0]
    return int(cast(Any, first).scale_factor) if isinstance(first, nn.Upsample) else 1


def trained_at(source: nn.Module) -> int | None:
    """Side in pixels of the images that weights were trained on; None where they do not tell."""
    settings: Any = getattr(source, "args", None)
    known = settings if isinstance(settings, Mapping) else vars(settings or object)
    side = cast("Mapping[str, Any]", known).get("imgsz")
    return side if isinstance(side, int) and 0 < side <= _LARGEST_SIDE else None
