from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discreet.demo.scenes import (
    CLASS_NAMES,
    PLATELET,
    PRIVATE,
    PUBLIC,
    RED_CELL,
    WHITE_CELL,
    SceneStyle,
    draw_scene,
)
from discreet.errors import ConfigurationError

STYLES = [pytest.param(PUBLIC, id="public"), pytest.param(PRIVATE, id="private")]


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_decides_the_scene(style: SceneStyle) -> None:
    one, again, other = (draw_scene(np.random.default_rng(seed), style) for seed in (3, 3, 4))
    for part, same in zip(one, again, strict=True):
        assert np.array_equal(part, same)
    assert not np.array_equal(one[0], other[0])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32), style=st.sampled_from([PUBLIC, PRIVATE]), size=st.integers(32, 160)
)
def test_labels_are_valid(seed: int, style: SceneStyle, size: int) -> None:
    image, classes, boxes = draw_scene(np.random.default_rng(seed), style, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert len(classes) == len(boxes) >= 1
    assert set(classes.tolist()) <= {RED_CELL, WHITE_CELL, PLATELET}
    assert boxes.shape == (len(classes), 4)
    assert (boxes[:, 2:] > 0).all()
    assert (boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-9).all()
    assert (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-9).all()


@pytest.mark.parametrize("style", STYLES)
def test_every_class_appears_often_enough_to_learn(style: SceneStyle) -> None:
    scenes = [draw_scene(np.random.default_rng(seed), style)[1] for seed in range(100)]
    counts = np.bincount(np.concatenate(scenes), minlength=len(CLASS_NAMES))
    assert len(counts) == len(CLASS_NAMES)
    assert (counts >= 40).all()


@pytest.mark.parametrize("style", STYLES)
def test_boxes_hold_the_cells(style: SceneStyle) -> None:
    """Labelled places differ from the empty slide, and white cells are larger than platelets."""
    darker, areas = [], {WHITE_CELL: [], PLATELET: []}
    for seed in range(40):
        image, classes, boxes = draw_scene(np.random.default_rng(seed), style)
        size = len(image)
        empty = np.ones((size, size), dtype=bool)
        for x, y, width, height in boxes * size:
            rows = slice(int(y - height / 2), int(np.ceil(y + height / 2)))
            empty[rows, int(x - width / 2) : int(np.ceil(x + width / 2))] = False
        slide = np.median(image[empty].astype(float), axis=0)
        assert slide.min() > 80
        assert image.std() > 5
        for kind, (x, y, width, height) in zip(classes.tolist(), boxes * size, strict=True):
            if kind in areas:
                areas[kind].append(width * height)
            inner = image[
                int(y - height / 4) : int(y + height / 4) + 1,
                int(x - width / 4) : int(x + width / 4) + 1,
            ]
            darker.append(slide.sum() - inner.reshape(-1, 3).astype(float).mean(0).sum())
    assert np.quantile(darker, 0.05) > 10
    assert np.median(areas[WHITE_CELL]) > 4 * np.median(areas[PLATELET])


def test_the_laboratories_differ_in_colour_and_magnification() -> None:
    def look(style: SceneStyle) -> tuple[np.ndarray, float]:
        scenes = [draw_scene(np.random.default_rng(seed), style) for seed in range(20)]
        colour = np.mean([image.reshape(-1, 3).mean(0) for image, _, _ in scenes], axis=0)
        widths = np.concatenate([boxes[classes == RED_CELL, 2] for _, classes, boxes in scenes])
        return colour, float(np.median(widths))

    (public_colour, public_width), (private_colour, private_width) = look(PUBLIC), look(PRIVATE)
    assert np.abs(public_colour - private_colour).max() > 20
    assert private_width > 1.15 * public_width


@pytest.mark.parametrize("size", [0, 31, 64.5])
def test_bad_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="size"):
        draw_scene(np.random.default_rng(0), PUBLIC, size)
