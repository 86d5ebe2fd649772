"""Pages of a long list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True)
class Paging:
    """Page `page`, from 1, of `total` entries, `size` on each; chosen: the filters, empty ones do not filter."""

    place: str  # path of the page
    chosen: Mapping[str, str]
    total: int
    page: int
    size: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return -(-self.total // self.size)

    @property
    def query(self) -> str:
        """The filters and the page, as in an address."""
        return self.link(self.page).partition("?")[2]

    @property
    def filtered(self) -> bool:
        """True if any filter is set."""
        return any(self.chosen.values())

    def link(self, page: int) -> str:
        """Address of another page of the same list."""
        return f"{self.place}?" + urlencode({k: v for k, v in self.chosen.items() if v} | {"page": page})
