"""Faces drawn for the cascade are counted and measured."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

from curation.scorers import load
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene


def portrait(side: int = 400, blur: float = 0) -> Image.Image:
    """A drawn head: skin, shaded eyes with brows, nose and mouth; what a cascade of contrasts answers to."""
    picture = Image.new("L", (side, side), 90)
    draw = ImageDraw.Draw(picture)
    u = side / 100
    draw.ellipse((25 * u, 12 * u, 75 * u, 90 * u), fill=200)
    for x in (39, 61):
        draw.ellipse(((x - 8) * u, 37 * u, (x + 8) * u, 47 * u), fill=110)
        draw.ellipse(((x - 3) * u, 39 * u, (x + 3) * u, 45 * u), fill=20)
        draw.rectangle(((x - 8) * u, 33 * u, (x + 8) * u, 35 * u), fill=60)
    draw.rectangle((48 * u, 40 * u, 52 * u, 60 * u), fill=225)
    draw.ellipse((45 * u, 58 * u, 55 * u, 63 * u), fill=150)
    draw.ellipse((39 * u, 70 * u, 61 * u, 76 * u), fill=90)
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(1 + blur))


def test_faces_are_counted_and_measured() -> None:
    sharp, soft = (row_of("face", Item(encoded(portrait(blur=b)))) for b in (0, 5))
    assert sharp["count"] == soft["count"] == 1
    assert 0.35 < sharp["largest"] < 0.9
    assert soft["sharpness"] < sharp["sharpness"] / 2
    two = Image.new("RGB", (800, 400))
    two.paste(portrait(), (0, 0))
    two.paste(portrait(), (400, 0))
    assert row_of("face", Item(encoded(two)))["count"] == 2
    nobody = row_of("face", Item(encoded(scene(6))))
    assert nobody.pop("count") == 0 and set(nobody.values()) == {None}
    assert isinstance(load("face").score([Item(b"")])[0], BadImage)
