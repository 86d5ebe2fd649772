"""`flywheel sample`: same request, same bytes; what the user got wrong in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.generators import describe, open_generator
from flywheel.rounds.sample import parse_size, promoted_checkpoint, sample_pictures
from tests.flywheel.cli.command import wrong


def test_a_picture_is_a_function_of_the_request(one_step, tmp_path):
    def draw(output: str, **request):
        summary = sample_pictures(
            open_generator(describe(one_step)),
            str(one_step),
            "A red disc!",
            output=tmp_path / output,
            **({"steps": 2} | request),
        )
        return [open(path, "rb").read() for path in summary["images"]], summary

    two, summary = draw("a", seed=3, count=2)
    assert (summary["size"], summary["steps"], summary["seeds"], summary["step"]) == ("32x32", 2, [3, 4], 1)
    assert draw("b", seed=4)[0] == two[1:] and two[0] != two[1]
    assert all(Image.open(path).size == (32, 32) for path in summary["images"])
    sheet = np.asarray(Image.open(summary["grid"]))
    assert sheet.shape[1] > 2 * 32 * 4 and sheet[:128, :128].std() > 0

    reference = tmp_path / "ref.png"
    Image.new("RGB", (40, 30), "blue").save(reference)
    edited, wide = draw("a", seed=3, references=[reference], size=(16, 32))
    assert wide["size"] == "32x16" and edited[0] != two[0]
    assert len(list((tmp_path / "a").iterdir())) == 5  # requests never overwrite each other
    assert summary["images"][0].split("/")[-1].startswith("a-red-disc-")


def test_the_last_promoted_checkpoint_is_taken(tmp_path):
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="no promoted checkpoint"):
        promoted_checkpoint(workspace)
    for number, verdict in enumerate(("PROMOTE", "PROMOTE", "REJECT"), 1):
        row = {"round": number, "verdict": verdict, "checkpoint": f"checkpoints/{number}/final", "snapshot": "s"}
        Ledger(workspace, "rounds").append([row], key=f"round/{number}")
    assert promoted_checkpoint(workspace) == workspace.path("checkpoints", "2", "final")


def test_what_is_wrong_is_named(one_step, tmp_path):
    assert parse_size("64x32") == (32, 64)
    for size in ("64", "0x64", "-1x2", "axb"):
        with pytest.raises(UsageError, match="such as 64x64"):
            parse_size(size)
    (tmp_path / "text.png").write_text("no image")
    requests = [
        ({"count": 0}, "at least one"),
        ({"size": (30, 32)}, "multiples of 8"),
        ({"steps": 0}, "at least 1"),
        ({"cfg": float("nan")}, "guidance weight from 0 to 100"),
        ({"cfg": -1.0}, "guidance weight from 0 to 100"),
        ({"cfg": float("inf")}, "guidance weight from 0 to 100"),
        ({"references": [tmp_path / "none.png"]}, "none.png cannot be read"),
        ({"references": [tmp_path / "text.png"]}, "not an image"),
        ({"output": tmp_path / "text.png"}, "is a file"),
    ]
    for request, message in requests:
        with pytest.raises(UsageError, match=message):
            sample_pictures(
                open_generator(describe(one_step)), str(one_step), "a disc", **({"output": tmp_path / "out"} | request)
            )
    with pytest.raises(UsageError, match="is not a checkpoint"):
        sample_pictures(open_generator(describe(tmp_path)), str(tmp_path), "a disc", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "either --checkpoint DIR or --workspace W" in wrong("sample", "a disc")
