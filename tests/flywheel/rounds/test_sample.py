"""`flywheel sample`: same request, same bytes; what the user got wrong in one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.presets import load_preset
from flywheel.rounds.sample import parse_size, promoted_checkpoint, sample_pictures
from flywheel.signals.mining import read_judgements
from flywheel.signals.self_evaluation import self_evaluate
from flywheel.signals.suite import load_suite
from tests.flywheel.cli.command import flywheel, wrong
from tests.training.snapshots import card_rows, write_snapshot
from training.data.plan import MixSource
from training.phase import train
from training.recipes import recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    manifest = write_snapshot(folder, [{"rows": card_rows(70)}])
    tiny = recipe("tiny", batch={64: 4}, resolution={64: 32}, channels=16, text_tokens=16, t2i_share=1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train(folder / "run", [MixSource(manifest=manifest)], tiny, steps=1).path
    torch.set_num_threads(threads)


def test_a_picture_is_a_function_of_the_request(checkpoint, tmp_path):
    def draw(output: str, **request):
        summary = sample_pictures(checkpoint, "A red disc!", output=tmp_path / output, **({"steps": 2} | request))
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


def test_what_is_wrong_is_named(checkpoint, tmp_path):
    assert parse_size("64x32") == (32, 64)
    for size in ("64", "0x64", "-1x2", "axb"):
        with pytest.raises(UsageError, match="such as 64x64"):
            parse_size(size)
    (tmp_path / "text.png").write_text("no image")
    requests = [
        ({"count": 0}, "at least one"),
        ({"size": (30, 32)}, "multiples of 8"),
        ({"steps": 0}, "at least 1"),
        ({"cfg": float("nan")}, "finite guidance"),
        ({"cfg": float("inf")}, "finite guidance"),
        ({"references": [tmp_path / "none.png"]}, "none.png cannot be read"),
        ({"references": [tmp_path / "text.png"]}, "not an image"),
        ({"output": tmp_path / "text.png"}, "is a file"),
    ]
    for request, message in requests:
        with pytest.raises(UsageError, match=message):
            sample_pictures(checkpoint, "a disc", **({"output": tmp_path / "out"} | request))
    with pytest.raises(UsageError, match="is not a checkpoint"):
        sample_pictures(tmp_path, "a disc", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "either --checkpoint DIR or --workspace W" in wrong("sample", "a disc")


def test_the_command(checkpoint, tmp_path):
    out = flywheel(
        "sample", "a disc", "--checkpoint", checkpoint, "--size", "32x16", "--steps", 1, "--output", tmp_path, "--json"
    )
    summary = json.loads(out.stdout)
    assert Image.open(summary["images"][0]).size == (32, 16) and Image.open(summary["grid"]).size[0] > 32


def test_a_checkpoint_judges_its_own_pictures_and_the_bad_ones_are_mined(checkpoint, tmp_path):
    write_suite(tmp_path / "suite", size="quick")
    few = tmp_path / "few.jsonl"
    few.write_text("".join((tmp_path / "suite" / "suite.jsonl").read_text().splitlines(keepends=True)[:3]))
    workspace, preset = Workspace(tmp_path / "w"), tmp_path / "p.toml"
    text = (resources.files("flywheel.presets") / "tiny.toml").read_text()
    preset.write_text(re.sub(r"(?m)^steps = .*$", "steps = 1", re.sub(r"(?m)^side = .*$", "side = 32", text)))
    verb = ("signals", "judge", checkpoint, "-w", workspace.root, "--suite", few, "--preset", preset, "--seeds", "2")
    counts = json.loads(flywheel(*verb, "--json").stdout)
    judged = read_judgements(next(workspace.path("judgements").iterdir())).to_pylist()
    assert {r["seed"] for r in judged} == {0, 1} and len({r["prompt_id"] for r in judged}) == 3
    assert all(workspace.path(r["image"]).exists() for r in judged)
    signals = Ledger(workspace, "signals").rows()
    assert sum(counts.values()) == len(signals) > 0  # one training step draws no scene
    assert json.loads(flywheel(*verb, "--json").stdout) == {}, "nothing is new the second time"
    assert len(Ledger(workspace, "signals").rows()) == len(signals)
    asked = [replace(p, checks=p.checks[:1]) for p in load_suite(few)]  # other checks are another judgement
    other = self_evaluate(workspace, checkpoint, asked, range(2), load_preset(str(preset)).evaluation)
    assert read_judgements(other).num_rows == 6 and len(list(workspace.path("judgements").iterdir())) == 2
    assert "is not a checkpoint" in wrong("signals", "judge", tmp_path, "-w", workspace.root, "--suite", few)
    assert "pass a suite file with --suite" in wrong("signals", "judge", checkpoint, "-w", workspace.root)
