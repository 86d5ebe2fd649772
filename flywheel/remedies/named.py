"""What the captions of a pool name: the plainest sign that something is missing from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
        asked = [c["object"] for c in prompt.checks if c["capability"] == capability and _by_name(c)]
        return any(not self.known(name) for name in asked)

    def _known(self, name: str) -> bool:
        """Whether a caption has the words of the name, singular or plural."""
        *first, last = map(re.escape, name.split())
        plurals = [f"{last}(?:s|es)?"]
        plurals += [f"{last[:-1]}{ending}" for end, ending in (("y", "ies"), ("f", "ves")) if last.endswith(end)]
        pattern = r"\b" + r"\W+".join([*first, f"(?:{'|'.join(plurals)})"]) + r"\b"
        return bool(pc.any(pc.match_substring_regex(self._captions, pattern, ignore_case=True)).as_py())


def _by_name(check: dict[str, Any]) -> bool:
    return check["verifier"] == "imagenet" and bool(str(check.get("object", "")).strip())
