"""Synthesis: requested capabilities, nothing held out, everything verified, repeatable by seed."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from curation.scorers.ocr import read_text
from curation.scorers.quotes import text_similarity
from curation.synthesis import (
    allowed,
    capabilities,
    draw,
    generators,
    meaning,
    synthesise,
)
from curation.synthesis.documents import READ_BACK
from curation.synthesis.sample import Recipe
from curation.verify.checks import passed, verify
from flywheel.core.errors import UsageError
from flywheel.core.text import normalise
from flywheel.demo.cards import single_cards
from flywheel.demo.edits import recolour_edits

NONE = frozenset()


CARDS = [c for c in capabilities() if "text" not in c and c not in ("typography", "slides")]


@pytest.mark.parametrize("capability", CARDS)
def test_samples_are_distinct_verified_and_repeatable(capability):
    samples = list(synthesise(capability, 12, seed=3, exclude=NONE))
    assert len({s.sample_id for s in samples}) == 12
    assert all(passed(o) for o in verify([s.item for s in samples], [s.checks for s in samples]))
    assert {c["capability"] for s in samples for c in s.checks} & set(capabilities())
    assert [s.sample_id for s in synthesise(capability, 5, seed=3, exclude=NONE)] == [s.sample_id for s in samples[:5]]
    other = [s.sample_id for s in synthesise(capability, 5, seed=4, exclude=NONE)]
    assert not set(other) & {s.sample_id for s in samples}


def test_words_are_read_back_before_they_are_handed_out():
    words = list(synthesise("typography", 12, seed=0, exclude=NONE))
    assert all(f'"{s.checks[0]["text"]}"' in s.caption for s in words)
    assert len({s.checks[0]["text"] for s in words}) > 3


def test_held_out_meanings_are_never_made_whatever_their_wording():
    exclude = frozenset(
        f"one {color} {shape}, {place}, white background"
        for color in ("red", "blue")
        for shape in ("circle", "star")
        for place in ("on the left", "in the middle", "near the top")
    )
    held = {meaning(p) for p in exclude}
    stream = draw([single_cards()], seed="0", exclude=exclude)
    meanings = {meaning(next(stream).caption) for _ in range(500)}
    assert len(held) == 12 and not held & meanings
    assert len(meanings) == 120 - 12


def test_an_edit_shows_no_held_out_card_before_or_after():
    exclude = frozenset({"a red circle on the left of a white card"})
    (held,) = map(meaning, exclude)
    recipe = recolour_edits()
    edits = allowed(recipe, exclude)
    assert 0 < len(edits) < len(recipe.variants)
    assert all(held not in recipe.meanings(e) for e in edits)


def test_an_exact_prompt_is_excluded_even_without_a_meaning():
    recipe = Recipe("one", [None], lambda v: (None,), single_cards().render)
    plain = single_cards().variants[0]
    fixed = Recipe("one", [plain], lambda v: (None,), recipe.render)
    captions = {fixed.render(plain, random.Random(i)).caption for i in range(40)}
    banned = sorted(captions)[0]
    stream = draw([fixed], seed="0", exclude=frozenset({banned.upper()}))
    assert normalise(banned) not in {normalise(next(stream).caption) for _ in range(60)}


def test_refused_samples_are_reported_not_swallowed(monkeypatch):
    def unreadable():
        recipe = single_cards()

        def render(variant, rng):
            sample = recipe.render(variant, rng)
            wrong = {"verifier": "count", "capability": "count", "count": rng.choice((1, 2))}
            return type(sample)(sample.image, sample.caption, "t2i", (), (wrong,), "half-wrong")

        return Recipe("half-wrong", recipe.variants, recipe.meanings, render)

    monkeypatch.setitem(generators(), "half", (unreadable,))
    refused = []
    samples = list(synthesise("half", 20, seed=0, exclude=NONE, on_refused=lambda s, o: refused.append((s, o))))
    assert len(samples) == 20 and refused
    assert all(not passed(outcomes) for _, outcomes in refused)


def test_unknown_capability_and_exhausted_world_are_usage_errors():
    with pytest.raises(UsageError, match="no generator serves 'taste'"):
        next(synthesise("taste", 1, seed=0, exclude=NONE))
    recipe = single_cards()
    everything = frozenset(recipe.render(v, random.Random(0)).caption for v in recipe.variants)
    with pytest.raises(UsageError, match="held out"):
        next(synthesise("color", 1, seed=0, exclude=everything))


def test_capabilities_of_text_are_served() -> None:
    (sample,) = synthesise("multilingual_text", 1, seed=3, exclude=frozenset())
    assert text_similarity(read_text(Image.open(io.BytesIO(sample.image))).text, sample.checks[0]["text"]) >= READ_BACK
