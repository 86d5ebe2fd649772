"""Make synthetic training samples for a capability; each is verified before it is returned."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from curation.synthesis.documents import layout_pages, multilingual_pages, paragraph_pages
from curation.synthesis.meaning import meaning
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
    "fitting",
    "generators",
    "meaning",
    "synthesise",
]

Recipes = tuple[Callable[[], Recipe], ...]

# capability → recipes that teach it, used in turn
_BUILT_IN: Mapping[str, Recipes] = {
    "long_text": (paragraph_pages,),
    "slides": (layout_pages,),
    "multilingual_text": (multilingual_pages,),
}
_BATCH = 16  # samples verified together


@cache
def generators() -> dict[str, Recipes]:
    """Recipes by capability: built-in ones and those of packages (entry point group `flywheel.recipes`)."""
    return {c: r for recipes in plugins("flywheel.recipes").values() for c, r in recipes.items()} | dict(_BUILT_IN)


def capabilities() -> tuple[str, ...]:
    """Capabilities that have recipes."""
    return tuple(generators())


def synthesise(
    capability: str,
    count: int,
    *,
    seed: int,
    exclude: frozenset[str],
    suits: Callable[[Sample], bool] = lambda sample: True,
    on_refused: Callable[[Sample, list[Outcome]], None] | None = None,
) -> Iterator[Sample]:
    """Yield `count` samples that teach `capability` and passed their entry checks; deterministic by seed.

    `suits` is asked of one sample of each recipe; recipes that do not suit are left out, and if none does, nothing is
    made. `exclude`: evaluation prompts, whose wording and meaning (shape, colour, count, place, word) no sample has.
    `on_refused` is called with each sample that failed a check, and its outcomes. Errors: `UsageError` for a capability
    without recipes, for an `exclude` that leaves no variant, and when most samples fail their checks.
    """
    from curation.verify.checks import passed, verify

    if capability not in generators():
        raise UsageError(f"no generator serves {capability!r}: choose from {', '.join(capabilities())}")
    recipes = fitting(capability, suits)
    if not recipes:
        return
    stream = draw(recipes, seed=f"{seed}/{capability}", exclude=exclude)
    accepted = refused = 0
    while accepted < count:
        batch = list(itertools.islice(stream, min(_BATCH, count - accepted)))
        for sample, outcomes in zip(batch, verify([s.item for s in batch], [s.checks for s in batch])):
            if passed(outcomes):
                accepted += 1
                yield sample
                continue
            refused += 1
            if on_refused:
                on_refused(sample, outcomes)
        if refused > 50 + accepted:
            total = refused + accepted
            raise UsageError(
                f"{refused} of {total} synthetic {capability} samples failed their entry checks: run `flywheel doctor`,"
                " then correct the recipe"
            )


def fitting(capability: str, suits: Callable[[Sample], bool]) -> list[Recipe]:
    """The recipes of a capability that suit, by one sample of each."""
    return [recipe for make in generators()[capability] if suits(_example(recipe := make()))]


def _example(recipe: Recipe) -> Sample:
    return recipe.render(recipe.variants[0], random.Random(0))


def draw(recipes: list[Recipe], *, seed: str, exclude: frozenset[str] = frozenset()) -> Iterator[Sample]:
    """Endless stream of unverified samples: recipes in turn, each allowed variant once before any repeats.

    Errors: `UsageError` when `exclude` leaves a recipe no variant.
    """
    prompts = {normalise(p) for p in exclude}
    decks = [_deck(recipe, random.Random(f"{seed}/{recipe.name}"), exclude) for recipe in recipes]
    for i in itertools.count():
        recipe, deck = recipes[i % len(recipes)], decks[i % len(recipes)]
        sample = recipe.render(next(deck), random.Random(f"{seed}/{recipe.name}/{i}"))
        if normalise(sample.caption) not in prompts:
            yield sample


def allowed(recipe: Recipe, exclude: frozenset[str]) -> list[Any]:
    """The recipe's variants that neither mention nor show the meaning of an excluded prompt.

    Errors: `UsageError` if none is left.
    """
    held = {m for p in exclude if (m := meaning(p)) is not None}
    variants = [v for v in recipe.variants if held.isdisjoint(recipe.meanings(v))]
    if not variants:
        raise UsageError(f"every variant of {recipe.name} is held out for evaluation: nothing is left to make")
    return variants


def _deck(recipe: Recipe, rng: random.Random, exclude: frozenset[str]) -> Iterator[Any]:
    """Endless cycle of the allowed variants, shuffled once."""
    variants = allowed(recipe, exclude)
    rng.shuffle(variants)
    return itertools.cycle(variants)
