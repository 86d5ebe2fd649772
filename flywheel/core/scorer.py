"""The scorer protocol. A scorer has three uses: curation filters, evaluation verifiers and RL rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError
from flywheel.core.image import VERSION, WORKING_SIDE, decode, decode_at_least, is_plain_jpeg, open_image, shrunk

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Item:
    """One sample as scorers see it: encoded image, text and references.

    Each decoded form is computed on first use and shared by all scorers; unusable images raise `BadImage` then.

    >>> import flywheel as fw
    >>> from pathlib import Path
    >>> item = fw.Item(Path("photos/0.png").read_bytes(), caption="a texture")
    >>> item.pixels.shape, item.header.format
    ((300, 400, 3), 'PNG')
    """

    image: bytes
    caption: str = ""
    task: str = "t2i"
    references: tuple[bytes, ...] = ()
    given: str = ""  # the caption before `flywheel.core.text.clean`, where it is known

    @cached_property
    def header(self) -> Image.Image:
        """PIL image, opened but not decoded: format, size, EXIF."""
        return open_image(self.image)

    @cached_property
    def upright(self) -> Image.Image:
        """RGB PIL image at native resolution, EXIF orientation applied."""
        return decode(self.image)

    @cached_property
    def pixels(self) -> np.ndarray:
        """Upright RGB, uint8 [H, W, 3], with a long side of at most `WORKING_SIDE` pixels (area average)."""
        # In between, all of a JPEG is decoded, and then scorers of native pixels need not decode it again.
        apart = is_plain_jpeg(self.header) and not WORKING_SIDE < max(self.header.size) < 2 * WORKING_SIDE
        return shrunk(self.at_least(WORKING_SIDE) if apart else np.asarray(self.upright), WORKING_SIDE)

    def at_least(self, side: int) -> np.ndarray:
        """uint8 [H, W, 3], upright, at the smallest scale the format decodes to with a long side of at least `side`.

        Decodes separately, for callers that need fewer pixels than `pixels` and nothing else.
        """
        image = self.header if is_plain_jpeg(self.header) else open_image(self.image)  # loading changes others
        return decode_at_least(image, self.image, side)


@dataclass(frozen=True)
class Resources:
    """What a scorer needs while it runs: the attribute `resources` of its class; without one, a CPU and no GPU.

    cpus, gpus: of a task, as Ray counts them; gpus may be a share of one, and are asked for only where there are any.
    memory: bytes that Ray reserves, 0 for none. batch: rows that `score` gets at once, at most.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0 or self.memory < 0 or self.batch < 1:
            raise ValueError(f"{self}: cpus must be above 0, gpus and memory at least 0, batch at least 1")


def resources_of(scorer: object) -> Resources:
    """What a scorer, or its class, says that it needs."""
    found = getattr(scorer, "resources", Resources())
    if not isinstance(found, Resources):
        raise UsageError(f"{scorer} has resources {found!r}: give a flywheel.core.scorer.Resources")
    return found


class Scorer(Protocol):
    """Computes columns of items. Pure: equal items give equal columns. Thresholds belong to policies.

    name: prefix of the columns in a policy (`header.short_edge`); version: must change whenever a value could change;
    fields: the columns.

    >>> import flywheel as fw
    >>> import pyarrow as pa
    >>> class Brightness:
    ...     name, version = "brightness", "1"
    ...     fields = (pa.field("mean", pa.float64()),)
    ...
    ...     def score(self, items):
    ...         return [{"mean": float(item.pixels.mean())} for item in items]
    >>> scorer: fw.Scorer = Brightness()
    >>> from pathlib import Path
    >>> (row,) = scorer.score([fw.Item(Path("photos/0.png").read_bytes())])
    >>> 0 < row["mean"] < 255
    True
    """

    name: str
    version: str
    fields: tuple[pa.Field, ...]

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One dict per item (keys: `fields`); in the place of an item that failed, its exception."""
        ...


def full_version(scorer: Scorer) -> str:
    """Version of a scorer's values: its own, and that of the decode that shows it the pictures."""
    return f"{scorer.version}+{VERSION}"


def per_item(items: Sequence[Item], score: Callable[[Item], dict[str, Any]]) -> list[dict[str, Any] | Exception]:
    """Apply `score` to each item; a failure costs exactly its own row.

    Errors: `UsageError` for what is no fault of a row: a package that does not load, weights that are missing.
    """
    out: list[dict[str, Any] | Exception] = []
    for item in items:
        try:
            out.append(score(item))
        except Exception as error:  # noqa: BLE001 - the error becomes the row's `error` column, never lost
            raise_environment_error(error)
            out.append(error)
    return out
