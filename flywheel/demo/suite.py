"""The demo's held-out suite: prompts of combinations that no image of the world shows, each with its checks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from flywheel.core.files import write_bytes
from flywheel.demo.cards import GROUPS, ShapeGroup, Single, group_caption, group_checks, single_caption, single_checks
from flywheel.demo.edits import Edit, keep_checks, keep_text
from flywheel.demo.mascot import SIDES, Scene, draw_scene
from flywheel.demo.meaning import POSITIONS, SHAPES
from flywheel.demo.palette import BACKGROUNDS, INKS
from flywheel.demo.word_cards import WORDS, Word, word_caption, word_checks
from flywheel.signals.suite import write_rows

Size = Literal["full", "quick"]
Combination = TypeVar("Combination", bound=tuple[Any, ...])
PROMPTS = {"full": 30, "quick": 10}  # per family: single shapes, groups, words, mascot edits


@dataclass(frozen=True)
class Question:
    """A held-out prompt without its id; `reference` is an encoded PNG for ti2i."""

    prompt: str
    checks: tuple[dict[str, Any], ...]
    reference: bytes | None = None


def questions(*, seed: int = 0, size: Size = "full") -> list[tuple[str, Question]]:
    """(prompt id, question) of every held-out prompt; the quick size has the first ones of each family."""
    return [row for family in _families(seed) for row in family[: PROMPTS[size]]]


def held_out_prompts(*, seed: int = 0) -> frozenset[str]:
    """Every prompt of the full suite: a world of any size must neither say nor show them."""
    return frozenset(q.prompt for _, q in questions(seed=seed))


def write_suite(folder: Path, *, seed: int = 0, size: Size = "full") -> Path:
    """Write `suite.jsonl` and its reference images to `folder`; returns the path of the suite."""
    rows = []
    for prompt_id, question in questions(seed=seed, size=size):
        references = []
        if question.reference is not None:
            references.append(f"references/{prompt_id}.png")
            write_bytes(folder / references[0], question.reference)
        rows.append(
            {
                "prompt_id": prompt_id,
                "prompt": question.prompt,
                "task": "ti2i" if references else "t2i",
                "references": references,
                "checks": list(question.checks),
            }
        )
    return write_rows(folder / "suite.jsonl", rows)


@lru_cache(maxsize=4)
def _families(seed: int) -> tuple[tuple[tuple[str, Question], ...], ...]:
    makers: dict[str, Callable[[random.Random], Iterator[Question]]] = {
        "single": _singles,
        "count": _groups,
        "word": _words,
        "mascot": _keeps,
    }
    return tuple(
        tuple((f"{name}-{i:02d}", q) for i, q in enumerate(make(random.Random(f"suite/{seed}/{name}")), 1))
        for name, make in makers.items()
    )


def _singles(rng: random.Random) -> Iterator[Question]:
    """30 of 120 combinations of shape × colour × place; the world shows every pair of attributes."""
    every = [(s, c, p) for s in SHAPES for c in INKS for p in POSITIONS]
    backgrounds = _cycle(BACKGROUNDS, rng)
    for shape, color, position in spread(every, 30, rng, {(0, 1): 2, (0, 2): 2, (1, 2): 2}):
        card = Single(shape, color, position, next(backgrounds))
        yield Question(single_caption(card, rng), single_checks(card))


def _groups(rng: random.Random) -> Iterator[Question]:
    """15 of 48 combinations of shape × colour × number, each on two backgrounds."""
    every = [(s, c, n) for s in SHAPES for c in INKS for n in GROUPS]
    held_out = spread(every, 15, rng, {(0, 1): 1, (0, 2): 2, (1, 2): 2})
    backgrounds = _cycle(BACKGROUNDS, rng)
    for shape, color, number in held_out + held_out:
        card = ShapeGroup(shape, color, number, next(backgrounds))
        yield Question(group_caption(card, rng), group_checks(card))


def _words(rng: random.Random) -> Iterator[Question]:
    """15 of 36 combinations of word × colour, each on two backgrounds."""
    every = [(w, c) for w in WORDS for c in INKS]
    held_out = spread(every, 15, rng, {(0,): 3, (1,): 3})
    backgrounds = _cycle(BACKGROUNDS, rng)
    for word, color in held_out + held_out:
        card = Word(word, color, next(backgrounds))
        yield Question(word_caption(card, rng), word_checks(card))


def _keeps(rng: random.Random) -> Iterator[Question]:
    """30 of 120 combinations of shape × colour × new colour, beside the mascot."""
    every = [(s, a, b) for s in SHAPES for a in INKS for b in INKS if a != b]
    backgrounds, sides = _cycle(BACKGROUNDS, rng), _cycle(SIDES, rng)
    for shape, old, new in spread(every, 30, rng, {(0, 1): 2, (0, 2): 2, (1, 2): 2}):
        side, background = next(sides), next(backgrounds)
        edit = Edit(Scene(shape, old, side, background), Scene(shape, new, side, background))
        reference = draw_scene(edit.before, random.Random(rng.getrandbits(64)))
        yield Question(keep_text(edit, rng), keep_checks(edit), reference)


def spread(
    combinations: Sequence[Combination], count: int, rng: random.Random, limits: dict[tuple[int, ...], int]
) -> list[Combination]:
    """`count` random combinations that keep the limits. Errors: `ValueError` if that is impossible.

    limits: places in a combination → how often the same values may occur at these places.
    """
    for _ in range(200):
        used: Counter[Hashable] = Counter()
        chosen: list[Combination] = []
        for combination in rng.sample(list(combinations), len(combinations)):
            keys = [(places, tuple(combination[i] for i in places)) for places in limits]
            if len(chosen) < count and all(used[k] < limits[k[0]] for k in keys):
                chosen.append(combination)
                used.update(keys)
        if len(chosen) == count:
            return chosen
    raise ValueError(f"there are no {count} combinations within the limits {limits}")


def _cycle(values: Iterable[Any], rng: random.Random) -> Iterator[Any]:
    order = list(values)
    while True:
        rng.shuffle(order)
        yield from order


def write_quick_suite(folder: Path, *, seed: int = 0) -> Path:
    """`write_suite` in its quick size."""
    return write_suite(folder, seed=seed, size="quick")
