"""Draw single cells as stain densities.

Coordinates are pixels, x to the right, y down, pixel centres at whole numbers. Shapes: H, W are
the scene's height and width; h, w those of one cell's patch.

Stain is light absorbed, so densities of overlapping cells add up (Beer-Lambert law; Ruifrok and
Johnston 2001, section 2), which is what makes overlaps look darker, as on a slide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

# Channels of the density maps: what a stain colours.
HAEMOGLOBIN, NUCLEUS, CYTOPLASM = range(3)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A closed, nearly elliptic curve around a centre.

    Attributes:
        x: Centre, pixels.
        y: Centre, pixels.
        radius: Mean radius, pixels.
        stretch: Long over short axis, at equal area; 1 is round.
        angle: Direction of the long axis, radians.
        waves: Ripples of the radius: (how many around, relative height, phase).
    """

    x: float
    y: float
    radius: float
    stretch: float = 1.0
    angle: float = 0.0
    waves: tuple[tuple[int, float, float], ...] = ()

    @property
    def reach(self) -> float:
        """No point of the curve is farther from the centre than this, pixels."""
        height = sum(abs(height) for _, height, _ in self.waves)
        return self.radius * math.sqrt(self.stretch) * (1 + height)

    def _ripple(self, theta: Floats) -> Floats:
        ripple = np.ones_like(theta)
        for times, height, phase in self.waves:
            ripple += np.float32(height) * np.cos(times * theta + np.float32(phase))
        return ripple

    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the tightest box around the curve, pixels."""
        theta = np.linspace(0, 2 * math.pi, 96, endpoint=False, dtype=np.float32)
        length = self.radius * self._ripple(theta)
        u = length * np.cos(theta) * math.sqrt(self.stretch)
        v = length * np.sin(theta) / math.sqrt(self.stretch)
        x = self.x + u * math.cos(self.angle) - v * math.sin(self.angle)
        y = self.y + u * math.sin(self.angle) + v * math.cos(self.angle)
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def depth(self, xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
        """How far inside the curve each point lies.

        Args:
            xs: Horizontal positions, (w,) pixels.
            ys: Vertical positions, (h,) pixels.

        Returns:
            Signed distance to the curve in pixels, approximate, positive inside, (h, w); and the
            distance from the centre over that of the curve in the same direction, (h, w).
        """
        dx = (xs - np.float32(self.x))[None, :]
        dy = (ys - np.float32(self.y))[:, None]
        cos, sin = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        u: Floats = (cos * dx + sin * dy) / np.float32(math.sqrt(self.stretch))
        v: Floats = (cos * dy - sin * dx) * np.float32(math.sqrt(self.stretch))
        from_centre: Floats = np.sqrt(u * u + v * v)
        limit = np.float32(self.radius) * self._ripple(np.arctan2(v, u))
        return limit - from_centre, from_centre / limit


def random_outline(
    rng: np.random.Generator, *, x: float, y: float, radius: float, irregularity: float
) -> Outline:
    """Draw an outline; `irregularity` 0 is a circle, 1 a very uneven cell."""
    phases = rng.uniform(0, 2 * math.pi, 3)
    heights = irregularity * rng.uniform(0.2, 1, 3) * (0.07, 0.06, 0.035)
    return Outline(
        x=x,
        y=y,
        radius=radius,
        stretch=1 + irregularity * float(rng.gamma(2.0, 0.16)),
        angle=float(rng.uniform(0, math.pi)),
        waves=tuple((k, float(heights[k - 2]), float(phases[k - 2])) for k in (2, 3, 4)),
    )


def _cover(depth: Floats, softness: float) -> Floats:
    """Share of light path inside: 1 well inside, 0 well outside, `softness` pixels wide."""
    return np.clip(0.5 + depth / np.float32(2 * softness), 0, 1)


def _grain(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Floats:
    """Smooth noise with mean 0 and deviation about 1, spots about `size` pixels wide, (h, w)."""
    if 0 in shape:  # a cell wholly outside the slide
        return np.zeros(shape, dtype=np.float32)
    coarse = (max(2, round(shape[1] / size)), max(2, round(shape[0] / size)))
    noise = rng.standard_normal(coarse[::-1], dtype=np.float32)
    resized = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.float32)


class Slide:
    """Density maps being filled: float32 (3, H, W), one map per stain channel."""

    def __init__(self, *, height: int, width: int) -> None:
        self.density: Floats = np.zeros((3, height, width), dtype=np.float32)
        self._xs = np.arange(width, dtype=np.float32)
        self._ys = np.arange(height, dtype=np.float32)

    def _window(self, outline: Outline) -> tuple[slice, slice]:
        """Rows and columns that an outline can touch, within the slide; maybe none."""
        reach = outline.reach + 2
        return (
            slice(max(0, math.floor(outline.y - reach)), max(0, math.ceil(outline.y + reach))),
            slice(max(0, math.floor(outline.x - reach)), max(0, math.ceil(outline.x + reach))),
        )

    def add_red_cell(
        self, rng: np.random.Generator, outline: Outline, *, pallor: float, softness: float
    ) -> None:
        """A biconcave disc: thin, thus pale, in the middle.

        Args:
            rng: Source of the cell's variation.
            outline: The cell's border.
            pallor: Share of the density missing in the middle, 0 to 1.
            softness: Half the width of the border, pixels.
        """
        rows, columns = self._window(outline)
        depth, relative = outline.depth(self._xs[columns], self._ys[rows])
        hollow = pallor * np.exp(-((relative / np.float32(rng.uniform(0.4, 0.6))) ** 3))
        rim = 1 + 0.15 * np.exp(-(((relative - 0.8) / 0.15) ** 2))
        strength = rng.uniform(0.8, 1.15)
        cell = _cover(depth, softness) * (1 - hollow) * rim * strength
        self.density[HAEMOGLOBIN, rows, columns] += cell.astype(np.float32)

    def add_white_cell(
        self, rng: np.random.Generator, outline: Outline, *, softness: float
    ) -> None:
        """Pale, grainy cytoplasm around a dark nucleus of one to five lobes."""
        rows, columns = self._window(outline)
        xs, ys = self._xs[columns], self._ys[rows]
        depth, _ = outline.depth(xs, ys)
        inside = _cover(depth, softness)
        nucleus = np.zeros_like(inside)
        for lobe in _lobes(rng, outline):
            nucleus = np.maximum(nucleus, _cover(lobe.depth(xs, ys)[0], 1.3 * softness))
        nucleus *= inside
        grain = max(1.5, 0.12 * outline.radius)
        chromatin = 1 + 0.18 * _grain(rng, inside.shape, grain)
        granules = 1 + 0.3 * _grain(rng, inside.shape, grain)
        strength = rng.uniform(0.8, 1.15)
        self.density[NUCLEUS, rows, columns] += np.maximum(0, nucleus * chromatin * strength)
        pale = inside * (1 - 0.7 * nucleus) * granules * rng.uniform(0.6, 1.3)
        self.density[CYTOPLASM, rows, columns] += np.maximum(0, pale)

    def add_platelet(self, rng: np.random.Generator, outline: Outline, *, softness: float) -> None:
        """A small, grainy fragment, darkest in the middle."""
        rows, columns = self._window(outline)
        depth, relative = outline.depth(self._xs[columns], self._ys[rows])
        inside = _cover(depth, 1.5 * softness)
        core = inside * np.clip(1.25 - relative, 0.2, 1)
        spots = np.clip(1 + 0.35 * _grain(rng, inside.shape, 2.0), 0.2, 2)
        strength = rng.uniform(0.45, 0.8)
        self.density[NUCLEUS, rows, columns] += core * spots * strength
        self.density[CYTOPLASM, rows, columns] += inside * 0.8

    def add_debris(self, rng: np.random.Generator, outline: Outline, *, softness: float) -> None:
        """A speck out of focus: nothing to detect."""
        rows, columns = self._window(outline)
        depth, _ = outline.depth(self._xs[columns], self._ys[rows])
        channel = int(rng.integers(3))
        speck = _cover(depth, softness) * rng.uniform(0.1, 0.3)
        self.density[channel, rows, columns] += speck.astype(np.float32)


def _lobes(rng: np.random.Generator, cell: Outline) -> list[Outline]:
    """Lobes of a nucleus: one large (a lymphocyte), or two to five on a bent string."""
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.3, 0.15, 0.25, 0.2, 0.1]))
    if count == 1:
        radius = cell.radius * rng.uniform(0.55, 0.75)
        shift = rng.uniform(-0.15, 0.15, 2) * cell.radius
        return [
            random_outline(
                rng, x=cell.x + shift[0], y=cell.y + shift[1], radius=radius, irregularity=0.7
            )
        ]
    start, turn = rng.uniform(0, 2 * math.pi), rng.uniform(0.8, 1.15)
    lobes: list[Outline] = []
    for number in range(count):
        bearing = start + number * turn * (1.5 if count < 4 else 1.2)
        away = cell.radius * rng.uniform(0.36, 0.5)
        lobes.append(
            random_outline(
                rng,
                x=cell.x + away * math.cos(bearing),
                y=cell.y + away * math.sin(bearing),
                radius=cell.radius * rng.uniform(0.27, 0.36),
                irregularity=1.0,
            )
        )
    return lobes
