"""Exposure and bars of pictures made dark, washed out or framed."""

from __future__ import annotations

import pytest
from PIL import Image

from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene


def test_black_frames_and_washed_out_pictures_but_not_night_and_plain_ground() -> None:
    day = scene(10, 256)
    black = day.point(lambda v: v // 12)
    washed = day.point(lambda v: min(255, 128 + v * 4))
    night = black.copy()
    night.paste(day.crop((100, 100, 150, 150)), (100, 100))  # one lit window
    on_white = Image.new("RGB", (256, 256), "white")
    on_white.paste(day.crop((0, 0, 140, 140)), (58, 58))
    pictures = {"day": day, "black": black, "washed": washed, "night": night, "on_white": on_white}
    light = {name: row_of("exposure", Item(encoded(p))) for name, p in pictures.items()}
    assert light["black"]["lights"] < 30 < 60 < min(light["day"]["lights"], light["night"]["lights"])
    assert light["washed"]["shadows"] > 126 > 110 > max(light["day"]["shadows"], light["on_white"]["shadows"])


def test_bars_are_not_plain_ground() -> None:
    framed = Image.new("RGB", (320, 400), "black")
    framed.paste(scene(11, 320).crop((0, 0, 320, 300)), (0, 50))
    assert row_of("exposure", Item(encoded(framed, "JPEG", quality=92)))["bars"] == pytest.approx(0.25, abs=0.02)
    thing = Image.new("RGB", (320, 400), "white")
    thing.paste(scene(11, 100), (110, 150))
    assert row_of("exposure", Item(encoded(thing)))["bars"] == 0
    assert row_of("exposure", Item(encoded(Image.new("RGB", (64, 64)))))["bars"] == 0
