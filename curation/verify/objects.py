"""Checks of what a caption names, where that is a class of ImageNet: `imagenet` judges them by a classifier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

_WORD = re.compile(r"[^\W_]+")


def object_checks(caption: str, *, capability: str = "object") -> list[dict[str, Any]]:
    """One `imagenet` check for each thing in the caption that has the name of a class; none if nothing has.

    Names match as whole words, singular or plural, the longest first: "a great grey owl" is no other owl. A name that
    several classes share, such as crane, stands for all of them. A generic word, such as dog, is no name of a class.

    >>> [check["object"] for check in object_checks("two golden retrievers beside a canoe")]
    ['golden retriever', 'canoe']
    """
    return [
        {"verifier": "imagenet", "capability": capability, "object": name, "classes": list(classes)}
        for name, classes in _named(_words(caption))
    ]


def _named(words: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, its classes) of each name in the words, each once, in their order."""
    known, longest = _names()
    seen: set[str] = set()
    start = 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            phrase = words[start : start + length]
            name = next((n for n in _singulars(phrase) if n in known), None)
            if name:
                break
        else:
            length = 1
        if name and name not in seen:
            seen.add(name)
            yield name, known[name]
        start += length


def _singulars(phrase: list[str]) -> Iterator[str]:
    """The phrase as it is, then with its last word made singular."""
    *first, last = phrase
    yield " ".join(phrase)
    for plural, singular in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if last.endswith(plural) and len(last) > len(plural) + 2:
            yield " ".join([*first, last.removesuffix(plural) + singular])


@cache
def _names() -> tuple[dict[str, tuple[int, ...]], int]:
    """(classes of each name, words of the longest name)."""
    from curation.scorers.imagenet import labels

    classes: dict[str, list[int]] = {}
    for index, names in enumerate(labels()):
        for name in dict.fromkeys(" ".join(_words(n)) for n in names):
            classes.setdefault(name, []).append(index)
    return {n: tuple(c) for n, c in classes.items()}, max(len(n.split()) for n in classes)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
