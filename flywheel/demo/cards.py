"""Cards with one coloured shape at a stated place, or with two or three equal shapes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from curation.synthesis.canvas import RGB, Canvas, tint
from curation.synthesis.sample import Recipe, Sample
from flywheel.demo.meaning import POSITIONS, SHAPES, Meaning, meaning
from flywheel.demo.palette import BACKGROUNDS, INKS, SIZES

CENTRES = {"left": (0.27, 0.5), "right": (0.73, 0.5), "top": (0.5, 0.27), "bottom": (0.5, 0.73), "centre": (0.5, 0.5)}
SINGLE_RADIUS = 0.2
GROUPS = {  # number of shapes → radius, centres
    2: (0.18, ((0.26, 0.5), (0.74, 0.5))),
    3: (0.17, ((0.5, 0.26), (0.25, 0.72), (0.75, 0.72))),
}
_PLURAL = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars"}
_NUMBER = {2: "two", 3: "three"}
_PLACE = {
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "centre": ("in the centre", "in the middle"),
}


@dataclass(frozen=True)
class Single:
    """One shape at one place."""

    shape: str
    color: str
    position: str
    background: str


@dataclass(frozen=True)
class ShapeGroup:
    """Two or three equal shapes."""

    shape: str
    color: str
    count: int
    background: str


def draw_shape(canvas: Canvas, shape: str, x: float, y: float, radius: float, fill: RGB) -> None:
    """Draw a shape centred on (x, y), all in units of the side; shapes of equal radius look equally large."""
    if shape == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    elif shape == "square":
        half = radius * 0.9
        canvas.rounded((x - half, y - half, x + half, y + half), fill, radius * 0.06)
    elif shape == "triangle":
        r = radius * 1.2
        points = [(x + r * math.sin(a), y - r * math.cos(a) + r * 0.2) for a in (0, math.tau / 3, 2 * math.tau / 3)]
        canvas.polygon(points, fill)
    elif shape == "star":
        r = radius * 1.25
        radii = [r if i % 2 == 0 else r * 0.5 for i in range(10)]
        turns = [i * math.tau / 10 for i in range(10)]
        canvas.polygon([(x + q * math.sin(a), y - q * math.cos(a)) for q, a in zip(radii, turns)], fill)
    else:
        raise ValueError(f"unknown shape {shape!r}: choose from {', '.join(SHAPES)}")


def draw_single(card: Single, rng: random.Random, side: int | None = None) -> bytes:
    """PNG of the card; `rng` varies size, place and colour a little."""
    canvas = Canvas(tint(BACKGROUNDS[card.background], rng, 3), side or rng.choice(SIZES))
    x, y = CENTRES[card.position]
    radius = SINGLE_RADIUS * rng.uniform(0.97, 1.03)
    draw_shape(canvas, card.shape, x + jitter(rng), y + jitter(rng), radius, tint(INKS[card.color], rng))
    return canvas.png()


def draw_group(card: ShapeGroup, rng: random.Random) -> bytes:
    """PNG of the card; the shapes have one colour, and `rng` varies their places a little."""
    canvas = Canvas(tint(BACKGROUNDS[card.background], rng, 3), rng.choice(SIZES))
    radius, centres = GROUPS[card.count]
    fill = tint(INKS[card.color], rng)
    for x, y in centres:
        draw_shape(canvas, card.shape, x + jitter(rng), y + jitter(rng), radius, fill)
    return canvas.png()


def jitter(rng: random.Random, spread: float = 0.006) -> float:
    """A small displacement, in units of the side."""
    return rng.uniform(-spread, spread)


def article(noun: str) -> str:
    """The noun phrase with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def single_caption(card: Single, rng: random.Random) -> str:
    """One of several wordings; each states shape, colour, place and background."""
    thing, place = f"{card.color} {card.shape}", rng.choice(_PLACE[card.position])
    return rng.choice(
        (
            f"{article(thing)} {place} of {article(card.background)} card",
            f"{article(card.background)} card with {article(thing)} {place}",
            f"one {thing} {place}, {card.background} background",
            f"{article(thing)} {place} on {article(card.background)} background",
        )
    )


def group_caption(card: ShapeGroup, rng: random.Random) -> str:
    """One of several wordings; each states number, colour, shape and background."""
    things = f"{_NUMBER[card.count]} {card.color} {_PLURAL[card.shape]}"
    return rng.choice(
        (
            f"{things} on {article(card.background)} card",
            f"{article(card.background)} card with {things}",
            f"{things}, {card.background} background",
            f"exactly {things} on {article(card.background)} background",
        )
    )


def single_checks(card: Single) -> tuple[dict[str, Any], ...]:
    """The shape, alone; its colour and place; the background."""
    return (
        {"verifier": "object", "capability": "object", "shape": card.shape},
        {"verifier": "count", "capability": "object", "shape": card.shape, "count": 1},
        {"verifier": "color", "capability": "color", "shape": card.shape, "color": card.color},
        background_check(card.background),
        {"verifier": "position", "capability": "position", "shape": card.shape, "position": card.position},
    )


def group_checks(card: ShapeGroup) -> tuple[dict[str, Any], ...]:
    """Number of shapes in the stated colour; the colour; the background."""
    return (
        {
            "verifier": "count",
            "capability": "count",
            "shape": card.shape,
            "color": card.color,
            "count": card.count,
        },
        {"verifier": "color", "capability": "color", "shape": card.shape, "color": card.color},
        background_check(card.background),
    )


def background_check(color: str, capability: str = "color") -> dict[str, Any]:
    """The colour of the card itself."""
    return {"verifier": "background", "capability": capability, "color": color}


def single_meaning(card: Single) -> tuple[Meaning | None, ...]:
    """The meaning of the card's caption."""
    return (meaning(single_caption(card, random.Random(0))),)


def group_meaning(card: ShapeGroup) -> tuple[Meaning | None, ...]:
    """The meaning of the card's caption."""
    return (meaning(group_caption(card, random.Random(0))),)


def render_single(card: Single, rng: random.Random) -> Sample:
    """The card as a sample."""
    return Sample(draw_single(card, rng), single_caption(card, rng), "t2i", (), single_checks(card), "single-card")


def render_group(card: ShapeGroup, rng: random.Random) -> Sample:
    """The card as a sample."""
    return Sample(draw_group(card, rng), group_caption(card, rng), "t2i", (), group_checks(card), "group-card")


def single_cards() -> Recipe:
    """Every shape × colour × position × background."""
    variants = [Single(s, c, p, b) for s in SHAPES for c in INKS for p in POSITIONS for b in BACKGROUNDS]
    return Recipe("single-card", variants, single_meaning, render_single)


def group_cards() -> Recipe:
    """Every shape × colour × count × background."""
    variants = [ShapeGroup(s, c, n, b) for s in SHAPES for c in INKS for n in GROUPS for b in BACKGROUNDS]
    return Recipe("group-card", variants, group_meaning, render_group)
