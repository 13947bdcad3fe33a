"""Synthetic scenes that look like stained blood smears, for the built-in demo.

Two laboratories: `PUBLIC` is what the shipped model was pretrained on, `PRIVATE` another one
with other stains, lamp, magnification and density, which that model reads only partly. Nobody's
data is involved: a seed makes the scenes, and the same seed makes the same files, to the byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from discreet import _validate
from discreet.demo.cells import Floats, Outline, Slide, random_outline
from discreet.errors import ConfigurationError

CLASS_NAMES = ("red cell", "white cell", "platelet")
RED_CELL, WHITE_CELL, PLATELET = range(3)

# Side of the field of view that lengths in a `SceneStyle` are given for.
REFERENCE_SIZE = 128
SMALLEST_SIZE = 32

Colour: TypeAlias = tuple[float, float, float]
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SceneStyle:
    """How one laboratory's scenes look.

    Lengths are pixels of a 128-pixel scene and scale with the scene's size. Colours are red,
    green and blue between 0 and 1: what the lamp gives (`background`), or the share of it that
    one unit of a stain lets through. Pairs are bounds of a uniform draw.

    Attributes:
        background: Colour of the empty slide.
        haemoglobin: Colour of red cells.
        nucleus: Colour of nuclei and platelets.
        cytoplasm: Colour of a white cell around its nucleus.
        strength: Stain strength of a scene.
        tint: Deviation of the lamp's colour from scene to scene, relative.
        red_radius: Radius of red cells.
        white_scale: Radius of white cells, in mean red radii.
        platelet_scale: Radius of platelets, in mean red radii.
        red_cells: How many red cells a scene has, before those that find no room.
        white_cells: Chances of 0, 1, 2, … white cells.
        platelets: Chances of 0, 1, 2, … platelets.
        pallor: Share of the stain missing in the middle of a red cell.
        irregularity: How uneven outlines are; 0 is round.
        overlap: How far two cells may overlap, share of the sum of their radii.
        blur: Deviation of the lens' blur.
        noise: Deviation of the camera's noise, of 255.
    """

    background: Colour
    haemoglobin: Colour
    nucleus: Colour
    cytoplasm: Colour
    strength: Range
    tint: float
    red_radius: Range
    white_scale: Range
    platelet_scale: Range
    red_cells: tuple[int, int]
    white_cells: tuple[float, ...]
    platelets: tuple[float, ...]
    pallor: Range
    irregularity: float
    overlap: float
    blur: Range
    noise: Range


PUBLIC = SceneStyle(
    background=(0.82, 0.85, 0.86),
    haemoglobin=(0.93, 0.70, 0.68),
    nucleus=(0.50, 0.36, 0.90),
    cytoplasm=(0.88, 0.76, 0.94),
    strength=(0.8, 1.2),
    tint=0.02,
    red_radius=(8.0, 11.0),
    white_scale=(1.5, 1.9),
    platelet_scale=(0.38, 0.55),
    red_cells=(6, 24),
    white_cells=(0.35, 0.5, 0.15),
    platelets=(0.2, 0.35, 0.3, 0.15),
    pallor=(0.3, 0.8),
    irregularity=0.6,
    overlap=0.22,
    blur=(0.3, 0.8),
    noise=(1.5, 4.0),
)

PRIVATE = SceneStyle(
    background=(0.84, 0.74, 0.60),
    haemoglobin=(0.90, 0.70, 0.69),
    nucleus=(0.51, 0.35, 0.85),
    cytoplasm=(0.88, 0.75, 0.93),
    strength=(0.6, 0.9),
    tint=0.02,
    red_radius=(11.0, 15.0),
    white_scale=(1.4, 1.7),
    platelet_scale=(0.34, 0.48),
    red_cells=(4, 14),
    white_cells=(0.35, 0.5, 0.15),
    platelets=(0.2, 0.35, 0.3, 0.15),
    pallor=(0.1, 0.5),
    irregularity=0.9,
    overlap=0.25,
    blur=(0.6, 1.2),
    noise=(3.0, 6.0),
)

# A cell with less of its box than this inside the scene is not drawn, so that no cell is
# visible without a label.
SMALLEST_VISIBLE_SHARE = 0.35


def draw_scene(
    rng: np.random.Generator, style: SceneStyle, size: int = REFERENCE_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """Draw one scene.

    Args:
        rng: The only source of variation.
        style: The laboratory.
        size: Side of the image, pixels; the field of view stays the same.

    Returns:
        The image, uint8 (size, size, 3), red, green, blue; the class of each cell, int64 (k,);
        and its box, float64 (k, 4): centre x, centre y, width, height as shares of the side,
        inside the image. k is at least 1.

    Raises:
        ConfigurationError: `size` is not a whole number, or below 32.
    """
    _validate.positive_int(size=size)
    if size < SMALLEST_SIZE:
        raise ConfigurationError(f"expected size >= {SMALLEST_SIZE}, got {size=}", where="size")
    slide = Slide(height=size, width=size)
    softness = 0.6 + rng.uniform(0, 0.5)
    pallor = rng.uniform(*style.pallor)
    for _ in range(int(rng.integers(0, 4))):
        slide.add_debris(rng, _debris(rng, style, size), softness=softness * 3)
    classes: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    for kind, outline, box in _place_cells(rng, style, size):
        if kind == RED_CELL:
            own = float(np.clip(pallor + rng.normal(0, 0.12), 0, 0.9))
            slide.add_red_cell(rng, outline, pallor=own, softness=softness)
        elif kind == WHITE_CELL:
            slide.add_white_cell(rng, outline, softness=softness)
        else:
            slide.add_platelet(rng, outline, softness=softness)
        classes.append(kind)
        boxes.append(box)
    image = _photograph(rng, style, slide.density, size)
    return image, np.array(classes, dtype=np.int64), np.array(boxes, dtype=np.float64)


def _debris(rng: np.random.Generator, style: SceneStyle, size: int) -> Outline:
    x, y = rng.uniform(0, size, 2)
    radius = float(rng.uniform(0.1, 0.9) * style.red_radius[0]) * size / REFERENCE_SIZE
    return random_outline(rng, x=x, y=y, radius=radius, irregularity=1.0)


def _place_cells(
    rng: np.random.Generator, style: SceneStyle, size: int
) -> list[tuple[int, Outline, tuple[float, float, float, float]]]:
    """Choose cells, largest first, so that they overlap little; class, outline and box of each."""
    scale = size / REFERENCE_SIZE
    typical = sum(style.red_radius) / 2 * scale
    kinds = [WHITE_CELL] * int(rng.choice(len(style.white_cells), p=style.white_cells))
    kinds += [RED_CELL] * int(rng.integers(style.red_cells[0], style.red_cells[1] + 1))
    kinds += [PLATELET] * int(rng.choice(len(style.platelets), p=style.platelets))
    placed: list[tuple[int, Outline, tuple[float, float, float, float]]] = []
    for kind in kinds:
        if kind == RED_CELL:
            radius = rng.uniform(*style.red_radius) * scale
        else:
            bounds = style.white_scale if kind == WHITE_CELL else style.platelet_scale
            radius = rng.uniform(*bounds) * typical
        # White cells keep their neighbours off, platelets lie on the free slide.
        overlap = style.overlap if kind == RED_CELL else 0.0
        for _ in range(30):
            x, y = rng.uniform(-0.5 * radius, size - 1 + 0.5 * radius, 2)
            if any(
                math.hypot(other.x - x, other.y - y)
                < (other.radius + radius)
                * (1 - (overlap if other_kind == RED_CELL else 0.3 * overlap))
                for other_kind, other, _ in placed
            ):
                continue
            outline = random_outline(rng, x=x, y=y, radius=radius, irregularity=style.irregularity)
            box = _visible_box(outline, size)
            if box is not None:
                placed.append((kind, outline, box))
                break
    return placed


def _visible_box(outline: Outline, size: int) -> tuple[float, float, float, float] | None:
    """Box of the part inside the scene, centre and sides as shares; None if hardly visible."""
    # Pixel centres are whole numbers: the scene spans -0.5 to size - 0.5.
    left, top, right, bottom = ((corner + 0.5) / size for corner in outline.corners())
    area = (right - left) * (bottom - top)
    left, top, right, bottom = max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)
    width, height = right - left, bottom - top
    if min(width, height) <= 0 or width * height < SMALLEST_VISIBLE_SHARE * area:
        return None
    return (left + right) / 2, (top + bottom) / 2, width, height


def _photograph(
    rng: np.random.Generator, style: SceneStyle, density: Floats, size: int
) -> NDArray[np.uint8]:
    """Lamp, stains, lens and camera: stain densities (3, H, W) to an image (H, W, 3)."""
    stains = np.array([style.haemoglobin, style.nucleus, style.cytoplasm])
    strengths = rng.uniform(*style.strength) * rng.uniform(0.9, 1.1, (3, 1))
    absorbed = -np.log(stains) * strengths  # (stain, colour)
    light = np.exp(-np.einsum("shw,sc->hwc", density, absorbed.astype(np.float32)))
    lamp = np.array(style.background) * (1 + rng.normal(0, style.tint, 3))
    lamp *= rng.uniform(0.92, 1.06)
    light *= lamp.astype(np.float32)
    light *= _illumination(rng, size)[:, :, None]
    sigma = rng.uniform(*style.blur) * size / REFERENCE_SIZE
    light = cv2.GaussianBlur(light, (0, 0), sigma)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    pixels = 255 * light + np.float32(rng.uniform(*style.noise)) * noise
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _illumination(rng: np.random.Generator, size: int) -> Floats:
    """Uneven lamp: a slope and darker corners, around 1, float32 (H, W)."""
    across = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = rng.normal(0, 0.03, 2)
    vignette = rng.uniform(0, 0.06)
    x, y = across[None, :], across[:, None]
    return (1 + slope_x * x + slope_y * y - vignette * (x * x + y * y)).astype(np.float32)
