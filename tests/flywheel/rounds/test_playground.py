"""A picture that a person asked for, and the thumb that becomes a case."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flywheel.cases.events import load_cases
from flywheel.cases.stored import gather
from flywheel.core.errors import UsageError
from flywheel.core.generator import Generator, Undrawn
from flywheel.core.image import decode
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.generators.checkpoint import CheckpointGenerator
from flywheel.rounds import playground
from flywheel.rounds.playground import MAX_SIDE, answer, load, play
from tests.flywheel.operate.in_service import in_service

ASKED = {"size": (32, 32), "seed": 3}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return in_service(tmp_path_factory.mktemp("played") / "w")


@pytest.fixture(scope="module")
def generator(workspace: Workspace) -> Generator:
    return CheckpointGenerator(str(workspace.round(1).checkpoint("candidate") / "final"))


def picture(side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_thumb_down_is_one_signal_and_one_case(workspace: Workspace, generator: Generator) -> None:
    played = play(workspace, generator, 'a sign with the word "OPEN"', **ASKED)
    assert load(workspace, played.id) == played and played.task == "t2i"
    assert decode(workspace.path(played.image).read_bytes()).size == (32, 32)
    assert answer(workspace, played, "down", "the word is misspelled", by="ada")
    assert not answer(workspace, played, "up", "", by="ada")  # the first answer counts
    assert answer(workspace, played, "up", "", by="bob")
    rows = Ledger(workspace, "signals").rows()
    assert sorted(r["passed"] for r in rows) == [False, True]
    assert {(r["kind"], r["image"], r["checkpoint"]) for r in rows} == {("feedback", played.image, played.checkpoint)}
    assert played.checkpoint == "checkpoints/round-0001-candidate/final"
    gather(workspace)
    (case,) = load_cases(workspace).values()
    assert case.prompt == played.prompt and case.capability == "typography" and case.status == "detected"


def test_clicks_at_the_same_moment_count_once(workspace: Workspace, generator: Generator) -> None:
    played, before = play(workspace, generator, "a blue card", **ASKED), len(Ledger(workspace, "signals").rows())
    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(lambda n: answer(workspace, played, ("up", "down")[n % 2], "", by="ada"), range(4)))
    assert sorted(counted) == [False, False, False, True] and len(Ledger(workspace, "signals").rows()) == before + 1


def test_an_edit_keeps_what_it_started_from(workspace: Workspace, generator: Generator) -> None:
    first, second = (
        play(workspace, generator, "make it green", pictures=[picture(side)], **ASKED) for side in (40, 48)
    )
    assert first.task == "ti2i" and first.image != second.image and first.references != second.references
    assert decode(workspace.path(first.references[0]).read_bytes()).size == (40, 40)
    for played in (first, second):
        answer(workspace, played, "down", "wrong color", by="ada")
    gather(workspace)
    cases = [c for c in load_cases(workspace).values() if c.prompt == "make it green"]
    assert len(cases) == 2  # one instruction over two pictures is two prompts
    evidence = [json.loads(r["evidence"]) for r in Ledger(workspace, "signals").rows() if r["task"] == "ti2i"]
    assert sorted(e["references"] for e in evidence) == sorted([list(p.references) for p in (first, second)])


def test_a_large_reference_is_kept_smaller(workspace: Workspace, generator: Generator) -> None:
    played = play(workspace, generator, "x", pictures=[picture(MAX_SIDE + 100)], **ASKED)
    assert decode(workspace.path(played.references[0]).read_bytes()).size == (MAX_SIDE, MAX_SIDE)


class Refusing:
    fingerprint, independent = "", True

    def draw(self, prompts: list[str], **_: object) -> list[Undrawn]:
        return [Undrawn("content policy")]


def test_what_is_wrong_is_one_sentence_and_leaves_nothing(generator: Generator, tmp_path: Path) -> None:
    empty = Workspace(tmp_path / "w")
    wrong = [
        (generator, {"prompt": " "}, "write what to draw"),
        (generator, {"prompt": "x", "pictures": [b"text"]}, "cannot be read .*not an image"),
        (generator, {"prompt": "x", "size": (30, 32)}, "multiples of 8"),
        (Refusing(), {"prompt": "x"}, "no picture was drawn: content policy"),
    ]
    for by, asked, sentence in wrong:
        with pytest.raises(UsageError, match=sentence):
            play(empty, by, **(ASKED | asked))
    assert not empty.path(playground.FOLDER).exists()
    for name in ("", "0" * 32, "../rounds", "0" * 31 + "/", "x" * 32):
        assert load(empty, name) is None
    played = play(empty, generator, "a card", **ASKED)
    assert played.checkpoint is None  # nothing is in service here
    with pytest.raises(UsageError, match="use up or down"):
        answer(empty, played, "sideways", "", by="")
