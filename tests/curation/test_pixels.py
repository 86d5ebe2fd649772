"""Each statistic of pixels against a plain implementation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from curation.scorers import load
from flywheel.core.errors import UsageError
from flywheel.core.image import decode
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def one(picture: Image.Image | bytes, form: str = "PNG", **options: object) -> dict:
    (row,) = load("pixels").score([Item(picture if isinstance(picture, bytes) else encoded(picture, form, **options))])
    assert isinstance(row, dict), row
    return row


# Statistics ----------------------------------------------------------------------------------------------------------
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
    row = one(picture)
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
    rows, columns = (
        [np.minimum(np.abs(np.diff(luma, axis=axis)), 64)[(np.s_[:],) * axis + (np.s_[p::8],)].mean() for p in range(8)]
        for axis in (0, 1)
    )
    assert row["blockiness"] == pytest.approx(max(max(p) / np.median(p) for p in (rows, columns)))
    thumbnail = cv2.resize(rgb, (8, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(np.frombuffer(row["thumbnail"], np.uint8).reshape(8, 8, 3) - thumbnail).max() <= 2


def test_blockiness_is_read_at_native_resolution_or_not_at_all() -> None:
    large = texture(6, 900, 600)
    worn = decode(encoded(large, "JPEG", quality=15))
    assert one(large)["blockiness"] < 1.1 < 1.25 < one(worn)["blockiness"]
    assert one(worn, "JPEG")["blockiness"] is None


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (15, 900), (33, 33)])
def test_pictures_of_any_shape_have_statistics(size: tuple[int, int]) -> None:
    row = one(Image.new("RGB", size, (9, 90, 200)))
    assert row["entropy"] == row["spatial_entropy"] == row["contrast"] == row["texture"] == 0
    assert row["border"] == row["blockiness"] == 1 or max(size) > 512
    assert len(row["thumbnail"]) == 192 and isinstance(row["phash"], int)


def test_only_what_is_wanted_is_computed() -> None:
    item = Item(encoded(texture(7)))
    every, few = load("pixels"), load("pixels", only=["luma"])
    (whole,), (part,) = every.score([item]), few.score([item])
    assert few.fields == every.fields and few.version != every.version != load("pixels", only=[]).version
    assert part == {k: v if k in ("luma", "phash", "thumbnail") else None for k, v in whole.items()}
    with pytest.raises(UsageError, match="unknown taste; choose from luma"):
        load("pixels", only=["taste"])
