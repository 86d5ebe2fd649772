"""Recorded pictures as a generator: found by prompt, references and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flywheel.core.generator import Undrawn
from flywheel.generators.recorded import RecordedGenerator
from flywheel.signals.suite import write_rows
from tests.flywheel.generators.tiny_pipeline import card, nearest


def test_a_prompt_finds_its_picture_by_references_and_seed(tmp_path: Path):
    for color in ("red", "green"):
        Image.fromarray(card(color)).save(tmp_path / f"{color}.png")
    edit = {"prompt": "make it blue", "task": "ti2i", "checks": []}
    rows = [
        {"prompt_id": "plain", "prompt": "a card", "task": "t2i", "checks": []},
        {"prompt_id": "from-red", "references": ["red.png"], **edit},
        {"prompt_id": "from-green", "references": ["green.png"], **edit},
    ]
    suite, folder = write_rows(tmp_path / "suite.jsonl", rows), tmp_path / "drawn"
    (folder / "3").mkdir(parents=True)
    for name, color in {"plain": "red", "from-green": "green", "3/from-red": "blue"}.items():
        Image.fromarray(card(color)).save(folder / f"{name}.png")
    generator = RecordedGenerator(str(folder), str(suite))
    asked = {"size": (16, 16), "references": [[], [card("red")], [card("green")], [card("green")], []]}
    texts = ["a card", "make it blue", "make it blue", "make it blue", "another"]
    drawn = list(generator.draw(texts, seeds=[0, 3, 0, 3, 0], **asked))
    assert [nearest(x) for x in drawn[:3]] == ["red", "blue", "green"]
    assert isinstance(drawn[3], Undrawn) and str(folder / "3" / "from-green.png") in drawn[3].reason
    assert isinstance(drawn[4], Undrawn) and "was not recorded" in drawn[4].reason
    before = generator.fingerprint
    (folder / "plain.png").write_bytes(b"no picture")
    changed = RecordedGenerator(str(folder), str(suite))
    assert changed.fingerprint != before
    (broken,) = changed.draw(["a card"], seeds=[0], size=(16, 16))
    assert (
        isinstance(broken, Undrawn) and "cannot be read" in broken.reason and np.asarray(drawn[0]).shape == (16, 16, 3)
    )
