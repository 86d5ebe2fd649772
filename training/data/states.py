"""Text states of a row group, each encoded when its row is first drawn: short runs draw few rows of a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


class States:
    """`encode` of each caption, [L_i, D], on its own and once."""

    def __init__(self, captions: Sequence[str], encode: Callable[[Sequence[str]], list[Tensor]]) -> None:
        self._captions, self._encode = captions, encode
        self._known: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, row: int) -> Tensor:
        if row not in self._known:
            (self._known[row],) = self._encode([self._captions[row]])
        return self._known[row]

    @property
    def held(self) -> Sequence[Tensor]:
        """Those encoded so far."""
        return [*self._known.values()]
