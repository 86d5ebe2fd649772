"""Captions near an evaluation prompt do not train."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decide.contamination import near, shingles
from tests.curation.balanced import KINDS, drawn, policy


def test_captions_near_a_prompt_do_not_train(pictured: SimpleNamespace) -> None:
    prompts = frozenset({"a dog in the warm sun, number 03", "a car in the sun, number 09"})
    equal, _ = drawn(pictured.workspace, policy(pictured.root, ""), exclude_prompts=prompts)
    assert equal == KINDS | {"car": 3}
    loose = policy(pictured.root, "\n[evaluation]\nprompt_similarity = 0.6\n")
    near_too, _ = drawn(pictured.workspace, loose, exclude_prompts=prompts)
    assert near_too == {k: n for k, n in KINDS.items() if k not in ("dog", "car")} | {"dog": 7}


VOCABULARY = ("a", "red", "blue", "dog", "cat", "sits", "on", "the", "mat", "猫")


WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=7).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6), st.sampled_from([0.3, 0.5, 0.75, 0.9]))
def test_near_finds_what_comparing_all_finds(captions: list[str], prompts: list[str], similarity: float) -> None:
    def close(a: str, b: str) -> bool:
        x, y = shingles(a), shingles(b)
        return a == b or (bool(x and y) and len(x & y) >= similarity * len(x | y))

    assert near(captions, prompts, similarity) == [c for c in captions if any(close(c, p) for p in prompts)]


def test_near_is_about_words_and_their_order() -> None:
    prompt = "a photo of a red bench under two large green trees"
    captions = [
        "photo of a red bench under two large green trees",
        "a photo of a red bench under two large green bushes",
        "a photo of a green bench under two large red trees",
        "a photo of a bench",
    ]
    assert near(captions, [prompt], 0.75) == captions[:2]
    assert near(["a photo of a tench"], ["a photo of a bench"], 0.75) == []
    assert near(captions, [prompt], 1.0) == []
