"""Planted defects: every kind is there, and each is what it claims to be."""

import io

import pytest
from PIL import Image

from flywheel.core.files import read_json
from flywheel.core.image import BadImage, decode
from flywheel.demo.world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("demo") / "source", size="quick")


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "zero bytes",
        "not an image",
        "decompression bomb",
        "exact duplicate",
        "near duplicate",
        "blank",
        "noise",
        "too small",
        "over-long caption",
        "missing caption",
        "EXIF rotation",
        "invalid EXIF orientation",
    ],
)
def test_every_kind_of_defect_is_planted(world, kind):
    planted = [d for d in read_json(world.planted)["defects"] if d["kind"] == kind]
    assert planted and all((world.folder / d["file"]).is_file() for d in planted)


def test_quarantined_defects_cannot_be_decoded_and_all_others_can(world):
    outcomes = {d["file"]: d["outcome"] for d in read_json(world.planted)["defects"]}
    for path in sorted(world.folder.iterdir()):
        if path == world.captions:
            continue
        if outcomes.get(path.name) == "quarantined":
            with pytest.raises(BadImage):
                decode(path.read_bytes())
        else:
            decode(path.read_bytes())


def test_the_bomb_is_small_and_claims_to_be_large(world):
    bomb = (world.folder / "bomb.png").read_bytes()
    assert len(bomb) < 2000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb))


def test_the_turned_picture_stands_upright_once_its_orientation_is_applied(world):
    data = (world.folder / "turned.jpg").read_bytes()
    stored = Image.open(io.BytesIO(data))
    assert stored.size == (192, 256) and decode(data).size == (256, 192)
