"""Each statistic against a plain implementation, and on pictures whose properties are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from curation.scorers import load
from curation.scorers.pixels import border
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, turned
from tests.curation.scorers.examples import row_of, scene


def test_pixel_statistics_of_known_pictures() -> None:
    blank = row_of("pixels", Item(encoded(Image.new("RGB", (64, 64), (200, 200, 200)))))
    assert (blank["entropy"], blank["contrast"], blank["sharpness"], blank["saturation"]) == (0, 0, 0, 0)
    assert blank["luma"] == 200 and blank["grayscale"]
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert row_of("pixels", Item(encoded(Image.fromarray(noise))))["entropy"] > 11
    gray = np.repeat(noise[..., :1], 3, axis=2)
    row = row_of("pixels", Item(encoded(Image.fromarray(gray))))
    assert row["grayscale"] and row["spatial_entropy"] > 7
    red = row_of("pixels", Item(encoded(Image.new("RGB", (64, 64), (255, 0, 0)))))
    assert red["saturation"] == 1 and not red["grayscale"]


def test_statistics_are_those_of_the_upright_picture() -> None:
    upright = texture(3, 160, 120)
    raised = row_of("pixels", Item(turned(upright.transpose(Image.Transpose.ROTATE_90), 6)))
    plain = row_of("pixels", Item(encoded(upright, "JPEG", quality=92)))
    assert (raised["phash"] ^ plain["phash"]).bit_count() <= 2


def test_truncated_pictures_raise_for_their_own_row() -> None:
    good, jpeg = encoded(texture(1)), encoded(texture(2), "JPEG", quality=95)
    rows = load("pixels").score([Item(good), Item(jpeg[: len(jpeg) // 2]), Item(good[:-300]), Item(good)])
    assert [isinstance(r, BadImage) for r in rows] == [False, True, True, False]
    assert "truncated" in str(rows[1])


def test_border_is_the_area_outside_the_picture() -> None:
    framed = Image.new("RGB", (400, 400), "black")
    framed.paste(texture(3, 400, 300), (0, 50))
    assert row_of("pixels", Item(encoded(framed)))["border"] == pytest.approx(0.25, abs=0.01)
    assert row_of("pixels", Item(encoded(texture(3, 400, 300))))["border"] == 0
    assert border(np.zeros((50, 50), np.uint8)) == 1


def test_texture_is_the_share_of_cells_that_have_some() -> None:
    half = Image.new("RGB", (256, 256), (90, 120, 160))
    half.paste(scene(4, 256).crop((0, 0, 128, 256)), (0, 0))
    assert row_of("pixels", Item(encoded(half)))["texture"] == pytest.approx(0.5, abs=0.06)


def statistics(picture: Image.Image | bytes, form: str = "PNG", **options: object) -> dict:
    (row,) = load("pixels").score([Item(picture if isinstance(picture, bytes) else encoded(picture, form, **options))])
    assert isinstance(row, dict), row
    return row


def entropy(values: np.ndarray) -> float:
    share = np.unique(values, return_counts=True)[1] / values.size
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("seed", range(4))
def test_statistics_are_those_of_their_definition(seed: int) -> None:
    picture = texture(seed, 204, 152)
    if seed == 3:
        picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (152, 204, 3), dtype=np.uint8))
    rgb = np.asarray(picture).astype(np.float64)
    luma = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float64)
    row = statistics(picture)
    assert row["luma"] == pytest.approx(luma.mean()) and row["contrast"] == pytest.approx(luma.std())
    half = rgb[::2]  # colour and histograms look at every other row
    high, low = half.max(axis=2), half.min(axis=2)
    saturation = np.where(high > 0, (high - low) / np.maximum(high, 1), 0)
    assert row["saturation"] == pytest.approx(saturation.mean(), abs=1 / 255)
    around = np.pad(luma, 1, mode="reflect")
    edges = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] - 4 * luma
    assert row["sharpness"] == pytest.approx(edges.var())
    levels = half // 16
    assert row["entropy"] == pytest.approx(entropy(levels[..., 0] * 256 + levels[..., 1] * 16 + levels[..., 2]))
    steps = [np.abs(np.diff(plane, axis=1)) for plane in (luma[::2], half[..., 0] - half[..., 1])]
    assert row["spatial_entropy"] == pytest.approx(max(entropy(np.minimum(s, 255)) for s in steps))
    cells = luma[:144, :192].reshape(9, 16, 12, 16)
    assert row["texture"] == pytest.approx((cells.std(axis=(1, 3)) > 4).mean())
    thumbnail = cv2.resize(rgb, (8, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(np.frombuffer(row["thumbnail"], np.uint8).reshape(8, 8, 3) - thumbnail).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (15, 900), (33, 33)])
def test_pictures_of_any_shape_have_statistics(size: tuple[int, int]) -> None:
    row = statistics(Image.new("RGB", size, (9, 90, 200)))
    assert row["entropy"] == row["spatial_entropy"] == row["contrast"] == row["texture"] == 0
    assert row["border"] == 1
    assert len(row["thumbnail"]) == 192 and isinstance(row["phash"], int)


def test_only_what_is_wanted_is_computed() -> None:
    item = Item(encoded(texture(7)))
    every, few = load("pixels"), load("pixels", only=["luma"])
    (full,), (part,) = every.score([item]), few.score([item])
    assert few.fields == every.fields and few.version != every.version != load("pixels", only=[]).version
    assert part == {k: v if k in ("luma", "phash", "thumbnail") else None for k, v in full.items()}
    with pytest.raises(UsageError, match="unknown taste; choose from luma"):
        load("pixels", only=["taste"])
