"""Place text on a quiet part of a photograph, in perspective and with the light of that part."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw

from curation.synthesis.canvas import RGB
from curation.synthesis.glyphs import fonts_for
from curation.synthesis.layouts import Page
from curation.synthesis.phrases import Texts
from curation.synthesis.typeset import MIN_SIZE, Box, draw, fit

MAX_SIDE = 1536  # pixels: larger photographs are reduced
_OVERSAMPLING = 2
_TILT = 0.12  # largest shift of a corner, as a share of the text's height
_BOARDS: tuple[tuple[str, RGB, RGB], ...] = (  # name, background, ink
    ("white", (246, 244, 238), (28, 28, 30)),
    ("black", (30, 30, 32), (246, 240, 226)),
    ("yellow", (250, 208, 60), (30, 26, 20)),
    ("red", (186, 34, 36), (252, 248, 240)),
    ("blue", (30, 66, 140), (246, 248, 252)),
    ("wooden", (190, 142, 92), (46, 28, 16)),
)


def place(photo: Image.Image, what: str, texts: Texts, rng: random.Random, *, text: str | None = None) -> Page:
    """The photograph with a short text on a board, or painted on its surface. `what`: what the photograph shows.

    `text`: the text; default: drawn from `texts`. Errors: `NoRoom` if the text does not fit.
    """
    photo = photo.convert("RGB")
    photo.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    drawn = rng.choice((texts.title, texts.label, texts.speech))(random.Random(rng.getrandbits(64)))
    text = text or drawn
    share, form = rng.uniform(0.42, 0.7), rng.uniform(2.6, 4.0)
    width = photo.width * share
    height = min(width / form, photo.height * 0.5)
    left, top = _quiet(photo, width, height, rng)
    box = Box(left, top, left + width, top + height)
    board = rng.choice((*_BOARDS, None))
    ink = board[2] if board else _contrast(photo, box)
    layer = _layer(text, (width, height), texts.script, board, ink, rng)
    image = _blend(photo, layer, _corners(box, rng), painted=board is None)
    where = f"on a {board[0]} sign" if board else f"painted in {'white' if sum(ink) > 380 else 'black'}"
    return Page(image, (text,), f'{what}, with the words "{text}" {where}')


def _layer(
    text: str, size: tuple[float, float], script: str, board: tuple[str, RGB, RGB] | None, ink: RGB, rng: random.Random
) -> Image.Image:
    """The text on its board, or on a transparent layer: RGBA, oversampled."""
    width, height = (max(1, round(s * _OVERSAMPLING)) for s in size)
    layer = Image.new("RGBA", (width, height), (*ink, 0))
    canvas = ImageDraw.Draw(layer)
    edge = height * 0.06
    if board:
        canvas.rounded_rectangle((0, 0, width - 1, height - 1), radius=height * 0.1, fill=(*board[1], 255))
        frame = (edge / 2, edge / 2, width - edge / 2, height - edge / 2)
        canvas.rounded_rectangle(frame, radius=height * 0.08, outline=(*ink, 255), width=max(1, round(edge / 3)))
    font = rng.choice(fonts_for(text, script))
    box = Box(2.5 * edge, 2 * edge, width - 2.5 * edge, height - 2 * edge)
    draw(
        canvas, fit(text, box, font, height * 0.5, smallest=MIN_SIZE * _OVERSAMPLING, lines=2), box, ink, align="centre"
    )
    return layer


def _blend(photo: Image.Image, layer: Image.Image, corners: np.ndarray, *, painted: bool) -> Image.Image:
    """Warp the layer to the corners [4, 2] and shade it like the photograph; paint lets the surface show through."""
    import cv2

    w, h = layer.size
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    rgba = np.asarray(layer, np.float32)
    premultiplied = np.dstack([rgba[..., :3] * rgba[..., 3:] / 255, rgba[..., 3]])  # avoids a dark rim
    soft = cv2.GaussianBlur(premultiplied, (0, 0), _OVERSAMPLING / 2)
    warped = cv2.warpPerspective(soft, matrix, photo.size, flags=cv2.INTER_LINEAR)
    under = np.asarray(photo, np.float32)
    alpha = warped[..., 3:] / 255 * (0.92 if painted else 1.0)
    gray = under.mean(axis=2)
    covered = warped[..., 3] > 0
    light = cv2.GaussianBlur(gray, (0, 0), max(2.0, np.ptp(corners[:, 0]) / 6))
    shade = np.clip(light / max(1.0, float(light[covered].mean())), 0.75, 1.25)[..., None]
    surface = (gray - cv2.GaussianBlur(gray, (0, 0), 2.0))[..., None] * (0.3 if painted else 0.0)
    color = warped[..., :3] * (0.92 if painted else 1.0) * shade + surface * alpha
    return Image.fromarray(np.clip(under * (1 - alpha) + color, 0, 255).round().astype(np.uint8))


def _corners(box: Box, rng: random.Random) -> np.ndarray:
    """Corners [4, 2] of the box in perspective, clockwise from the top left: one side shorter, slightly rotated."""
    tilt = rng.uniform(0, _TILT) * box.height
    slope = rng.uniform(-_TILT, _TILT) * box.height
    near, far = (tilt, 0.0) if rng.random() < 0.5 else (0.0, tilt)
    return np.array(
        [
            [box.left, box.top + near],
            [box.right, box.top + far + slope],
            [box.right, box.bottom - far + slope],
            [box.left, box.bottom - near],
        ]
    )


def _quiet(photo: Image.Image, width: float, height: float, rng: random.Random) -> tuple[float, float]:
    """(left, top) of the box that covers least detail, among twelve random places inside the photograph."""
    import cv2

    gray = cv2.cvtColor(np.asarray(photo), cv2.COLOR_RGB2GRAY)
    detail = cv2.integral(np.abs(cv2.Laplacian(gray, cv2.CV_32F)))
    margin = height * 2 * _TILT
    places = [
        (
            rng.uniform(0, max(0.0, photo.width - width)),
            rng.uniform(margin, max(margin, photo.height - height - margin)),
        )
        for _ in range(12)
    ]

    def busy(place: tuple[float, float]) -> float:
        x, y = (round(v) for v in place)
        right, bottom = min(photo.width, x + round(width)), min(photo.height, y + round(height))
        return float(detail[bottom, right] - detail[y, right] - detail[bottom, x] + detail[y, x])

    return min(places, key=busy)


def _contrast(photo: Image.Image, box: Box) -> RGB:
    """Ink for the box: near white on a dark background, near black on a bright one."""
    part = photo.crop((round(box.left), round(box.top), round(box.right), round(box.bottom))).convert("L")
    return (22, 22, 24) if np.asarray(part).mean() > 120 else (250, 248, 240)
