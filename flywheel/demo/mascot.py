"""The mascot: a little bear, always the same, beside a shape; it must survive every edit of the shape."""

from __future__ import annotations

import random
from dataclasses import dataclass

from curation.synthesis.canvas import RGB, Canvas, tint
from flywheel.demo.cards import CENTRES, article, draw_shape, jitter
from flywheel.demo.palette import BACKGROUNDS, INKS, SIZES

RADIUS = 0.19
SIDES = ("left", "right")
_FUR, _EAR, _MUZZLE, _DARK = (150, 92, 48), (104, 60, 30), (246, 224, 190), (36, 26, 24)


@dataclass(frozen=True)
class Scene:
    """The mascot on `side`, a shape on the opposite side."""

    shape: str
    color: str
    side: str
    background: str


def draw_mascot(canvas: Canvas, x: float, y: float, r: float) -> None:
    """A bear's face centred on (x, y) with head radius `r`, in units of the side."""

    def disc(dx: float, dy: float, rx: float, ry: float, fill: RGB) -> None:
        canvas.ellipse((x + (dx - rx) * r, y + (dy - ry) * r, x + (dx + rx) * r, y + (dy + ry) * r), fill)

    for ear in (-0.72, 0.72):
        disc(ear, -0.72, 0.4, 0.4, _FUR)
        disc(ear, -0.72, 0.22, 0.22, _EAR)
    disc(0, 0, 1, 0.95, _FUR)
    disc(0, 0.4, 0.56, 0.44, _MUZZLE)
    disc(0, 0.24, 0.2, 0.15, _DARK)
    for eye in (-0.42, 0.42):
        disc(eye, -0.2, 0.14, 0.17, _DARK)
        disc(eye + 0.05, -0.26, 0.05, 0.05, (255, 255, 255))
    canvas.arc((x - 0.24 * r, y + 0.22 * r, x + 0.24 * r, y + 0.62 * r), 30, 150, _DARK, 0.07 * r)


def draw_scene(scene: Scene, rng: random.Random) -> bytes:
    """PNG of the scene. Equal `rng` states place things equally, so that an edit changes only what it states."""
    canvas = Canvas(tint(BACKGROUNDS[scene.background], rng, 3), rng.choice(SIZES))
    x, y = CENTRES[scene.side]
    draw_mascot(canvas, x + jitter(rng), y + jitter(rng), RADIUS * rng.uniform(0.97, 1.03))
    x, y = CENTRES[_opposite(scene.side)]
    at = (x + jitter(rng), y + jitter(rng))
    draw_shape(canvas, scene.shape, *at, RADIUS * rng.uniform(0.97, 1.03), tint(INKS[scene.color], rng))
    return canvas.png()


def scene_caption(scene: Scene, rng: random.Random) -> str:
    """One of several wordings."""
    side, opposite = scene.side, _opposite(scene.side)
    thing, card = article(f"{scene.color} {scene.shape}"), f"{article(scene.background)} card"
    return rng.choice(
        (
            f"the mascot on the {side} and {thing} on the {opposite} of {card}",
            f"{card} with the mascot on the {side} and {thing} on the {opposite}",
        )
    )


def _opposite(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]
