"""The page "plug in your own": its package works as printed; `flywheel/rounds/test_external.py` runs its trainer."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.generator import Undrawn
from flywheel.core.scorer import Item
from flywheel.core.workspace import Workspace
from flywheel.generators import open_generator
from flywheel.presets import Evaluation, load_preset
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.suite import Prompt
from tests.own_package import blocks, forget, install


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch)
    yield
    forget()


def picture(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_scorer_and_the_verifier():
    from curation.scorers import load

    rows = load("mean_color").score([Item(picture((10, 20, 30))), Item(b"no picture")])
    assert rows[0] == {"rgb": [10.0, 20.0, 30.0]} and isinstance(rows[1], Exception)
    check = {"verifier": "card", "capability": "color", "color": "red"}
    suite = [Prompt(c, c, "t2i", (), (check,)) for c in ("right", "wrong")]
    right, wrong = judge_images(suite, [picture((210, 40, 40)), picture((40, 80, 210))])
    assert right[0].passed and not wrong[0].passed and wrong[0].evidence["seen"] == "blue"


def test_the_judge(tmp_path: Path):
    settings = Evaluation(suite="pool", side=64, steps=1, cfg=1.0, judge={"kind": "redness", "least": 150.0})
    by = Verifiers.of(Workspace(tmp_path / "w"), settings)
    check = {"verifier": "question", "capability": "color", "question": "Is it red?"}
    suite = [Prompt(c, c, "t2i", (), (check,)) for c in ("right", "wrong")]
    right, wrong = judge_images(suite, [picture((210, 40, 40)), picture((40, 80, 210))], by=by)
    assert right[0].passed and wrong[0].passed is False
    reference = tmp_path / "reference.png"
    reference.write_bytes(picture((1, 2, 3)))
    edit = Prompt("e", "make it red", "ti2i", (reference,), ({"verifier": "edit", "capability": "color"},))
    ((rated,),) = judge_images([edit], [picture((210, 40, 40))], by=by)
    assert rated.score is not None
    with pytest.raises(UsageError, match="no package declares a judge of kind 'blueness'"):
        Verifiers.of(None, Evaluation(suite="pool", side=64, steps=1, cfg=1.0, judge={"kind": "blueness"}))
    with pytest.raises(UsageError, match="unexpected keyword"):
        Verifiers.of(None, Evaluation(suite="pool", side=64, steps=1, cfg=1.0, judge={"kind": "redness", "most": 1}))


def test_the_generator_and_the_preset(tmp_path: Path):
    (toml,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(toml)
    preset = load_preset(str(tmp_path / "mine.toml"))
    assert preset.trainer.data == "images" and preset.generator == tomllib.loads(toml)["generator"]
    generator = open_generator(preset.generator)
    red, refused = generator.draw(["a red card", "a cat"], seeds=[1, 2], size=(8, 12))
    assert red.shape == (8, 12, 3) and red.dtype == np.uint8 and isinstance(refused, Undrawn)
    with pytest.raises(UsageError, match="generator of kind painter"):
        open_generator({"kind": "painter", "brushes": 3})


def test_a_class_without_the_members_of_a_generator_is_named(monkeypatch: pytest.MonkeyPatch):
    from flywheel import generators

    monkeypatch.setattr(generators, "plugins", lambda group: {"painter": type("Half", (), {"draw": None})})
    with pytest.raises(UsageError, match="its class has no fingerprint, independent"):
        open_generator({"kind": "painter"})
