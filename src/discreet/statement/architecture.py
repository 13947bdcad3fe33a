"""Whether a model's description, `model.yaml`, only names what stock descriptions name.

`ultralytics.nn.tasks.parse_model` evaluates `activation` as Python and looks each layer up by
its name, when a checkpoint is trained further. The words are those of the descriptions that
Ultralytics 8.4 ships, of all families and tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

from discreet.statement.pickles import shown

_KEYS = frozenset(
    """
    nc scales scale backbone head activation depth_multiple width_multiple end2end kpt_shape reg_max
    text_model channels ch yaml_file
    """.split()  # noqa: SIM905 - two lines instead of fourteen
)
_LAYERS = frozenset(
    """
    A2C2f ADown AConv AIFI Bottleneck BottleneckCSP C1 C2 C2f C2fAttn C2fCIB C2fPSA C2PSA C3 C3Ghost
    C3TR C3k2 C3x CBFuse CBLinear Classify Concat Conv ConvTranspose Depth Detect DWConv
    DWConvTranspose2d ELAN1 Focus GhostBottleneck GhostConv HGBlock HGStem ImagePoolingAttn Index
    LRPCHead OBB OBB26 PSA Pose Pose26 RTDETRDecoder RepC3 RepConv RepNCSPELAN4 ResNetLayer SCDown
    SPP SPPELAN SPPF Segment Segment26 SemanticSegment TorchVision WorldDetect YOLOEDetect
    YOLOESegment YOLOESegment26 v10Detect
    nn.BatchNorm2d nn.ConvTranspose2d nn.Identity nn.MaxPool2d nn.Upsample nn.ZeroPad2d
    """.split()  # noqa: SIM905
)
_ACTIVATION = re.compile(
    r"(torch\.)?nn\.[A-Z]\w*\(((\w+=)?(True|False|[\d.]+)(, (\w+=)?(True|False|[\d.]+))*)?\)",
    re.ASCII,
)
_WORD = re.compile(r"\w{0,20}(:\w{1,4})?", re.ASCII)
_MOST_LAYERS = 1000
_DEEPEST = 4


def architecture_faults(description: Any) -> Iterator[str]:
    """What a description has that those of stock models have not."""
    if not isinstance(description, dict):
        yield "is not one"
        return
    facts = cast("dict[Any, Any]", description)
    yield from (f"holds {shown(key)}" for key in facts if key not in _KEYS)
    activation = facts.get("activation")
    if activation and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        yield "holds an activation that is not one of torch's"
    for part in ("backbone", "head"):
        yield from _layer_faults(facts.get(part))
    for key in _KEYS - {"activation", "backbone", "head", "yaml_file"}:
        if not _is_plain(facts.get(key)):
            yield f"holds something else than numbers and words as {key}"


def _layer_faults(layers: Any) -> Iterator[str]:
    if not isinstance(layers, list) or len(cast("list[Any]", layers)) > _MOST_LAYERS:
        yield "has no list of layers"
        return
    for layer in cast("list[Any]", layers):
        match layer:
            case [source, int(), str(name), list(args)]:
                if name not in _LAYERS:
                    yield f"names the layer {shown(name)}"
                if not _is_plain(source) or not _is_plain(args):
                    yield "gives a layer something else than numbers and words"
            case _:
                yield "has a layer that is none"


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether it is made of numbers and single words, a few levels deep."""
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if value is None or isinstance(value, bool | int | float):
        return True
    if depth == _DEEPEST:
        return False
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return all(_is_plain(key) and _is_plain(inner, depth + 1) for key, inner in pairs)
    if isinstance(value, list | tuple):
        return all(_is_plain(inner, depth + 1) for inner in cast("list[Any]", value))
    return False
