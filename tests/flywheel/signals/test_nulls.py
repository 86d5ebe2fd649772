"""Null pictures: what they keep and what they destroy."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.core.image import decode
from flywheel.demo.photographs import crops
from flywheel.signals import nulls
from flywheel.signals.nulls import Trial
from flywheel.signals.suite import Prompt


@pytest.fixture(scope="module")
def picture() -> bytes:
    return nulls.encode(next(crops(1, seed="0"))[0].resize((64, 64)))


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(decode(picture)).reshape(-1, 3)


@pytest.mark.parametrize("name", ["tile_shuffle", "noise"])
def test_a_shuffle_keeps_every_pixel_and_moves_them(picture: bytes, name: str):
    before, after = pixels(picture), pixels(nulls.damaged(name, picture))
    assert (before != after).any() and (np.sort(before, axis=0) == np.sort(after, axis=0)).all()


def test_the_other_damages_lose_detail(picture: bytes):
    detail = {
        n: float(np.abs(np.diff(pixels(nulls.damaged(n, picture)).astype(int), axis=0)).mean()) for n in nulls.DAMAGES
    }
    own = float(np.abs(np.diff(pixels(picture).astype(int), axis=0)).mean())
    assert detail["flat"] == 0 < detail["blur"] < own and detail["jpeg"] != own
    assert nulls.damaged("noise", picture) == nulls.damaged("noise", picture)


def test_a_wrong_word_differs_in_one_letter_and_other_checks_stay():
    assert nulls.misspelt({"verifier": "text", "text": "KEY"})["text"] == "KXY"
    assert nulls.misspelt({"verifier": "words", "texts": ["a box", "猫"]})["texts"] == ["x bxx", "猬"]
    assert nulls.misspelt({"verifier": "photo", "ranges": {}}) == {"verifier": "photo", "ranges": {}}


def test_a_picture_of_another_prompt_must_ask_for_something_else():
    def trial(name: str, *words: str) -> Trial:
        checks = tuple({"verifier": "text", "capability": "typography", "text": w} for w in words)
        return Trial(Prompt(name, name, "t2i", (), checks), name.encode())

    trials = [trial("a", "KEY"), trial("b", "KEY"), trial("c", "CAT", "KEY"), trial("d", "CAT"), trial("e")]
    assert [t.picture for t in nulls.others(trials, 0)] == [b"d"]
    found = {t.picture: [c["text"] for c in t.prompt.checks] for t in nulls.others(trials, 2)}
    assert found == {b"d": ["KEY"], b"a": ["CAT"], b"b": ["CAT"]}  # d shows CAT, which c asks for too
