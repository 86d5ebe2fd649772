"""Decontamination: keep evaluation prompts, and texts that nearly say or mean the same, out of training data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

NEAR = 95.0  # similarity of normalised texts, 0–100: a typo, a plural or another word order stays above it


class HeldOut:
    """The evaluation prompts. `near(text)` finds the one that a text says or nearly says."""

    def __init__(self, prompts: Iterable[str]) -> None:
        from curation.synthesis import meaning
        from flywheel.core.text import normalise

        self.prompts: Sequence[str] = sorted(set(prompts))
        self._texts = [normalise(p) for p in self.prompts]
        self._meanings = {m: p for p in self.prompts if (m := meaning(p)) is not None}
        self.near = lru_cache(maxsize=65_536)(self._near)

    def allows(self, text: str) -> bool:
        """Whether training data may say this text."""
        return self.near(text) is None

    def _near(self, text: str) -> tuple[str, float] | None:
        """(evaluation prompt, similarity 0–100) that the text says or nearly says, or None.

        If both texts have a meaning, only equal meanings are near: another colour makes another prompt. Otherwise the
        edit similarity of the normalised texts decides, regardless of word order.
        """
        from rapidfuzz import fuzz, process

        from curation.synthesis import meaning
        from flywheel.core.text import normalise

        own = meaning(text)
        if own is not None and own in self._meanings:
            return self._meanings[own], 100.0
        best = process.extractOne(normalise(text), self._texts, scorer=fuzz.token_sort_ratio, score_cutoff=NEAR)
        if best is None or (best[1] < 100 and own is not None and meaning(self.prompts[best[2]]) is not None):
            return None
        return self.prompts[best[2]], best[1]
