"""Generators that rounds did not make: taken in as they are, judged, and improved by what can improve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.generators import describe, open_generator
from flywheel.presets import Enhancer
from flywheel.rounds import systems
from flywheel.rounds.promotion import incumbent
from flywheel.rounds.taken_in import keep, require_drawing
from tests.flywheel.generators.image_server import serving
from tests.flywheel.generators.tiny_pipeline import caption
from tests.flywheel.rounds import color_world
from tests.own_package import install


def careless(color: str, n: int) -> str:
    return f"please draw {caption(color, n)}" if color == "blue" else caption(color, n)


def test_an_endpoint_goes_through_two_rounds_and_is_repaired_by_the_enhancer(tmp_path: Path, monkeypatch):
    """The model behind the endpoint takes "please draw" badly; the enhancer writes it away."""
    install(tmp_path, monkeypatch)
    made = color_world.workspace(tmp_path / "w", careless)
    with serving(lambda prompt: "please" not in prompt) as server:
        table = {"kind": "endpoint", "url": server.url, "model": "theirs", "longest_wait": 0.05}
        server.faults = [(500, b"x"), (429, b"x"), (200, b"no JSON")]
        first = color_world.go(made, color_world.preset(table | {"price": 0.5}), 1)
        assert first.verdict == "PROMOTE" and first.failure_rate == {"shade": 1.0, "tint": 0.0, "tone": 0.0}
        assert color_world.tracks(made) == {"shade": "prompt_enhancement"}
        assert first.system["generator"] == {"kind": "endpoint", "model": "theirs"}
        through = color_world.preset(table, enhancer=Enhancer(draw=True))
        second = color_world.go(made, through, 2)
    assert second.verdict == "PROMOTE" and second.failure_rate["shade"] == 0.0, second.reason
    assert color_world.tracks(made) == {}
    planned = color_world.remedies(made, 2)
    assert "nothing here trains a generator of kind endpoint" in planned["pretraining data"]["reason"]
    assert "the incumbent is of kind endpoint" in planned["None distil"]["reason"]
    assert systems.read(made, 2).enhancer["backend"] == "rules" and incumbent(made).round == 2
    assert not [p for p in made.path("checkpoints").rglob("*") if p.suffix == ".safetensors"]


def test_a_prompt_that_the_candidate_refuses_is_no_win(tmp_path: Path, monkeypatch):
    install(tmp_path, monkeypatch)
    made = color_world.workspace(tmp_path / "w", careless)
    with serving(lambda prompt: "please" not in prompt) as server:
        table = {"kind": "endpoint", "url": server.url, "model": "theirs", "longest_wait": 0.05, "concurrency": 1}
        color_world.go(made, color_world.preset(table), 1)
        server.faults = [(400, b"content policy")]
        held = color_world.go(made, color_world.preset(table, enhancer=Enhancer(draw=True)), 2)
    assert held.verdict == "HOLD" and "1 checks of the incumbent have no verdict on the candidate" in held.reason
    refused = [s for s in Ledger(made, "signals").rows() if s["round"] == 2 and s["passed"] is None]
    assert len(refused) == 1 and refused[0]["image"] is None and "content policy" in refused[0]["evidence"]


def test_local_weights_are_copied_and_others_described(red_pipeline: Path, tmp_path: Path):
    made = Workspace(tmp_path / "w")
    plain = keep(made.path("a"), {"kind": "diffusers", "model": str(red_pipeline)})
    assert describe(plain) == {"kind": "diffusers", "model": str(plain)} and (plain / "model_index.json").exists()
    more = keep(made.path("b"), {"kind": "diffusers", "model": str(red_pipeline), "batch": 4})
    assert describe(more) == {"kind": "diffusers", "model": str(more / "model"), "batch": 4}
    assert open_generator(describe(plain)).fingerprint == open_generator(describe(more)).fingerprint
    tag = keep(made.path("c"), {"kind": "diffusers", "model": "owner/name"})
    assert json.loads((tag / "generator.json").read_text()) == {"kind": "diffusers", "model": "owner/name"}
    moved = tmp_path / "moved"
    made.root.rename(moved)  # a workspace can move: paths in it are relative
    assert describe(moved / "b")["model"] == str(moved / "b" / "model")


def test_what_cannot_draw_is_named(one_step: Path, tmp_path: Path):
    settings = color_world.preset({}).evaluation
    require_drawing(describe(one_step), settings, "-")
    write_json(tmp_path / "x" / "generator.json", {"kind": "crayon"})
    with pytest.raises(UsageError, match="generator.kind is 'crayon': choose checkpoint, diffusers, endpoint"):
        require_drawing(describe(tmp_path / "x"), settings, "-")
    with pytest.raises(UsageError, match="unexpected keyword argument 'colour'"):
        open_generator({"kind": "endpoint", "url": "http://x/v1", "model": "m", "colour": 1})
