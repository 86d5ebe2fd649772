"""What the captions of a pool name: the plainest sign that something is missing from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flywheel.signals.suite import Prompt


class Names:
    """The captions of a pool, asked for names of things. captions: any text is one."""

    def __init__(self, captions: Sequence[str]) -> None:
        self._captions = pa.chunked_array([pa.array(captions, pa.large_string())])
        self.known = lru_cache(maxsize=None)(self._known)

    def absent(self, prompt: Prompt, capability: str) -> bool:
        """Whether a check of this capability asks for an object that no caption names.

        False where its checks ask for no object by name: other things have no name that captions must use.
        """
        return any(not self.known(name) for name in names(c for c in prompt.checks if c["capability"] == capability))

    def _known(self, name: str) -> bool:
        """Whether a caption names it."""
        return bool(pc.any(pc.match_substring_regex(self._captions, pattern(name), ignore_case=True)).as_py())


def pattern(name: str) -> str:
    """Regular expression, for any letter case, of the words of a name, singular or plural."""
    *first, last = map(re.escape, name.split())
    forms = [f"{last}(?:s|es)?"]
    forms += [f"{last[:-1]}{ending}" for end, ending in (("y", "ies"), ("f", "ves")) if last.endswith(end)]
    return r"\b" + r"\W+".join([*first, f"(?:{'|'.join(forms)})"]) + r"\b"


def names(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the objects that checks look for."""
    found = (str(c.get("object", "")) for c in checks if c["verifier"] == "imagenet")
    return [name for name in found if name.strip()]
