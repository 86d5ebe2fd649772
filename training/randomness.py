"""Counter-based randomness: every draw is a pure function of a seed and its purpose, so no state is saved."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """A generator seeded by `key` alone, e.g. `generator(seed, "noise", slot)`."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
