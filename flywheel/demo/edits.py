"""Edit pairs of cards: recolour a shape, move it, replace a word, and recolour beside the mascot, which must stay."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from curation.synthesis.sample import Recipe, Sample
from flywheel.demo.cards import Single, background_check, draw_single, single_meaning
from flywheel.demo.mascot import SIDES, Scene, draw_scene
from flywheel.demo.meaning import POSITIONS, SHAPES, Meaning, meaning
from flywheel.demo.palette import BACKGROUNDS, INKS
from flywheel.demo.word_cards import WORDS, Word, draw_word, ink_check, word_meaning

_TOWARDS = {
    "left": "to the left",
    "right": "to the right",
    "top": "to the top",
    "bottom": "to the bottom",
    "centre": "to the centre",
}


Card = TypeVar("Card", Single, Word, Scene)


@dataclass(frozen=True)
class Edit(Generic[Card]):
    """A card before and after; both are drawn from one random state, so that only what the edit states changes."""

    before: Card
    after: Card


def recolour_text(edit: Edit[Single] | Edit[Scene], rng: random.Random) -> str:
    """The instruction to recolour a shape, in one of several wordings."""
    old, new = edit.before, edit.after
    return rng.choice(
        (
            f"make the {old.color} {old.shape} {new.color}",
            f"change the {old.color} {old.shape} to {new.color}",
            f"paint the {old.color} {old.shape} {new.color}",
        )
    )


def move_text(edit: Edit[Single], rng: random.Random) -> str:
    """The instruction to move a shape."""
    thing, where = f"the {edit.before.color} {edit.before.shape}", _TOWARDS[edit.after.position]
    return rng.choice((f"move {thing} {where}", f"shift {thing} {where}"))


def reword_text(edit: Edit[Word], rng: random.Random) -> str:
    """The instruction to replace the word."""
    old, new = edit.before, edit.after
    return rng.choice(
        (
            f'replace the word "{old.word}" with "{new.word}"',
            f'change the text from "{old.word}" to "{new.word}"',
        )
    )


def keep_text(edit: Edit[Scene], rng: random.Random) -> str:
    """The instruction to recolour the shape beside the mascot."""
    ending = rng.choice(("and keep the mascot", "but keep the mascot as it is"))
    return f"{recolour_text(edit, rng)} {ending}"


def render_recolour(edit: Edit[Single], rng: random.Random) -> Sample:
    """The shape gets another colour."""
    checks = (
        {"verifier": "color", "capability": "editing", "shape": edit.after.shape, "color": edit.after.color},
        {"verifier": "unchanged", "capability": "editing"},
    )
    return _pair(edit, draw_single, recolour_text(edit, rng), checks, "recolour", rng)


def render_move(edit: Edit[Single], rng: random.Random) -> Sample:
    """The shape moves to another place."""
    checks = (
        {"verifier": "position", "capability": "editing", "shape": edit.after.shape, "position": edit.after.position},
        {"verifier": "color", "capability": "editing", "shape": edit.after.shape, "color": edit.after.color},
        background_check(edit.after.background, "editing"),
    )
    return _pair(edit, draw_single, move_text(edit, rng), checks, "move", rng)


def render_reword(edit: Edit[Word], rng: random.Random) -> Sample:
    """Another word in the same ink."""
    checks = (
        {"verifier": "text", "capability": "text_editing", "text": edit.after.word},
        ink_check(edit.after.color, "text_editing"),
        background_check(edit.after.background, "text_editing"),
    )
    return _pair(edit, draw_word, reword_text(edit, rng), checks, "replace-word", rng)


def keep_checks(edit: Edit[Scene]) -> tuple[dict[str, Any], ...]:
    """The mascot and the background stay, and the shape has its new colour: a copy of the reference must not pass."""
    recoloured = {"verifier": "color", "capability": "editing", "shape": edit.after.shape, "color": edit.after.color}
    return (
        {"verifier": "identity", "capability": "identity"},
        recoloured,
        background_check(edit.after.background, "editing"),
    )


def render_keep(edit: Edit[Scene], rng: random.Random) -> Sample:
    """The shape beside the mascot gets another colour; the mascot stays."""
    return _pair(edit, draw_scene, keep_text(edit, rng), keep_checks(edit), "keep-mascot", rng)


def _pair(
    edit: Edit[Card],
    draw: Callable[[Card, random.Random], bytes],
    caption: str,
    checks: tuple[dict[str, Any], ...],
    recipe: str,
    rng: random.Random,
) -> Sample:
    state = rng.getrandbits(64)
    before, after = (draw(card, random.Random(state)) for card in (edit.before, edit.after))
    return Sample(after, caption, "ti2i", (before,), checks, recipe)


def _meanings(
    text: Callable[[Edit[Card], random.Random], str], shown: Callable[[Card], tuple[Meaning | None, ...]]
) -> Callable[[Edit[Card]], tuple[Meaning | None, ...]]:
    """The function from an edit to the meanings of its instruction and of both images."""

    def meanings(edit: Edit[Card]) -> tuple[Meaning | None, ...]:
        return (meaning(text(edit, random.Random(0))), *shown(edit.before), *shown(edit.after))

    return meanings


def recolour_edits() -> Recipe:
    """Every card × new colour."""
    cards = [Single(s, c, p, b) for s in SHAPES for c in INKS for p in POSITIONS for b in BACKGROUNDS]
    variants = [Edit(card, replace(card, color=c)) for card in cards for c in INKS if c != card.color]
    return Recipe("recolour", variants, _meanings(recolour_text, single_meaning), render_recolour)


def move_edits() -> Recipe:
    """Every card × new place."""
    cards = [Single(s, c, p, b) for s in SHAPES for c in INKS for p in POSITIONS for b in BACKGROUNDS]
    variants = [Edit(card, replace(card, position=p)) for card in cards for p in POSITIONS if p != card.position]
    return Recipe("move", variants, _meanings(move_text, single_meaning), render_move)


def reword_edits() -> Recipe:
    """Every word card × new word."""
    cards = [Word(w, c, b) for w in WORDS for c in INKS for b in BACKGROUNDS]
    variants = [Edit(card, replace(card, word=w)) for card in cards for w in WORDS if w != card.word]
    return Recipe("replace-word", variants, _meanings(reword_text, word_meaning), render_reword)


def keep_edits() -> Recipe:
    """Every scene × new colour of the shape. Only instructions are evaluation prompts; captions of scenes are not."""
    scenes = [Scene(s, c, side, b) for s in SHAPES for c in INKS for side in SIDES for b in BACKGROUNDS]
    variants = [Edit(scene, replace(scene, color=c)) for scene in scenes for c in INKS if c != scene.color]
    return Recipe("keep-mascot", variants, _meanings(keep_text, lambda scene: ()), render_keep)
