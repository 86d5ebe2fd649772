"""Generated training samples for a capability; each is verified before it is returned."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from curation.synthesis.documents import layout_pages, multilingual_pages, paragraph_pages
from curation.synthesis.meaning import meaning
from curation.synthesis.photos import photo_edits
from curation.synthesis.sample import Recipe, Sample
from flywheel.core.errors import UsageError
from flywheel.core.plugins import plugins
from flywheel.core.text import normalise

if TYPE_CHECKING:
    from curation.verify.checks import Outcome

__all__ = [
    "Recipe",
    "Sample",
    "allowed",
    "capabilities",
    "draw",
    "generators",
    "meaning",
    "photo_edits",
    "synthesise",
]

Recipes = tuple[Callable[[], Recipe], ...]

# capability → recipes that teach it, used in turn
_OWN: Mapping[str, Recipes] = {
    "long_text": (paragraph_pages,),
    "slides": (layout_pages,),
    "multilingual_text": (multilingual_pages,),
}
_BATCH = 16  # samples verified at once


@cache
def generators() -> dict[str, Recipes]:
    """Recipes by capability: built-in ones, and plug-ins (entry points of the group `flywheel.recipes`)."""
    return {c: r for recipes in plugins("flywheel.recipes").values() for c, r in recipes.items()} | dict(_OWN)


def capabilities() -> tuple[str, ...]:
    """Capabilities that have recipes."""
    return tuple(generators())


def synthesise(
    capability: str,
    count: int,
    *,
    seed: int,
    exclude: frozenset[str],
    on_refused: Callable[[Sample, list[Outcome]], None] | None = None,
) -> Iterator[Sample]:
    """Yield `count` samples that teach `capability` and pass their entry checks; deterministic by seed.

    `exclude`: evaluation prompts; samples with their wording or meaning (shape, colour, count, place, word) are never
    generated. `on_refused` gets each sample that fails a check, with its outcomes. Errors: `UsageError` for a
    capability without recipes, and when no variant is left to generate.
    """
    from curation.verify.checks import passed, verify

    if capability not in generators():
        raise UsageError(f"no generator serves {capability!r}: choose from {', '.join(capabilities())}")
    stream = draw([make() for make in generators()[capability]], seed=f"{seed}/{capability}", exclude=exclude)
    passing = refused = 0
    while passing < count:
        batch = list(itertools.islice(stream, min(_BATCH, count - passing)))
        for sample, outcomes in zip(batch, verify([s.item for s in batch], [s.checks for s in batch])):
            if passed(outcomes):
                passing += 1
                yield sample
                continue
            refused += 1
            if on_refused:
                on_refused(sample, outcomes)
        if refused > 50 + passing:
            raise UsageError(
                f"{refused} of {refused + passing} generated {capability} samples failed their entry checks"
            )


def draw(recipes: list[Recipe], *, seed: str, exclude: frozenset[str] = frozenset()) -> Iterator[Sample]:
    """Endless unverified samples, recipes in turn; every allowed variant is used once before any repeats.

    Errors: `UsageError` when `exclude` leaves a recipe without variants.
    """
    prompts = {normalise(p) for p in exclude}
    decks = [_deck(recipe, random.Random(f"{seed}/{recipe.name}"), exclude) for recipe in recipes]
    for i in itertools.count():
        recipe, deck = recipes[i % len(recipes)], decks[i % len(recipes)]
        sample = recipe.render(next(deck), random.Random(f"{seed}/{recipe.name}/{i}"))
        if normalise(sample.caption) not in prompts:
            yield sample


def allowed(recipe: Recipe, exclude: frozenset[str]) -> list[Any]:
    """The recipe's variants whose captions and pictures do not have the meaning of an excluded prompt.

    Errors: `UsageError` when none is left.
    """
    held = {m for p in exclude if (m := meaning(p)) is not None}
    variants = [v for v in recipe.variants if held.isdisjoint(recipe.meanings(v))]
    if not variants:
        raise UsageError(f"every variant of {recipe.name} is held out for evaluation: nothing can be generated")
    return variants


def _deck(recipe: Recipe, rng: random.Random, exclude: frozenset[str]) -> Iterator[Any]:
    """The allowed variants, shuffled once and repeated."""
    variants = allowed(recipe, exclude)
    rng.shuffle(variants)
    return itertools.cycle(variants)
