"""Exposure and bars of pictures made dark, over-exposed or framed."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene


def test_black_frames_but_not_night_nor_coloured_words_on_black() -> None:
    day = scene(10, 256)
    black = day.point(lambda v: v // 12)
    night = black.copy()
    night.paste(day.crop((100, 100, 150, 150)), (100, 100))  # one lit window
    blue = Image.new("RGB", (256, 256))
    ImageDraw.Draw(blue).text((40, 100), "open", fill=(0, 0, 255), font_size=60)  # luma 29
    peak = {n: row_of("exposure", Item(encoded(p)))["peak"] for n, p in
            {"day": day, "black": black, "night": night, "blue": blue}.items()}  # fmt: skip
    assert peak["black"] < 30 < 100 < min(peak["day"], peak["night"], peak["blue"])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_burnt_pictures_but_not_what_is_drawn_on_white(form: str) -> None:
    day, white = scene(10, 256), Image.new("RGB", (1024, 768), "white")
    burnt = row_of("exposure", Item(encoded(day.point(lambda v: min(255, 128 + v * 6)), form)))["burnt"]
    assert burnt > 0.3
    on_white, word, grey, lines = (white.copy() for _ in range(4))
    on_white.paste(day, (300, 300))
    ImageDraw.Draw(word).text((100, 300), "Annual Report", fill="black", font_size=40)
    ImageDraw.Draw(grey).text((100, 300), "Annual Report", fill=(150, 150, 150), font_size=60)
    for n in range(9):
        ImageDraw.Draw(lines).line([90, 80 * n, 900, 700 - 60 * n], fill="black")
    for sound in (day, white, on_white, word, grey, lines):
        assert row_of("exposure", Item(encoded(sound, form)))["burnt"] <= (1 if sound is white else 0)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pale_sketches_and_charts_are_not_burnt(form: str) -> None:
    """Lines of one ink, of any strength and colour; flat patches in several pale colours."""
    sketch, chart = (Image.new("RGB", (800, 600), "white") for _ in range(2))
    for n in range(150):  # no ink is darker than 110 in any channel, and no strength is the most frequent
        strength = (n % 15 + 1) / 15
        ink = tuple(round(255 - strength * v) for v in (100, 120, 145))
        ImageDraw.Draw(sketch).line([n * 37 % 800, 0, n * 91 % 800, 600], fill=ink, width=2)
    for n, colour in enumerate(((250, 180, 190), (170, 220, 180), (180, 190, 240)) * 3):
        ImageDraw.Draw(chart).rectangle([40 + 80 * n, 500 - 40 * n, 100 + 80 * n, 560], fill=colour)
    for sound in (sketch, chart):
        assert row_of("exposure", Item(encoded(sound, form)))["burnt"] == 0
    washed = scene(10, 256).convert("L").convert("RGB").point(lambda v: min(255, 128 + v * 5))
    assert row_of("exposure", Item(encoded(washed, form)))["burnt"] > 0.3


def test_bars_are_not_plain_ground() -> None:
    framed = Image.new("RGB", (320, 400), "black")
    framed.paste(scene(11, 320).crop((0, 0, 320, 300)), (0, 50))
    assert row_of("exposure", Item(encoded(framed, "JPEG", quality=92)))["bars"] == pytest.approx(0.25, abs=0.02)
    thing = Image.new("RGB", (320, 400), "white")
    thing.paste(scene(11, 100), (110, 150))
    assert row_of("exposure", Item(encoded(thing)))["bars"] == 0
    assert row_of("exposure", Item(encoded(Image.new("RGB", (64, 64)))))["bars"] == 0
