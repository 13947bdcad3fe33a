from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.demo.cells import HAEMOGLOBIN, NUCLEUS, Outline, Slide, random_outline


def test_a_plain_outline_is_a_circle() -> None:
    circle = Outline(x=10.0, y=20.0, radius=5.0)
    assert circle.corners() == pytest.approx((5.0, 15.0, 15.0, 25.0), abs=1e-3)
    assert circle.reach == 5.0


def test_stretch_keeps_the_area_and_follows_the_angle() -> None:
    upright = Outline(x=0.0, y=0.0, radius=4.0, stretch=2.25, angle=math.pi / 2)
    left, top, right, bottom = upright.corners()
    assert right - left == pytest.approx(2 * 4 / 1.5, rel=1e-2)
    assert bottom - top == pytest.approx(2 * 4 * 1.5, rel=1e-2)


@given(seed=st.integers(0, 10_000), irregularity=st.floats(0, 1))
def test_corners_enclose_exactly_the_points_inside(seed: int, irregularity: float) -> None:
    outline = random_outline(
        np.random.default_rng(seed), x=40.2, y=39.7, radius=15.0, irregularity=irregularity
    )
    axis = np.arange(80, dtype=np.float32)
    depth, relative = outline.depth(axis, axis)
    assert np.array_equal(depth > 0, relative < 1)
    ys, xs = np.nonzero(depth > 0)
    found = (xs.min(), ys.min(), xs.max(), ys.max())
    # Whole pixels against the curve between them.
    assert np.allclose(found, outline.corners(), atol=1.1)


@given(seed=st.integers(0, 10_000), x=st.floats(-30, 70), y=st.floats(-30, 70))
def test_cells_may_lie_partly_or_wholly_outside_the_slide(seed: int, x: float, y: float) -> None:
    rng = np.random.default_rng(seed)
    slide = Slide(height=40, width=40)
    outline = random_outline(rng, x=x, y=y, radius=9.0, irregularity=0.8)
    slide.add_red_cell(rng, outline, pallor=0.5, softness=0.8)
    slide.add_white_cell(rng, outline, softness=0.8)
    slide.add_platelet(rng, outline, softness=0.8)
    slide.add_debris(rng, outline, softness=2.0)
    assert np.isfinite(slide.density).all()
    assert slide.density.min() >= 0


def test_red_cells_are_paler_in_the_middle_and_overlaps_are_darker() -> None:
    rng = np.random.default_rng(0)
    slide = Slide(height=60, width=80)
    slide.add_red_cell(rng, Outline(x=30.0, y=30.0, radius=15.0), pallor=0.7, softness=0.8)
    alone = slide.density[HAEMOGLOBIN].copy()
    assert alone[30, 30] < 0.6 * alone[30, 42]
    assert alone[5, 70] == 0
    slide.add_red_cell(rng, Outline(x=54.0, y=30.0, radius=15.0), pallor=0.7, softness=0.8)
    assert slide.density[HAEMOGLOBIN, 30, 42] > 1.5 * alone[30, 42]


@pytest.mark.parametrize("seed", range(12))
def test_white_cells_have_a_dark_nucleus_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slide = Slide(height=60, width=60)
    cell = Outline(x=30.0, y=30.0, radius=18.0, stretch=1.6)
    slide.add_white_cell(rng, cell, softness=0.8)
    axis = np.arange(60, dtype=np.float32)
    depth, _ = cell.depth(axis, axis)
    nucleus = slide.density[NUCLEUS]
    assert nucleus[depth < -2].max() == 0
    assert 0.1 < (nucleus[depth > 0] > 0.5).mean() < 0.8
