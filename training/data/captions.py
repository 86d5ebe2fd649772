"""Which caption of a picture trains: a kind drawn at stated shares, among the kinds that the picture has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from training.randomness import generator

SOURCE = "source"  # origin of captions that came with the picture
UNLISTED = "unlisted"  # kind of a text condition that is not among the captions: an instruction, or an edited caption


class Caption(NamedTuple):
    """A caption and its kind: general, text, knowledge, structured, or `UNLISTED`."""

    kind: str
    text: str


def choices(caption: str, captions: Iterable[Mapping[str, Any]] | None, kinds: Iterable[str]) -> tuple[Caption, ...]:
    """The captions of a row that may train, its text condition first; of `kinds`, in the order stored, without repeats.

    captions: {kind, text, origin} each, as shards store them. A condition that is not listed was edited, and stands
    alone. Where a model's caption replaced the source's, the source's are left out.
    """
    listed = [c for c in captions or () if c["kind"] in set(kinds) and c["text"].strip()]
    own = next((c for c in listed if c["text"] == caption), None)
    if own is None:
        return (Caption(UNLISTED, caption),)
    valid = [c for c in listed if c["origin"] != SOURCE or own["origin"] == SOURCE]
    return tuple(dict.fromkeys([Caption(own["kind"], caption), *(Caption(c["kind"], c["text"]) for c in valid)]))


def draw(captions: Sequence[Caption], shares: Mapping[str, float], *key: int | str) -> Caption:
    """One of the captions: a kind at its share, then evenly among its captions. A function of the arguments.

    Kinds without a caption give their share to the others, in proportion. Without shares, and for kinds that all have
    share 0, it is the first.
    """
    weighed = [c for c in captions if shares.get(c.kind, 0) > 0]
    if len(captions) == 1 or not weighed:
        return captions[0]
    rng = generator(*key)
    kinds = list(dict.fromkeys(c.kind for c in weighed))
    total = sum(shares[k] for k in kinds)
    kind = kinds[int(rng.choice(len(kinds), p=[shares[k] / total for k in kinds]))]
    own = [c for c in weighed if c.kind == kind]
    return own[int(rng.integers(len(own)))]
