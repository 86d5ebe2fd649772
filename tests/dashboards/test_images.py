"""Images of a workspace: which are served, and how small they are made."""

import base64
import io
import random

from PIL import Image

from dashboards.images import InlineImages, picture, shrink
from flywheel.core.workspace import Workspace


def test_only_pictures_inside_the_workspace_are_found(empty: Workspace, tmp_path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    empty.path("samples").mkdir()
    Image.new("RGB", (8, 8)).save(empty.path("samples", "in.png"))
    empty.path("samples", "link.png").symlink_to(tmp_path / "outside.png")
    assert picture(empty, "samples/in.png") is not None
    outside = ["../outside.png", "samples/link.png", str(tmp_path / "outside.png")]
    for name in (*outside, "workspace.json", "no.png", None, "a\0b"):
        assert picture(empty, name) is None


def test_large_pictures_shrink_and_small_ones_stay_as_they_are(empty: Workspace) -> None:
    dice = random.Random(0)
    noise = Image.frombytes("RGB", (900, 600), dice.randbytes(900 * 600 * 3))
    path = empty.path("samples", "noise.png")
    path.parent.mkdir()
    noise.save(path)
    data, kind = shrink(path, 192)
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (192, 128)
        assert Image.MIME[small.format] == kind
    Image.new("RGB", (64, 64), "red").save(path)
    assert shrink(path, 192) == (path.read_bytes(), "image/png")


def test_inline_pictures_stop_at_the_budget(empty: Workspace) -> None:
    empty.path("samples").mkdir()
    for i in (1, 2, 3):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(empty.path("samples", f"{i}.png"))
    size = len(base64.b64encode(empty.path("samples", "1.png").read_bytes())) + len("data:image/png;base64,")
    inline = InlineImages(empty, budget=2 * size + 10)
    shown = [inline(f"samples/{i}.png") for i in (1, 2, 3)]
    assert [s is not None for s in shown] == [True, True, False]
    assert inline.left_out == 1
    assert inline("samples/missing.png") is None
